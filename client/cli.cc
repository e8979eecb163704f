#include "client/cli.h"

#ifndef HGRN2_VERSION
#define HGRN2_VERSION "unknown"
#endif

namespace hgrn2::client {

std::unique_ptr<CLI::App> MakeApp(Action* action) {
  auto app =
      std::make_unique<CLI::App>("Client and load generator of the HGRN2 server", "hgrn2-client");
  app->require_subcommand(1);
  app->set_version_flag("--version", "hgrn2-client " HGRN2_VERSION);
  AddCompleteCommand(app.get(), action);
  AddScoreCommand(app.get(), action);
  AddTokenizeCommand(app.get(), action);
  AddDetokenizeCommand(app.get(), action);
  AddInfoCommand(app.get(), action);
  AddHealthCommand(app.get(), action);
  AddLoadCommand(app.get(), action);
  AddReportCommand(app.get(), action);
  return app;
}

int RunCommandLine(int argc, const char* const* argv) {
  Action action;
  const std::unique_ptr<CLI::App> app = MakeApp(&action);
  try {
    app->parse(argc, argv);
  } catch (const CLI::ParseError& error) {  // CLI11 reports --help, --version and errors this way
    return app->exit(error) == 0 ? 0 : kUsageError;
  }
  return action();
}

}  // namespace hgrn2::client
