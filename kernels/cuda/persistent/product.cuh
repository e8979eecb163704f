// Products of the persistent kernel: a producer warp streams packed weights through shared memory,
// eight consumer warps multiply them with the tokens' activations on tensor cores.
//
// Weights are the A operand of mma.m16n8k16 (16 rows), tokens the columns of B: 8 per n-tile. Each
// consumer warp owns a slice of K (layout.h), keeps that slice's activations in registers for up to
// kChunk k-steps and multiplies them with every tile of the block's range. Partial sums of the
// eight warps meet in shared memory and are added in the order of the warps: deterministic, and the
// same for every batch.
#pragma once

#include "kernels/cuda/persistent/context.cuh"
#include "kernels/cuda/persistent/epilogue.cuh"

namespace hgrn2::cuda::persistent {

// kTiles: n-tiles of 8 tokens. kChunkSteps: k-steps whose activations a warp keeps in registers.
template <int kTiles, int kChunkSteps>
struct Tiling {
  static constexpr bool kFlags = false;
  static constexpr int kNTiles = kTiles;
  static constexpr int kChunk = kChunkSteps;
  // Row tiles whose partial sums fit into the scratch: 8 warps x 16 rows x 8 tokens in float32
  // each.
  static constexpr int kGroup = kScratchBytes / (kConsumerWarps * 512 * kNTiles);
};
// One n-tile whose activations come in flagged cells and wait in shared memory, all of K at once:
// with registers free, a stage's operands are read while the last stage's are multiplied.
struct FlagTiling : Tiling<1, 1 << 14> {
  static constexpr bool kFlags = true;
  static constexpr int kGroup = 1 << 16;  // whole tiles follow each other whatever their groups
};

// Order in which weights are consumed, and so fetched, for one product: groups of row tiles; in a
// group, chunks of K; in a chunk, tiles; in a tile, stages, which follow each other in memory.
// fn(tile, first k-step, k-steps).
template <typename T, typename Fn>
__device__ __forceinline__ void ForEachRun(int tiles, int kpw, Fn&& fn) {
#pragma unroll 1
  for (int g0 = 0; g0 < tiles; g0 += T::kGroup) {
#pragma unroll 1
    for (int c0 = 0; c0 < kpw; c0 += T::kChunk) {
      const int steps = min(T::kChunk, kpw - c0);
#pragma unroll 1
      for (int i = g0; i < min(g0 + T::kGroup, tiles); ++i) fn(i, c0, steps);
    }
  }
}

// k-steps per stage of weights of type kFp8 in the kernel for layers of type kFp8Layers: 4, but 2
// for the bfloat16 head of an FP8 model.
template <bool kFp8Layers, bool kFp8>
constexpr int kStageSteps = kStageBytes<kFp8Layers> / SlotBytes(kFp8);

// One thread: fetches the weights of every product of the step, at most `inflight_kib` ahead
// of what has landed (more would only queue up in front of other blocks' activations).
//
// It has few registers, and a spilled one comes back from L2, since every grid barrier empties L1:
// addresses move on from product to product, and clocks are only counted where they are asked for.
template <typename T, bool kFp8, bool kTraced>
__device__ __forceinline__ void Produce(const DecodeParams& p, const TileRange* ranges,
                                        RingState ring) {
  const uint64_t policy = EvictFirstPolicy();
  const int kib = p.inflight_kib > 0 ? p.inflight_kib : kDefaultInflightKib;
  int may_start = min(max(kib * 1024 / kStageBytes<kFp8>, 1), ring.stages);
  RingState landed = ring;
  uint32_t clocks_full = 0, clocks_landing = 0;
  auto wait = [](uint32_t bar, uint32_t parity, uint32_t& clocks) {
    if constexpr (kTraced) clocks -= clock();
    MbarrierWait(bar, parity);
    if constexpr (kTraced) clocks += clock();
  };
  auto fetch = [&](const uint8_t* source) {
    wait(ring.empty + ring.stage * 8, ring.parity ^ 1, clocks_full);
    if (may_start > 0) {
      --may_start;
    } else {
      wait(landed.full + landed.stage * 8, landed.parity, clocks_landing);
      landed.Advance();
    }
    const uint32_t full = ring.full + ring.stage * 8;
    MbarrierExpect(full, kStageBytes<kFp8>);
    BulkLoad(ring.data + ring.stage * kStageBytes<kFp8>, source, kStageBytes<kFp8>, full, policy);
    ring.Advance();
  };
  const auto* weights = static_cast<const uint8_t*>(p.weights);  // of the product
  const int d = static_cast<int>(p.shape.d), m = static_cast<int>(p.shape.m);
  const int kpw_d = KStepsPerWarp(d), kpw_m = KStepsPerWarp(m);
  const int phases = p.shape.NumPhases();
#pragma unroll 1
  for (int phase = 0; phase < phases; ++phase) {
    const bool fp8 = kFp8 && phase != phases - 1;
    const int product = phase % kProductsPerLayer;  // the head, behind all others, needs no length
    const int kpw = product == kDown ? kpw_m : kpw_d;
    const int rows = product == kQfi ? 3 * d : product == kGateUp ? 2 * m : d;
    const int slot_bytes = SlotBytes(fp8), stage_steps = kStageBytes<kFp8> / slot_bytes;
    const TileRange range = ranges[phase];
    ForEachRun<T>(range.count, kpw, [&](int tile, int step, int steps) {
      const uint8_t* source = weights + int64_t{(range.first + tile) * kpw + step} * slot_bytes;
#pragma unroll 1
      for (int s0 = 0; s0 < steps; s0 += stage_steps, source += kStageBytes<kFp8>) fetch(source);
    });
    weights += int64_t{rows / kTileRows * kpw} * slot_bytes;
  }
  if constexpr (kTraced) {
    int64_t* end = p.trace + int64_t{blockIdx.x + 1} * p.trace_capacity;
    end[-2] = clocks_full, end[-1] = clocks_landing;
  }
}

__device__ __forceinline__ void Mma(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t a2,
                                    uint32_t a3, uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

__device__ __forceinline__ uint4 LoadShared16(uint32_t address) {
  uint4 v;
  asm volatile("ld.shared.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "r"(address)
               : "memory");
  return v;
}

__device__ __forceinline__ void StoreShared8(uint32_t address, uint32_t a, uint32_t b) {
  asm volatile("st.shared.v2.u32 [%0], {%1,%2};" ::"r"(address), "r"(a), "r"(b) : "memory");
}

// Two e4m3 numbers of a word that pack.cu interleaved, as bfloat16 x 2^-120: the exponent field
// moves without a change of bias, and e4m3's subnormals become bfloat16's.
__device__ __forceinline__ uint32_t FirstFp8ToBf16(uint32_t w) { return w & 0x87f087f0u; }
__device__ __forceinline__ uint32_t SecondFp8ToBf16(uint32_t w) {
  return ((w << 4) & 0x80f080f0u) | ((w >> 4) & 0x07000700u);
}

// The activations of k-steps [c0, c0 + kChunk) of this warp's slice as B operands. Lane (g, t) has
// token g of each n-tile. x: k / 2 pairs of token 0, the tokens' rows `stride` pairs apart.
template <typename T>
__device__ __forceinline__ void LoadActivations(const Cell<false>* x, int stride, int k, int kpw,
                                                int c0, int batch,
                                                uint32_t (&b)[T::kChunk][T::kNTiles][2]) {
  const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
  const int column = (warp * kpw + c0) * 16 + t * 8;
  // k-steps that exist; k is a multiple of 64, so the 8 columns of a pair are all inside or all
  // not.
  const int steps = min(kpw - c0, (k - column + 15) / 16);
#pragma unroll
  for (int n = 0; n < T::kNTiles; ++n) {
    const int token = n * 8 + g;
    const uint4* row = reinterpret_cast<const uint4*>(x + (token * stride + column / 2));
    const int valid = token < batch ? steps : 0;
#pragma unroll
    for (int j = 0; j < T::kChunk; j += 2) {
      uint4 v = make_uint4(0, 0, 0, 0);
      if (j < valid) v = __ldcg(row + j * 2);
      b[j][n][0] = v.x;
      b[j][n][1] = v.y;
      b[j + 1][n][0] = v.z;
      b[j + 1][n][1] = v.w;
    }
  }
}

// Flags: waits for the activations of this warp's slice and leaves them in shared memory for its
// own lanes, [pair of k-steps][token][64 bytes]. Columns past k become zeros, as their weights are.
__device__ __forceinline__ void StageActivations(const Cell<true>* x, int stride, int k, int kpw,
                                                 int batch, uint32_t flag, uint32_t shared) {
  constexpr int kLoads = 6;  // in flight per lane: all of a token's for K up to 6144
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int first = warp * kpw * 16;                   // column
  const int pieces = kpw * 4, total = batch * pieces;  // of 4 columns: 16 bytes of cells
  const int inside = (k - first) / 4;
  x += first / 2;
  int token = 0, piece = lane;
  auto wrap = [&] {
    const bool over = piece >= pieces;
    piece -= over ? pieces : 0;
    token += over;
  };
  wrap();
#pragma unroll 1
  for (int base = 0; base < total; base += kLoads * 32) {
    const Cell<true>* from[kLoads];
    uint32_t to[kLoads], missing = 0;
    Cell<true> v[kLoads][2];
#pragma unroll
    for (int j = 0; j < kLoads; ++j) {
      if (base + j * 32 >= total) break;
      from[j] = x + (token * stride + piece * 2);
      to[j] = token < batch ? shared + (piece / 8 * batch + token) * 64 + piece % 8 * 8 : 0;
      if (token < batch && piece < inside) {
        LoadCells(from[j], v[j]);
        missing |= 1u << j;
      } else {
        v[j][0].bits = v[j][1].bits = 0;
      }
      piece += 32;
      wrap();
      wrap();  // a token has at least 16 pieces
    }
    while (true) {
#pragma unroll
      for (int j = 0; j < kLoads; ++j) {
        if (base + j * 32 >= total) break;
        if (v[j][0].Ready(flag) && v[j][1].Ready(flag)) missing &= ~(1u << j);
      }
      if (!__any_sync(0xffffffffu, missing != 0)) break;
#pragma unroll
      for (int j = 0; j < kLoads; ++j) {
        if (missing >> j & 1) LoadCells(from[j], v[j]);
      }
    }
#pragma unroll
    for (int j = 0; j < kLoads; ++j) {
      if (base + j * 32 >= total) break;
      if (to[j] != 0) StoreShared8(to[j], v[j][0].bits, v[j][1].bits);
    }
  }
  __syncwarp();
}

// Partial sums of one (tile, n-tile): per half h of a lane's token pair and per warp, 32 lanes x
// (row g, row g + 8).
__device__ __forceinline__ float2* Partial(float* scratch, int tile, int h, int warp) {
  return reinterpret_cast<float2*>(scratch) + ((tile * 2 + h) * kConsumerWarps + warp) * 32;
}
__device__ __forceinline__ void StorePartial(float* scratch, int tile, const float (&acc)[4]) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  Partial(scratch, tile, 0, warp)[lane] = {acc[0], acc[2]};
  Partial(scratch, tile, 1, warp)[lane] = {acc[1], acc[3]};
}

// Flags: of one tile and one token, per warp 8 x (row g, row g + 8). 64 bytes more keep neighbours
// in other banks.
__device__ __forceinline__ float2* FlagPartial(float* scratch, int tile, int token, int batch) {
  return reinterpret_cast<float2*>(scratch) + (tile * batch + token) * (kConsumerWarps * 8 + 8);
}
static_assert(kConsumers / 8 * (kConsumerWarps * 8 + 8) * sizeof(float2) <= kScratchBytes);
__device__ __forceinline__ void StoreFlagPartial(float* scratch, int tile, int batch,
                                                 const float (&acc)[4]) {
  static_assert(kMaxFlagBatch == 2);  // the tokens of a quad's first lane
  const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4;
  if (threadIdx.x % 4 != 0) return;
  FlagPartial(scratch, tile, 0, batch)[warp * 8 + g] = {acc[0], acc[2]};
  if (batch > 1) FlagPartial(scratch, tile, 1, batch)[warp * 8 + g] = {acc[1], acc[3]};
}

// A lane's weights of one stage, of whatever type: the bytes are the same.
template <bool kFp8Layers>
struct StageWeights {
  static constexpr int kLoads = kStageBytes<kFp8Layers> / (kConsumerWarps * 512);
  uint4 v[kLoads];

