// Time of one persistent decode step on dummy weights, next to its byte floor.
//
//   cuda_persistent_bench [--model 1.3b|2.9b] [--fp8] [--batch 1,8] [--state float16|float32]
//   [--replay 16]
//                [--inflight 0,48] [--exchange auto,barriers] [--pdl] [--trace]
//   cuda_persistent_bench --ceilings     read bandwidth of plain loads and of bulk copies, grid
//   barrier
//
// Steps run back to back from a CUDA graph of 10, so that launch overhead is what a serving loop
// sees; the figure is the median over replays divided by 10.
#include <cstring>
#include <memory>
#include <sstream>
#include <string>

#include "bench/cuda_persistent/ceilings.h"
#include "tests/kernels_cuda_persistent/runner.h"

namespace hgrn2::cuda::test {
namespace {

struct Options {
  std::string model = "1.3b";
  bool fp8 = false, trace = false, programmatic = false, ceilings = false;
  std::vector<int> batches = {1, 8}, inflight = {0};
  std::vector<persistent::Exchange> exchanges = {persistent::Exchange::kAuto};
  DType state = DType::kF16;
  int replay = 16;
  int replays = 12;
};

__global__ void FillNoise(uint32_t* out, int64_t words, int kind, uint32_t seed, float amplitude) {
  for (int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; i < words;
       i += int64_t{gridDim.x} * blockDim.x) {
    uint64_t z = (static_cast<uint64_t>(seed) << 40) + i;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    z ^= z >> 31;
    const uint32_t lo = static_cast<uint32_t>(z), hi = static_cast<uint32_t>(z >> 32);
    auto noise = [&](uint32_t bits) {
      return ((bits >> 8) * (2.0f / 16777216.0f) - 1.0f) * amplitude;
    };
    if (kind == 0) {
      out[i] = __float_as_uint(1.0f + noise(lo));
    } else if (kind == 1) {
      const __nv_bfloat162 v = __floats2bfloat162_rn(noise(lo), noise(hi));
      out[i] = *reinterpret_cast<const uint32_t*>(&v);
    } else {
      out[i] = lo & 0xf7f7f7f7u;  // e4m3 without NaN
    }
  }
}

template <typename T>
T* Random(int64_t bytes, int kind, float amplitude) {
  static uint32_t seed = 1;
  void* p = nullptr;
  CHECK_CUDA(cudaMalloc(&p, bytes));
  FillNoise<<<1024, 256>>>(static_cast<uint32_t*>(p), bytes / 4, kind, seed++, amplitude);
  CHECK_CUDA(cudaGetLastError());
  return static_cast<T*>(p);
}

MatrixView RandomWeights(int64_t rows, int64_t cols, bool fp8) {
  MatrixView v;
  v.rows = rows, v.cols = cols;
  v.type = fp8 ? DType::kF8E4M3 : DType::kBF16;
  v.data = Random<void>(rows * cols * (fp8 ? 1 : 2), fp8 ? 2 : 1, 1.7f / std::sqrt(float(cols)));
  if (fp8) {
    v.scale = Upload(std::vector<float>(rows, 0.01f / std::sqrt(static_cast<float>(cols))));
  }
  return v;
}

void MakeModel(const Options& o, DeviceModel* out) {
  ModelView& v = out->view;
  v.d = o.model == "2.9b" ? 2560 : 2048;
  v.m = o.model == "2.9b" ? 6912 : 5632;
  v.num_layers = o.model == "2.9b" ? 32 : 24;
  v.head_dim = 128;
  v.heads = v.d / 128;
  v.vocab = 32000;
  for (int l = 0; l < v.num_layers; ++l) {
    LayerView y;
    y.qfi = RandomWeights(3 * v.d, v.d, o.fp8);
    y.o = RandomWeights(v.d, v.d, o.fp8);
    y.gate_up = RandomWeights(2 * v.m, v.d, o.fp8);
    y.down = RandomWeights(v.d, v.m, o.fp8);
    y.attn_norm = Random<float>(v.d * 4, 0, 0.2f);
    y.g_norm = Random<float>(v.d * 4, 0, 0.2f);
    y.mlp_norm = Random<float>(v.d * 4, 0, 0.2f);
    y.lower_bound = Upload(std::vector<float>(v.d, l == 0 ? 0.0f : 0.5f));
    out->layers.push_back(y);
  }
  v.layers = out->layers.data();
  v.embeddings = Random<void>(int64_t{v.vocab} * v.d * 2, 1, 1.0f);
  v.lm_head = RandomWeights(v.vocab, v.d, false);
  v.final_norm = Random<float>(v.d * 4, 0, 0.2f);
}

double MedianStepMs(const Runner& runner, const persistent::DecodeParams& params, int replays) {
  constexpr int kSteps = 10;
  cudaStream_t stream;
  CHECK_CUDA(cudaStreamCreate(&stream));
  CHECK_CUDA(persistent::LaunchDecode(params, stream));
  CHECK_CUDA(cudaStreamSynchronize(stream));
  cudaGraph_t graph;
  cudaGraphExec_t exec;
  CHECK_CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  for (int i = 0; i < kSteps; ++i) CHECK_CUDA(persistent::LaunchDecode(params, stream));
  CHECK_CUDA(cudaStreamEndCapture(stream, &graph));
  CHECK_CUDA(cudaGraphInstantiate(&exec, graph, 0));
  cudaEvent_t a, b;
  CHECK_CUDA(cudaEventCreate(&a));
  CHECK_CUDA(cudaEventCreate(&b));
  std::vector<float> times;
  for (int i = 0; i < replays; ++i) {
    CHECK_CUDA(cudaEventRecord(a, stream));
    CHECK_CUDA(cudaGraphLaunch(exec, stream));
    CHECK_CUDA(cudaEventRecord(b, stream));
    CHECK_CUDA(cudaStreamSynchronize(stream));
    float ms = 0;
    CHECK_CUDA(cudaEventElapsedTime(&ms, a, b));
    if (i >= 2) times.push_back(ms / kSteps);
  }
  std::sort(times.begin(), times.end());
  CHECK_CUDA(cudaGraphExecDestroy(exec));
  CHECK_CUDA(cudaGraphDestroy(graph));
  return times[times.size() / 2];
}

// Bytes a step must read and write, with replay averaged over its period.
double StepBytes(const persistent::DecodeParams& p, int batch) {
  const persistent::ModelShape& s = p.shape;
  double weights = 0;
  for (int l = 0; l < s.layers; ++l)
    weights += (4.0 * s.d * s.d + 3.0 * s.d * s.m) * (s.fp8 ? 1 : 2);
  weights += 2.0 * s.vocab * s.d;
  const double state = double(s.layers) * s.d * p.head_dim * SizeOf(p.state_dtype);
  if (p.ring_length <= 1) return weights + batch * 2 * state;
  const double ring = double(s.layers) * 2 * s.d * 2;  // one token
  const double n = p.ring_length;
  return weights + batch * (state + state / n + ring * (n - 1) / 2 + ring * (n - 1) / n);
}

void PrintTrace(const persistent::DecodeParams& p, int64_t* device) {
  const int capacity = p.trace_capacity;
  std::vector<int64_t> t(int64_t{p.blocks} * capacity);
  CHECK_CUDA(cudaMemcpy(t.data(), device, t.size() * 8, cudaMemcpyDeviceToHost));
  const char* names[] = {"qfi", "state", "o", "gate_up", "down"};
  for (int phase = 0; phase < 5; ++phase) {
    double work = 0, wait = 0, least_wait = 0, most_work = 0;
    int n = 0;
    for (int l = 1; l < p.shape.layers; ++l) {
      // Entry 0: arrival after the embedding, 1: departure; then pairs.
      const int at = 1 + 2 * (l * 5 + phase);
      double least = 1e18, most = 0;
      for (int b = 0; b < p.blocks; ++b) {
        const int64_t* row = t.data() + int64_t{b} * capacity;
        const double w = row[at + 1] - row[at], g = row[at + 2] - row[at + 1];
        work += w, wait += g, ++n;
        least = std::min(least, g);
        most = std::max(most, w);
      }
      least_wait += least, most_work += most;
    }
    std::printf("  trace %-8s work mean %6.0f max %6.0f  barrier mean %6.0f min %6.0f clocks\n",
                names[phase], work / n, most_work / (p.shape.layers - 1), wait / n,
                least_wait / (p.shape.layers - 1));
  }
  // What limits the fetching thread: a full ring or memory. Over the whole step, the head included.
  double full = 0, landing = 0, step = 0;
  for (int b = 0; b < p.blocks; ++b) {
    const int64_t* row = t.data() + int64_t{b} * capacity;
    full += row[capacity - 2], landing += row[capacity - 1];
    step += row[2 * p.shape.layers * 5 + 1] - row[0];
  }
  std::printf(
      "  trace fetching: ring full %.0f, bytes landing %.0f of %.0f clocks up to the head\n",
      full / p.blocks, landing / p.blocks, step / p.blocks);
}

void Run(const Options& o) {
  DeviceModel model;
  MakeModel(o, &model);
  RunnerOptions options;
  options.state_dtype = o.state;
  options.ring_length = o.replay;
  Runner runner(model.view, options);
  for (const int batch : o.batches) {
    std::vector<int32_t> tokens(batch), slots(batch);
    for (int b = 0; b < batch; ++b) tokens[b] = 1 + 977 * b % 31000, slots[b] = b;
    runner.SetBatch(tokens, slots);
    for (const int inflight : o.inflight) {
      for (const persistent::Exchange exchange : o.exchanges) {
        persistent::DecodeParams p = runner.params();
        p.inflight_kib = inflight;
        p.exchange = exchange;
        p.programmatic = o.programmatic;
        const double ms = MedianStepMs(runner, p, o.replays);
        const double bytes = StepBytes(p, batch);
        std::printf(
            "%s %s state %s N %d batch %2d inflight %2d KiB %-8s: %.4f ms  %.3f GB  %.0f GB/s  "
            "floor@3.0TB/s %.3f ms (%.1f %%)  %.0f tok/s\n",
            o.model.c_str(), o.fp8 ? "fp8" : "bf16", Name(o.state), o.replay, batch, inflight,
            persistent::WithFlags(p) ? "flags" : "barriers", ms, bytes * 1e-9, bytes * 1e-6 / ms,
            bytes / 3.0e9, bytes / 3.0e9 / ms * 100, batch / ms * 1e3);
        std::fflush(stdout);
        if (o.trace) {
          p.trace_capacity = 12 * p.shape.layers + 8;
          p.trace =
              static_cast<int64_t*>(Runner::Allocate(int64_t{p.blocks} * p.trace_capacity * 8, 0));
          CHECK_CUDA(persistent::LaunchDecode(p, nullptr));
          CHECK_CUDA(cudaDeviceSynchronize());
          PrintTrace(p, p.trace);
          CHECK_CUDA(cudaFree(p.trace));
        }
      }
    }
  }
}

std::vector<persistent::Exchange> Exchanges(const std::string& text) {
  std::vector<persistent::Exchange> v;
  std::stringstream in(text);
  for (std::string item; std::getline(in, item, ',');) {
    v.push_back(item == "barriers" ? persistent::Exchange::kBarriers : persistent::Exchange::kAuto);
  }
  return v;
}

std::vector<int> Numbers(const char* text) {
  std::vector<int> v;
  std::stringstream in(text);
  for (std::string item; std::getline(in, item, ',');) v.push_back(std::atoi(item.c_str()));
  return v;
}

int Main(int argc, char** argv) {
  Options o;
  for (int i = 1; i < argc; ++i) {
    const std::string flag = argv[i];
    if (flag == "--fp8")
      o.fp8 = true;
    else if (flag == "--trace")
      o.trace = true;
    else if (flag == "--pdl")
      o.programmatic = true;
    else if (flag == "--ceilings")
      o.ceilings = true;
    else if (i + 1 == argc)
      return std::fprintf(stderr, "unknown flag or no value: %s\n", argv[i]), 2;
    else if (flag == "--model")
      o.model = argv[++i];
    else if (flag == "--batch")
      o.batches = Numbers(argv[++i]);
    else if (flag == "--inflight")
      o.inflight = Numbers(argv[++i]);
    else if (flag == "--exchange")
      o.exchanges = Exchanges(argv[++i]);
    else if (flag == "--replay")
      o.replay = std::atoi(argv[++i]);
    else if (flag == "--state")
      o.state = std::strcmp(argv[++i], "float32") == 0 ? DType::kF32 : DType::kF16;
    else
      return std::fprintf(stderr, "unknown flag %s\n", argv[i]), 2;
  }
  if (o.ceilings) return MeasureCeilings();
  Run(o);
  return 0;
}

}  // namespace
}  // namespace hgrn2::cuda::test

int main(int argc, char** argv) { return hgrn2::cuda::test::Main(argc, argv); }
