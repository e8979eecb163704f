#include "client/load/workload.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

namespace hgrn2::client {
namespace {

using Json = nlohmann::json;

enum Stream : uint64_t { kArrivals = 1, kSession, kTurn, kContent, kPrefix };

// A session's turns have attribute streams of their own, so that the number of sessions drawn so
// far does not matter.
uint64_t TurnIndex(uint64_t session, int turn) {
  return session * 4096 + static_cast<uint64_t>(turn);
}

int DrawPriority(const std::vector<std::pair<int, double>>& priorities, Random* random) {
  double total = 0;
  for (const auto& [priority, weight] : priorities) total += weight;
  double x = random->Uniform() * total;
  for (const auto& [priority, weight] : priorities) {
    x -= weight;
    if (x < 0) return priority;
  }
  return priorities.empty() ? 0 : priorities.back().first;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Workload>> Workload::Create(WorkloadOptions options) {
  std::unique_ptr<Workload> workload(new Workload(std::move(options)));
  const WorkloadOptions& o = workload->options_;
  if (absl::Status status = workload->LoadPrompts(); !status.ok()) return status;
  if (!o.trace.empty()) {
    if (!o.rate.empty()) return absl::InvalidArgumentError("--trace and --rate exclude each other");
    if (absl::Status status = workload->LoadTrace(); !status.ok()) return status;
  } else if (!o.rate.empty()) {
    absl::StatusOr<RateProfile> profile = RateProfile::Parse(o.rate);
    if (!profile.ok()) return profile.status();
    workload->arrivals_.emplace(*std::move(profile), o.arrival, o.burstiness, o.seed);
  }
  if (workload->num_listed_texts_ == 0 &&
      o.vocab_size <= static_cast<int>(o.avoid_token_ids.size())) {
    return absl::InvalidArgumentError(
        fmt::format("--vocab-size {}: too small for random prompts", o.vocab_size));
  }
  return workload;
}

absl::Status Workload::LoadPrompts() {
  if (options_.prompts.empty()) return absl::OkStatus();
  std::ifstream in(options_.prompts);
  if (!in) return absl::NotFoundError(options_.prompts + ": cannot be opened");
  std::string line;
  for (uint64_t number = 1; std::getline(in, line); ++number) {
    if (line.empty()) continue;
    const Json json = Json::parse(line, nullptr, false);
    if (json.is_string()) {
      texts_.push_back(json.get<std::string>());
    } else if (json.is_object() && json.contains("prompt") && json["prompt"].is_string()) {
      texts_.push_back(json["prompt"].get<std::string>());
    } else if (line[0] != '{' && line[0] != '"') {
      texts_.push_back(line);
    } else {
      return absl::InvalidArgumentError(
          fmt::format("{} line {}: expected a text, a JSON string or {{\"prompt\": text}}",
                      options_.prompts, number));
    }
  }
  if (texts_.empty()) return absl::InvalidArgumentError(options_.prompts + ": no prompts");
  num_listed_texts_ = texts_.size();
  return absl::OkStatus();
}

absl::Status Workload::ParseTraceLine(const std::string& line, TraceLine* entry) {
  const Json json = Json::parse(line, nullptr, false);
  if (!json.is_object()) return absl::InvalidArgumentError("not a JSON object");
  const auto number = [&](std::initializer_list<const char*> names) -> std::optional<double> {
    for (const char* name : names) {
      const auto it = json.find(name);
      if (it != json.end() && it->is_number()) return it->get<double>();
    }
    return std::nullopt;
  };
  if (const auto at = number({"at"})) {
    entry->at_s = *at;
  } else if (const auto ms = number({"timestamp"})) {
    entry->at_s = *ms / 1000;
  } else {
    return absl::InvalidArgumentError("needs \"at\" (seconds) or \"timestamp\" (milliseconds)");
  }
  const auto prompt = number({"prompt_tokens", "input_length"});
  const auto output = number({"output_tokens", "output_length", "max_tokens"});
  if (entry->at_s < 0 || prompt.value_or(1) < 1 || output.value_or(1) < 1 ||
      std::max(prompt.value_or(1), output.value_or(1)) > 1e9) {
    return absl::InvalidArgumentError("times must be >= 0 and lengths in [1, 1e9]");
  }
  entry->at_s /= options_.trace_speed;
  entry->prompt_tokens = static_cast<int>(prompt.value_or(-1));
  entry->output_tokens = static_cast<int>(output.value_or(-1));
  if (const auto v = number({"priority"})) entry->priority = static_cast<int>(*v);
  if (const auto v = number({"cancel_after"})) entry->cancel_after = static_cast<int>(*v);
  entry->deadline_s = number({"deadline"});
  if (const auto text = json.find("prompt"); text != json.end() && text->is_string()) {
    entry->text = static_cast<int>(texts_.size());
    texts_.push_back(text->get<std::string>());
  }
  return absl::OkStatus();
}

absl::Status Workload::LoadTrace() {
  std::ifstream in(options_.trace);
  if (!in) return absl::NotFoundError(options_.trace + ": cannot be opened");
  std::string line;
  for (uint64_t number = 1; std::getline(in, line); ++number) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    TraceLine entry;
    if (absl::Status status = ParseTraceLine(line, &entry); !status.ok()) {
      return absl::InvalidArgumentError(
          fmt::format("{} line {}: {}", options_.trace, number, std::string(status.message())));
    }
    trace_.push_back(entry);
  }
  if (trace_.empty()) return absl::InvalidArgumentError(options_.trace + ": no requests");
  std::stable_sort(trace_.begin(), trace_.end(),
                   [](const TraceLine& a, const TraceLine& b) { return a.at_s < b.at_s; });
  return absl::OkStatus();
}

PlannedRequest Workload::Draw(uint64_t session, int turn) const {
  PlannedRequest r;
  r.session = session;
  r.turn = turn;
  Random per_session(options_.seed, kSession, session);
  r.num_turns = std::clamp(options_.turns.SampleInt(&per_session), 1, 4096);
  const bool prefixed = per_session.Uniform() < options_.prefix_share;
  const auto group = static_cast<int>(per_session.Below(std::max(1, options_.prefix_groups)));
  if (options_.prefix_tokens > 0 && prefixed) r.prefix_group = group;
  r.priority = DrawPriority(options_.priorities, &per_session);

  Random per_turn(options_.seed, kTurn, TurnIndex(session, turn));
  r.prompt_tokens = std::max(1, options_.prompt_tokens.SampleInt(&per_turn));
  r.output_tokens = std::max(1, options_.output_tokens.SampleInt(&per_turn));
  const bool cancelled = per_turn.Uniform() < options_.cancel_share;
  const int cancel_after = options_.cancel_after.SampleInt(&per_turn);
  if (cancelled) r.cancel_after = cancel_after;
  const bool limited = per_turn.Uniform() < options_.deadline_share;
  const double deadline = options_.deadline.Sample(&per_turn);
  if (limited) r.deadline_s = deadline;
  r.think_s = options_.think_time.Sample(&per_turn);
  if (num_listed_texts_ > 0) r.text = static_cast<int>(session % num_listed_texts_);
  return r;
}

std::optional<PlannedRequest> Workload::Next() {
  PlannedRequest r = Draw(next_session_, 0);
  if (arrivals_) {
    r.at_s = arrivals_->Next();
    if (std::isinf(r.at_s)) return std::nullopt;
  } else if (!trace_.empty()) {
    if (next_session_ >= trace_.size()) return std::nullopt;
    const TraceLine& line = trace_[next_session_];
    r.at_s = line.at_s;
    if (line.prompt_tokens > 0) r.prompt_tokens = line.prompt_tokens;
    if (line.output_tokens > 0) r.output_tokens = line.output_tokens;
    if (line.text >= 0) r.text = line.text;
    r.priority = line.priority.value_or(r.priority);
    r.cancel_after = line.cancel_after.value_or(r.cancel_after);
    r.deadline_s = line.deadline_s.value_or(r.deadline_s);
  }
  ++next_session_;
  return r;
}

std::optional<PlannedRequest> Workload::NextTurn(const PlannedRequest& previous) const {
  if (previous.turn + 1 >= previous.num_turns || previous.text >= 0) return std::nullopt;
  PlannedRequest r = Draw(previous.session, previous.turn + 1);
  r.priority = previous.priority;
  r.prefix_group = previous.prefix_group;
  return r;
}

void Workload::AppendPromptTokens(const PlannedRequest& request,
                                  std::vector<int32_t>* tokens) const {
  const auto append = [&](Random random, int count) {
    for (int i = 0; i < count;) {
      const auto id = static_cast<int32_t>(random.Below(options_.vocab_size));
      const auto& avoid = options_.avoid_token_ids;
      if (std::find(avoid.begin(), avoid.end(), id) != avoid.end()) continue;
      tokens->push_back(id);
      ++i;
    }
  };
  tokens->reserve(tokens->size() + options_.prefix_tokens + request.prompt_tokens);
  if (request.turn == 0 && request.prefix_group >= 0) {
    append(Random(options_.seed, kPrefix, request.prefix_group), options_.prefix_tokens);
  }
  append(Random(options_.seed, kContent, TurnIndex(request.session, request.turn)),
         request.prompt_tokens);
}

}  // namespace hgrn2::client
