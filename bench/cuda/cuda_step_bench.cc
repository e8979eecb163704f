// Step times of the CUDA backend on dummy weights: decode by batch size and packed prefill, with
// the share of the byte floor (or of the arithmetic) that the device's measured ceilings allow.
//
//   cuda_step_bench model=1.3b fp8=0 state=float16 replay=0 decode=1,8,64,256 prefill=2048,16384
//   cuda_step_bench mixed=256+192,64+128        decodes beside a part of a prompt, in one step
//   cuda_step_bench context=1000,100000         decode times after so many tokens of context
//   cuda_step_bench fused=64                    layers of more rows are not fused
#include <cuda_runtime_api.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <map>
#include <string>
#include <vector>

#include "base/check.h"
#include "base/string_view.h"
#include "bench/cuda/shared_weights.h"
#include "engine/backend/backend.h"
#include "engine/backend/cuda_forward.h"

namespace hgrn2::bench {
namespace {

using Options = std::map<std::string, std::string>;

std::vector<int> ParseList(const std::string& text) {
  std::vector<int> values;
  for (size_t begin = 0; begin < text.size();) {
    size_t end = text.find(',', begin);
    if (end == std::string::npos) end = text.size();
    values.push_back(std::stoi(text.substr(begin, end - begin)));
    begin = end + 1;
  }
  return values;
}

// "256+192,64+128": batches and prompt tokens.
std::vector<std::pair<int, int>> ParsePairs(const std::string& text) {
  std::vector<std::pair<int, int>> pairs;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    const std::string pair = text.substr(begin, end - begin);
    const size_t plus = pair.find('+');
    HGRN2_CHECK(plus != std::string::npos, "mixed: batches and tokens, 256+192,64+128");
    pairs.emplace_back(std::stoi(pair.substr(0, plus)), std::stoi(pair.substr(plus + 1)));
    begin = end + 1;
  }
  return pairs;
}

DType ParseDType(const std::string& name) {
  for (const DType t : {DType::kF32, DType::kF16, DType::kBF16, DType::kF8E4M3}) {
    if (name == Name(t)) return t;
  }
  HGRN2_CHECK(false, "state: float32, float16, bfloat16 or fp8");
}

void Check(const absl::Status& status) { HGRN2_CHECK(status.ok(), ToStd(status.message())); }

double Seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Bytes per second of a large device-to-device copy, counting reads and writes.
double CopyRate() {
  constexpr size_t kBytes = size_t{1} << 30;
  void* p = nullptr;
  cudaMalloc(&p, 2 * kBytes);
  cudaEvent_t begin, end;
  cudaEventCreate(&begin);
  cudaEventCreate(&end);
  constexpr int kRepeats = 10;
  for (int i = -2; i < kRepeats; ++i) {
    if (i == 0) cudaEventRecord(begin);
    cudaMemcpyAsync(static_cast<char*>(p) + kBytes, p, kBytes, cudaMemcpyDeviceToDevice);
  }
  cudaEventRecord(end);
  cudaEventSynchronize(end);
  float ms = 0;
  cudaEventElapsedTime(&ms, begin, end);
  cudaFree(p);
  return 2.0 * kBytes * kRepeats / (ms * 1e-3);
}

struct StepTime {
  double step;     // seconds from step to step, by the host's clock
  double device;   // median of the device's
  double enqueue;  // mean of the host's part, the launching
};

struct Bench {
  ModelConfig config;
  std::unique_ptr<Backend> backend;
  bool fp8 = false;
  int replay = 16;
  double copy_rate = 0;
  int warm_up = 20;

  // Fewest bytes of a decode step: weights once, states read once and written every N-th step, the
  // ring's tokens (N / 2 on average) read and one written.
  double DecodeBytes(int batch) const {
    const double d = config.hidden_size, m = config.intermediate_size;
    const double matrices = config.num_layers * (4 * d * d + 3 * d * m);
    const double weights = matrices * (fp8 ? 1 : 2) + 2.0 * config.vocab_size * d;
    const double state = static_cast<double>(config.StateSize()) *
                         static_cast<double>(SizeOf(backend->info().state_dtype));
    const double token = 2 * d * config.num_layers * 2;
    const double ring = replay > 1 ? token * (replay / 2.0 + 1) : 0;
    return weights + batch * (state * (1 + 1.0 / std::max(replay, 1)) + ring);
  }

