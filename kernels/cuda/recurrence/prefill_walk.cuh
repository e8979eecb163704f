// The walk of one block of the chunked prefill kernel over its item.
#pragma once

#include "kernels/cuda/recurrence/prefill_chunk.cuh"

namespace hgrn2::cuda::chunked {

// kStateOnly: only the final state and the item's decay are wanted (first pass of long sequences).
template <typename S, int kPaddedK, bool kStateOnly>
struct Walk {
  using Shape = ChunkShape<kPaddedK>;
  using Shared = ChunkShared<kPaddedK>;

  const PrefillParams& p;
  const PrefillItem item;
  Shared& shared;
  const int K, d, head, tile, column0;
  const int thread = threadIdx.x, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int group = lane / 4, pair = 2 * (lane % 4);  // the lane's place in mma fragments
  const bf16* qfi;                                    // this head's first q of row 0
  // S^T: tile j, element e is row v = group + 8 (e / 2) of the warp's 16, column k = 8 j + pair + e
  // % 2.
  float state[Shape::kTiles][4];

  __device__ Walk(const PrefillParams& params, const PrefillItem& work, Shared& memory,
                  int head_index, int tile_index)
      : p(params),
        item(work),
        shared(memory),
        K(params.head_dim),
        d(params.num_heads * params.head_dim),
        head(head_index),
        tile(tile_index),
        column0(tile_index * Shape::kValues),
        qfi(static_cast<const bf16*>(params.qfi) + head_index * params.head_dim) {}

  __device__ __forceinline__ int tokens_left(int first) const {
    return min(Shape::kTokens, item.num_tokens - first);
  }

  // q, f and i of tokens [first, first + kTokens), zeros past the item's end and past K.
  __device__ __forceinline__ void Fetch(int first, int stage) {
    constexpr int kPerRow = kPaddedK / 8, kInputPerRow = Shape::kValues / 8;
    const int count = tokens_left(first);
    const bf16* rows = qfi + static_cast<int64_t>(item.token_begin + first) * 3 * d;
    for (int at = thread; at < Shape::kTokens * kPerRow; at += Shape::kThreads) {
      const int t = at / kPerRow, k = at % kPerRow * 8;
      const bool valid = t < count && k < K;
      const bf16* from = valid ? rows + static_cast<int64_t>(t) * 3 * d + k : qfi;
      if (!kStateOnly) CopyAsync(&shared.q_score[t][k], from, valid);
      CopyAsync(&shared.k_score[t][k], valid ? from + d : qfi, valid);
    }
    for (int at = thread; at < Shape::kTokens * kInputPerRow; at += Shape::kThreads) {
      const int t = at / kInputPerRow, v = at % kInputPerRow * 8;
      const bool valid = t < count && column0 + v < K;
      const bf16* from = valid ? rows + static_cast<int64_t>(t) * 3 * d + 2 * d + column0 + v : qfi;
      CopyAsync(&shared.input[stage][t][v], from, valid);
    }
  }

  // Gates and decayed operands. A task is two channels of half a chunk; the other half is done by
  // the lane 16 away.
  __device__ __forceinline__ void PrepareOperands(int first) {
    constexpr int kPairs = kPaddedK / 2;
    const int count = tokens_left(first);
    for (int task = thread; task < Shape::kBlocks * 2 * kPairs; task += Shape::kThreads) {
      const int half = task / 16 % 2;
      const int k = 2 * (task / 32 * 16 % kPairs + task % 16);
      const int block = task / (2 * kPairs);
      PrepareHalf(block, half, k, count - block * kChunk - half * kHalf);
    }
  }