  // Waits for the ring's next stage, reads it and gives it back.
  __device__ __forceinline__ void Take(RingState& ring) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    MbarrierWait(ring.full + ring.stage * 8, ring.parity);
    const uint32_t at = ring.data + ring.stage * kStageBytes<kFp8Layers> + warp * 512 + lane * 16;
#pragma unroll
    for (int i = 0; i < kLoads; ++i) v[i] = LoadShared16(at + i * (kConsumerWarps * 512));
    __syncwarp();
    if (lane == 0) MbarrierArrive(ring.empty + ring.stage * 8);
    ring.Advance();
  }
};

// Products of one stage, in two chains that start from zero. b(i, n): k-step i's activations.
template <bool kFp8Layers, bool kFp8, int kNTiles, typename Activations>
__device__ __forceinline__ void MultiplyStage(const StageWeights<kFp8Layers>& a, Activations&& b,
                                              float (&part)[2][kNTiles][4]) {
#pragma unroll
  for (int n = 0; n < kNTiles; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) part[0][n][i] = part[1][n][i] = 0;
  }
#pragma unroll
  for (int i = 0; i < kStageSteps<kFp8Layers, kFp8>; ++i) {
#pragma unroll
    for (int n = 0; n < kNTiles; ++n) {
      const uint2 bb = b(i, n);
      if constexpr (kFp8) {
        const uint4 v = a.v[i / 2];
        const uint32_t lo = i % 2 ? v.z : v.x, hi = i % 2 ? v.w : v.y;
        Mma(part[i % 2][n], FirstFp8ToBf16(lo), FirstFp8ToBf16(hi), SecondFp8ToBf16(lo),
            SecondFp8ToBf16(hi), bb.x, bb.y);
      } else {
        Mma(part[i % 2][n], a.v[i].x, a.v[i].y, a.v[i].z, a.v[i].w, bb.x, bb.y);
      }
    }
  }
}

