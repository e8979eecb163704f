// Time, bandwidth and share of the byte floor of the recurrence kernels, for the 1.3B shape: 24
// layers, d = 2048, 16 heads of 128. Every layer has its own states, so that no cache helps.
//
//   cuda_recurrence_bench [decode] [replay] [mixed] [one] [prefill] [conv]     (nothing: all)
//
// mixed: replay's two ways of distributing its work, alone and beside the prefill of a short prompt
// on another stream, launched as a step launches them.
//
// A decode step is a graph of 24 layers' kernels; the median of its replays. The floor is the bytes
// that must move over the measured read bandwidth (or copy bandwidth where the state is also
// written).
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <utility>
#include <vector>

#include "kernels/cuda/common.cuh"
#include "kernels/cuda/recurrence/recurrence.h"

namespace hgrn2::cuda {
namespace {

constexpr int kLayers = 24, kHeads = 16, kHeadDim = 128, kD = kHeads * kHeadDim;

#define CHECK_CUDA(expr)                                                                         \
  do {                                                                                           \
    const cudaError_t e_ = (expr);                                                               \
    if (e_ != cudaSuccess) {                                                                     \
      std::fprintf(stderr, "%s:%d %s: %s\n", __FILE__, __LINE__, #expr, cudaGetErrorString(e_)); \
      std::exit(1);                                                                              \
    }                                                                                            \
  } while (false)

struct DeviceMemory {
  explicit DeviceMemory(size_t n) : bytes(n) {
    if (n > 0) CHECK_CUDA(cudaMalloc(&data, n));
  }
  DeviceMemory(DeviceMemory&& other) noexcept : data(other.data), bytes(other.bytes) {
    other.data = nullptr;
  }
  DeviceMemory& operator=(DeviceMemory&& other) noexcept {
    std::swap(data, other.data);
    std::swap(bytes, other.bytes);
    return *this;
  }
  ~DeviceMemory() { cudaFree(data); }
  template <typename T>
  T* as() const {
    return static_cast<T*>(data);
  }
  void* data = nullptr;
  size_t bytes = 0;
};

__device__ uint32_t Hash(uint64_t i) {
  uint32_t h = static_cast<uint32_t>(i ^ (i >> 32)) * 0x9E3779B9u;
  h = (h ^ (h >> 16)) * 0x7FEB352Du;
  h = (h ^ (h >> 15)) * 0x846CA68Bu;
  return h ^ (h >> 16);
}
// Random words whose masked bits keep every element finite.
__global__ void FillBits(uint32_t* to, size_t n, uint32_t mask) {
  for (size_t i = blockIdx.x * static_cast<size_t>(blockDim.x) + threadIdx.x; i < n;
       i += static_cast<size_t>(gridDim.x) * blockDim.x)
    to[i] = Hash(i) & mask;
}
template <typename T>
__global__ void FillUniform(T* to, size_t n, float low, float high) {
  for (size_t i = blockIdx.x * static_cast<size_t>(blockDim.x) + threadIdx.x; i < n;
       i += static_cast<size_t>(gridDim.x) * blockDim.x)
    to[i] = static_cast<T>(low + (high - low) * (Hash(i) * 2.3283064e-10f));
}
// f of a share of the channels far below zero: gates that are almost closed.
__global__ void CloseChannels(__nv_bfloat16* qfi, size_t tokens, int every) {
  for (size_t i = blockIdx.x * static_cast<size_t>(blockDim.x) + threadIdx.x; i < tokens * kD;
       i += static_cast<size_t>(gridDim.x) * blockDim.x)
    if (i % kD % every == 0) qfi[i / kD * 3 * kD + kD + i % kD] = __float2bfloat16(-25.0f);
}
__global__ void ReadAll(const uint4* from, size_t n, uint32_t* sink) {
  uint32_t sum = 0;
  const size_t stride = static_cast<size_t>(gridDim.x) * blockDim.x;
  size_t i = blockIdx.x * static_cast<size_t>(blockDim.x) + threadIdx.x;
  for (; i + 7 * stride < n; i += 8 * stride) {
    uint4 x[8];
#pragma unroll
    for (int j = 0; j < 8; ++j) x[j] = __ldcs(from + i + j * stride);
#pragma unroll
    for (int j = 0; j < 8; ++j) sum ^= x[j].x ^ x[j].y ^ x[j].z ^ x[j].w;
  }
  if (sum == 0x12345678u) *sink = sum;
}

__global__ void CopyAll(const uint4* from, uint4* to, size_t n) {
  const size_t stride = static_cast<size_t>(gridDim.x) * blockDim.x;
  size_t i = blockIdx.x * static_cast<size_t>(blockDim.x) + threadIdx.x;
  for (; i + 7 * stride < n; i += 8 * stride) {
    uint4 x[8];
#pragma unroll
    for (int j = 0; j < 8; ++j) x[j] = __ldcs(from + i + j * stride);
#pragma unroll
    for (int j = 0; j < 8; ++j) __stcs(to + i + j * stride, x[j]);
  }
}

template <typename T>
DeviceMemory Uniform(size_t n, float low, float high) {
  DeviceMemory memory(n * sizeof(T));
  FillUniform<<<1024, 256>>>(memory.as<T>(), n, low, high);
  return memory;
}
DeviceMemory Bits(size_t bytes, uint32_t mask) {
  DeviceMemory memory(bytes);
  if (bytes > 0) FillBits<<<1024, 256>>>(memory.as<uint32_t>(), bytes / 4, mask);
  return memory;
}
template <typename T>
DeviceMemory Upload(const std::vector<T>& host) {
  DeviceMemory memory(host.size() * sizeof(T));
  CHECK_CUDA(cudaMemcpy(memory.data, host.data(), memory.bytes, cudaMemcpyDefault));
  return memory;
}

// Median seconds of `work`, captured as a graph and replayed.
double MedianSeconds(const std::function<void(cudaStream_t)>& work, int replays) {
  cudaStream_t stream;
  CHECK_CUDA(cudaStreamCreate(&stream));
  cudaGraph_t graph;
  cudaGraphExec_t exec;
  CHECK_CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  work(stream);
  CHECK_CUDA(cudaStreamEndCapture(stream, &graph));
  CHECK_CUDA(cudaGraphInstantiate(&exec, graph, 0));
  std::vector<cudaEvent_t> events(replays + 1);
  for (cudaEvent_t& event : events) CHECK_CUDA(cudaEventCreate(&event));
  for (int i = 0; i < 3; ++i) CHECK_CUDA(cudaGraphLaunch(exec, stream));
  CHECK_CUDA(cudaEventRecord(events[0], stream));
  for (int i = 0; i < replays; ++i) {
    CHECK_CUDA(cudaGraphLaunch(exec, stream));
    CHECK_CUDA(cudaEventRecord(events[i + 1], stream));
  }
  CHECK_CUDA(cudaStreamSynchronize(stream));
  std::vector<float> ms(replays);
  for (int i = 0; i < replays; ++i)
    CHECK_CUDA(cudaEventElapsedTime(&ms[i], events[i], events[i + 1]));
  for (cudaEvent_t event : events) CHECK_CUDA(cudaEventDestroy(event));
  CHECK_CUDA(cudaGraphExecDestroy(exec));
  CHECK_CUDA(cudaGraphDestroy(graph));
  CHECK_CUDA(cudaStreamDestroy(stream));
  std::sort(ms.begin(), ms.end());
  return ms[replays / 2] * 1e-3;
}

struct Bandwidth {
  double read = 0, copy = 0;  // bytes/s
};

Bandwidth MeasureBandwidth() {
  constexpr size_t kBytes = size_t{4} << 30;
  const DeviceMemory from = Bits(kBytes, ~0u), to(kBytes), sink(4);
  Bandwidth result;
  result.read = kBytes / MedianSeconds(
                             [&](cudaStream_t stream) {
                               ReadAll<<<132 * 8, 256, 0, stream>>>(from.as<uint4>(), kBytes / 16,
                                                                    sink.as<uint32_t>());
                             },
                             9);
  result.copy =
      2.0 * kBytes /
      MedianSeconds(
          [&](cudaStream_t stream) {
            CopyAll<<<132 * 8, 256, 0, stream>>>(from.as<uint4>(), to.as<uint4>(), kBytes / 16);
          },
          9);
  std::printf("read %.0f GB/s, copy %.0f GB/s (read + written)\n", result.read / 1e9,
              result.copy / 1e9);
  return result;
}

// Finite random bits of a state dtype.
uint32_t FiniteMask(DType type) {
  switch (type) {
    case DType::kF32:
      return 0xBFFFFFFFu;
    case DType::kF16:
      return 0xBBFFBBFFu;
    case DType::kBF16:
      return 0xBFFFBFFFu;
    case DType::kF8E4M3:
      return 0xBFBFBFBFu;
  }
  return 0;
}

// All layers' states of `batch` sequences, and a token for each.
struct DecodeData {
  DecodeData(DType dtype, int replay, int batch, bool same_age)
      : dtype(dtype), replay(replay), batch(batch) {
    const size_t elements = static_cast<size_t>(batch) * kD * kHeadDim;
    for (int l = 0; l < kLayers; ++l) {
      states.push_back(Bits(elements * SizeOf(dtype), FiniteMask(dtype)));
      scales.push_back(Uniform<float>(dtype == DType::kF8E4M3 ? static_cast<size_t>(batch) * kD : 1,
                                      0.001f, 0.01f));
      rings.push_back(
          Uniform<__nv_bfloat16>(ReplayRingBytes(batch, replay, kD, DType::kBF16) / 2, -2, 4));
    }
    std::vector<int32_t> slot_list(batch), age_list(batch);
    for (int b = 0; b < batch; ++b)
      slot_list[b] = (b * 37 + 11) % batch, age_list[b] = same_age ? 64 : b * 29 + 64;
    slots = Upload(slot_list), ages = Upload(age_list);
  }

  DecodeStepParams Layer(int l) const {
    DecodeStepParams p;
    p.qfi = qfi.data;
    p.o = o.data;
    p.sum_squares = squares.as<float>();
    p.lower_bound = bound.as<float>();
    p.slots = slots.as<int32_t>();
    p.state = {states[l].data, scales[l].as<float>(), dtype};
    p.ring = {rings[l].data, ages.as<int32_t>(), replay, l % replay};
    p.batch = batch;
    p.num_heads = kHeads;
    p.head_dim = kHeadDim;
    return p;
  }
  void Advance(cudaStream_t stream) const {
    CHECK_CUDA(
        LaunchAdvanceAges({ages.as<int32_t>(), slots.as<int32_t>(), nullptr, batch}, stream));
  }

  DType dtype;
  int replay, batch;
  std::vector<DeviceMemory> states, scales, rings;
  DeviceMemory slots{0}, ages{0};
  DeviceMemory qfi = Uniform<__nv_bfloat16>(static_cast<size_t>(batch) * 3 * kD, -2, 4);
  DeviceMemory o{static_cast<size_t>(batch) * kD * 2}, squares{static_cast<size_t>(batch) * kD / 4};
  DeviceMemory bound = Uniform<float>(kD, 0, 0.8f);
};

void BenchDecode(DType dtype, int replay, int batch, bool same_age, const Bandwidth& bandwidth) {
  const DecodeData data(dtype, replay, batch, same_age);
  const double seconds = MedianSeconds(
      [&](cudaStream_t stream) {
        for (int l = 0; l < kLayers; ++l) {
          DecodeStepParams p = data.Layer(l);
          p.programmatic = l > 0;
          CHECK_CUDA(LaunchDecodeStep(p, stream));
        }
        data.Advance(stream);
      },
      33);
  const double row = static_cast<double>(batch) * kLayers * kD;
  const double state_bytes = row * (kHeadDim * SizeOf(dtype) + (dtype == DType::kF8E4M3 ? 4 : 0));
  const double read = state_bytes + row * (replay - 1) / 2.0 * 4 + row * 6;
  const double written = state_bytes / replay + (replay > 1 ? row * 4 : 0) + row * 2.25;
  // Writes cost what the copy shows beyond the reads.
  const double floor = replay > 1 ? read / bandwidth.read + written / bandwidth.copy
                                  : (read + written) / bandwidth.copy;
  std::printf("decode %-8s N=%-2d B=%-4d%s %9.1f us/step %8.0f GB/s  floor %8.1f us  %5.1f %%\n",
              Name(dtype), replay, batch, same_age ? " same age" : "         ", seconds * 1e6,
              (read + written) / seconds / 1e9, floor * 1e6, 100 * floor / seconds);
}

// The recurrence of a mixed step: one prompt of `tokens` tokens (0: none), then the decodes beside
// it.
void BenchMixed(DType dtype, int replay, int batch, int tokens) {
  const DecodeData data(dtype, replay, batch, false);
  const std::vector<PrefillSequence> prompt = {{0, std::max(tokens, 1), 0, true}};
  const PrefillPlan plan = PlanPrefill(prompt, kHeadDim, DType::kBF16, dtype);
  const DeviceMemory items = Upload(plan.items),
                     workspace(PrefillWorkspaceBytes(plan.num_workspace_states, kHeads, kHeadDim));
  const DeviceMemory qfi =
      Uniform<__nv_bfloat16>(static_cast<size_t>(std::max(tokens, 1)) * 3 * kD, -2, 4);
  const DeviceMemory o(static_cast<size_t>(std::max(tokens, 1)) * kD * 2),
      state(static_cast<size_t>(kD) * kHeadDim * 2), scales(kD * sizeof(float));
  PrefillParams prefill;
  prefill.qfi = qfi.data;
  prefill.o = o.data;
  prefill.lower_bound = data.bound.as<float>();
  prefill.items = items.as<PrefillItem>();
  prefill.workspace = workspace.data;
  prefill.state = {state.data, scales.as<float>(), dtype};
  prefill.num_items = static_cast<int32_t>(plan.items.size());
  prefill.has_long_sequences = plan.has_long_sequences;
  prefill.num_heads = kHeads;
  prefill.head_dim = kHeadDim;
  const DeviceMemory counters = Upload(std::vector<uint32_t>{0, 0});
  prefill.programmatic = true;
  double seconds[2];
  for (const bool claimed : {false, true}) {
    seconds[claimed] = MedianSeconds(
        [&](cudaStream_t stream) {
          for (int l = 0; l < kLayers; ++l) {
            if (tokens > 0) CHECK_CUDA(LaunchPrefill(prefill, stream));
            DecodeStepParams p = data.Layer(l);
            p.programmatic = true;
            p.after_prefill = tokens > 0;
            if (claimed) p.work_counters = counters.as<uint32_t>();
            if (tokens > 0 && tokens <= 64) p.late_processors = kHeads;
            CHECK_CUDA(LaunchDecodeStep(p, stream));
          }
          data.Advance(stream);
        },
        33);
  }
  std::printf("mixed %-8s N=%-2d B=%-4d + %4d tokens  fixed parts %8.1f us/step  claimed %8.1f\n",
              Name(dtype), replay, batch, tokens, seconds[0] * 1e6, seconds[1] * 1e6);
}

void BenchPrefill(int tokens, int prompts, DType activation, int closed_every,
                  const Bandwidth& bandwidth) {
  const size_t element = SizeOf(activation);
  constexpr int kSets = 3;  // rotated: 3 * 16384 * 6144 * 2 bytes do not fit in the cache
  std::vector<DeviceMemory> inputs;
  for (int i = 0; i < kSets; ++i) {
    const size_t n = static_cast<size_t>(tokens) * 3 * kD;
    if (activation == DType::kF32) {
      inputs.push_back(Uniform<float>(n, -2, 4));
    } else {
      inputs.push_back(Uniform<__nv_bfloat16>(n, -2, 4));
      if (closed_every > 0)
        CloseChannels<<<1024, 256>>>(inputs.back().as<__nv_bfloat16>(), tokens, closed_every);
    }
  }
  std::vector<PrefillSequence> sequences;
  for (int s = 0; s < prompts; ++s)
    sequences.push_back({tokens / prompts * s, tokens / prompts, s, true});
  const PrefillPlan plan = PlanPrefill(sequences, kHeadDim, activation, DType::kF16);
  const DeviceMemory items = Upload(plan.items), o(static_cast<size_t>(tokens) * kD * element);
  const DeviceMemory bound = Uniform<float>(kD, 0, 0.8f);
  const DeviceMemory workspace(PrefillWorkspaceBytes(plan.num_workspace_states, kHeads, kHeadDim));
  const DeviceMemory states(static_cast<size_t>(prompts) * kD * kHeadDim * 2);
  const double seconds = MedianSeconds(
                             [&](cudaStream_t stream) {
                               for (int i = 0; i < kSets; ++i) {
                                 PrefillParams p;
                                 p.qfi = inputs[i].data;
                                 p.o = o.data;
                                 p.lower_bound = bound.as<float>();
                                 p.items = items.as<PrefillItem>();
                                 p.workspace = workspace.data;
                                 p.state = {states.data, nullptr, DType::kF16};
                                 p.num_items = static_cast<int32_t>(plan.items.size());
                                 p.has_long_sequences = plan.has_long_sequences;
                                 p.num_heads = kHeads;
                                 p.head_dim = kHeadDim;
                                 p.activation = activation;
                                 CHECK_CUDA(LaunchPrefill(p, stream));
                               }
                             },
                             7) /
                         kSets;
  const double bytes = static_cast<double>(tokens) * kD * (4 * element + 0.25) +
                       static_cast<double>(prompts) * kD * kHeadDim * 2;
  const double floor = bytes / bandwidth.copy;
  std::printf(
      "prefill %-8s %5d tokens, %2d prompts%s %9.1f us/layer %6.0f GB/s  floor %6.1f us  %5.1f %%  "
      "(24 layers: %.0f tok/s)\n",
      Name(activation), tokens, prompts, closed_every > 0 ? " (closed gates)" : "", seconds * 1e6,
      bytes / seconds / 1e9, floor * 1e6, 100 * floor / seconds, tokens / (24 * seconds));
}

void BenchConv(const Bandwidth& bandwidth) {
  constexpr int kTaps = 4;
  const DeviceMemory weight = Uniform<float>(3 * kD * kTaps, -1, 1);
  for (const int tokens : {256, 16384}) {
    const bool decode = tokens == 256;
    const int slots = decode ? tokens : 8;
    std::vector<DeviceMemory> x, state;
    constexpr int kSets = 24;
    for (int i = 0; i < kSets; ++i) {
      x.push_back(Uniform<__nv_bfloat16>(static_cast<size_t>(tokens) * 3 * kD, -2, 4));
      state.push_back(
          Uniform<__nv_bfloat16>(static_cast<size_t>(slots) * 3 * kD * (kTaps - 1), -2, 4));
    }
    const DeviceMemory y(x[0].bytes);
    std::vector<int32_t> slot_list(slots);
    std::vector<PrefillSequence> sequences;
    for (int s = 0; s < slots; ++s) {
      slot_list[s] = s;
      sequences.push_back({tokens / slots * s, tokens / slots, s, true});
    }
    const PrefillPlan plan = PlanPrefill(sequences, kHeadDim, DType::kBF16, DType::kF16);
    const DeviceMemory slot_memory = Upload(slot_list), items = Upload(plan.items);
    const double seconds =
        MedianSeconds(
            [&](cudaStream_t stream) {
              for (int i = 0; i < kSets; ++i) {
                const ShortConvParams conv = {x[i].data, y.data, weight.as<float>(), state[i].data,
                                              kTaps,     kD,     DType::kBF16};
                if (decode) {
                  ShortConvDecodeParams p;
                  p.conv = conv, p.slots = slot_memory.as<int32_t>(), p.batch = tokens;
                  CHECK_CUDA(LaunchShortConvDecode(p, stream));
                } else {
                  ShortConvPrefillParams p;
                  p.conv = conv, p.items = items.as<PrefillItem>();
                  p.num_items = static_cast<int32_t>(plan.items.size());
                  CHECK_CUDA(LaunchShortConvPrefill(p, stream));
                }
              }
            },
            7) /
        kSets;
    const double bytes = static_cast<double>(tokens) * 3 * kD * 4 +
                         (decode ? static_cast<double>(tokens) * 3 * kD * (kTaps - 1) * 4 : 0);
    std::printf("conv %s %5d tokens %9.1f us/layer %6.0f GB/s  %5.1f %% of copy\n",
                decode ? "decode " : "prefill", tokens, seconds * 1e6, bytes / seconds / 1e9,
                100 * bytes / seconds / bandwidth.copy);
  }
}

int Main(int argc, char** argv) {
  const auto wanted = [&](const char* name) {
    bool any = argc == 1;
    for (int i = 1; i < argc; ++i) any |= std::strcmp(argv[i], name) == 0;
    return any;
  };
  const Bandwidth bandwidth = MeasureBandwidth();
  struct DecodeCase {
    DType dtype;
    int replay;
  };
  if (wanted("decode")) {
    for (const DecodeCase c : {DecodeCase{DType::kF32, 1},
                               {DType::kF16, 1},
                               {DType::kF16, 16},
                               {DType::kF16, 8},
                               {DType::kF8E4M3, 1},
                               {DType::kF8E4M3, 16},
                               {DType::kF8E4M3, 32}})
      for (const int batch : {1, 8, 64, 256, 1024})
        BenchDecode(c.dtype, c.replay, batch, false, bandwidth);
    BenchDecode(DType::kF16, 16, 256, true, bandwidth);
  }
  if (argc > 1 && wanted("replay")) {  // the ring's default length, both default dtypes
    for (const DType dtype : {DType::kF16, DType::kF8E4M3})
      for (const int batch : {16, 64, 256, 1024}) BenchDecode(dtype, 16, batch, false, bandwidth);
  }
  if (wanted("mixed")) {
    for (const auto [dtype, replay] :
         {DecodeCase{DType::kF16, 16}, {DType::kF8E4M3, 16}, {DType::kF8E4M3, 32}})
      for (const int batch : {16, 64, 256, 512})
        for (const int tokens : {0, 64, 128, 512}) BenchMixed(dtype, replay, batch, tokens);
  }
  if (argc > 1 && wanted("one")) {  // for a profiler: 888 launches each
    for (const DType dtype : {DType::kF16, DType::kF8E4M3})
      BenchDecode(dtype, 16, 1024, false, bandwidth);
  }
  if (wanted("prefill")) {
    for (const int prompts : {1, 8, 64}) BenchPrefill(16384, prompts, DType::kBF16, 0, bandwidth);
    for (const int prompts : {1, 8}) BenchPrefill(2048, prompts, DType::kBF16, 0, bandwidth);
    BenchPrefill(16384, 64, DType::kBF16, 64, bandwidth);
    BenchPrefill(16384, 64, DType::kBF16, 1, bandwidth);
    BenchPrefill(2048, 1, DType::kF32, 0, bandwidth);
    BenchPrefill(2048, 8, DType::kF32, 0, bandwidth);
  }
  if (wanted("conv")) BenchConv(bandwidth);
  CHECK_CUDA(cudaDeviceSynchronize());
  return 0;
}

}  // namespace
}  // namespace hgrn2::cuda

int main(int argc, char** argv) { return hgrn2::cuda::Main(argc, argv); }
