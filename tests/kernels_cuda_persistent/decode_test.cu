// The persistent decode kernel against the equations in double precision. Needs only the CUDA
// runtime: no test framework, so that the binary runs on any machine with a GPU. Exit code 77: no
// suitable GPU.
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <memory>

#include "tests/kernels_cuda_persistent/random_model.h"
#include "tests/kernels_cuda_persistent/reference.h"
#include "tests/kernels_cuda_persistent/runner.h"

namespace hgrn2::cuda::test {
namespace {

using persistent::Exchange;

int failures = 0;

void Report(bool ok, const char* name, double value, double bound) {
  std::printf("%s %-58s %.3e (bound %.1e)\n", ok ? "ok  " : "FAIL", name, value, bound);
  std::fflush(stdout);
  if (!ok) ++failures;
}

template <typename A, typename B>
double RelativeError(const A* a, const B* reference, int64_t n) {
  double difference = 0, norm = 0;
  for (int64_t i = 0; i < n; ++i) {
    const double e = static_cast<double>(a[i]) - reference[i];
    difference += e * e;
    norm += static_cast<double>(reference[i]) * reference[i];
  }
  return std::sqrt(difference / norm);  // NaN never compares below a bound
}

struct Case {
  const char* name;
  int64_t d, heads, m, vocab, layers;
  int batch, steps;
  DType state;
  int ring;
  bool fp8;
};

// Sequence j joins at step j % 3: ages, and so places in the ring, differ inside a batch. Entry 1
// of larger batches is padding.
void RunCase(const Case& k) {
  const HostModel model = RandomModel(k.d, k.heads, k.m, k.vocab, k.layers, k.fp8, 5);
  auto device = std::make_unique<DeviceModel>();
  UploadModel(model, device.get());
  RunnerOptions options;
  options.state_dtype = k.state;
  options.ring_length = k.ring;
  options.slots = 37;
  // By flags up to kMaxFlagBatch; barriers give the same bits, see below.
  Runner runner(device->view, options);
  std::vector<ReferenceSequence> rounded, exact;
  for (int j = 0; j < k.batch; ++j) {
    rounded.emplace_back(model, true, k.state, k.ring);
    exact.emplace_back(model, false, k.state, k.ring);
  }
  double worst_rounded = 0, worst_exact = 0;
  auto worse = [](double a, double b) { return a <= b ? b : a; };  // keeps NaN
  for (int step = 0; step < k.steps; ++step) {
    std::vector<int32_t> tokens, slots, who;
    for (int j = 0; j < k.batch; ++j) {
      if (step < j % 3) continue;
      if (who.size() == 1 && k.batch > 2) {
        tokens.push_back(0), slots.push_back(-1), who.push_back(-1);
        if (tokens.size() == size_t(k.batch)) break;
      }
      tokens.push_back((step * 31 + j * 17 + 3) % k.vocab);
      slots.push_back((j * 5 + 2) % options.slots);
      who.push_back(j);
      if (tokens.size() == size_t(k.batch)) break;
    }
    const std::vector<float> logits = runner.Step(tokens, slots);
    for (size_t b = 0; b < who.size(); ++b) {
      if (who[b] < 0) continue;
      const float* got = logits.data() + b * k.vocab;
      worst_rounded =
          worse(RelativeError(got, rounded[who[b]].Step(tokens[b]).data(), k.vocab), worst_rounded);
      worst_exact =
          worse(RelativeError(got, exact[who[b]].Step(tokens[b]).data(), k.vocab), worst_exact);
    }
  }
  char name[128];
  std::snprintf(name, sizeof(name), "%s, against bf16-rounded fp64", k.name);
  // Once a sum falls on the other side of a rounding boundary the two go apart, more with every
  // layer: one step of one layer agrees to 1e-4 and better.
  const double bound = k.layers > 3 ? 2e-2 : 1e-2;
  Report(worst_rounded < bound, name, worst_rounded, bound);
  std::snprintf(name, sizeof(name), "%s, against fp64", k.name);
  Report(worst_exact < 2e-2, name, worst_exact, 2e-2);
}

// The same sequence alone and among others, by either exchange: bitwise equal logits.
void RunBatchIndependence(bool fp8) {
  const HostModel model = RandomModel(512, 4, 1344, 1003, 3, fp8, 9);
  auto device = std::make_unique<DeviceModel>();
  UploadModel(model, device.get());
  std::vector<std::vector<float>> first(9);
  double differing = 0;
  for (const int batch : {1, 2, 5, 8, 16, 32}) {
    for (const Exchange exchange : {Exchange::kBarriers, Exchange::kAuto}) {
      RunnerOptions options;
      options.slots = 32;
      options.ring_length = 4;
      options.exchange = exchange;
      Runner runner(device->view, options);
      for (int step = 0; step < 9; ++step) {
        std::vector<int32_t> tokens, slots;
        for (int b = 0; b < batch; ++b) {
          // Our sequence is the last of the batch, in slot 3.
          const bool ours = b == batch - 1;
          tokens.push_back(ours ? step * 7 + 1 : (step * 13 + b * 29) % 1003);
          slots.push_back(ours ? 3 : b < 3 ? b : b + 1);
        }
        const std::vector<float> logits = runner.Step(tokens, slots);
        std::vector<float> row(logits.end() - 1003, logits.end());
        if (first[step].empty()) {
          first[step] = row;
        } else if (std::memcmp(row.data(), first[step].data(), row.size() * 4) != 0) {
          ++differing;
        }
      }
    }
  }
  Report(differing == 0,
         fp8 ? "a sequence's logits do not depend on its batch, FP8"
             : "a sequence's logits do not depend on its batch",
         differing, 0);
}

// Two runners of one model, one per exchange, that take the same steps.
class Twins {
 public:
  Twins(const ModelView& view, RunnerOptions options) : options_(options), view_(view) {
    options.exchange = Exchange::kBarriers;
    barriers_ = std::make_unique<Runner>(view, options);
    options.exchange = Exchange::kAuto;
    flags_ = std::make_unique<Runner>(view, options);
  }

