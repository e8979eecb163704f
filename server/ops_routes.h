// HTTP routes for operators: /metrics, /health, /ready, /version.
#pragma once

#include <atomic>

#include "engine/engine.h"
#include "server/http/http_router.h"
#include "server/metrics.h"

namespace hgrn2 {

// Everything outlives the HTTP server.
struct OpsContext {
  const Engine* engine = nullptr;
  const Metrics* metrics = nullptr;
  const std::atomic<bool>* ready = nullptr;  // false from the beginning of a shutdown
  double liveness_timeout = 30;              // seconds without a heartbeat of the engine
};

// /health is liveness: the engine's loop turns, whatever the load. /ready is readiness: new
// requests are taken.
void AddOpsRoutes(const OpsContext& context, HttpRouter* router);

}  // namespace hgrn2
