// A server that does no work, so that what limits a load test is the load client.
//   null_server [--port=50051] [--interval-us=0] [--vocab=4096]
// Generate streams max_tokens messages of one token each: as fast as the connection takes them, or
// one every --interval-us microseconds. The token message is serialised once, not per call, and
// writes are left to the transport to gather into packets, so that this needs less CPU than its
// client.
#include <grpcpp/alarm.h>
#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/grpcpp.h>
#include <hgrn2/v1/inference.grpc.pb.h>

#include <chrono>
#include <cstdio>
#include <string>

namespace hgrn2 {
namespace {

struct Settings {
  int port = 50051;
  int interval_us = 0;
  int vocab_size = 4096;
};

grpc::ByteBuffer Serialize(const google::protobuf::Message& message) {
  const grpc::Slice slice(message.SerializeAsString());
  return grpc::ByteBuffer(&slice, 1);
}

class StreamReactor : public grpc::ServerGenericBidiReactor {
 public:
  StreamReactor(const Settings& settings, const grpc::ByteBuffer* token)
      : interval_(settings.interval_us), token_(token) {
    StartRead(&request_);
  }

  void OnReadDone(bool ok) override {
    grpc::Slice slice;
    v1::GenerateRequest request;
    if (!ok || !request_.DumpToSingleSlice(&slice).ok() ||
        !request.ParseFromArray(slice.begin(), static_cast<int>(slice.size())) ||
        request.prompts_size() != 1) {
      Finish(grpc::Status(grpc::StatusCode::INVALID_ARGUMENT, "not a GenerateRequest"));
      return;
    }
    left_ = request.sampling().max_tokens();
    v1::GenerateResponse last;
    auto* choice = last.add_choices();
    choice->set_text(" x");
    choice->add_token_ids(1);
    choice->set_finish_reason(v1::FINISH_REASON_LENGTH);
    last.mutable_usage()->set_prompt_tokens(request.prompts(0).tokens().ids_size());
    last.mutable_usage()->set_completion_tokens(left_);
    last.mutable_timing();
    last_ = Serialize(last);
    next_ = std::chrono::system_clock::now();
    WriteNext();
  }

  void OnWriteDone(bool ok) override {
    if (!ok)
      Finish(grpc::Status::CANCELLED);
    else if (interval_.count() == 0)
      WriteNext();
    else {
      next_ += interval_;
      alarm_.Set(next_, [this](bool) { WriteNext(); });
    }
  }

  void OnDone() override { delete this; }

 private:
  void WriteNext() {
    if (--left_ > 0) {
      grpc::WriteOptions options;
      // Never on the first message: gRPC (1.51) holds the headers back with it, and since a write
      // that carries the headers is done only when they left, the stream would wait for itself for
      // ever.
      if (interval_.count() == 0 && headers_sent_) options.set_buffer_hint();
      headers_sent_ = true;
      StartWrite(token_, options);
    } else {
      StartWriteAndFinish(&last_, grpc::WriteOptions(), grpc::Status::OK);
    }
  }

  const std::chrono::microseconds interval_;
  const grpc::ByteBuffer* const token_;
  grpc::ByteBuffer request_;
  grpc::ByteBuffer last_;
  int left_ = 0;
  bool headers_sent_ = false;
  std::chrono::system_clock::time_point next_;
  grpc::Alarm alarm_;
};

// GetModel, which a load client asks first.
class ModelReactor : public grpc::ServerGenericBidiReactor {
 public:
  explicit ModelReactor(const Settings& settings) {
    v1::GetModelResponse model;
    model.set_name("null");
    model.set_vocab_size(settings.vocab_size);
    response_ = Serialize(model);
    StartRead(&request_);
  }
  void OnReadDone(bool) override {
    StartWriteAndFinish(&response_, grpc::WriteOptions(), grpc::Status::OK);
  }
  void OnDone() override { delete this; }

 private:
  grpc::ByteBuffer request_;
  grpc::ByteBuffer response_;
};

class NullService : public grpc::CallbackGenericService {
 public:
  explicit NullService(const Settings& settings) : settings_(settings) {
    v1::GenerateResponse response;
    response.set_request_id("cmpl-0123456789abcdef");
    response.set_model("null");
    auto* choice = response.add_choices();
    choice->set_text(" x");
    choice->add_token_ids(1);
    token_ = Serialize(response);
  }

  grpc::ServerGenericBidiReactor* CreateReactor(grpc::GenericCallbackServerContext* c) override {
    if (c->method() == "/hgrn2.v1.Inference/GetModel") return new ModelReactor(settings_);
    return new StreamReactor(settings_, &token_);
  }

 private:
  const Settings settings_;
  grpc::ByteBuffer token_;
};

}  // namespace
}  // namespace hgrn2

int main(int argc, char** argv) {
  hgrn2::Settings settings;
  for (int i = 1; i < argc; ++i) {
    if (std::sscanf(argv[i], "--port=%d", &settings.port) == 1) continue;
    if (std::sscanf(argv[i], "--interval-us=%d", &settings.interval_us) == 1) continue;
    if (std::sscanf(argv[i], "--vocab=%d", &settings.vocab_size) == 1) continue;
    std::fprintf(stderr, "usage: null_server [--port=N] [--interval-us=N] [--vocab=N]\n");
    return 2;
  }
  hgrn2::NullService service(settings);
  grpc::ServerBuilder builder;
  builder.RegisterCallbackGenericService(&service);
  builder.AddListeningPort("127.0.0.1:" + std::to_string(settings.port),
                           grpc::InsecureServerCredentials());
  const auto server = builder.BuildAndStart();
  if (server == nullptr) return 1;
  std::printf("null_server on 127.0.0.1:%d\n", settings.port);
  std::fflush(stdout);
  server->Wait();
  return 0;
}