  __device__ __forceinline__ void PrepareHalf(int block, int half, int k, int count) {
    const int row0 = block * kChunk + half * kHalf;
    const bool channel = k < K;
    const float bound0 = shared.bound[k], bound1 = shared.bound[k + 1];
    Gate gate[kHalf][2];
    float all0 = 1.0f, all1 = 1.0f;
#pragma unroll
    for (int t = 0; t < kHalf; ++t) {
      const float2 f = UnpackPair(&shared.k_score[row0 + t][k]);
      gate[t][0] = ForgetGate<false>(f.x, bound0);
      gate[t][1] = ForgetGate<false>(f.y, bound1);
      if (t >= count || !channel) gate[t][0] = gate[t][1] = {1.0f, 0.0f};
      all0 *= gate[t][0].g, all1 *= gate[t][1].g;
    }
    const float other0 = __shfl_xor_sync(0xffffffffu, all0, 16);
    const float other1 = __shfl_xor_sync(0xffffffffu, all1, 16);
    if (half == 0)
      *reinterpret_cast<float2*>(&shared.decay[block][k]) = {all0 * other0, all1 * other1};

    // Keys decayed to the chunk's end, newest first.
    float after0 = half == 0 ? other0 : 1.0f, after1 = half == 0 ? other1 : 1.0f;
#pragma unroll
    for (int t = kHalf - 1; t >= 0; --t) {
      StorePair(&shared.k_state[row0 + t][k], gate[t][0].k * after0, gate[t][1].k * after1);
      after0 *= gate[t][0].g, after1 *= gate[t][1].g;
    }
    if (kStateOnly) return;

    // The middle of the chunk is the scores' reference: first half, from[t] = decay from t to it;
    // second half, decay from it to t. Both are at least all0 (all1).
    const bool slow0 = fminf(all0, other0) < kSmallestDecay,
               slow1 = fminf(all1, other1) < kSmallestDecay;
    if (half == 0 && (slow0 || slow1))
      atomicOr(&shared.slow[block][k / 32],
               (slow0 ? 1u << k % 32 : 0u) | (slow1 ? 2u << k % 32 : 0u));
    float q0[kHalf], q1[kHalf];
    float before0 = half == 0 ? 1.0f : other0, before1 = half == 0 ? 1.0f : other1;
#pragma unroll
    for (int t = 0; t < kHalf; ++t) {
      const float2 q = UnpackPair(&shared.q_score[row0 + t][k]);
      q0[t] = SwishGate<false>(q.x), q1[t] = SwishGate<false>(q.y);
      before0 *= gate[t][0].g, before1 *= gate[t][1].g;
      StorePair(&shared.q_state[row0 + t][k], q0[t] * before0, q1[t] * before1);
    }
    float to0 = 1.0f, to1 = 1.0f;
#pragma unroll
    for (int step = 0; step < kHalf; ++step) {
      StoreScoreOperands(row0, k, step, half, gate, q0, q1, slow0, slow1, to0, to1);
    }
  }

  // Step `step` away from the middle. Both halves' code is unrolled so that registers are indexed
  // by constants.
  __device__ __forceinline__ void StoreScoreOperands(int row0, int k, int step, int half,
                                                     const Gate (&gate)[kHalf][2],
                                                     const float (&q0)[kHalf],
                                                     const float (&q1)[kHalf], bool slow0,
                                                     bool slow1, float& to0, float& to1) {
    if (half == 0) {
      const int t = kHalf - 1 - step;
      const float up0 = slow0 ? 0.0f : __fdividef(1.0f, to0),
                  up1 = slow1 ? 0.0f : __fdividef(1.0f, to1);
      const float down0 = slow0 ? 0.0f : to0, down1 = slow1 ? 0.0f : to1;
      StorePair(&shared.q_score[row0 + t][k], q0[t] * up0, q1[t] * up1);
      StorePair(&shared.k_score[row0 + t][k], gate[t][0].k * down0, gate[t][1].k * down1);
      to0 *= gate[t][0].g, to1 *= gate[t][1].g;
    } else {
      const int t = step;
      to0 *= gate[t][0].g, to1 *= gate[t][1].g;
      const float up0 = slow0 ? 0.0f : __fdividef(1.0f, to0),
                  up1 = slow1 ? 0.0f : __fdividef(1.0f, to1);
      const float down0 = slow0 ? 0.0f : to0, down1 = slow1 ? 0.0f : to1;
      StorePair(&shared.q_score[row0 + t][k], q0[t] * down0, q1[t] * down1);
      StorePair(&shared.k_score[row0 + t][k], gate[t][0].k * up0, gate[t][1].k * up1);
    }
  }

