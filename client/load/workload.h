// What is sent, and when: the schedule of a load run. A function of the options and the seed alone;
// nothing here depends on how fast the server answers.
#pragma once

#include <hgrn2/v1/inference.pb.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "client/load/arrivals.h"
#include "client/load/distribution.h"

namespace hgrn2::client {

struct WorkloadOptions {
  std::string rate;  // empty: closed loop
  ArrivalKind arrival = ArrivalKind::kPoisson;
  double burstiness = 1;
  std::string trace;  // JSON lines; replaces rate and, where a line names them, lengths
  double trace_speed = 1;
  std::string prompts;  // file of texts, used in turn, instead of random token ids

  Distribution prompt_tokens;
  Distribution output_tokens;
  int prefix_tokens = 0;    // shared beginning, put before prompt_tokens
  int prefix_groups = 1;    // how many different beginnings
  double prefix_share = 1;  // fraction of sessions that have one
  Distribution turns;       // requests per session, each continuing the last one's text
  Distribution think_time;  // seconds between an answer and the next turn

  std::vector<std::pair<int, double>> priorities;  // priority and weight; empty: 0
  double cancel_share = 0;
  Distribution cancel_after;  // tokens received before cancelling
  double deadline_share = 0;
  Distribution deadline;  // seconds

  int vocab_size = 0;                    // ids are drawn below it
  std::vector<int32_t> avoid_token_ids;  // such as eos
  uint64_t seed = 0;
};

// One request as the schedule fixes it.
struct PlannedRequest {
  uint64_t session = 0;  // counts from 0 in order of arrival
  int turn = 0;
  int num_turns = 1;
  // Intended send time, seconds from the start of the run. Closed loop: 0, sent when a place is
  // free. Later turns: think_s after the previous turn's answer instead.
  double at_s = 0;
  double think_s = 0;
  int prompt_tokens = 0;  // new ones: without prefix and earlier turns
  int output_tokens = 1;
  int prefix_group = -1;  // -1: none
  int priority = 0;
  int cancel_after = -1;  // tokens; -1: not cancelled
  double deadline_s = 0;  // 0: none
  int text = -1;          // index of a given prompt; -1: random ids
};

// Not thread-safe, except for the const functions.
class Workload {
 public:
  static absl::StatusOr<std::unique_ptr<Workload>> Create(WorkloadOptions options);

  bool closed_loop() const { return !arrivals_ && trace_.empty(); }
  // The first turn of the next session; nothing after the last line of a trace or a rate of 0.
  std::optional<PlannedRequest> Next();
  // The turn that follows, if the session has one.
  std::optional<PlannedRequest> NextTurn(const PlannedRequest& previous) const;
  // New part of the prompt of a turn: prefix (first turn only) and its own tokens.
  void AppendPromptTokens(const PlannedRequest& request, std::vector<int32_t>* tokens) const;
  // REQUIRES: request.text >= 0.
  const std::string& text(const PlannedRequest& request) const { return texts_[request.text]; }
  const WorkloadOptions& options() const { return options_; }

 private:
  struct TraceLine {
    double at_s = 0;
    int prompt_tokens = -1;  // -1: drawn
    int output_tokens = -1;
    std::optional<int> priority;
    int text = -1;
    std::optional<int> cancel_after;
    std::optional<double> deadline_s;
  };

  explicit Workload(WorkloadOptions options) : options_(std::move(options)) {}
  absl::Status LoadTrace();
  absl::Status ParseTraceLine(const std::string& line, TraceLine* entry);
  absl::Status LoadPrompts();
  PlannedRequest Draw(uint64_t session, int turn) const;

  const WorkloadOptions options_;
  std::optional<ArrivalProcess> arrivals_;
  std::vector<TraceLine> trace_;
  std::vector<std::string> texts_;
  size_t num_listed_texts_ = 0;  // those of --prompts come first, the trace's follow
  uint64_t next_session_ = 0;
};

}  // namespace hgrn2::client
