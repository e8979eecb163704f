// The persistent decode kernel itself: phases and launch. Included by one source file per weight
// type and tile size (decode_*.cu), so that they compile in parallel.
#pragma once

#include <algorithm>

#include "kernels/cuda/persistent/context.cuh"
#include "kernels/cuda/persistent/decode.h"
#include "kernels/cuda/persistent/epilogue.cuh"
#include "kernels/cuda/persistent/product.cuh"
#include "kernels/cuda/persistent/state.cuh"

namespace hgrn2::cuda::persistent {

// One per source file: launches for batches of up to 8 * n-tiles.
template <bool kFp8, int kNTiles>
cudaError_t LaunchTiles(const DecodeParams& params, cudaStream_t stream);

// Shared memory: stages | scratch | Control | layers' pointers | tile ranges.
struct Control {
  uint64_t full[kMaxStages];
  uint64_t empty[kMaxStages];
  float row_scale[kMaxBatch];
  Sequence sequences[kMaxBatch];
  int progress;
};

inline size_t FixedSharedBytes(const ModelShape& s) {
  return kScratchBytes + sizeof(Control) + Align256(s.layers * sizeof(LayerPointers)) +
         Align256(s.NumPhases() * sizeof(TileRange)) + 128;  // and alignment of the stages
}

// x, its sums of squares and the first product's activations, 16 channels per half warp.
template <bool kFp8>
__device__ __forceinline__ void Embed(Context& c) {
  const DecodeParams& p = c.p;
  const int64_t d = p.shape.d;
  const int groups = static_cast<int>(d / 16);
  const int total = p.batch * groups;
  const float* norm = c.layers[0].attn_norm;
  const auto* table = static_cast<const __nv_bfloat16*>(p.embeddings);
  const int part = threadIdx.x % 16;
  for (int base = blockIdx.x * (kConsumers / 16); base < total;
       base += p.blocks * (kConsumers / 16)) {
    const int item = base + threadIdx.x / 16;
    const int token = item / groups;
    const int64_t channel = item % groups * 16 + part;
    const bool valid = item < total;
    float x = 0;
    if (valid && c.sequences[token].slot >= 0) {
      x = __bfloat162float(table[p.tokens[token] * d + channel]);
    }
    float squares = x * x;
#pragma unroll
    for (int mask = 1; mask < 16; mask *= 2) squares += __shfl_xor_sync(0xffffffffu, squares, mask);
    if (!valid) continue;
    c.ws.x[token * d + channel] = x;
    c.ws.x_in[token * d + channel] =
        __float2bfloat16(x * __ldg(norm + channel) * (kFp8 ? kFp8ActivationScale : 1.0f));
    if (part == 0) c.ws.x_squares[item] = squares;
  }
}

template <bool kFp8>
__device__ __forceinline__ ProductArgs ArgsOf(const Context& c, int phase) {
  const DecodeParams& p = c.p;
  const int l = phase / kProductsPerLayer;
  const bool head = phase == p.shape.layers * kProductsPerLayer;
  const LayerPointers& layer = c.layers[head ? 0 : l];
  const int d = static_cast<int>(p.shape.d), m = static_cast<int>(p.shape.m);
  const bool last = l + 1 == p.shape.layers;
  ProductArgs a;
  a.product = head ? static_cast<int>(kHead) : phase % kProductsPerLayer;
  a.range = c.ranges[phase];
  a.k = a.product == kDown ? m : d;
  a.kpw = KStepsPerWarp(a.k);
  a.x = a.product == kOut ? c.ws.o_in : a.product == kDown ? c.ws.u : c.ws.x_in;
  a.squares = a.product == kOut ? c.ws.o_squares : a.product == kDown ? nullptr : c.ws.x_squares;
  a.eps = a.product == kOut ? p.g_norm_eps : p.norm_eps;
  a.scale = kFp8 && !head ? layer.scale[a.product] : nullptr;
  a.next_norm = a.product == kOut    ? layer.mlp_norm
                : a.product != kDown ? nullptr
                : last               ? p.final_norm
                                     : c.layers[l + 1].attn_norm;
  a.carry = kFp8 && !(a.product == kDown && last) ? kFp8ActivationScale : 1.0f;
  a.uncarry = kFp8 && !head ? kFp8ActivationScale : 1.0f;
  return a;
}

// The last block to pass the last barrier leaves the counters at zero for the next step and moves
// the rings' ages, which nobody reads any more.
__device__ __forceinline__ void Leave(Context& c) {
  const DecodeParams& p = c.p;
  if (threadIdx.x >= 32) return;
  uint32_t last = 0;
  if (threadIdx.x == 0) {
    __threadfence();
    last = atomicAdd(c.ws.exits, 1) == static_cast<uint32_t>(p.blocks) - 1;
  }
  if (__shfl_sync(0xffffffffu, last, 0) == 0) return;
  if (threadIdx.x == 0) {
    *c.ws.barrier = 0;
    *c.ws.exits = 0;
  }
  const int b = threadIdx.x;
  if (p.advance_ages && p.age != nullptr && b < p.batch && p.slots[b] >= 0) {
    int32_t& age = p.age[p.slots[b]];
    age = p.reset != nullptr && p.reset[b] != 0 ? 0 : age + 1;
  }
}

// One warp: keeps the recurrence's reads half a layer ahead of its use.
template <typename S>
__device__ __forceinline__ void Prefetch(const DecodeParams& p, const LayerPointers* layers,
                                         volatile int* progress) {
  GridDependencyWait();
  for (int l = 0; l < p.shape.layers; ++l) {
    // The layer before has begun its gate/up product.
    while (*progress < (l - 1) * kProductsPerLayer + kGateUp + 1) __nanosleep(500);
    PrefetchStates<S>(p, layers[l]);
  }
}

template <typename T, bool kFp8, typename S>
__device__ __forceinline__ void Consume(Context& c) {
  const DecodeParams& p = c.p;
  GridDependencyWait();
  const int tid = threadIdx.x;
  if (tid < p.batch) {
    const int slot = p.slots[tid];
    const bool reset = p.reset != nullptr && p.reset[tid] != 0;
    c.sequences[tid] = {slot, reset ? -1 : slot < 0 || p.ring_length <= 1 ? 0 : p.age[slot]};
  }
  c.Sync();
  Embed<kFp8>(c);
  c.Arrive();
  const int phases = p.shape.NumPhases();
  // Larger batches have no registers left for a state that waits while a product runs.
  constexpr bool kEarly = T::kNTiles == 1;
#pragma unroll 1
  for (int phase = 0; phase < phases; ++phase) {
    const ProductArgs a = ArgsOf<kFp8>(c, phase);
    c.Wait();
    if (tid == 0) *c.progress = phase + 1;
    if (a.product == kHead) {
      Leave(c);
      GridDependencyLaunch();
    }
    const int l = phase / kProductsPerLayer;
    StateUnit<S> state(c);  // in here: its registers are free outside of the q, f, i product
    RunProduct<T, kFp8>(c, a, [&] {
      if (kEarly && a.product == kQfi && static_cast<int>(blockIdx.x) < StateUnit<S>::Units(p)) {
        state.Bind(c.layers[l], blockIdx.x);
        state.Load();
      }
    });
    if (a.product == kHead) break;
    c.Arrive();
    if (a.product == kQfi) {
      RunStates<kEarly, S>(c, c.layers[l], state);
      c.Arrive();
    }
  }
}

template <typename T, bool kFp8, typename S>
__global__ void __launch_bounds__(kThreads, 1)
    DecodeKernel(const __grid_constant__ DecodeParams p, int stages) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ uint8_t raw_shared[];
  uint8_t* shared = raw_shared + (128 - SharedAddress(raw_shared) % 128) % 128;
  uint8_t* scratch = shared + stages * kStageBytes<kFp8>;
  Control& control = *reinterpret_cast<Control*>(scratch + kScratchBytes);
  auto* layers = reinterpret_cast<LayerPointers*>(&control + 1);
  auto* ranges = reinterpret_cast<TileRange*>(reinterpret_cast<uint8_t*>(layers) +
                                              Align256(p.shape.layers * sizeof(LayerPointers)));
  RingState ring = {SharedAddress(control.full), SharedAddress(control.empty),
                    SharedAddress(shared), stages};
  if (threadIdx.x == 0) {
    control.progress = 0;
    for (int i = 0; i < stages; ++i) {
      MbarrierInit(ring.full + i * 8, 1);
      MbarrierInit(ring.empty + i * 8, kConsumerWarps);
    }
    MbarrierInitFence();
  }
  const int phases = p.shape.NumPhases();
  for (int i = threadIdx.x; i < phases; i += kThreads) {
    ranges[i] = p.ranges[int64_t{blockIdx.x} * phases + i];
  }
  const auto* source = reinterpret_cast<const uint64_t*>(p.layers);
  for (int i = threadIdx.x; i < static_cast<int>(p.shape.layers * sizeof(LayerPointers) / 8);
       i += kThreads) {
    reinterpret_cast<uint64_t*>(layers)[i] = source[i];
  }
  __syncthreads();
  if (threadIdx.x >= kConsumers) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(S::kProducerRegisters));
    if (threadIdx.x == kConsumers) Produce<T, kFp8>(p, ranges, ring);
    if (threadIdx.x / 32 == kConsumerWarps + 1) Prefetch<S>(p, layers, &control.progress);
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(S::kConsumerRegisters));
    Context c = {p,
                 {},
                 ring,
                 reinterpret_cast<float*>(scratch),
                 control.row_scale,
                 control.sequences,
                 &control.progress,
                 layers,
                 ranges};
    LayOut(p.shape, p.batch, p.workspace, &c.ws);
    Consume<T, kFp8, S>(c);
  }