template <int kNTiles>
__device__ __forceinline__ void AddParts(const float (&part)[2][kNTiles][4],
                                         float (&acc)[kNTiles][4]) {
#pragma unroll
  for (int n = 0; n < kNTiles; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i)
      acc[n][i] = __fadd_rn(acc[n][i], __fadd_rn(part[0][n][i], part[1][n][i]));
  }
}

// Multiplies one chunk of K of one tile and adds to `acc`. The sums of a stage start from zero and
// are added to `acc` after: independent stages overlap, and the order of additions does not depend
// on kChunk.
template <typename T, bool kFp8Layers, bool kFp8>
__device__ __forceinline__ void MultiplyChunk(RingState& ring, int steps,
                                              const uint32_t (&b)[T::kChunk][T::kNTiles][2],
                                              float (&acc)[T::kNTiles][4]) {
  constexpr int kSteps = kStageSteps<kFp8Layers, kFp8>;
#pragma unroll
  for (int s0 = 0; s0 < T::kChunk; s0 += kSteps) {
    if (s0 >= steps) break;
    StageWeights<kFp8Layers> a;
    float part[2][T::kNTiles][4];
    a.Take(ring);
    MultiplyStage<kFp8Layers, kFp8>(
        a,
        [&](int i, int n) {
          return uint2{b[s0 + i][n][0], b[s0 + i][n][1]};
        },
        part);
    AddParts(part, acc);
  }
}

