#include "client/sampling_flags.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <vector>

namespace hgrn2::client {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

constexpr char kGroup[] = "Sampling";

const std::map<std::string, std::string>& HelpTexts() {
  static const auto& texts = *new std::map<std::string, std::string>{
      {"max_tokens", "Tokens to generate (server default 16)"},
      {"min_tokens", "No end of sequence or stop token before this many"},
      {"temperature", "0: greedy; [0, 100]"},
      {"top_p", "Nucleus: smallest set of tokens with this probability, (0, 1]"},
      {"top_k", "The k most probable tokens; 0 or -1: all"},
      {"min_p", "Tokens at least this fraction as probable as the best, [0, 1]"},
      {"presence_penalty", "Subtracted from logits of generated tokens, [-2, 2]"},
      {"frequency_penalty", "Subtracted per time a token was generated, [-2, 2]"},
      {"repetition_penalty", "Divides logits of tokens in prompt or output, > 0"},
      {"logit_bias", "ID:VALUE added to a token's logit; repeatable"},
      {"allowed_token_ids", "Only these tokens can be generated; repeatable"},
      {"bad_words", "Text that must not be generated; repeatable"},
      {"seed", "Same prompt, parameters and seed: same tokens"},
      {"n", "Choices per prompt, [1, 128]"},
      {"stop", "Text that ends the generation; repeatable"},
      {"stop_token_ids", "Token that ends the generation; repeatable"},
      {"ignore_eos", "Go on past end-of-sequence tokens"},
      {"include_stop_str_in_output", "Keep the stop text in the output"},
      {"skip_special_tokens", "Leave special tokens out of the text (default on)"},
      {"logprobs", "Log-probabilities, with those of the N best tokens, [0, 20]"},
      {"prompt_logprobs", "The same for the prompt's tokens, [0, 20]"}};
  return texts;
}

std::string FlagNames(const std::string& field) {
  std::string dashed = field;
  std::replace(dashed.begin(), dashed.end(), '_', '-');
  return dashed == field ? "--" + field : "--" + dashed + ",--" + field;
}

void AddScalar(CLI::App* app, Message* m, const FieldDescriptor* f, const std::string& names,
               const std::string& help) {
  const auto* r = m->GetReflection();
  CLI::Option* option = nullptr;
  switch (f->cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      option = app->add_option_function<int32_t>(
          names, [=](const int32_t& v) { r->SetInt32(m, f, v); }, help);
      break;
    case FieldDescriptor::CPPTYPE_UINT64:
      option = app->add_option_function<uint64_t>(
          names, [=](const uint64_t& v) { r->SetUInt64(m, f, v); }, help);
      break;
    case FieldDescriptor::CPPTYPE_FLOAT:
      option = app->add_option_function<float>(
          names, [=](const float& v) { r->SetFloat(m, f, v); }, help);
      break;
    case FieldDescriptor::CPPTYPE_BOOL: {
      std::string dashed = f->name();
      std::replace(dashed.begin(), dashed.end(), '_', '-');
      option = app->add_flag_function(
          names + ",!--no-" + dashed, [=](int64_t count) { r->SetBool(m, f, count > 0); }, help);
      break;
    }
    default:
      break;
  }
  if (option != nullptr) option->group(kGroup);
}

void AddRepeated(CLI::App* app, Message* m, const FieldDescriptor* f, const std::string& names,
                 const std::string& help) {
  const auto* r = m->GetReflection();
  if (f->cpp_type() == FieldDescriptor::CPPTYPE_STRING) {
    app->add_option_function<std::vector<std::string>>(
           names,
           [=](const std::vector<std::string>& values) {
             for (const auto& v : values) r->AddString(m, f, v);
           },
           help)
        ->allow_extra_args(false)
        ->group(kGroup);
    return;
  }
  app->add_option_function<std::vector<int32_t>>(
         names,
         [=](const std::vector<int32_t>& values) {
           for (int32_t v : values) r->AddInt32(m, f, v);
         },
         help)
      ->delimiter(',')
      ->allow_extra_args(false)
      ->group(kGroup);
}

void AddLogitBias(CLI::App* app, v1::SamplingParams* params, const std::string& names,
                  const std::string& help) {
  app->add_option_function<std::vector<std::string>>(
         names,
         [=](const std::vector<std::string>& values) {
           for (const std::string& v : values) {
             size_t used = 0;
             size_t used_value = 0;
             int32_t id = -1;
             float bias = 0;
             try {  // the standard library's parsers throw; CLI11 expects its own exception
               id = std::stoi(v, &used);
               if (used < v.size() && v[used] == ':')
                 bias = std::stof(v.substr(used + 1), &used_value);
             } catch (const std::exception&) {
               used_value = 0;
             }
             if (id < 0 || used_value == 0 || used + 1 + used_value != v.size()) {
               throw CLI::ValidationError("--logit-bias", "expected ID:VALUE, got '" + v + "'");
             }
             (*params->mutable_logit_bias())[id] = bias;
           }
         },
         help)
      ->allow_extra_args(false)
      ->delimiter(',')
      ->group(kGroup);
}

}  // namespace

std::string SamplingHelp(const std::string& field) {
  const auto it = HelpTexts().find(field);
  return it == HelpTexts().end() ? "" : it->second;
}

void AddSamplingOptions(CLI::App* app, v1::SamplingParams* params,
                        const std::set<std::string>& except) {
  const auto* descriptor = v1::SamplingParams::descriptor();
  for (int i = 0; i < descriptor->field_count(); ++i) {
    const FieldDescriptor* field = descriptor->field(i);
    if (except.count(field->name()) != 0) continue;
    const std::string names = FlagNames(field->name());
    const std::string help = SamplingHelp(field->name());
    if (field->is_map()) {
      AddLogitBias(app, params, names, help);
    } else if (field->is_repeated()) {
      AddRepeated(app, params, field, names, help);
    } else {
      AddScalar(app, params, field, names, help);
    }
  }
}

}  // namespace hgrn2::client
