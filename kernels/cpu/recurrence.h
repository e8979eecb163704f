// The recurrence of one head, S_t = diag(g_t) S_{t-1} + k_t (x) i_t, o_t = K^-1/2 q_t^T S_t, from
// the raw projections (before swish and gate), one token at a time or in chunks.
#pragma once

#include <cstdint>

#include "kernels/cpu/aligned_buffer.h"
#include "kernels/dtype.h"

namespace hgrn2::cpu {

inline constexpr int kStateColumnPadding = 16;  // rows of S are padded to a multiple of this
inline constexpr int kChunkTokens = 16;
// A prompt cut at multiples of this gives the same bits as the whole: there, and only there, 16-bit
// states are rounded. Multiple of kChunkTokens.
inline constexpr int kSplitTokens = 64;

// Scratch of one thread for heads of up to `head_dim`. Matrices are [kChunkTokens][ld].
struct RecurrenceScratch {
  explicit RecurrenceScratch(int head_dim);
  int64_t ld;              // an odd number of cache lines, so that a column's are in many sets
  AlignedBuffer<float> q;  // q_t scaled, then times the gates since the chunk's start
  AlignedBuffer<float> g;
  AlignedBuffer<float> k;  // k_s times the gates since s
  AlignedBuffer<float> i;
  AlignedBuffer<float> o;
  AlignedBuffer<float> decay;  // [ld], product of the gates since the chunk's start
  AlignedBuffer<float> state;  // [head_dim, head_dim padded], a 16-bit state in float
  alignas(64) float scores[kChunkTokens][kChunkTokens];
};

// Columns [column_begin, column_begin + columns) of S: columns are independent, so a head may be
// cut over threads without changing its result.
struct RecurrenceParams {
  // [tokens, ld], at the head's first channel. Readable for 16 elements after the head's end.
  const float* q = nullptr;
  const float* f = nullptr;
  const float* i = nullptr;
  int64_t ld = 0;
  const float* lower_bound = nullptr;  // [head_dim], same channels
  int tokens = 0;
  int head_dim = 0;                 // K = V
  void* state = nullptr;            // [head_dim, state_ld] of state_dtype
  int64_t state_ld = 0;             // head_dim rounded up to kStateColumnPadding
  DType state_dtype = DType::kF32;  // kF32, kF16, kBF16
  int column_begin = 0;             // multiple of kStateColumnPadding
  int columns = 0;                  // multiple of kStateColumnPadding
  bool zero_state = false;          // S_0 = 0, whatever is in `state`
  float* o = nullptr;               // [tokens, ldo], at the head's first channel
  int64_t ldo = 0;
  RecurrenceScratch* scratch = nullptr;
};

// One token: reads and writes S once. REQUIRES: tokens == 1.
void RecurrentStep(const RecurrenceParams& params);

// Any number of tokens, kChunkTokens at a time: S is read and written once a chunk and everything
// becomes small matrix products. Decays are products of gates, never quotients, so gates near zero
// neither overflow nor lose the state. A 16-bit state is rounded every kSplitTokens and at the end.
void ChunkedRecurrence(const RecurrenceParams& params);

}  // namespace hgrn2::cpu
