// The product kernel of many tokens: docs/kernels/wide-gemm.md. Blocks stay and take tile after
// tile; what an epilogue is made of is decode_gemm_epilogue.cuh's.
#pragma once

#include "kernels/cuda/async.cuh"
#include "kernels/cuda/gemm/decode_gemm_epilogue.cuh"
#include "kernels/cuda/gemm/decode_gemm_params.cuh"
#include "kernels/cuda/gemm/wgmma.cuh"

namespace hgrn2::cuda::gemm {

namespace {

#ifdef HGRN2_HAS_WGMMA

// A block's tile of a pair: both have the same rows and neighbouring tiles of tokens. Pairs of
// tokens change fastest, so that rows come from memory once, in bands of 4096 tokens, which the L2
// cache holds.
struct WideTile {
  int row_tile;
  int token0;

  __device__ WideTile(const KernelParams& p, int pair, int rank) {
    constexpr int kBand = 4096 / (2 * kWideTokenTile);
    const int band = pair / (p.row_tiles * kBand), rest = pair - band * p.row_tiles * kBand,
              width = min(p.token_tiles / 2 - band * kBand, kBand);
    row_tile = rest / width;
    token0 = ((band * kBand + rest % width) * 2 + rank) * kWideTokenTile;
  }
};

template <int kRows>
struct WideStages {
  static constexpr int kStage = (kRows + kWideTokenTile) * kBlockBytes;
  static constexpr int kCount = WideStageCount(kRows);
};

struct WideBarriers {
  uint64_t full[kMostWideStages], empty[kMostWideStages];
};
// FP8: the scales of the rows of a tile, which come with its first stage. Of as many tiles as there
// may be stages on their way, and two that are still stored.
template <int kRows, bool kFp8>
struct WideScales {
  static constexpr int kTiles = kFp8 ? WideStages<kRows>::kCount + 2 : 1;
  alignas(16) float of[kTiles][kFp8 ? kRows : 4];
};

// The copying lane of a block: its own tokens, and half of the rows for both blocks.
template <int kRows, bool kFp8>
struct WideProducer {
  static constexpr int kStages = WideStages<kRows>::kCount, kStage = WideStages<kRows>::kStage,
                       kHalf = kRows / 2, kColumns = kFp8 ? kBlockBytes : kBlockBytes / 2;
  const KernelParams& p;
  uint32_t stages;
  WideBarriers& barriers;
  WideScales<kRows, kFp8>& scales;
  int rank;

  __device__ uint32_t Full(int s) const { return SharedAddress(&barriers.full[s]); }
  // `turn`: which of the block's tiles it is.
  __device__ void Weights(const WideTile& tile, int turn, int i, int s) const {
    const uint32_t to = stages + s * kStage;
    const TileRows<kRows> rows = {p, tile.row_tile};
    if (kFp8 && i == 0) rows.LoadScales(scales.of[turn % scales.kTiles], Full(s));
    MbarrierExpect(Full(s), kStage);
    TensorLoadRowsToPair(to + rank * kHalf * kBlockBytes, &p.weight, i * kColumns,
                         rows.First(rank) / 16, Full(s));
  }
  __device__ void Tokens(const WideTile& tile, int i, int s) const {
    TensorLoad(stages + s * kStage + kRows * kBlockBytes, &p.x, i * kColumns, tile.token0, Full(s));
  }
  __device__ void Run(int first_pair, int pairs, int step) const {
    StageCursor at;
    int filled = 0;
    const int early = min(p.k_blocks, kStages);
    {
      const WideTile tile(p, first_pair, rank);
      for (int i = 0; i < early; ++i) Weights(tile, 0, i, i);
      GridDependencyWait();
      for (int i = 0; i < early; ++i) Tokens(tile, i, i);
    }
    int turn = 0;
    for (int pair = first_pair; pair < pairs; pair += step, ++turn) {
      const WideTile tile(p, pair, rank);
      for (int i = 0; i < p.k_blocks; ++i, ++filled) {
        if (filled >= early) {
          if (filled >= kStages)
            MbarrierWait(SharedAddress(&barriers.empty[at.stage]), at.parity ^ 1);
          Weights(tile, turn, i, at.stage);
          Tokens(tile, i, at.stage);
        }
        at.Advance(kStages);
      }
    }
  }
};

// Barriers of both warpgroups: one lets the other have its turn.
__device__ __forceinline__ void AwaitTurn(int group) {
  asm volatile("bar.sync %0, 256;" ::"r"(2 + group) : "memory");
}
__device__ __forceinline__ void GiveTurn(int group) {
  asm volatile("bar.arrive %0, 256;" ::"r"(2 + group) : "memory");
}

// What a warpgroup has of a tile: 64 tokens (kTogether: the other has the others), or all 128, and
// the other warpgroup stores the tile before and then multiplies the next one.
template <int kRows, bool kTogether, GemmEpilogue kEpilogue, bool kFp8>
struct WideConsumer {
  static constexpr int kStages = WideStages<kRows>::kCount, kStage = WideStages<kRows>::kStage,
                       kPieces = kTogether ? 1 : 2,
                       kParts = kEpilogue == GemmEpilogue::kSwiGlu ? 2 : 1,
                       kPrefetch = kTogether ? 4 : 0;
  using Scales = TokenScales<kPrefetch, kFp8>;
  const KernelParams& p;
  uint32_t stages;
  WideBarriers& barriers;
  const WideScales<kRows, kFp8>& scales;
  int rank;
  StageCursor at;

