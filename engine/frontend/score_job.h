// One scoring request on its way: collects the continuations' scores and hands them over on a
// worker.
#pragma once

#include <memory>

#include "engine/frontend/frontend.h"
#include "engine/frontend/worker_pool.h"

namespace hgrn2 {

// On error the handler is never called. `tokenizer` may be null.
absl::StatusOr<std::shared_ptr<RequestControl>> SubmitScoreJob(
    Engine& engine, const Tokenizer* tokenizer, WorkerPool& workers, size_t worker,
    EngineRequest request, std::shared_ptr<ScoreHandler> handler);

}  // namespace hgrn2