// Flags: multiplies `tiles` tiles whose first stage has been taken, and leaves their partial sums.
// `activations`: where StageActivations left this warp's. While a stage is multiplied, the next
// one's operands are read and the last one's sums added, across the bounds of tiles; the additions
// are those of MultiplyChunk in the same order.
template <bool kFp8Layers, bool kFp8>
__device__ __forceinline__ void MultiplyTiles(RingState& ring,
                                              const StageWeights<kFp8Layers>& first, int kpw,
                                              int tiles, uint32_t activations, int batch,
                                              float* scratch) {
  constexpr int kSteps = kStageSteps<kFp8Layers, kFp8>, kPairs = kSteps / 2;
  const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
  // Columns of tokens past the batch repeat the last token's; their sums are not looked at.
  const uint32_t begin = activations + min(g, batch - 1) * 64 + t * 16;
  const int stages = kpw / kSteps, total = tiles * stages;
  struct Operands {
    StageWeights<kFp8Layers> a;
    uint4 b[kPairs];
  } operands[2];
  float part[2][2][1][4], acc[1][4] = {};
  uint32_t at = begin;
  int read = 0, added = 0, tile = 0;  // stages of the tile
  auto read_activations = [&](Operands& o) {
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      o.b[i] = LoadShared16(at);
      at += batch * 64;
    }
    if (++read == stages) read = 0, at = begin;
  };
  auto multiply = [&](const Operands& o, float(&sums)[2][1][4]) {
    MultiplyStage<kFp8Layers, kFp8>(
        o.a,
        [&](int i, int) {
          const uint4 v = o.b[i / 2];
          return i % 2 ? uint2{v.z, v.w} : uint2{v.x, v.y};
        },
        sums);
  };
  auto add = [&](const float(&sums)[2][1][4]) {
    AddParts(sums, acc);
    if (++added < stages) return;
    StoreFlagPartial(scratch, tile++, batch, acc[0]);
#pragma unroll
    for (int i = 0; i < 4; ++i) acc[0][i] = 0;
    added = 0;
  };
  operands[0].a = first;
  read_activations(operands[0]);
