// Many Score calls in flight, results in the order of submission.
#pragma once

#include <hgrn2/v1/inference.grpc.pb.h>

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>

#include "client/connection.h"

namespace hgrn2::client {

// Submit and Finish are for one thread; results are emitted on gRPC's threads, one at a time.
class ScorePipeline {
 public:
  struct Result {
    uint64_t index = 0;  // in order of submission, from 0
    grpc::Status status;
    v1::ScoreResponse response;
  };
  using Emit = std::function<void(const Result&)>;

  // A call refused with RESOURCE_EXHAUSTED or UNAVAILABLE is tried again up to `max_retries` times,
  // after the server's RetryInfo delay or else after 0.1 s, 0.2 s, 0.4 s and so on.
  ScorePipeline(std::shared_ptr<grpc::Channel> channel, const ConnectionOptions& connection,
                int max_in_flight, int max_retries, Emit emit);
  ~ScorePipeline();

  // Waits for a free place. False, and nothing is sent, once Cancel was called.
  bool Submit(v1::ScoreRequest request);
  // Waits until everything submitted was emitted.
  void Finish();
  // Ends all calls soon, with CANCELLED. Callable from any thread.
  void Cancel();

 private:
  struct Call;
  void Start(Call* call);
  void Done(Call* call);
  bool Retry(Call* call);
  void EmitReady(std::unique_lock<std::mutex>* lock);

  const std::unique_ptr<v1::Inference::Stub> stub_;
  const ConnectionOptions connection_;
  const int max_in_flight_;
  const int max_retries_;
  const Emit emit_;

  std::mutex mu_;
  std::condition_variable changed_;
  std::map<uint64_t, Result> ready_;  // done, waiting for an earlier one
  std::set<Call*> calls_;
  uint64_t submitted_ = 0;
  uint64_t emitted_ = 0;
  bool emitting_ = false;
  bool cancelled_ = false;
};

}  // namespace hgrn2::client
