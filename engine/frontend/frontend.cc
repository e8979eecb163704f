#include "engine/frontend/frontend.h"

#include <algorithm>
#include <atomic>
#include <random>
#include <utility>

#include "base/host.h"
#include "base/status.h"
#include "engine/frontend/completion_job.h"
#include "engine/frontend/score_job.h"
#include "engine/frontend/validate.h"
#include "engine/frontend/worker_pool.h"

namespace hgrn2 {
namespace {

uint64_t RandomSeed() {
  std::random_device device;
  return static_cast<uint64_t>(device()) << 32 | device();
}

class FrontendImpl final : public Frontend {
 public:
  FrontendImpl(Engine& engine, const ModelConfig& config, const GenerationDefaults& defaults,
               const Tokenizer* tokenizer, FrontendOptions options)
      : engine_(engine),
        config_(config),
        defaults_(defaults),
        tokenizer_(tokenizer),
        options_(std::move(options)),
        seed_(options_.seed.value_or(RandomSeed())),
        workers_(options_.workers.empty() ? PlainWorkerLoops(DefaultNumWorkers())
                                          : std::move(options_.workers)) {}

  absl::StatusOr<std::shared_ptr<RequestControl>> Generate(
      CompletionRequest request, std::shared_ptr<CompletionHandler> handler) override {
    RETURN_IF_ERROR(CheckModel(request.model));
    const uint64_t number = next_request_.fetch_add(1, std::memory_order_relaxed);
    ASSIGN_OR_RETURN(
        auto requests,
        ToEngineRequests(Context(), request, PositionKey(seed_, static_cast<uint32_t>(number))));
    CompletionJob::Environment environment{&engine_, tokenizer_, &workers_,
                                           handler->worker().value_or(number),
                                           EosTokenIds(config_, defaults_)};
    auto job = std::make_shared<CompletionJob>(std::move(environment), std::move(request),
                                               std::move(handler));
    RETURN_IF_ERROR(job->Submit(std::move(requests)));
    return std::shared_ptr<RequestControl>(std::move(job));
  }

  absl::StatusOr<std::shared_ptr<RequestControl>> Score(
      ScoreInput input, std::shared_ptr<ScoreHandler> handler) override {
    RETURN_IF_ERROR(CheckModel(input.model));
    ASSIGN_OR_RETURN(EngineRequest request, ToEngineRequest(Context(), input));
    const uint64_t number = next_request_.fetch_add(1, std::memory_order_relaxed);
    return SubmitScoreJob(engine_, tokenizer_, workers_, number, std::move(request),
                          std::move(handler));
  }

  absl::StatusOr<std::vector<int32_t>> Tokenize(const std::string& model, const std::string& text,
                                                bool add_special_tokens) override {
    RETURN_IF_ERROR(CheckModel(model));
    RETURN_IF_ERROR(CheckTokenizer("text"));
    auto ids = tokenizer_->Encode(text, add_special_tokens);
    if (!ids.ok()) return InvalidArgument("text", "{}", ToStd(ids.status().message()));
    return ids;
  }

  absl::StatusOr<std::string> Detokenize(const std::string& model, const std::vector<int32_t>& ids,
                                         bool skip_special_tokens) override {
    RETURN_IF_ERROR(CheckModel(model));
    RETURN_IF_ERROR(CheckTokenizer("token_ids"));
    RETURN_IF_ERROR(CheckTokenIds("token_ids", ids, config_));
    return tokenizer_->Decode(ids, skip_special_tokens);
  }

  absl::Status CheckModel(const std::string& model) const override {
    if (model.empty() || model == options_.served_model_name) return absl::OkStatus();
    return MakeStatus(absl::StatusCode::kNotFound, "model '{}' is not served here; this is '{}'",
                      model, options_.served_model_name);
  }
  const Tokenizer* tokenizer() const override { return tokenizer_; }
  const std::string& served_model_name() const override { return options_.served_model_name; }

 private:
  ValidationContext Context() const {
    return {&config_, &defaults_, tokenizer_, options_.max_prompt_tokens};
  }
  absl::Status CheckTokenizer(std::string_view field) const {
    if (tokenizer_ != nullptr) return absl::OkStatus();
    return MakeStatus(absl::StatusCode::kFailedPrecondition, "{}: this model has no tokenizer",
                      field);
  }

  Engine& engine_;
  const ModelConfig config_;
  const GenerationDefaults defaults_;
  const Tokenizer* const tokenizer_;
  FrontendOptions options_;
  const uint64_t seed_;
  std::atomic<uint64_t> next_request_{0};
  WorkerPool workers_;
};

}  // namespace

// A worker writes 100 000 tokens a second and more to gRPC streams. Few write in a steadier order
// than many, but a host that stalls one of two holds up half of the streams.
int32_t DefaultNumWorkers() { return std::clamp(NumUsableCpus() / 2, 1, 4); }

std::unique_ptr<Frontend> Frontend::Create(Engine& engine, const ModelConfig& config,
                                           const GenerationDefaults& defaults,
                                           const Tokenizer* tokenizer, FrontendOptions options) {
  return std::make_unique<FrontendImpl>(engine, config, defaults, tokenizer, std::move(options));
}

}  // namespace hgrn2