  // A step that every slot of [0, batch) decodes in.
  StepBatch DecodeBatch(int batch, bool first) {
    SlotSampling sampling;
    sampling.scalars.temperature = 0;
    StepBatch step;
    for (int i = 0; i < batch; ++i) {
      if (first) Check(backend->ConfigureSlot(i, sampling));
      StepSequence s;
      s.slot = s.token_begin = i;
      s.sample = true;
      s.reset_state = first;
      s.token_on_device = !first;
      step.tokens.push_back(100 + i);
      step.sequences.push_back(s);
    }
    return step;
  }

  void Run(const StepBatch& batch) {
    StepResult result;
    Check(backend->Enqueue(batch));
    Check(backend->Collect(&result));
  }

  // Two steps in flight, as the engine has them.
  StepTime Time(const StepBatch& batch, int steps) {
    StepResult result;
    std::vector<double> device;
    double begin = 0, enqueue = 0;
    Check(backend->Enqueue(batch));
    for (int i = -warm_up; i < steps; ++i) {
      if (i == 0) begin = Seconds(), enqueue = 0;
      const double launch = Seconds();
      Check(backend->Enqueue(batch));
      enqueue += Seconds() - launch;
      Check(backend->Collect(&result));
      if (i >= 0) device.push_back(result.device_seconds);
    }
    const double seconds = (Seconds() - begin) / steps;
    Check(backend->Collect(&result));
    std::nth_element(device.begin(), device.begin() + device.size() / 2, device.end());
    return {seconds, device[device.size() / 2], enqueue / steps};
  }

  void Decode(int batch, int steps) {
    Run(DecodeBatch(batch, true));
    const StepTime time = Time(DecodeBatch(batch, false), steps);
    const double floor = DecodeBytes(batch) / copy_rate;
    std::printf(
        "decode  batch %5d  step %8.3f ms  device %8.3f ms  %9.0f tok/s  %6.0f GB/s  "
        "%5.1f %% of the byte floor\n",
        batch, time.step * 1e3, time.device * 1e3, batch / time.step,
        DecodeBytes(batch) / time.step * 1e-9, 100 * floor / time.step);
    std::fflush(stdout);
  }

  // `batch` decodes and the next `tokens` tokens of a prompt in one step.
  void Mixed(int batch, int tokens, int steps) {
    Run(DecodeBatch(batch, true));
    const double alone = Time(DecodeBatch(batch, false), steps).step;
    StepBatch step = DecodeBatch(batch, false);
    StepSequence prompt;
    prompt.slot = prompt.token_begin = batch;
    prompt.num_tokens = tokens;
    for (int t = 0; t < tokens; ++t) step.tokens.push_back((t * 7919) % config.vocab_size);
    step.sequences.push_back(prompt);
    const StepTime time = Time(step, steps);
    std::printf(
        "mixed   batch %5d + %4d tokens  step %8.3f ms  device %8.3f ms  launching %6.3f ms  "
        "%.2f x the decodes alone  %8.0f prompt tok/s\n",
        batch, tokens, time.step * 1e3, time.device * 1e3, time.enqueue * 1e3, time.step / alone,
        tokens / time.step);
    std::fflush(stdout);
  }

  // Decode times when every slot has seen `tokens` tokens.
  void Context(int tokens, int batch, int steps) {
    const int most = backend->info().max_batched_tokens;
    for (int begin = 0; begin < tokens; begin += most) {
      StepBatch step;
      StepSequence s;
      s.num_tokens = std::min(most, tokens - begin);
      s.reset_state = begin == 0;
      for (int t = 0; t < s.num_tokens; ++t) {
        step.tokens.push_back(
            static_cast<int32_t>((begin + t) * int64_t{7919} % config.vocab_size));
      }
      step.sequences.push_back(s);
      Run(step);
    }
    for (int slot = 1; slot < batch; ++slot) Check(backend->CopyState(0, slot));
    StepBatch first = DecodeBatch(batch, true);
    for (StepSequence& s : first.sequences) s.reset_state = false;
    Run(first);
    const StepTime time = Time(DecodeBatch(batch, false), steps);
    std::printf("context %6d tokens  batch %5d  step %8.3f ms  device %8.3f ms\n", tokens, batch,
                time.step * 1e3, time.device * 1e3);
    std::fflush(stdout);
  }