  // score[t][s] = sum_k q_t k_s decay(s -> t), s <= t, for every chunk. A unit is 8 keys of a
  // chunk.
  __device__ __forceinline__ void Scores(int first) {
    for (int unit = warp; unit < 2 * Shape::kBlocks; unit += Shape::kWarps) {
      const int block = unit / 2, s0 = unit % 2 * kHalf;
      float c[4] = {};
#pragma unroll
      for (int k = 0; k < kPaddedK; k += 32) {
        uint32_t b[4], a[4];
        LoadMatrices(b, &shared.k_score[block * kChunk + s0 + lane % 8][k + lane / 8 * 8]);
        LoadMatrices(a, &shared.q_score[block * kChunk + lane % 16][k + lane / 16 * 8]);
        Mma(c, a[0], a[1], a[2], a[3], b[0], b[1]);
        LoadMatrices(a, &shared.q_score[block * kChunk + lane % 16][k + 16 + lane / 16 * 8]);
        Mma(c, a[0], a[1], a[2], a[3], b[2], b[3]);
      }
      AddSlowChannels(first, block, s0, c);
      const int s = s0 + pair;
      StorePair(&shared.score[block][group][s], s <= group ? c[0] : 0.0f,
                s + 1 <= group ? c[1] : 0.0f);
      const int t = group + 8;
      StorePair(&shared.score[block][t][s], s <= t ? c[2] : 0.0f, s + 1 <= t ? c[3] : 0.0f);
    }
  }

  // Channels whose decay within half a chunk has no reciprocal: products of gates, one channel per
  // half warp at a time, lane t % 16 for row t. In a fixed order, so that results are reproducible.
  __device__ __forceinline__ void AddSlowChannels(int first, int block, int s0, float (&c)[4]) {
    uint32_t any = 0;
    for (int w = 0; w < Shape::kMaskWords; ++w) any |= shared.slow[block][w];
    if (any == 0) return;
    const int t = lane % 16, side = lane / 16;
    const int token = first + block * kChunk + t;
    const bool valid = token < item.num_tokens;
    const bf16* row = qfi + static_cast<int64_t>(item.token_begin + (valid ? token : 0)) * 3 * d;
    float sum[kHalf] = {};
    for (int w = 0; w < Shape::kMaskWords; ++w) {
      uint32_t mask = shared.slow[block][w];
      while (mask != 0) {
        const int even = w * 32 + __ffs(mask) - 1;
        mask &= mask - 1;
        int k = even;
        bool mine = valid;
        if (mask != 0) {
          const int odd = w * 32 + __ffs(mask) - 1;
          mask &= mask - 1;
          if (side == 1) k = odd;
        } else if (side == 1) {
          mine = false;
        }
        Gate gate = {1.0f, 0.0f};
        float q = 0;
        if (mine) {
          gate = ForgetGate<false>(ToFloat(row[d + k]), shared.bound[k]);
          q = SwishGate<false>(ToFloat(row[k]));
        }
        float decay = 1.0f;  // from s to t
#pragma unroll
        for (int s = kChunk - 1; s >= 0; --s) {
          const float key = __shfl_sync(0xffffffffu, gate.k, s, 16);
          const float g = __shfl_sync(0xffffffffu, gate.g, s, 16);
          if (s < t + 1) {
            const float add = q * key * decay;
#pragma unroll
            for (int j = 0; j < kHalf; ++j)
              if (s == s0 + j) sum[j] += add;
            decay *= g;
          }
        }
      }
    }
#pragma unroll
    for (int j = 0; j < kHalf; ++j) {
      sum[j] += __shfl_xor_sync(0xffffffffu, sum[j], 16);
      if (side == 0) shared.slow_score[warp][t][j] = sum[j];
    }
    __syncwarp();
    c[0] += shared.slow_score[warp][group][pair], c[1] += shared.slow_score[warp][group][pair + 1];
    c[2] += shared.slow_score[warp][group + 8][pair];
    c[3] += shared.slow_score[warp][group + 8][pair + 1];
    __syncwarp();
  }