#elif defined(__CUDA_ARCH__)
  __trap();  // built without the sm_90a target
#endif
}

template <typename T, bool kFp8, typename S>
cudaError_t LaunchAs(const DecodeParams& p, cudaStream_t stream) {
  auto* kernel = DecodeKernel<T, kFp8, S>;
  int device = 0, limit = 0;
  HGRN2_CUDA_RETURN_IF_ERROR(cudaGetDevice(&device));
  HGRN2_CUDA_RETURN_IF_ERROR(
      cudaDeviceGetAttribute(&limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
  const int fixed = static_cast<int>(FixedSharedBytes(p.shape));
  const int stages = std::min(kMaxStages, (limit - fixed) / kStageBytes<kFp8>);
  if (stages < 2) return cudaErrorInvalidValue;
  const int shared = fixed + stages * kStageBytes<kFp8>;
  HGRN2_CUDA_RETURN_IF_ERROR(AllowMostSharedMemory(kernel));
  return Launch(kernel, dim3(p.blocks), dim3(kThreads), shared, stream, p.programmatic, p, stages);
}

// Picks the widest slice of a state that still gives every block work: fewer, larger units share
// the ring's gates among more columns.
template <typename T, bool kFp8>
cudaError_t LaunchState(const DecodeParams& p, cudaStream_t stream) {
  const int pairs = p.batch * p.heads;
  switch (p.head_dim) {
    case 32:
      return LaunchAs<T, kFp8, StateTiling<32, 1>>(p, stream);
    case 64:
      return LaunchAs<T, kFp8, StateTiling<64, 4>>(p, stream);
    case 128:
      if constexpr (T::kNTiles == 1) {
        if (pairs * 8 <= p.blocks) {
          return LaunchAs<Tiling<1, T::kChunk, true>, kFp8, StateTiling<128, 2>>(p, stream);
        }
        if (pairs * 2 <= p.blocks) return LaunchAs<T, kFp8, StateTiling<128, 8>>(p, stream);
      }
      if (p.state_dtype == DType::kF32) return LaunchAs<T, kFp8, StateTiling<128, 8>>(p, stream);
      // A wide state leaves fewer registers for activations. Spills would be slow: every grid
      // barrier empties the L1 cache.
      return LaunchAs<Tiling<T::kNTiles, T::kNTiles == 1 ? 16 : T::kChunk>, kFp8,
                      StateTiling<128, 16>>(p, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace hgrn2::cuda::persistent