#pragma unroll 1
  for (int n = 0; n < total; n += 2) {
    const bool second = n + 1 < total;
    if (second) {
      operands[1].a.Take(ring);
      read_activations(operands[1]);
    }
    multiply(operands[0], part[0]);
    if (n > 0) add(part[1]);
    if (!second) break;
    if (n + 2 < total) {
      operands[0].a.Take(ring);
      read_activations(operands[0]);
    }
    multiply(operands[1], part[1]);
    add(part[0]);
  }
  if (total % 2 != 0) {
    add(part[0]);
  } else {
    add(part[1]);
  }
}

template <bool kFlags>
__device__ __forceinline__ float SumOf(const Cell<kFlags> (&v)[4]) {
  return __fadd_rn(__fadd_rn(__uint_as_float(v[0].bits), __uint_as_float(v[1].bits)),
                   __fadd_rn(__uint_as_float(v[2].bits), __uint_as_float(v[3].bits)));
}

__device__ __forceinline__ float InverseRms(float squares, float d, float eps) {
  return rsqrtf(__fadd_rn(__fdiv_rn(squares, d), eps));
}

// 1 / rms of the tokens' product inputs from their sums of squares, `groups` to a token. In two
// halves: the loads go out with those of the activations, the sums are formed after the
// multiplications.
template <typename T>
struct RowScales {
  Cell<false> first[T::kNTiles][2][4];

