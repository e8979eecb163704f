#include "kernels/cuda/common.cuh"
#include "kernels/cuda/sampling/sampling.h"

namespace hgrn2::cuda {
namespace {

constexpr int kThreads = 1024;
constexpr int kWarps = kThreads / 32;
constexpr size_t kMaxCachedBytes = 200 * 1024;

// Order-preserving map of floats (no NaN) to unsigned integers, and back.
__device__ __forceinline__ uint32_t KeyOf(float x) {
  const uint32_t bits = __float_as_uint(x);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ float ValueOf(uint32_t key) {
  return __uint_as_float(key & 0x80000000u ? key & 0x7FFFFFFFu : ~key);
}
// Greater value first, then lower id.
__device__ __forceinline__ uint64_t Code(float x, int id) {
  return static_cast<uint64_t>(KeyOf(x)) << 32 | (0xFFFFFFFFu - static_cast<uint32_t>(id));
}
__device__ __forceinline__ int IdOf(uint64_t code) {
  return static_cast<int>(0xFFFFFFFFu - static_cast<uint32_t>(code));
}

struct Shared {
  union {
    float f[32];
    uint64_t u64[kWarps][3];
  };
  uint32_t u32[kWarps][3];
  uint64_t result;
};

__device__ uint64_t BlockMax(uint64_t x, Shared& s) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    const uint64_t other = __shfl_xor_sync(0xffffffffu, x, offset);
    x = other > x ? other : x;
  }
  if (threadIdx.x % 32 == 0) s.u64[threadIdx.x / 32][0] = x;
  __syncthreads();
  x = s.u64[threadIdx.x % 32][0];
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    const uint64_t other = __shfl_xor_sync(0xffffffffu, x, offset);
    x = other > x ? other : x;
  }
  __syncthreads();
  return x;
}

// Sums of three counts and three masses over the block, in every thread.
__device__ void BlockSum3(uint32_t (&count)[3], uint64_t (&mass)[3], Shared& s) {
#pragma unroll
  for (int j = 0; j < 3; ++j) {
    count[j] = __reduce_add_sync(0xffffffffu, count[j]);
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) {
      mass[j] += __shfl_xor_sync(0xffffffffu, mass[j], offset);
    }
  }
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  if (lane == 0) {
#pragma unroll
    for (int j = 0; j < 3; ++j) s.u32[warp][j] = count[j], s.u64[warp][j] = mass[j];
  }
  __syncthreads();
#pragma unroll
  for (int j = 0; j < 3; ++j) {
    count[j] = __reduce_add_sync(0xffffffffu, s.u32[lane][j]);
    mass[j] = s.u64[lane][j];
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) {
      mass[j] += __shfl_xor_sync(0xffffffffu, mass[j], offset);
    }
  }
  __syncthreads();
}

// Logits after bans, bias, penalties and temperature.
struct Transform {
  const float* logits;
  const float* bias;            // or null
  const uint32_t* token_flags;  // or null
  SamplingScalars scalars;
  bool min_tokens_bans;

  __device__ __forceinline__ float operator()(int i) const {
    float v = logits[i];
    if (bias) v += bias[i];
    if (token_flags) {
      const uint32_t flags = token_flags[i];
      const uint32_t n = flags & kTokenCountMask;
      if (n || flags & kTokenInPrompt) {
        v = v > 0 ? v / scalars.repetition_penalty : v * scalars.repetition_penalty;
      }
      if (n) {
        v -= scalars.frequency_penalty * static_cast<float>(n);
        v -= scalars.presence_penalty;
      }
      if (flags & kTokenStepBan || (min_tokens_bans && flags & kTokenMinTokensBan)) v = -INFINITY;
    }
    return scalars.temperature > 0 ? v / scalars.temperature : v;
  }
};

// The transformed row: in shared memory where it fits, else recomputed on each pass.
template <bool kCached>
struct Row {
  Transform transform;
  float* cache;
  int vocab;
  __device__ __forceinline__ float operator()(int i) const {
    return kCached ? cache[i] : transform(i);
  }
};

// Masses are 2^40 fixed point: their sums do not depend on the order of summation.
__device__ __forceinline__ uint64_t Mass(float x, float max) {
  return static_cast<uint64_t>(expf(x - max) * 1099511627776.0f);
}

