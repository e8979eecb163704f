// hgrn2-server: see --help and docs/flags.md.
#include <grpc/support/log.h>
#include <unistd.h>

#include <cstdio>
#include <string>
#include <vector>

#include "base/log.h"
#include "base/status.h"
#include "server/application.h"
#include "server/devices.h"
#include "server/flags.h"
#include "server/shutdown_events.h"
#include "server/version.h"

namespace hgrn2 {
namespace {

// One sentence, whatever the log's level and format are.
int Fail(const absl::Status& status) {
  std::fprintf(stderr, "hgrn2-server: %s\n", std::string(status.message()).c_str());
  return 1;
}

// What matters of gRPC's own messages reaches us as statuses.
void LogGrpc(gpr_log_func_args* args) {
  LOG_DEBUG("grpc {}:{}: {}", args->file, args->line, args->message);
}

std::vector<std::string> Environment() {
  std::vector<std::string> out;
  for (char** entry = environ; *entry != nullptr; ++entry) out.emplace_back(*entry);
  return out;
}

int Main(const std::vector<std::string>& arguments) {
  absl::StatusOr<ParsedFlags> flags = ParseFlags(arguments, Environment());
  if (!flags.ok()) return Fail(flags.status());
  if (!flags->message.empty()) {
    std::fputs(flags->message.c_str(), stdout);
    return 0;
  }
  const ServerOptions& options = flags->options;
  if (const auto status = InitLogging(options.log_level, options.log_format); !status.ok()) {
    return Fail(status);
  }
  for (const std::string& warning : flags->warnings) LOG_WARNING("{}", warning);
  gpr_set_log_function(&LogGrpc);
  ShutdownEvents& events = ShutdownEvents::Install();
  LOG_INFO("hgrn2-server {}", ServerVersion());
  auto application = Application::Load(options, MakeBackend, [&events](const absl::Status& status) {
    events.Post({true, std::string(status.message())});
  });
  if (!application.ok()) return Fail(application.status());
  events.Arm();  // before the first request can come
  if (const auto status = (*application)->Listen(); !status.ok()) return Fail(status);
  const ShutdownEvents::Event event = events.Wait();
  if (event.fatal) {
    LOG_ERROR("the device failed: {}; shutting down", event.reason);
  } else {
    LOG_INFO("{}: draining for up to {} s; a second signal ends the server at once", event.reason,
             options.shutdown_timeout);
  }
  const bool healthy = (*application)->Drain();
  application->reset();
  LOG_INFO("stopped");
  return healthy && !event.fatal ? 0 : 1;
}

}  // namespace
}  // namespace hgrn2

int main(int argc, char** argv) { return hgrn2::Main({argv + 1, argv + argc}); }