  // Output of one chunk, then the state moves past it. No warp depends on another here.
  __device__ __forceinline__ void AdvanceChunk(int first, int block, int stage) {
    const int row0 = block * kChunk;
    uint32_t in[4];  // i[t][v], transposed: {t 0-7, v 0-7}, {t 8-15, v 0-7}, {.., v 8-15} x 2
    LoadMatricesTransposed(in, &shared.input[stage][row0 + lane % 16][warp * 16 + lane / 16 * 8]);
    if (!kStateOnly) {
      float o[2][4] = {};
#pragma unroll
      for (int j = 0; j < Shape::kTiles; j += 2) {
        uint32_t q[4];
        LoadMatrices(q, &shared.q_state[row0 + lane % 16][j * 8 + lane / 16 * 8]);
        Mma(o[0], q[0], q[1], q[2], q[3], PackPair(state[j][0], state[j][1]),
            PackPair(state[j + 1][0], state[j + 1][1]));
        Mma(o[1], q[0], q[1], q[2], q[3], PackPair(state[j][2], state[j][3]),
            PackPair(state[j + 1][2], state[j + 1][3]));
      }
      uint32_t score[4];
      LoadMatrices(score, &shared.score[block][lane % 16][lane / 16 * 8]);
      Mma(o[0], score[0], score[1], score[2], score[3], in[0], in[1]);
      Mma(o[1], score[0], score[1], score[2], score[3], in[2], in[3]);
      StoreOutput(first, row0, o);
    }
#pragma unroll
    for (int j = 0; j < Shape::kTiles; j += 2) {
      const float2 decay0 = *reinterpret_cast<const float2*>(&shared.decay[block][j * 8 + pair]);
      const float2 decay1 =
          *reinterpret_cast<const float2*>(&shared.decay[block][j * 8 + 8 + pair]);
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        state[j][e] *= e % 2 == 0 ? decay0.x : decay0.y;
        state[j + 1][e] *= e % 2 == 0 ? decay1.x : decay1.y;
      }
      uint32_t key[4];
      LoadMatricesTransposed(key, &shared.k_state[row0 + lane % 16][j * 8 + lane / 16 * 8]);
      Mma(state[j], in[0], in[2], in[1], in[3], key[0], key[1]);
      Mma(state[j + 1], in[0], in[2], in[1], in[3], key[2], key[3]);
    }
  }

  __device__ __forceinline__ void StoreOutput(int first, int row0, const float (&o)[2][4]) {
    const float scale = rsqrtf(static_cast<float>(K));
    const int v = column0 + warp * 16;
    float square[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int t = first + row0 + group + 8 * half;
      const float x[4] = {o[0][2 * half] * scale, o[0][2 * half + 1] * scale,
                          o[1][2 * half] * scale, o[1][2 * half + 1] * scale};
      square[half] = fmaf(x[3], x[3], fmaf(x[2], x[2], fmaf(x[1], x[1], x[0] * x[0])));
      if (t >= item.num_tokens || v >= K) continue;
      const int64_t at = static_cast<int64_t>(item.token_begin + t) * d + head * K + v;
      bf16* out = static_cast<bf16*>(p.o) + at + pair;
      StorePair(out, x[0], x[1]);
      StorePair(out + 8, x[2], x[3]);
    }
    if (p.sum_squares == nullptr) return;
    // Of a quad's lanes, the even ones go on with the first row and the odd ones with the second.
    const bool odd = lane % 2 != 0;
    float sum = odd ? square[1] : square[0];
    sum += __shfl_xor_sync(0xffffffffu, odd ? square[0] : square[1], 1);
    sum += __shfl_xor_sync(0xffffffffu, sum, 2);
    shared.squares[row0 + group + (odd ? 8 : 0)][warp] = sum;
  }

  // Sums of squares of tokens [first, first + kTokens), each from the two warps that hold its
  // group's columns. Between the barrier after AdvanceChunk and the one before Scores.
  __device__ __forceinline__ void StoreSumSquares(int first) {
    static_assert(kSumSquareGroup == 2 * 16);
    constexpr int kPerRow = Shape::kValues / kSumSquareGroup;
    static_assert(Shape::kTokens * kPerRow <= Shape::kThreads);
    const int t = thread / kPerRow, of_tile = thread % kPerRow;
    const int v = column0 + of_tile * kSumSquareGroup;
    if (p.sum_squares == nullptr || t >= tokens_left(first) || v >= K) return;
    const int64_t at = static_cast<int64_t>(item.token_begin + first + t) * d + head * K + v;
    p.sum_squares[at / kSumSquareGroup] =
        shared.squares[t][2 * of_tile] + shared.squares[t][2 * of_tile + 1];
  }