// The greatest key t in [lo, hi) such that the tokens with key >= t number at least `k` (kTopP:
// weigh at least `mass`); REQUIRES: lo fulfils it. Three pivots a pass; ends early when no further
// pass can change the set of tokens.
template <bool kTopP, typename RowT>
__device__ uint32_t FindThreshold(const RowT& row, uint32_t lo, uint64_t hi, float max, uint32_t k,
                                  uint64_t target, uint32_t count_lo, Shared& s) {
  uint32_t count_hi = 0;
  while (hi - lo > 1) {
    if (kTopP ? count_lo - count_hi == 1 : count_lo == k) break;
    uint32_t pivot[3];
#pragma unroll
    for (int j = 0; j < 3; ++j) pivot[j] = static_cast<uint32_t>(lo + (hi - lo) * (j + 1) / 4);
    uint32_t count[3] = {};
    uint64_t mass[3] = {};
    for (int i = threadIdx.x; i < row.vocab; i += kThreads) {
      const float x = row(i);
      const uint32_t key = KeyOf(x);
      if (key < pivot[0]) continue;
      const uint64_t m = kTopP ? Mass(x, max) : 0;
#pragma unroll
      for (int j = 0; j < 3; ++j) {
        if (key >= pivot[j]) ++count[j], mass[j] += m;
      }
    }
    BlockSum3(count, mass, s);
    bool found = false;
#pragma unroll
    for (int j = 2; j >= 0; --j) {
      if (found) continue;
      if (kTopP ? mass[j] >= target : count[j] >= k) {
        lo = pivot[j], count_lo = count[j];
        found = true;
      } else {
        hi = pivot[j], count_hi = count[j];
      }
    }
  }
  return lo;
}

// Number and mass of the tokens with key >= min_key.
template <typename RowT>
__device__ void Total(const RowT& row, uint32_t min_key, float max, uint32_t* count, uint64_t* mass,
                      Shared& s) {
  uint32_t c[3] = {};
  uint64_t m[3] = {};
  for (int i = threadIdx.x; i < row.vocab; i += kThreads) {
    const float x = row(i);
    if (KeyOf(x) >= min_key) ++c[0], m[0] += Mass(x, max);
  }
  BlockSum3(c, m, s);
  *count = c[0], *mass = m[0];
}

// Log-probability and rank of `token`, and the best `top_n`, of the raw logits.
__device__ void Score(const float* logits, int vocab, int token, int top_n, TokenResult* out,
                      Shared& s) {
  top_n = min(top_n, min(vocab, kMaxTopLogprobs));
  uint64_t best = 0;
  for (int i = threadIdx.x; i < vocab; i += kThreads) {
    const uint64_t code = Code(logits[i], i);
    best = code > best ? code : best;
  }
  best = BlockMax(best, s);
  const float max = ValueOf(static_cast<uint32_t>(best >> 32)), raw = logits[token];
  float sum = 0, greater = 0;  // vocabularies are far below 2^24
  for (int i = threadIdx.x; i < vocab; i += kThreads) {
    const float x = logits[i];
    sum += expf(x - max);
    greater += x > raw ? 1.0f : 0.0f;
  }
  sum = BlockReduce<false>(sum, s.f);
  greater = BlockReduce<false>(greater, s.f);
  const float log_sum = max + logf(sum);
  if (threadIdx.x == 0) {
    out->token = token;
    out->logprob = raw - log_sum;
    out->rank = 1 + static_cast<int>(greater);
    out->num_top = top_n;
  }
  for (int n = 0; n < top_n; ++n) {
    if (n > 0) {
      uint64_t next = 0;
      for (int i = threadIdx.x; i < vocab; i += kThreads) {
        const uint64_t code = Code(logits[i], i);
        if (code < best && code > next) next = code;
      }
      best = BlockMax(next, s);
    }
    if (threadIdx.x == 0) {
      out->top_token[n] = IdOf(best);
      out->top_logprob[n] = ValueOf(static_cast<uint32_t>(best >> 32)) - log_sum;
    }
  }
}

