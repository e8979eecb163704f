// One flag per field of SamplingParams, made from the message's descriptor, so that the client can
// never lack one: --max-tokens (also accepted as --max_tokens), --stop (repeatable), --logit-bias
// ID:VALUE, --ignore-eos / --no-ignore-eos.
#pragma once

#include <hgrn2/v1/inference.pb.h>

#include <CLI/CLI.hpp>
#include <set>
#include <string>

namespace hgrn2::client {

// Fields in `except` get no flag. Values land in `params` during parsing.
void AddSamplingOptions(CLI::App* app, v1::SamplingParams* params,
                        const std::set<std::string>& except = {});

// Help text of a SamplingParams field; empty if none was written.
std::string SamplingHelp(const std::string& field);

}  // namespace hgrn2::client
