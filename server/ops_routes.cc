#include "server/ops_routes.h"

#include <fmt/format.h>

#include "server/version.h"

namespace hgrn2 {
namespace {

HttpResponse Ok(const char* status) {
  HttpResponse response;
  response.body = fmt::format("{{\"status\":\"{}\"}}\n", status);
  return response;
}

HttpResponse Health(const OpsContext& context) {
  const EngineStats stats = context.engine->Stats();
  if (stats.failed) return ErrorResponse(503, "the device failed");
  if (stats.seconds_since_heartbeat > context.liveness_timeout) {
    return ErrorResponse(503, fmt::format("the engine's loop has not turned for {:.1f} s",
                                          stats.seconds_since_heartbeat));
  }
  return Ok("ok");
}

HttpResponse Ready(const OpsContext& context) {
  const EngineStats stats = context.engine->Stats();
  if (stats.failed) return ErrorResponse(503, "the device failed");
  if (!context.ready->load() || stats.draining) return ErrorResponse(503, "draining");
  return Ok("ready");
}

}  // namespace

void AddOpsRoutes(const OpsContext& context, HttpRouter* router) {
  router->Add("GET", "/health",
              Immediately([context](const HttpRequest&) { return Health(context); }));
  router->Add("GET", "/ready",
              Immediately([context](const HttpRequest&) { return Ready(context); }));
  router->Add("GET", "/version", Immediately([](const HttpRequest&) {
                HttpResponse response;
                response.body = fmt::format("{{\"version\":\"{}\"}}\n", ServerVersion());
                return response;
              }));
  router->Add("GET", "/metrics", Immediately([context](const HttpRequest&) {
                HttpResponse response;
                response.content_type = "text/plain; version=0.0.4; charset=utf-8";
                response.body = context.metrics->Serialize();
                return response;
              }));
}

}  // namespace hgrn2