template <typename RowT>
__device__ int Draw(const RowT& row, float max, uint32_t position, Shared& s) {
  const SamplingScalars& p = row.transform.scalars;
  uint32_t min_key = KeyOf(-INFINITY) + 1;  // banned tokens are never drawn
  if (p.min_p > 0) min_key = KeyOf(max + logf(p.min_p));
  const bool top_k = p.top_k > 0 && p.top_k < row.vocab, top_p = p.top_p < 1;
  const uint64_t end = static_cast<uint64_t>(KeyOf(max)) + 1;
  if (top_k || top_p) {
    uint32_t count;
    uint64_t mass;
    Total(row, min_key, max, &count, &mass, s);
    if (top_k && count > static_cast<uint32_t>(p.top_k)) {
      min_key = FindThreshold<false>(row, min_key, end, max, p.top_k, 0, count, s);
      if (top_p) Total(row, min_key, max, &count, &mass, s);
    }
    if (top_p) {
      const uint64_t target = static_cast<uint64_t>(static_cast<double>(p.top_p) * mass);
      min_key = FindThreshold<true>(row, min_key, end, max, 0, target, count, s);
    }
  }
  const uint64_t key = PositionKey(p.seed, position);
  uint64_t best = 0;
  for (int i = threadIdx.x; i < row.vocab; i += kThreads) {
    const float x = row(i);
    if (KeyOf(x) < min_key) continue;
    const uint64_t code = Code(x - logf(ExponentialNoise(key, i)), i);
    best = code > best ? code : best;
  }
  best = BlockMax(best, s);
  return best == 0 ? 0 : IdOf(best);
}

__device__ void SetStepBans(const SampleParams& p, const LogitRow& row, uint32_t* flags, bool set) {
  for (int j = threadIdx.x; j < row.ban_count; j += kThreads) {
    uint32_t* word = flags + p.bans[row.ban_begin + j];
    if (set) {
      atomicOr(word, kTokenStepBan);
    } else {
      atomicAnd(word, ~kTokenStepBan);
    }
  }
  __syncthreads();
}

// Plain greedy rows: nothing to do but to read them, 16 bytes at a time with eight loads under way.
__device__ uint64_t GreatestLogit(const float* logits, int vocab, Shared& s) {
  const float4* packs = reinterpret_cast<const float4*>(logits);
  float best = -INFINITY;
  int id = 0;
#pragma unroll 8
  for (int i = threadIdx.x; i < vocab / 4; i += kThreads) {
    const float4 v = packs[i];
    // Ids only grow in a thread: "greater" keeps the lowest of equals.
    if (v.x > best) best = v.x, id = 4 * i;
    if (v.y > best) best = v.y, id = 4 * i + 1;
    if (v.z > best) best = v.z, id = 4 * i + 2;
    if (v.w > best) best = v.w, id = 4 * i + 3;
  }
  return BlockMax(Code(best, id), s);
}

// The greatest transformed logit; fills the cache on the way.
template <bool kCached>
__device__ uint64_t Best(const Row<kCached>& row, bool fill, Shared& s) {
  const Transform& t = row.transform;
  if (!t.bias && !t.token_flags && t.scalars.temperature <= 0 && row.vocab % 4 == 0) {
    return GreatestLogit(t.logits, row.vocab, s);
  }
  uint64_t best = 0;
#pragma unroll 8
  for (int i = threadIdx.x; i < row.vocab; i += kThreads) {
    const float x = t(i);
    if (kCached && fill) row.cache[i] = x;
    const uint64_t code = Code(x, i);
    best = code > best ? code : best;
  }
  return BlockMax(best, s);
}

template <bool kCached>
__device__ int SampleRow(const SampleParams& p, const LogitRow& r, const float* logits,
                         float* cache, Shared& s) {
  const SlotSamplingParams& slot = p.slots[r.slot];
  uint32_t* flags = p.token_flags + static_cast<int64_t>(r.slot) * p.vocab;
  const uint32_t position = p.num_generated[r.slot];
  if (r.ban_count > 0) SetStepBans(p, r, flags, true);
  Row<kCached> row;
  row.transform.logits = logits;
  row.transform.bias = slot.has_bias ? p.bias + static_cast<int64_t>(r.slot) * p.vocab : nullptr;
  row.transform.token_flags = slot.has_token_flags || r.ban_count > 0 ? flags : nullptr;
  row.transform.scalars = slot.scalars;
  row.transform.min_tokens_bans = position < slot.min_tokens;
  row.cache = cache;
  row.vocab = p.vocab;
  bool greedy = slot.scalars.temperature <= 0;
  uint64_t best = Best(row, !greedy, s);
  const float max = ValueOf(static_cast<uint32_t>(best >> 32));
  if (!greedy && max == INFINITY) {
    // A temperature so small that the greatest overflows leaves that one alone.
    greedy = true;
    row.transform.scalars.temperature = 0;
    best = Best(row, false, s);
  }
  const int token = greedy ? IdOf(best) : Draw(row, max, position, s);
  __syncthreads();
  if (r.ban_count > 0) SetStepBans(p, r, flags, false);
  if (threadIdx.x == 0) {
    p.last_token[r.slot] = token;
    p.num_generated[r.slot] = position + 1;
    if (slot.has_token_flags) ++flags[token];
  }
  return token;
}

