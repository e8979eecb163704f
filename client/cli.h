// The command line as a function.
#pragma once

#include <CLI/CLI.hpp>
#include <memory>

#include "client/commands.h"

namespace hgrn2::client {

// The app with every subcommand; parsing it sets *action. For tests of the parsing itself.
std::unique_ptr<CLI::App> MakeApp(Action* action);

// Parses, runs, and returns the exit code.
int RunCommandLine(int argc, const char* const* argv);

}  // namespace hgrn2::client
