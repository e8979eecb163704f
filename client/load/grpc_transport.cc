#include "client/load/grpc_transport.h"

#include <algorithm>
#include <chrono>
#include <utility>

namespace hgrn2::client {

// One request in flight. At most one operation is outstanding, so the call itself is the tag.
struct GrpcTransport::Call {
  enum class Step { kStarting, kReading, kFinishing };

  Step step = Step::kStarting;
  CallEvents* events = nullptr;
  grpc::ClientContext context;
  v1::GenerateResponse response;
  grpc::Status status;
  std::unique_ptr<grpc::ClientAsyncReader<v1::GenerateResponse>> reader;
};

GrpcTransport::GrpcTransport(ConnectionOptions connection, v1::GenerateRequest base)
    : connection_(std::move(connection)), base_(std::move(base)) {}

GrpcTransport::~GrpcTransport() = default;

absl::Status GrpcTransport::Connect(int connections, int /*expected*/) {
  const auto deadline = std::chrono::system_clock::now() + std::chrono::seconds(10);
  std::vector<std::pair<std::shared_ptr<grpc::Channel>, std::string>> channels;
  for (const std::string& address : connection_.targets) {
    targets_.push_back(std::make_unique<Target>());
    for (int i = 0; i < std::max(connections, 1); ++i) {
      auto channel = MakeChannel(connection_, address);
      if (!channel.ok()) return channel.status();
      (*channel)->GetState(/*try_to_connect=*/true);
      targets_.back()->stubs.push_back(v1::Inference::NewStub(*channel));
      channels.emplace_back(*channel, address);
    }
  }
  for (const auto& [channel, address] : channels) {
    if (!channel->WaitForConnected(deadline)) {
      return absl::UnavailableError("cannot connect to " + address + " within 10 s");
    }
  }
  return absl::OkStatus();
}

int GrpcTransport::NextTarget() {
  return static_cast<int>(next_target_.fetch_add(1, std::memory_order_relaxed) % targets_.size());
}

void GrpcTransport::Start(int target, const CallRequest& request, CallEvents* events) {
  v1::GenerateRequest message = base_;
  v1::Prompt* prompt = message.add_prompts();
  if (request.text != nullptr) {
    prompt->set_text(*request.text);
  } else {
    prompt->mutable_tokens()->mutable_ids()->Assign(request.prompt_ids.begin(),
                                                    request.prompt_ids.end());
  }
  message.set_request_id(request.request_id);
  message.mutable_sampling()->set_max_tokens(request.max_tokens);
  message.set_priority(request.priority);

  Call* call = new Call;  // deleted by Finish
  call->events = events;
  ConnectionOptions per_call;
  per_call.api_key = connection_.api_key;
  per_call.timeout_s = request.timeout_s;
  PrepareContext(per_call, &call->context);
  Target& to = *targets_[target];
  const size_t stub = to.next_stub.fetch_add(1, std::memory_order_relaxed) % to.stubs.size();
  call->reader = to.stubs[stub]->PrepareAsyncGenerate(&call->context, message, &queue_);
  {
    std::lock_guard lock(mu_);
    calls_.insert(call);
  }
  call->reader->StartCall(call);
}

void GrpcTransport::CancelAll() {
  std::lock_guard lock(mu_);
  for (Call* call : calls_) call->context.TryCancel();
}

void GrpcTransport::Run() {
  void* tag = nullptr;
  bool ok = false;
  while (queue_.Next(&tag, &ok)) OnEvent(static_cast<Call*>(tag), ok);
}

void GrpcTransport::OnEvent(Call* call, bool ok) {
  if (call->step == Call::Step::kFinishing) {
    Finish(call);
    return;
  }
  bool go_on = true;
  if (call->step == Call::Step::kStarting) {
    go_on = call->events->OnStarted();
  } else if (ok) {
    go_on = DeliverPart(call);
  }
  if (!go_on) call->context.TryCancel();
  if (ok) {
    call->step = Call::Step::kReading;
    call->reader->Read(&call->response, call);
  } else {
    call->step = Call::Step::kFinishing;
    call->reader->Finish(&call->status, call);
  }
}

bool GrpcTransport::DeliverPart(Call* call) {
  const v1::GenerateResponse& response = call->response;
  AnswerPart part;
  if (response.has_usage()) {
    part.prompt_tokens = response.usage().prompt_tokens();
    part.cached_tokens = response.usage().cached_tokens();
  }
  if (response.has_timing()) {
    part.queue_s = response.timing().queue();
    part.prefill_s = response.timing().prefill();
    part.decode_s = response.timing().decode();
  }
  for (const v1::ChoiceDelta& delta : response.choices()) {
    part.tokens += delta.token_ids_size();
    part.token_ids = {delta.token_ids().data(), static_cast<size_t>(delta.token_ids_size())};
    part.aborted |= delta.finish_reason() == v1::FINISH_REASON_ABORT;
  }
  return call->events->OnPart(part);
}

void GrpcTransport::Finish(Call* raw) {
  const std::unique_ptr<Call> call(raw);
  {
    std::lock_guard lock(mu_);
    calls_.erase(raw);
  }
  call->events->OnEnd({call->status.error_code(), 0, call->status.error_message()});
}

}  // namespace hgrn2::client