  __device__ __forceinline__ void Release(int s) const {
    if (threadIdx.x % 128 != 0) return;
    MbarrierArrive(SharedAddress(&barriers.empty[s]));
    MbarrierArriveAtPeer(SharedAddress(&barriers.empty[s]), rank ^ 1);
  }
  // `meanwhile` is called when the first products are under way, `issued` when the last ones are.
  template <typename F, typename G>
  __device__ __forceinline__ void Multiply(float (&sums)[kPieces][kRows / 2], int first_token,
                                           const F& meanwhile, const G& issued) {
    const auto issue = [&](bool first) {
      MbarrierWait(SharedAddress(&barriers.full[at.stage]), at.parity);
      const uint32_t base = stages + at.stage * kStage;
      WgmmaBlock<kRows, kFp8>(sums, base + (kRows + first_token) * kBlockBytes, base, first);
    };
    issue(true);
    meanwhile();
    int last = at.stage;
    at.Advance(kStages);
#pragma unroll 1
    for (int i = 1; i < p.k_blocks; ++i) {
      issue(false);
      WgmmaWait<1>();
      Release(last);
      last = at.stage;
      at.Advance(kStages);
    }
    issued();
    WgmmaFinish(sums);
    Release(last);
  }
  // first_token: of the tile's, of the warpgroup's 64.
  __device__ __forceinline__ Place PlaceOf(const WideTile& tile, int first_token) const {
    // TokenOf counts from the block's first warp.
    const int token0 = tile.token0 + first_token - static_cast<int>(threadIdx.x) / 128 * 64;
    return Place(tile.row_tile, token0, p.tokens - token0);
  }
  __device__ __forceinline__ void Store(const Place& place, const Output& output, int turn,
                                        const Scales& token_scales, const float (&sums)[kRows / 2],
                                        ResidualItems& items) const {
    const WeightScales<kFp8> weights = {scales.of[turn % scales.kTiles] + threadIdx.x % 4 * 4,
                                        kRows / 2};
    const auto finished = AllOf<kRows, kParts>(sums);
    Finish<kEpilogue, kFp8>(p, place, output, token_scales, weights, finished, items);
  }
  __device__ __forceinline__ void LoadItems(const Output& output, ResidualItems& items) const {
    if constexpr (kEpilogue == GemmEpilogue::kResidual) items.Load(p, output, 0);
  }
  __device__ __forceinline__ Output OutputOf(const Place& place) const {
    return Output::Of<kRows, 1, kEpilogue, kFp8>(p, place);
  }
  __device__ __forceinline__ void Run(int first_pair, int pairs, int step) {
    const int group = static_cast<int>(threadIdx.x) / 128;
    GridDependencyWait();
    if constexpr (kTogether) {
      int turn = 0;
#pragma unroll 1
      for (int pair = first_pair; pair < pairs; pair += step, ++turn) {
        const Place place = PlaceOf(WideTile(p, pair, rank), group * 64);
        const Output output = OutputOf(place);
        float sums[1][kRows / 2];
        Scales token_scales;
        ResidualItems items;
        const auto meanwhile = [&] {
          token_scales.Load(p, place);
          LoadItems(output, items);
        };
        Multiply(sums, group * 64, meanwhile, [] {});
        token_scales.Finish(p, place);
        Store(place, output, turn, token_scales, sums[0], items);
      }
    } else {
      if (group == 1) at.Skip(p.k_blocks, kStages);
      int turn = group;
#pragma unroll 1
      for (int pair = first_pair + group * step; pair < pairs; pair += 2 * step, turn += 2) {
        const WideTile tile(p, pair, rank);
        Scales token_scales[2];
#pragma unroll
        for (int piece = 0; piece < 2; ++piece) {
          const Place place = PlaceOf(tile, piece * 64);
          token_scales[piece].Load(p, place);
          token_scales[piece].Finish(p, place);
        }
        if (turn > 0) AwaitTurn(group);
        float sums[2][kRows / 2];
        Multiply(
            sums, 0, [] {},
            [&] {
              if (pair + step < pairs) GiveTurn(group ^ 1);
            });
#pragma unroll
        for (int piece = 0; piece < 2; ++piece) {
          const Place place = PlaceOf(tile, piece * 64);
          const Output output = OutputOf(place);
          ResidualItems items;
          LoadItems(output, items);
          Store(place, output, turn, token_scales[piece], sums[piece], items);
        }
        at.Skip(p.k_blocks, kStages);
      }
    }
  }
};

#endif  // HGRN2_HAS_WGMMA

template <int kRows, bool kTogether, GemmEpilogue kEpilogue, bool kFp8>
__global__ void __cluster_dims__(2, 1, 1) __launch_bounds__(kWideThreads, 1)
    WideGemmKernel(const __grid_constant__ KernelParams p) {
#ifdef HGRN2_HAS_WGMMA
  extern __shared__ uint8_t raw[];
  __shared__ WideBarriers barriers;
  __shared__ WideScales<kRows, kFp8> scales;
  const uint32_t stages = SharedAddress(raw) + ToSwizzle(raw);
  const int rank = static_cast<int>(blockIdx.x) % 2, first_pair = static_cast<int>(blockIdx.x) / 2,
            step = static_cast<int>(gridDim.x) / 2;
  GridDependencyLaunch();
  if (threadIdx.x == 0) {
    for (int s = 0; s < WideStages<kRows>::kCount; ++s) {
      MbarrierInit(SharedAddress(&barriers.full[s]), 1);
      MbarrierInit(SharedAddress(&barriers.empty[s]), kTogether ? 4 : 2);
    }
    MbarrierInitFence();
  }
  __syncthreads();
  ClusterArrive();
  ClusterWait();  // the other block's barriers exist
  if (threadIdx.x >= 256) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
    if (threadIdx.x == 256) {
      const WideProducer<kRows, kFp8> producer = {p, stages, barriers, scales, rank};
      producer.Run(first_pair, p.pairs, step);
    }
    __syncwarp();
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
    WideConsumer<kRows, kTogether, kEpilogue, kFp8> consumer = {p, stages, barriers, scales, rank};
    consumer.Run(first_pair, p.pairs, step);
  }
  // The other block may still copy to this one and arrive at its barriers.
  ClusterArrive();
  ClusterWait();
#endif
}

template <int kRows, bool kTogether, GemmEpilogue kEpilogue, bool kFp8>
Kernel WideKernelOf() {
  if constexpr (IsBuiltWide(kRows, kEpilogue)) {
    return WideGemmKernel<kRows, kTogether, kEpilogue, kFp8>;
  }
  return nullptr;
}
template <int kRows, bool kTogether, bool kFp8>
Kernel WideKernelOf(GemmEpilogue epilogue) {
  switch (epilogue) {
    case GemmEpilogue::kStore:
      return WideKernelOf<kRows, kTogether, GemmEpilogue::kStore, kFp8>();
    case GemmEpilogue::kSwiGlu:
      return WideKernelOf<kRows, kTogether, GemmEpilogue::kSwiGlu, kFp8>();
    case GemmEpilogue::kResidual:
      return WideKernelOf<kRows, kTogether, GemmEpilogue::kResidual, kFp8>();
  }
  return nullptr;
}

}  // namespace
}  // namespace hgrn2::cuda::gemm