  __device__ __forceinline__ void Load(const Cell<false>* squares, int stride, int groups,
                                       int batch) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
    for (int n = 0; n < T::kNTiles; ++n) {
      const int token = n * 8 + warp;
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int group = (i * 32 + lane) * 4;
        if (token < batch && group < groups) {
          LoadCells(squares + token * stride + group, first[n][i]);
        } else {
#pragma unroll
          for (Cell<false>& cell : first[n][i]) cell = {};
        }
      }
    }
  }
  // Visible to the block after its next Sync.
  __device__ __forceinline__ void Store(const Cell<false>* squares, int stride, int groups,
                                        int batch, float d, float eps, float* out) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
    for (int n = 0; n < T::kNTiles; ++n) {
      const int token = n * 8 + warp;
      if (token >= batch) break;
      float sum = 0;
#pragma unroll
      for (int i = 0; i < 2; ++i) sum = __fadd_rn(sum, SumOf(first[n][i]));
#pragma unroll 1
      for (int group = 256 + lane * 4; group < groups; group += 128) {
        Cell<false> v[4];
        LoadCells(squares + token * stride + group, v);
        sum = __fadd_rn(sum, SumOf(v));
      }
      sum = WarpSum(sum);
      if (lane == 0) out[token] = InverseRms(sum, d, eps);
    }
  }
};

// Flags: the same by one warp, which waits for the sums of squares. Adds in the order of RowScales.
__device__ __forceinline__ void AwaitRowScales(const Cell<true>* squares, int stride, int groups,
                                               int batch, uint32_t flag, float d, float eps,
                                               float* out) {
  const int lane = threadIdx.x % 32;
  float sum[kMaxFlagBatch] = {};
#pragma unroll 1
  for (int group = lane * 4; group < groups; group += 128) {
    const Cell<true>* at = squares + group;
    Cell<true> v[kMaxFlagBatch][4] = {};
#pragma unroll
    for (int i = 0; i < kMaxFlagBatch; ++i) {
      if (i < batch) LoadCells(at + i * stride, v[i]);
    }
#pragma unroll
    for (int i = 0; i < kMaxFlagBatch; ++i) {
      if (i < batch) Await(at + i * stride, flag, v[i]);
      sum[i] = __fadd_rn(sum[i], SumOf(v[i]));
    }
  }
#pragma unroll
  for (int i = 0; i < kMaxFlagBatch; ++i) {
    const float total = WarpSum(sum[i]);
    if (lane == 0 && i < batch) out[i] = InverseRms(total, d, eps);
  }
}