  // ---- initial and final states ----

  __device__ __forceinline__ float* WorkspaceState(int index) const {
    return static_cast<float*>(p.workspace) + index * WorkspaceStride(p.num_heads, K) +
           static_cast<int64_t>(head * (kPaddedK / Shape::kValues) + tile) * kPaddedK *
               Shape::kValues;
  }
  __device__ __forceinline__ float* WorkspaceDecay(int index) const {
    return static_cast<float*>(p.workspace) + index * WorkspaceStride(p.num_heads, K) +
           static_cast<int64_t>(p.num_heads) * kPaddedK * kPaddedK + head * kPaddedK;
  }
  // In the fragments' own order: [element][thread].
  __device__ __forceinline__ void LoadWorkspace(int index) {
    const float* from = WorkspaceState(index) + thread;
#pragma unroll
    for (int j = 0; j < Shape::kTiles; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) state[j][e] = from[(j * 4 + e) * Shape::kThreads];
  }
  __device__ __forceinline__ void StoreWorkspace(int index) const {
    float* to = WorkspaceState(index) + thread;
#pragma unroll
    for (int j = 0; j < Shape::kTiles; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) to[(j * 4 + e) * Shape::kThreads] = state[j][e];
  }

  __device__ __forceinline__ int64_t slot_head() const {
    return static_cast<int64_t>(item.slot) * p.num_heads + head;
  }
  __device__ __forceinline__ void ZeroState() {
#pragma unroll
    for (int j = 0; j < Shape::kTiles; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) state[j][e] = 0;
  }
  __device__ __forceinline__ void LoadSlot() {
    const S* slab = static_cast<const S*>(p.state.state) + slot_head() * K * K;
#pragma unroll
    for (int j = 0; j < Shape::kTiles; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int k = 8 * j + pair + e % 2, v = column0 + warp * 16 + group + 8 * (e / 2);
        state[j][e] = 0;
        if (k < K && v < K) state[j][e] = ToFloat(slab[k * K + v]);
      }
    if constexpr (kIsFp8<S>) {  // in a loop of its own: fewer loads in flight, no spills
      const float* scales = p.state.scales + slot_head() * K;
#pragma unroll
      for (int j = 0; j < Shape::kTiles; ++j) {
        const int k = 8 * j + pair;
        if (k >= K) continue;
        const float scale0 = scales[k], scale1 = scales[k + 1];
        state[j][0] *= scale0, state[j][1] *= scale1;
        state[j][2] *= scale0, state[j][3] *= scale1;
      }
    }
  }
  // Through shared memory: the slab's rows are S's, the fragments' are S^T's.
  __device__ __forceinline__ void StoreSlot() {
    static_assert(sizeof(float) * kPaddedK * Shape::kFinalStride <= offsetof(Shared, score));
    float(*tile_rows)[Shape::kFinalStride] =
        reinterpret_cast<float(*)[Shape::kFinalStride]>(&shared.q_score[0][0]);
    __syncthreads();
#pragma unroll
    for (int j = 0; j < Shape::kTiles; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e)
        tile_rows[8 * j + pair + e % 2][warp * 16 + group + 8 * (e / 2)] = state[j][e];
    __syncthreads();
    constexpr int kPerLane = (Shape::kValues + 31) / 32;
    constexpr int kRows = kPaddedK / Shape::kWarps;  // of a warp
    float inverse[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) inverse[r] = 1.0f;
    if constexpr (kIsFp8<S>) {  // the tile spans the row, or the item went through the workspace
      // All rows' maxima before anything is stored: one after the other they took 20 us.
      float largest[kRows];
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        largest[r] = 0;
#pragma unroll
        for (int i = 0; i < kPerLane; ++i) {
          if (i * 32 + lane < K)
            largest[r] =
                fmaxf(largest[r], fabsf(tile_rows[warp + r * Shape::kWarps][i * 32 + lane]));
        }
      }
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        largest[r] = WarpMax(largest[r]);
        inverse[r] = largest[r] > kLeastE4M3Row ? kMaxE4M3 / largest[r] : 0.0f;
      }
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const int k = warp + r * Shape::kWarps;
        if (lane == 0 && k < K) p.state.scales[slot_head() * K + k] = largest[r] / kMaxE4M3;
      }
    }
    S* rows = static_cast<S*>(p.state.state) + slot_head() * K * K + column0;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const int k = warp + r * Shape::kWarps;