  // Sequences of 512 tokens (or one shorter one), packed into one step.
  void Prefill(int tokens, int repeats) {
    StepBatch batch;
    SlotSampling sampling;
    sampling.scalars.temperature = 0;
    for (int begin = 0; begin < tokens; begin += 512) {
      StepSequence s;
      s.slot = begin / 512;
      s.token_begin = begin;
      s.num_tokens = std::min(512, tokens - begin);
      s.reset_state = s.sample = true;
      Check(backend->ConfigureSlot(s.slot, sampling));
      batch.sequences.push_back(s);
    }
    for (int t = 0; t < tokens; ++t) batch.tokens.push_back((t * 7919) % config.vocab_size);
    StepResult result;
    std::vector<double> seconds;
    for (int i = -2; i < repeats; ++i) {
      const double begin = Seconds();
      Check(backend->Enqueue(batch));
      Check(backend->Collect(&result));
      if (i >= 0) seconds.push_back(Seconds() - begin);
    }
    std::nth_element(seconds.begin(), seconds.begin() + seconds.size() / 2, seconds.end());
    const double s = seconds[seconds.size() / 2];
    const double d = config.hidden_size, m = config.intermediate_size;
    const double flop = 2.0 * tokens * config.num_layers * (4 * d * d + 3 * d * m);
    std::printf("prefill tokens %6d  step %8.3f ms  %9.0f tok/s  %6.1f TFLOP/s in the products\n",
                tokens, s * 1e3, tokens / s, flop / s * 1e-12);
    std::fflush(stdout);
  }
};

int Main(Options o) {
  Bench bench;
  bench.config = NamedShape(o["model"]);
  if (o["layers"] != "0") bench.config.num_layers = std::stoi(o["layers"]);  // for profilers
  bench.fp8 = o["fp8"] == "1";
  bench.replay = std::stoi(o["replay"]);
  const std::vector<int> decode = ParseList(o["decode"]), prefill = ParseList(o["prefill"]);
  BackendOptions options;
  options.dtype = DType::kBF16;
  options.state_dtype = ParseDType(o["state"]);
  options.state_replay = bench.replay;
  options.fp8_weights = bench.fp8;
  options.num_slots = 32;
  for (const int n : decode) options.num_slots = std::max(options.num_slots, n);
  const std::vector<std::pair<int, int>> mixed = ParsePairs(o["mixed"]);
  for (const auto& [n, tokens] : mixed) options.num_slots = std::max(options.num_slots, n + 1);
  CudaForward::LimitFusedRows(std::stoi(o["fused"]));
  bench.copy_rate = CopyRate();
  double begin = Seconds();
  const ModelWeights weights = SharedRandomWeights(bench.config);
  auto backend = MakeCudaBackend(weights, options);
  Check(backend.status());
  bench.backend = *std::move(backend);
  bench.replay = bench.backend->info().state_replay;
  std::printf(
      "%s  model %s  weights %s  state %s  replay %d  slots %d  load %.1f s  copy %.0f GB/s\n",
      bench.backend->info().device.c_str(), o["model"].c_str(), bench.fp8 ? "fp8" : "bfloat16",
      o["state"].c_str(), bench.replay, bench.backend->info().num_slots, Seconds() - begin,
      bench.copy_rate * 1e-9);
  bench.warm_up = std::stoi(o["warm_up"]);
  const int steps = std::stoi(o["steps"]);
  for (const int batch : decode) {
    if (batch <= bench.backend->info().num_slots) bench.Decode(batch, steps);
  }
  for (const int tokens : prefill) bench.Prefill(tokens, 5);
  for (const auto& [batch, tokens] : mixed) bench.Mixed(batch, tokens, steps);
  for (const int tokens : ParseList(o["context"])) {
    for (const int batch : decode) bench.Context(tokens, batch, steps);
  }
  return 0;
}

}  // namespace
}  // namespace hgrn2::bench

int main(int argc, char** argv) {
  hgrn2::bench::Options options = {
      {"model", "1.3b"},         {"fp8", "0"},         {"state", "float16"},
      {"replay", "0"},           {"steps", "100"},     {"decode", "1,8,64,256"},
      {"prefill", "2048,16384"}, {"fused", "1000000"}, {"layers", "0"},
      {"warm_up", "20"},         {"mixed", ""},        {"context", ""}};
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    const size_t equals = argument.find('=');
    if (equals == std::string::npos || !options.count(argument.substr(0, equals))) {
      std::fprintf(stderr, "unknown argument %s\n", argv[i]);
      return 2;
    }
    options[argument.substr(0, equals)] = argument.substr(equals + 1);
  }
  return hgrn2::bench::Main(options);
}
