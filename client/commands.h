// The subcommands. Each Add... adds one to the app; when the command line selects it, *action
// becomes what to run: returns the exit code (0 success, 1 failure, 2 usage error).
#pragma once

#include <CLI/CLI.hpp>
#include <functional>

namespace hgrn2::client {

using Action = std::function<int()>;

inline constexpr int kUsageError = 2;

void AddCompleteCommand(CLI::App* app, Action* action);
void AddScoreCommand(CLI::App* app, Action* action);
void AddTokenizeCommand(CLI::App* app, Action* action);
void AddDetokenizeCommand(CLI::App* app, Action* action);
void AddInfoCommand(CLI::App* app, Action* action);
void AddHealthCommand(CLI::App* app, Action* action);
void AddLoadCommand(CLI::App* app, Action* action);
void AddReportCommand(CLI::App* app, Action* action);

}  // namespace hgrn2::client