template <bool kCached>
__global__ void __launch_bounds__(kThreads) SampleKernel(const SampleParams p) {
  extern __shared__ float cache[];
  __shared__ Shared shared;
  GridDependencyLaunch();
  GridDependencyWait();
  const LogitRow row = p.rows[blockIdx.x];
  if (row.target < 0 && row.slot < 0) return;
  const float* logits = p.logits + static_cast<int64_t>(blockIdx.x) * p.vocab;
  TokenResult* out = p.results[*p.step & 1] + row.out_index;
  if (row.target >= 0) {
    Score(logits, p.vocab, row.target, row.top_n, out, shared);
    return;
  }
  const int token = SampleRow<kCached>(p, row, logits, cache, shared);
  const int logprobs = p.slots[row.slot].scalars.logprobs;
  if (logprobs >= 0) {
    Score(logits, p.vocab, token, logprobs, out, shared);
  } else if (threadIdx.x == 0) {
    out->token = token;
  }
}

__global__ void ConfigureSlotKernel(const ConfigureSlotParams p) {
  GridDependencyWait();
  float* bias = p.bias + static_cast<int64_t>(p.slot) * p.vocab;
  uint32_t* flags = p.token_flags + static_cast<int64_t>(p.slot) * p.vocab;
  const auto each = [](int32_t n, auto&& f) {
    for (int i = threadIdx.x; i < n; i += blockDim.x) f(i);
    __syncthreads();
  };
  if (p.clear_token_flags) each(p.vocab, [&](int i) { flags[i] = 0; });
  if (p.sampling.has_bias) {
    each(p.vocab, [&](int i) { bias[i] = p.all_banned ? -INFINITY : 0.0f; });
    each(p.num_allowed, [&](int i) { bias[p.allowed[i]] = 0.0f; });
    each(p.num_bias, [&](int i) { bias[p.bias_ids[i]] += p.bias_values[i]; });
    each(p.num_banned, [&](int i) { bias[p.banned[i]] = -INFINITY; });
  }
  if (p.sampling.has_token_flags) {
    each(p.num_prompt, [&](int i) { atomicOr(flags + p.prompt[i], kTokenInPrompt); });
    each(p.num_generated_list, [&](int i) { atomicAdd(flags + p.generated[i], 1u); });
    each(p.num_min_bans, [&](int i) { atomicOr(flags + p.min_bans[i], kTokenMinTokensBan); });
  }
  if (threadIdx.x == 0) {
    p.slots[p.slot] = p.sampling;
    p.generated_counts[p.slot] = p.num_generated;
    if (p.last_token >= 0) p.last_tokens[p.slot] = p.last_token;
  }
}

}  // namespace

cudaError_t InitSampling() {
  return cudaFuncSetAttribute(SampleKernel<true>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                              kMaxCachedBytes);
}

cudaError_t Sample(const SampleParams& p, cudaStream_t stream) {
  if (p.num_rows == 0) return cudaSuccess;
  if (p.vocab <= 0 || p.vocab >= 1 << 24) return cudaErrorInvalidValue;
  const size_t bytes = sizeof(float) * p.vocab;
  int max_shared = 0;
  HGRN2_CUDA_RETURN_IF_ERROR(DeviceAttribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, &max_shared));
  const bool cached = bytes + 2048 <= static_cast<size_t>(max_shared) && bytes <= kMaxCachedBytes;
  return cached ? Launch(SampleKernel<true>, p.num_rows, kThreads, bytes, stream, p.overlap, p)
                : Launch(SampleKernel<false>, p.num_rows, kThreads, 0, stream, p.overlap, p);
}

cudaError_t ConfigureSlot(const ConfigureSlotParams& params, cudaStream_t stream) {
  return Launch(ConfigureSlotKernel, 1, kThreads, 0, stream, false, params);
}

}  // namespace hgrn2::cuda