// A whole product for this block's tiles. One body for all products, with its differences in data
// (ProductArgs, epilogue.cuh): the code of a step must stay in the instruction cache.
// `then` is called once, for loads of what comes next: with flags first of all, without them behind
// the loads of the first activations.
template <typename T, bool kFp8, typename Then>
__device__ __forceinline__ void RunProduct(Context<T::kFlags>& c, const ProductArgs<T::kFlags>& a,
                                           Then&& then) {
  if constexpr (T::kFlags) {
    then();
    if (a.range.count == 0) return c.Received();
  }
  const int tid = threadIdx.x, warp = tid / 32, lane = tid % 32;
  // Per thread at most.
  constexpr int kUnits = T::kFlags ? 1 : T::kGroup * T::kNTiles * 64 / kConsumers;
  const int group = T::kFlags ? c.group : T::kGroup;
  const int groups = static_cast<int>(c.p.shape.d) / 16, batch = c.p.batch;
  // Without flags once even where there are no tiles, for `then`, of which the code should have but
  // one copy.
#pragma unroll 1
  for (int g0 = 0; (!T::kFlags && g0 == 0) || g0 < a.range.count; g0 += group) {
    const int tiles = min(group, a.range.count - g0);
    auto works = [&](int i) {  // the same for all lanes of a warp
      if constexpr (T::kFlags) return warp * 4 < tiles * batch;
      return i * kConsumers + tid < tiles * T::kNTiles * 64;
    };
    auto unit_of = [&](int i) {
      Unit u;
      if constexpr (T::kFlags) {
        u = {a.range.first + g0 + c.unit_tile, c.unit_token, lane % 8, c.unit_tile < tiles};
        if (!u.valid) u.tile = a.range.first + g0;
      } else {
        const int unit = i * kConsumers + tid;
        u = {a.range.first + g0 + unit / (64 * T::kNTiles),
             unit / 64 % T::kNTiles * 8 + lane % 4 * 2 + unit / 32 % 2, lane / 4, true};
        u.valid = u.token < batch;
      }
      return u;
    };
    EpilogueInputs<T::kFlags> inputs[kUnits];
    auto prepare = [&] {
#pragma unroll
      for (int i = 0; i < kUnits; ++i) {
        if (works(i)) inputs[i] = Prepare(c, a, unit_of(i));
      }
    };
    const bool scaled = g0 == 0 && a.squares != nullptr;
    if constexpr (T::kFlags) {
      // All that does not need the activations comes before the wait for them.
      StageWeights<kFp8> first;
      prepare();
      first.Take(c.ring);
      const uint32_t activations = c.activations + warp * batch * a.kpw * 32;
      if (g0 == 0) {
        StageActivations(a.x, c.ws.stride, a.k, a.kpw, batch, c.flag - 1, activations);
        c.Received();
      } else {
        c.Sync();  // the last group's partial sums have been read
      }
      if (kFp8 && a.product != kHead) {
        MultiplyTiles<kFp8, true>(c.ring, first, a.kpw, tiles, activations, batch, c.scratch);
      } else {
        MultiplyTiles<kFp8, false>(c.ring, first, a.kpw, tiles, activations, batch, c.scratch);
      }
      if (scaled) {
        ScaledSync();
      } else {
        c.Sync();
      }
    } else {
      RowScales<T> scales;
#pragma unroll 1
      for (int c0 = 0; c0 < a.kpw; c0 += T::kChunk) {
        uint32_t b[T::kChunk][T::kNTiles][2];
        LoadActivations<T>(a.x, c.ws.stride, a.k, a.kpw, c0, batch, b);
        if (c0 == 0) {  // whatever the multiplications do not wait for comes behind
          prepare();
          if (g0 == 0) then();
          if (scaled) scales.Load(a.squares, c.ws.stride, groups, batch);
          if (g0 > 0) c.Sync();  // the last group's partial sums have been read
        }
        const int steps = min(T::kChunk, a.kpw - c0);
#pragma unroll 1
        for (int i = 0; i < tiles; ++i) {
          float acc[T::kNTiles][4] = {};
          if (c0 > 0) {
#pragma unroll
            for (int n = 0; n < T::kNTiles; ++n) {
              const float2 lo = Partial(c.scratch, i * T::kNTiles + n, 0, warp)[lane];
              const float2 hi = Partial(c.scratch, i * T::kNTiles + n, 1, warp)[lane];
              acc[n][0] = lo.x, acc[n][2] = lo.y, acc[n][1] = hi.x, acc[n][3] = hi.y;
            }
          }
          if (kFp8 && a.product != kHead) {
            MultiplyChunk<T, kFp8, true>(c.ring, steps, b, acc);
          } else {
            MultiplyChunk<T, kFp8, false>(c.ring, steps, b, acc);
          }
#pragma unroll
          for (int n = 0; n < T::kNTiles; ++n) StorePartial(c.scratch, i * T::kNTiles + n, acc[n]);
        }
      }
      if (scaled) {
        scales.Store(a.squares, c.ws.stride, groups, batch, static_cast<float>(c.p.shape.d), a.eps,
                     c.row_scale);
      }
      c.Sync();
    }
#pragma unroll
    for (int i = 0; i < kUnits; ++i) {
      if (!works(i)) break;
      const Unit u = unit_of(i);
      float2 y = {0, 0};
#pragma unroll
      for (int w = 0; w < kConsumerWarps; ++w) {
        float2 part;
        if constexpr (T::kFlags) {
          part = FlagPartial(c.scratch, u.tile - a.range.first - g0, u.token, batch)[w * 8 + u.g];
        } else {
          const int unit = i * kConsumers + tid;
          part = Partial(c.scratch, unit / 64, unit / 32 % 2, w)[lane];
        }
        y.x = __fadd_rn(y.x, part.x);
        y.y = __fadd_rn(y.y, part.y);
      }
      Finish(c, a, u, y, inputs[i]);
    }
  }
}

}  // namespace hgrn2::cuda::persistent
