// The product kernel: docs/kernels/decode-gemm.md. Included by one source file per weight type, so
// that they compile in parallel; decode_gemm.cu has the host's part.
#pragma once

#include "kernels/cuda/async.cuh"
#include "kernels/cuda/gemm/decode_gemm_epilogue.cuh"
#include "kernels/cuda/gemm/decode_gemm_params.cuh"
#include "kernels/cuda/gemm/wgmma.cuh"

namespace hgrn2::cuda::gemm {

// Warpgroups of 64 tokens and a warp that issues copies.
constexpr int Threads(int groups) { return groups * 128 + 32; }

// The instance for a cut, null if there is none. decode_gemm_{bf16,fp8}.cu
template <bool kFp8>
Kernel KernelFor(const DecodeGemmShape& shape, GemmEpilogue epilogue);

namespace {

struct Barriers {
  uint64_t full[kMaxStages];
  uint64_t empty[kMaxStages];
  uint64_t received[12];  // by warp: the sums of a split's other blocks
};
// FP8: the scales of a tile's rows, which come with the first stage.
template <int kRows, bool kFp8>
struct TileScales {
  alignas(16) float of[kFp8 ? kRows : 4];
};

#ifdef HGRN2_HAS_WGMMA
// The copying lane. kWhole: a tile's rows come in one piece (column_gemm_kernel.cuh).
template <int kGroups, int kRows, int kTokens, bool kWhole, bool kFp8>
struct Producer {
  static constexpr int kHalf = kRows / 2, kStage = (kRows + kTokens) * kBlockBytes,
                       kColumns = kFp8 ? kBlockBytes : kBlockBytes / 2;
  const KernelParams& p;
  const Place& place;
  uint32_t stages;
  Barriers& barriers;
  TileScales<kRows, kFp8>& scales;

  __device__ uint32_t Full(int stage) const { return SharedAddress(&barriers.full[stage]); }