  Runner& flags() { return *flags_; }

  // Whether one step of both gives the same bits.
  bool Step(const std::vector<int32_t>& tokens, const std::vector<int32_t>& slots) {
    const std::vector<float> a = barriers_->Step(tokens, slots), b = flags_->Step(tokens, slots);
    return std::memcmp(a.data(), b.data(), a.size() * 4) == 0;
  }

  // The number of replays, of graphs of kGraphSteps steps each, after which logits or states
  // differ.
  static constexpr int kGraphSteps = 10;
  int Replay(const std::vector<int32_t>& tokens, const std::vector<int32_t>& slots, int replays,
             bool programmatic) {
    std::vector<float> logits[2];
    cudaGraphExec_t graphs[2];
    cudaStream_t stream;
    CHECK_CUDA(cudaStreamCreate(&stream));
    for (int i = 0; i < 2; ++i) {
      Runner& runner = i == 0 ? *barriers_ : *flags_;
      runner.SetBatch(tokens, slots);
      persistent::DecodeParams p = runner.params();
      p.programmatic = programmatic;
      cudaGraph_t graph;
      CHECK_CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
      for (int s = 0; s < kGraphSteps; ++s) CHECK_CUDA(persistent::LaunchDecode(p, stream));
      CHECK_CUDA(cudaStreamEndCapture(stream, &graph));
      CHECK_CUDA(cudaGraphInstantiate(&graphs[i], graph, 0));
      CHECK_CUDA(cudaGraphDestroy(graph));
      logits[i].resize(tokens.size() * p.shape.vocab);
    }
    int differing = 0;
    for (int replay = 0; replay < replays; ++replay) {
      for (int i = 0; i < 2; ++i) {
        Runner& runner = i == 0 ? *barriers_ : *flags_;
        CHECK_CUDA(cudaGraphLaunch(graphs[i], stream));
        CHECK_CUDA(cudaMemcpyAsync(logits[i].data(), runner.params().logits, logits[i].size() * 4,
                                   cudaMemcpyDeviceToHost, stream));
      }
      CHECK_CUDA(cudaStreamSynchronize(stream));
      if (std::memcmp(logits[0].data(), logits[1].data(), logits[0].size() * 4) != 0) ++differing;
    }
    for (int i = 0; i < 2; ++i) CHECK_CUDA(cudaGraphExecDestroy(graphs[i]));
    CHECK_CUDA(cudaStreamDestroy(stream));
    for (int l = 0; l < view_.num_layers; ++l) differing += !SameStates(l);
    return differing;
  }

 private:
  bool SameStates(int layer) const {
    const size_t bytes =
        size_t(options_.slots) * view_.d * view_.head_dim * SizeOf(options_.state_dtype);
    std::vector<uint8_t> a(bytes), b(bytes);
    CHECK_CUDA(cudaMemcpy(a.data(), barriers_->StateOf(layer), bytes, cudaMemcpyDeviceToHost));
    CHECK_CUDA(cudaMemcpy(b.data(), flags_->StateOf(layer), bytes, cudaMemcpyDeviceToHost));
    return a == b;
  }

