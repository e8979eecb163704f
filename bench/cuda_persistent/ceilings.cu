#include "bench/cuda_persistent/ceilings.h"
#include "kernels/cuda/persistent/async.cuh"
#include "kernels/cuda/persistent/exchange.cuh"
#include "tests/kernels_cuda_persistent/random_model.h"

namespace hgrn2::cuda::test {
namespace {

using namespace persistent;  // async.cuh's primitives

constexpr int64_t kBytes = int64_t{2600} << 20;

__global__ void ReadKernel(const uint4* data, int64_t n, uint32_t* out) {
  uint32_t sum = 0;
  const int64_t stride = int64_t{gridDim.x} * blockDim.x;
  int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x;
  for (; i + 7 * stride < n; i += 8 * stride) {
    uint4 v[8];
#pragma unroll
    for (int j = 0; j < 8; ++j) v[j] = __ldcs(data + i + j * stride);
#pragma unroll
    for (int j = 0; j < 8; ++j) sum += v[j].x ^ v[j].y ^ v[j].z ^ v[j].w;
  }
  if (sum == 0x12345) *out = sum;
}

// One thread per block: bulk copies of `stage_bytes` round a ring of `depth` stages, data unused.
__global__ void BulkKernel(const uint8_t* data, int64_t bytes, int stage_bytes, int depth) {
  extern __shared__ __align__(128) uint8_t shared[];
  __shared__ uint64_t full[32];
  if (threadIdx.x != 0) return;
  for (int i = 0; i < depth; ++i) MbarrierInit(SharedAddress(full + i), 1);
  MbarrierInitFence();
  const int64_t share = bytes / gridDim.x / stage_bytes;
  const uint8_t* base = data + blockIdx.x * share * stage_bytes;
  const uint64_t policy = EvictFirstPolicy();
  for (int64_t i = 0; i < share + depth; ++i) {
    const int s = i % depth;
    if (i >= depth) MbarrierWait(SharedAddress(full + s), (i / depth - 1) & 1);
    if (i < share) {
      MbarrierExpect(SharedAddress(full + s), stage_bytes);
      BulkLoad(SharedAddress(shared) + s * stage_bytes, base + i * stage_bytes, stage_bytes,
               SharedAddress(full + s), policy);
    }
  }
}

__global__ void BarrierKernel(uint32_t* counter, int rounds) {
  for (int i = 1; i <= rounds; ++i) {
    GridArrive<256>(counter);
    GridWait<256>(counter, i * gridDim.x);
  }
}

// Each round every block writes its share of kCells cells, as a product's outputs of one token, and
// reads them all. Two buffers: a block may be one round ahead of another that still reads.
constexpr int kCells = 1024;
__global__ void ExchangeKernel(Cell<true>* cells, uint32_t base, int rounds) {
  for (int i = 1; i <= rounds; ++i) {
    Cell<true>* round = cells + i % 2 * kCells;
    const uint32_t flag = base + i;
    for (int j = blockIdx.x * 8 + threadIdx.x; threadIdx.x < 8 && j < kCells; j += gridDim.x * 8) {
      StoreCell(round + j, i, flag);
    }
    const Cell<true>* at = round + threadIdx.x * 4;
    Cell<true> v[4];
    LoadCells(at, v);
    Await(at, flag, v);
    NamedSync<256>();
  }
}

template <typename Fn>
double MedianMs(int n, Fn fn) {
  cudaEvent_t a, b;
  CHECK_CUDA(cudaEventCreate(&a));
  CHECK_CUDA(cudaEventCreate(&b));
  std::vector<float> times;
  for (int i = 0; i < n + 2; ++i) {
    CHECK_CUDA(cudaEventRecord(a));
    fn();
    CHECK_CUDA(cudaGetLastError());
    CHECK_CUDA(cudaEventRecord(b));
    CHECK_CUDA(cudaDeviceSynchronize());
    float ms = 0;
    CHECK_CUDA(cudaEventElapsedTime(&ms, a, b));
    if (i >= 2) times.push_back(ms);
  }
  std::sort(times.begin(), times.end());
  return times[n / 2];
}

__global__ void FillKernel(uint32_t* out, int64_t n) {
  for (int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; i < n;
       i += int64_t{gridDim.x} * blockDim.x) {
    out[i] = static_cast<uint32_t>(i * 2654435761u) ^ static_cast<uint32_t>(i >> 7);
  }
}

}  // namespace

int MeasureCeilings() {
  int blocks = 0;
  CHECK_CUDA(cudaDeviceGetAttribute(&blocks, cudaDevAttrMultiProcessorCount, 0));
  uint8_t* data = nullptr;
  CHECK_CUDA(cudaMalloc(&data, kBytes));
  FillKernel<<<1024, 256>>>(reinterpret_cast<uint32_t*>(data), kBytes / 4);
  uint32_t* counter = nullptr;
  CHECK_CUDA(cudaMalloc(&counter, 256));
  double ms = MedianMs(9, [&] {
    ReadKernel<<<blocks * 4, 512>>>(reinterpret_cast<const uint4*>(data), kBytes / 16, counter);
  });
  std::printf("read, 16-byte loads: %.3f ms, %.0f GB/s\n", ms, kBytes * 1e-6 / ms);
  CHECK_CUDA(
      cudaFuncSetAttribute(BulkKernel, cudaFuncAttributeMaxDynamicSharedMemorySize, 220 * 1024));
  const int shapes[][2] = {{16, 12}, {16, 8}, {16, 6}, {16, 4}, {16, 3},
                           {16, 2},  {8, 24}, {8, 8},  {8, 4},  {32, 6}};
  for (const auto& s : shapes) {
    ms = MedianMs(7, [&] {
      BulkKernel<<<blocks, 32, s[0] * s[1] * 1024>>>(data, kBytes, s[0] * 1024, s[1]);
    });
    std::printf("read, bulk copies of %d KiB, %d in flight: %.3f ms, %.0f GB/s\n", s[0], s[1], ms,
                kBytes * 1e-6 / ms);
  }
  constexpr int kRounds = 1000;
  ms = MedianMs(5, [&] {
    CHECK_CUDA(cudaMemsetAsync(counter, 0, 4));
    BarrierKernel<<<blocks, 256>>>(counter, kRounds);
  });
  std::printf("grid barrier: %.3f us\n", ms * 1e3 / kRounds);
  Cell<true>* cells = nullptr;
  CHECK_CUDA(cudaMalloc(&cells, 2 * kCells * sizeof(*cells)));
  CHECK_CUDA(cudaMemset(cells, 0, 2 * kCells * sizeof(*cells)));
  uint32_t base = 0;
  ms = MedianMs(5, [&] {
    ExchangeKernel<<<blocks, 256>>>(cells, base, kRounds);
    base += kRounds;
  });
  std::printf("exchange of 2048 activations in flagged cells: %.3f us\n", ms * 1e3 / kRounds);
  return 0;
}

}  // namespace hgrn2::cuda::test