  __device__ void InitBarriers() const {
    for (int s = 0; s < p.stages; ++s) {
      MbarrierInit(Full(s), 1);
      MbarrierInit(SharedAddress(&barriers.empty[s]), kGroups);
    }
    for (uint64_t& bar : barriers.received) MbarrierInit(SharedAddress(&bar), 1);
    MbarrierInitFence();
    AsyncProxyFence();
  }
  __device__ TileRows<kRows> Rows() const { return {p, place.row_tile}; }
  __device__ void Weights(int i, int s) const {
    const int column = (place.first + i) * kColumns;
    const uint32_t to = stages + s * kStage;
    MbarrierExpect(Full(s), kStage);
    if constexpr (kWhole) {
      TensorLoadRows(to, &p.weight, column, place.row_tile * (kRows / 16), Full(s));
    } else {
      const int row0 = Rows().First(0), row1 = Rows().First(1);
      TensorLoadRows(to, &p.weight, column, row0 / 16, Full(s));
      TensorLoadRows(to + kHalf * kBlockBytes, &p.weight, column, row1 / 16, Full(s));
    }
  }
  __device__ void Tokens(int i, int s) const {
    TensorLoad(stages + s * kStage + kRows * kBlockBytes, &p.x, (place.first + i) * kColumns,
               place.token0, Full(s));
  }
  // Weights of the first stages, which no kernel writes: on their way before the kernel ahead ends.
  __device__ void Begin() const {
    if constexpr (kFp8) Rows().LoadScales(scales.of, Full(0));
    for (int i = 0; i < min(place.count, p.stages); ++i) Weights(i, i);
  }
  __device__ void Run() const {
    const int ahead = min(place.count, p.stages);
    for (int i = 0; i < ahead; ++i) Tokens(i, i);
    StageCursor at;
    for (int i = ahead; i < place.count; ++i) {
      MbarrierWait(SharedAddress(&barriers.empty[at.stage]), at.parity);
      Weights(i, at.stage);
      Tokens(i, at.stage);
      at.Advance(p.stages);
    }
  }
};

// What all threads of a block begin with. The copying warp is behind kConsumers threads.
template <int kConsumers, int kSplit, typename P>
__device__ __forceinline__ void Open(const P& producer) {
  GridDependencyLaunch();
  if (threadIdx.x == kConsumers) {
    producer.InitBarriers();
    producer.Begin();
  }
  __syncthreads();
  if constexpr (kSplit > 1) ClusterArrive();
}
// All that the copying warp does then.
template <int kConsumers, int kSplit, typename P>
__device__ __forceinline__ void Copy(const P& producer) {
  GridDependencyWait();
  if (threadIdx.x == kConsumers) producer.Run();
  __syncwarp();
  if constexpr (kSplit > 1) ClusterWait();
}

// A warpgroup: 64 of a stage's rows of 128 bytes, from `x` bytes on, times kN from `y` on.
// `meanwhile` is called once, when the first products are under way.
template <int kStage, int kN, bool kFp8, typename F>
__device__ __forceinline__ void Multiply(const KernelParams& p, const Place& place, uint32_t stages,
                                         int x, int y, Barriers& barriers, float (&sums)[1][kN / 2],
                                         const F& meanwhile) {
#pragma unroll
  for (int i = 0; i < kN / 2; ++i) sums[0][i] = 0;
  StageCursor at;
  const auto issue = [&](bool first) {
    MbarrierWait(SharedAddress(&barriers.full[at.stage]), at.parity);
    const uint32_t stage = stages + at.stage * kStage;
    WgmmaBlock<kN, kFp8>(sums, stage + x, stage + y, first);
  };
  issue(true);
  meanwhile();
  for (int i = 1; i < place.count; ++i) {
    const int last = at.stage;
    at.Advance(p.stages);
    issue(false);
    WgmmaWait<1>();
    if (threadIdx.x % 128 == 0) MbarrierArrive(SharedAddress(&barriers.empty[last]));
  }
  WgmmaFinish(sums);
}

// Barrier of the warps that multiply: 0 is __syncthreads.
template <int kThreads>
__device__ __forceinline__ void ConsumersSync() {
  asm volatile("bar.sync 1, %0;" ::"n"(kThreads) : "memory");
}

// How many of a lane's quads of sums of squares wait in registers while products are added up: 80
// sums (d = 2560) in five, 64 in four. Two blocks a multiprocessor have 96 registers a thread,
// three warpgroups 128.
constexpr int Prefetch(int groups, int rows, bool share) {
  return share ? 0 : groups < 3 ? 5 : rows < 192 ? 4 : 1;
}

#endif  // HGRN2_HAS_WGMMA

// Block s of a split multiplies the s-th part of the columns, then finishes the s-th part of the
// tile's rows with everybody's sums.
template <int kGroups, int kRows, int kSplit, bool kShare, GemmEpilogue kEpilogue, bool kFp8>
__global__ void __launch_bounds__(Threads(kGroups), kShare ? 2 : 1)
    DecodeGemmKernel(const __grid_constant__ KernelParams p) {
#ifdef HGRN2_HAS_WGMMA
  constexpr int kConsumers = kGroups * 128, kParts = kEpilogue == GemmEpilogue::kSwiGlu ? 2 : 1;
  extern __shared__ uint8_t raw[];
  __shared__ Barriers barriers;
  __shared__ TileScales<kRows, kFp8> tile_scales;
  uint8_t* aligned = raw + ToSwizzle(raw);
  const uint32_t stages = SharedAddress(aligned);
  const Place place(p, kGroups * 64, kSplit);
  using Copies = Producer<kGroups, kRows, kGroups * 64, false, kFp8>;
  const Copies producer = {p, place, stages, barriers, tile_scales};
  Open<kConsumers, kSplit>(producer);
  if (threadIdx.x < kConsumers) {
    const Output output = Output::Of<kRows, kSplit, kEpilogue, kFp8>(p, place);
    TokenScales<Prefetch(kGroups, kRows, kShare), kFp8> scales;
    const WeightScales<kFp8> weights = {
        tile_scales.of + place.split * (kRows / kParts / kSplit) + threadIdx.x % 4 * 4, kRows / 2};
    ResidualItems items;
    float sums[1][kRows / 2];
    const auto meanwhile = [&] {
      // The first tokens are there, and so is everything else that the kernels ahead have written.
      GridDependencyWait();
      scales.Load(p, place);
      if constexpr (kEpilogue == GemmEpilogue::kResidual) items.Load(p, output, 0);
    };
    const int tokens = (kRows + static_cast<int>(threadIdx.x) / 128 * 64) * kBlockBytes;
    Multiply<Copies::kStage, kRows, kFp8>(p, place, stages, tokens, 0, barriers, sums, meanwhile);
    Finished<kRows, kSplit, kParts> finished;
    if constexpr (kSplit > 1) {
      const Exchange<kConsumers, kRows, kSplit, kParts> exchange = {
          reinterpret_cast<float4*>(aligned), reinterpret_cast<float4*>(aligned + p.received),
          SharedAddress(&barriers.received[threadIdx.x / 32]), place.split};
      ConsumersSync<kConsumers>();  // nobody reads the stages any more
      ClusterWait();                // the others' barriers exist
      exchange.Send(sums[0]);
      scales.Finish(p, place);
      exchange.Receive(finished);
    } else {
      scales.Finish(p, place);
      finished = AllOf<kRows, kParts>(sums[0]);
    }
    Finish<kEpilogue, kFp8>(p, place, output, scales, weights, finished, items);
    if constexpr (kSplit > 1) SentRead();
  } else {
    Copy<kConsumers, kSplit>(producer);
  }
#endif
}

template <int kGroups, int kRows, int kSplit, GemmEpilogue kEpilogue, bool kFp8>
Kernel KernelOf(bool share) {
  if constexpr (MayShare(kRows, kGroups, kSplit, kEpilogue)) {
    if (share) return DecodeGemmKernel<kGroups, kRows, kSplit, true, kEpilogue, kFp8>;
  }
  if constexpr (IsBuilt(kRows, kGroups, kSplit, kEpilogue)) {
    if (!share) return DecodeGemmKernel<kGroups, kRows, kSplit, false, kEpilogue, kFp8>;
  }
  return nullptr;
}
template <int kGroups, int kRows, int kSplit, bool kFp8>
Kernel KernelOf(bool share, GemmEpilogue epilogue) {
  switch (epilogue) {
    case GemmEpilogue::kStore:
      return KernelOf<kGroups, kRows, kSplit, GemmEpilogue::kStore, kFp8>(share);
    case GemmEpilogue::kSwiGlu:
      return KernelOf<kGroups, kRows, kSplit, GemmEpilogue::kSwiGlu, kFp8>(share);
    case GemmEpilogue::kResidual:
      return KernelOf<kGroups, kRows, kSplit, GemmEpilogue::kResidual, kFp8>(share);
  }
  return nullptr;
}
template <int kGroups, int kRows, bool kFp8>
Kernel KernelOf(const DecodeGemmShape& s, GemmEpilogue epilogue) {
  switch (s.split) {
    case 1:
      return KernelOf<kGroups, kRows, 1, kFp8>(s.share, epilogue);
    case 2:
      return KernelOf<kGroups, kRows, 2, kFp8>(s.share, epilogue);
    case 4:
      return KernelOf<kGroups, kRows, 4, kFp8>(s.share, epilogue);
  }
  return nullptr;
}
template <int kGroups, bool kFp8>
Kernel KernelOf(const DecodeGemmShape& s, GemmEpilogue epilogue) {
  switch (s.row_tile) {
    case 32:
      return KernelOf<kGroups, 32, kFp8>(s, epilogue);
    case 64:
      return KernelOf<kGroups, 64, kFp8>(s, epilogue);
    case 96:
      return KernelOf<kGroups, 96, kFp8>(s, epilogue);
    case 128:
      return KernelOf<kGroups, 128, kFp8>(s, epilogue);
    case 192:
      return KernelOf<kGroups, 192, kFp8>(s, epilogue);
  }
  return nullptr;
}

}  // namespace
}  // namespace hgrn2::cuda::gemm