  const RunnerOptions options_;
  const ModelView view_;
  std::unique_ptr<Runner> barriers_, flags_;
};

// 200 steps from CUDA graphs: nothing clears flags between steps, and steps overlap where one is
// launched as the other's programmatic dependent.
void RunExchanges(const char* name, int64_t d, int64_t heads, int64_t m, int64_t layers, bool fp8) {
  const HostModel model = RandomModel(d, heads, m, 515, layers, fp8, 21);
  auto device = std::make_unique<DeviceModel>();
  UploadModel(model, device.get());
  RunnerOptions options;
  options.slots = 16;
  Twins twins(device->view, options);
  int differing = 0;
  bool programmatic = false;
  // 5: a step without flags must leave nothing that looks like one.
  for (const int batch : {1, 2, 2, 5, 1, 2}) {
    std::vector<int32_t> tokens, slots;
    for (int b = 0; b < batch; ++b) {
      tokens.push_back((b * 37 + batch) % 515);
      const bool padding = b == (programmatic ? 0 : 1) && batch > 1;
      slots.push_back(padding ? -1 : (b + batch) % options.slots);
    }
    differing += twins.Replay(tokens, slots, 20, programmatic);
    programmatic = !programmatic;
  }
  char text[128];
  std::snprintf(text, sizeof(text), "flags and barriers, 6 x 200 steps, %s", name);
  Report(differing == 0, text, differing, 0);
}

// Flags are numbers that come round again: a row of cells that only a larger batch used long ago
// must not be taken for this step's.
void RunFlagsComeRound() {
  const HostModel model = RandomModel(512, 4, 1344, 515, 3, false, 23);
  auto device = std::make_unique<DeviceModel>();
  UploadModel(model, device.get());
  Twins twins(device->view, RunnerOptions{});
  auto* header = static_cast<persistent::WorkspaceHeader*>(twins.flags().params().workspace);
  auto set_flag = [&](uint32_t flag) {
    CHECK_CUDA(cudaMemcpy(&header->flag, &flag, sizeof(flag), cudaMemcpyHostToDevice));
  };
  int differing = 0, token = 0;
  auto step = [&](int batch) {
    std::vector<int32_t> tokens, slots;
    for (int b = 0; b < batch; ++b) tokens.push_back(++token % 515), slots.push_back(b);
    differing += !twins.Step(tokens, slots);
  };
  set_flag(1000);
  step(persistent::kMaxFlagBatch);
  for (const uint32_t flag : {0x80000000u - 40, 0u - 80}) {
    set_flag(flag);
    for (int i = 0; i < 6; ++i) step(1);
  }
  uint32_t flag = 0;
  CHECK_CUDA(cudaMemcpy(&flag, &header->flag, sizeof(flag), cudaMemcpyDeviceToHost));
  if (flag > 1000) ++differing;  // it did not come round
  set_flag(1000);
  step(persistent::kMaxFlagBatch);
  Report(differing == 0, "flags come round", differing, 0);
}

int Main(int argc, char** argv) {
  int device = 0, major = 0;
  if (cudaGetDeviceCount(&device) != cudaSuccess || device == 0) return 77;
  CHECK_CUDA(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0));
  if (major != 9) return 77;
  constexpr DType f32 = DType::kF32, f16 = DType::kF16, bf16 = DType::kBF16;
  const Case cases[] = {
      {"d 128, 1 head, batch 1, f32", 128, 1, 192, 131, 2, 1, 3, f32, 1, false},
      {"d 256, 4 heads, batch 3, f16 N 16", 256, 4, 448, 1001, 3, 3, 40, f16, 16, false},
      {"d 512, 4 heads, batch 8, f16 N 4", 512, 4, 1344, 1000, 2, 8, 12, f16, 4, false},
      {"d 320, 10 heads of 32, batch 5, bf16", 320, 10, 832, 517, 2, 5, 6, bf16, 1, false},
      {"d 2048, 16 heads, batch 2, f16 N 32", 2048, 16, 5632, 4000, 1, 2, 3, f16, 32, false},
      {"d 512, 4 heads, batch 13, f32 N 8", 512, 4, 1344, 1000, 2, 13, 12, f32, 8, false},
      {"d 384, 3 heads, batch 32, f16 N 16", 384, 3, 960, 777, 2, 32, 20, f16, 16, false},
      {"d 256, 4 heads, batch 3, f16 N 16, FP8", 256, 4, 448, 1001, 3, 3, 20, f16, 16, true},
      {"d 512, 4 heads, batch 8, f32, FP8", 512, 4, 1344, 1000, 2, 8, 4, f32, 1, true},
      {"d 384, 3 heads, batch 19, f16 N 4, FP8", 384, 3, 960, 777, 2, 19, 6, f16, 4, true},
  };
  const bool full = argc > 1 && std::strcmp(argv[1], "full") == 0;
  if (full) {
    RunCase({"1.3B, batch 2, f16 N 16", 2048, 16, 5632, 32000, 24, 2, 2, f16, 16, false});
  } else if (argc > 1) {  // only the cases of these indices: for slow tools like compute-sanitizer
    for (int i = 1; i < argc; ++i) {
      const size_t index = std::strtoul(argv[i], nullptr, 10);
      if (index < std::size(cases)) RunCase(cases[index]);
    }
  } else {
    for (const Case& c : cases) RunCase(c);
    RunBatchIndependence(false);
    RunBatchIndependence(true);
    // Far fewer tiles than blocks; then most blocks have some.
    RunExchanges("d 128, 1 head", 128, 1, 192, 2, false);
    RunExchanges("d 256, 4 heads, FP8", 256, 4, 448, 3, true);
    RunExchanges("d 2048, 16 heads", 2048, 16, 2816, 2, false);
    RunExchanges("d 2048, 16 heads, FP8", 2048, 16, 2816, 2, true);
    RunFlagsComeRound();
  }
  std::printf(failures == 0 ? "PASS\n" : "%d FAILED\n", failures);
  return failures == 0 ? 0 : 1;
}

}  // namespace
}  // namespace hgrn2::cuda::test

int main(int argc, char** argv) { return hgrn2::cuda::test::Main(argc, argv); }