#pragma unroll
      for (int i = 0; i < kPerLane; ++i) {
        const int v = i * 32 + lane;
        if (k < K && v < Shape::kValues && column0 + v < K)
          rows[k * K + v] = FromFloat<S>(tile_rows[k][v] * inverse[r]);
      }
    }
  }
  // FinalStateDetour: plain float32 [H][K][V].
  __device__ __forceinline__ void StoreDetour(int index) const {
    float* to = static_cast<float*>(p.workspace) + index * WorkspaceStride(p.num_heads, K) +
                static_cast<int64_t>(head) * K * K;
#pragma unroll
    for (int j = 0; j < Shape::kTiles; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int k = 8 * j + pair + e % 2, v = column0 + warp * 16 + group + 8 * (e / 2);
        if (k < K && v < K) to[k * K + v] = state[j][e];
      }
  }

  __device__ __forceinline__ void LoadInitialState() {
    const bool is_long = item.token_begin + item.num_tokens < item.sequence_end || item.index > 0;
    if (kStateOnly) {
      if (item.index > 0 || item.reset) {
        ZeroState();
      } else {
        LoadSlot();
        StoreWorkspace(item.workspace - 1);  // the second pass overwrites the slot
      }
    } else if (item.index > 0 || (is_long && !item.reset)) {
      LoadWorkspace(item.workspace - 1);
    } else if (item.reset) {
      ZeroState();
    } else {
      LoadSlot();
    }
  }

  __device__ __forceinline__ void StoreFinalState() {
    if (kStateOnly) {
      StoreWorkspace(item.workspace);
      if (tile == 0)
        for (int k = thread; k < kPaddedK; k += Shape::kThreads)
          WorkspaceDecay(item.workspace)[k] = shared.total[k];
    } else if (item.token_begin + item.num_tokens == item.sequence_end) {
      if (kIsFp8<S> && kPaddedK > 128)
        StoreDetour(item.workspace);
      else
        StoreSlot();
    }
  }

  __device__ __forceinline__ void Run() {
    for (int k = thread; k < kPaddedK; k += Shape::kThreads) {
      shared.bound[k] = k < K ? p.lower_bound[head * K + k] : 0.0f;
      shared.total[k] = 1.0f;
    }
    for (int w = thread; w < Shape::kBlocks * Shape::kMaskWords; w += Shape::kThreads)
      (&shared.slow[0][0])[w] = 0;
    Fetch(0, 0);
    LoadInitialState();
    int stage = 0;
    for (int first = 0; first < item.num_tokens; first += Shape::kTokens, stage ^= 1) {
      CopyAsyncWait();
      __syncthreads();
      if (!kStateOnly && first > 0) StoreSumSquares(first - Shape::kTokens);
      PrepareOperands(first);
      __syncthreads();
      if (kStateOnly) {
        for (int k = thread; k < kPaddedK; k += Shape::kThreads)
          for (int block = 0; block < Shape::kBlocks; ++block)
            shared.total[k] *= shared.decay[block][k];
      } else {
        Scores(first);
        __syncthreads();
        for (int w = thread; w < Shape::kBlocks * Shape::kMaskWords; w += Shape::kThreads)
          (&shared.slow[0][0])[w] = 0;
      }
      if (first + Shape::kTokens < item.num_tokens) Fetch(first + Shape::kTokens, stage ^ 1);
      const int chunks = (tokens_left(first) + kChunk - 1) / kChunk;
      if (column0 + warp * 16 < K)
        for (int block = 0; block < chunks; ++block) AdvanceChunk(first, block, stage);
    }
    if (!kStateOnly && p.sum_squares != nullptr) {
      __syncthreads();
      StoreSumSquares((item.num_tokens - 1) / Shape::kTokens * Shape::kTokens);
    }
    StoreFinalState();
  }
};

}  // namespace hgrn2::cuda::chunked
