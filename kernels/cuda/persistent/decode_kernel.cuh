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

// One per source file: launches for batches of up to 8 * n-tiles, and those with flags.
template <bool kFp8, int kNTiles>
cudaError_t LaunchTiles(const DecodeParams& params, cudaStream_t stream);
template <bool kFp8>
cudaError_t LaunchFlags(const DecodeParams& params, cudaStream_t stream);

// Shared memory: stages | scratch | activations (flags only) | Control | layers' pointers | tile
// ranges.
struct Control {
  uint64_t full[kMaxStages];
  uint64_t empty[kMaxStages];
  float row_scale[kMaxBatch];
  Sequence sequences[kMaxBatch];
  uint32_t flag;  // of the embedding's cells; valid once there is progress
  int progress;   // products begun
};

template <typename T>
HGRN2_HOST_DEVICE int64_t SharedActivationBytes(const DecodeParams& p) {
  return T::kFlags ? ActivationBytes(p.shape, p.batch) : 0;
}

template <typename T>
inline size_t FixedSharedBytes(const DecodeParams& p) {
  const ModelShape& s = p.shape;
  return kScratchBytes + SharedActivationBytes<T>(p) + sizeof(Control) +
         Align256(s.layers * sizeof(LayerPointers)) + Align256(s.NumPhases() * sizeof(TileRange)) +
         128;  // and alignment of the stages
}

// x, its sums of squares and the first product's activations, 16 channels per half warp.
template <bool kFp8, bool kFlags>
__device__ __forceinline__ void Embed(Context<kFlags>& c) {
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
    const int token = item / groups, group = item % groups;
    const int channel = group * 16 + part;
    const bool valid = item < total;
    float x = 0, in = 0;
    if (valid && c.sequences[token].slot >= 0) {
      x = __bfloat162float(table[p.tokens[token] * d + channel]);
      in = __fmul_rn(__fmul_rn(x, __ldg(norm + channel)), kFp8 ? kFp8ActivationScale : 1.0f);
    }
    float squares = __fmul_rn(x, x);
#pragma unroll
    for (int mask = 1; mask < 16; mask *= 2) {
      squares = __fadd_rn(squares, __shfl_xor_sync(0xffffffffu, squares, mask));
    }
    const float next = __shfl_xor_sync(0xffffffffu, in, 1);
    if (!valid) continue;
    const int row = token * c.ws.stride;
    StoreCell(c.ws.x + row + channel, __float_as_uint(x), c.flag);
    if (part % 2 == 0) StoreCell(c.ws.x_in + row + channel / 2, PackPair(in, next), c.flag);
    if (part == 0) StoreCell(c.ws.x_squares + row + group, __float_as_uint(squares), c.flag);
  }
}

template <bool kFp8, bool kFlags>
__device__ __forceinline__ ProductArgs<kFlags> ArgsOf(const Context<kFlags>& c, int phase) {
  const DecodeParams& p = c.p;
  const int l = phase / kProductsPerLayer;
  const bool head = phase == p.shape.layers * kProductsPerLayer;
  const LayerPointers& layer = c.layers[head ? 0 : l];
  const int d = static_cast<int>(p.shape.d), m = static_cast<int>(p.shape.m);
  const bool last = l + 1 == p.shape.layers;
  ProductArgs<kFlags> a;
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

// Moves on to the flags of the next step. A row of cells beyond the batch keeps the flags of
// whatever step last used it, which must be forgotten before their numbers come round again. This
// step's cells all are of one half of the numbers, and at the end of each half only they survive.
__device__ __forceinline__ void AdvanceFlags(const DecodeParams& p, const Workspace<true>& ws) {
  const uint32_t used = ws.header->flag, flags = FlagsPerStep(p.shape);
  uint32_t next = used + flags;
  const bool half = (used ^ next) >> 31 != 0;
  const bool last = next >= 0xffffffffu - flags;  // the next step would reach 0xffffffff
  if (half || last) {
    Cell<true>* row = ws.x;
    for (int i = p.batch * ws.stride + threadIdx.x % 32; i < kMaxFlagBatch * ws.stride; i += 32) {
      StoreCell(row + i, 0, 0);
    }
  }
  if (last) next = 0;
  __syncwarp();
  if (threadIdx.x % 32 == 0) ws.header->flag = next;
}

// One warp: once the block has begun the head, nobody else in it looks at the header, the ages or
// rows of cells beyond the batch. The last block to get there leaves the header as the next step
// needs it and moves the rings' ages.
template <bool kFlags>
__device__ __forceinline__ void Leave(const DecodeParams& p, volatile int* progress) {
  GridDependencyWait();
  while (*progress < p.shape.NumPhases()) __nanosleep(1000);
  __syncwarp();
  Workspace<kFlags> ws;
  LayOut(p.shape, p.batch, p.workspace, &ws);
  const int lane = threadIdx.x % 32;
  uint32_t last = 0;
  if (lane == 0) {
    __threadfence();
    last = atomicAdd(&ws.header->exits, 1) == static_cast<uint32_t>(p.blocks) - 1;
  }
  if (__shfl_sync(0xffffffffu, last, 0) == 0) return;
  if constexpr (kFlags) AdvanceFlags(p, ws);
  if (lane == 0) {
    ws.header->barrier = 0;
    ws.header->exits = 0;
  }
  if (p.advance_ages && p.age != nullptr && lane < p.batch && p.slots[lane] >= 0) {
    int32_t& age = p.age[p.slots[lane]];
    age = p.reset != nullptr && p.reset[lane] != 0 ? 0 : age + 1;
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

// Flags, one warp: the row scales of this block's products, off the consumers' path. The next
// product's sums are only complete when this block's part of the last one is, so what is
// overwritten has been read.
__device__ __forceinline__ void BringRowScales(const DecodeParams& p, const TileRange* ranges,
                                               volatile Control& control) {
  GridDependencyWait();
  // Not from the header: the step may be over for a block that has little to do.
  while (control.progress == 0) __nanosleep(20);
  const uint32_t embedded = control.flag;
  Workspace<true> ws;
  LayOut(p.shape, p.batch, p.workspace, &ws);
  const int groups = static_cast<int>(p.shape.d) / 16;
  const float d = static_cast<float>(p.shape.d);
  const int phases = p.shape.NumPhases();
#pragma unroll 1
  for (int phase = 0; phase < phases; ++phase) {
    const int product = phase % kProductsPerLayer;  // the head's is kQfi: both take x
    if (product == kDown || ranges[phase].count == 0) continue;
    // Of the phase before: products and, behind kQfi, the recurrence.
    const uint32_t flag =
        embedded + phase / kProductsPerLayer * 5 + (product == kQfi ? 0 : product + 1);
    AwaitRowScales(product == kOut ? ws.o_squares : ws.x_squares, ws.stride, groups, p.batch, flag,
                   d, product == kOut ? p.g_norm_eps : p.norm_eps,
                   const_cast<float*>(control.row_scale));
    __syncwarp();
    ScaledArrive();
  }
}

template <typename T, bool kFp8, typename S>
__device__ __forceinline__ void Consume(Context<T::kFlags>& c) {
  const DecodeParams& p = c.p;
  GridDependencyWait();
  const int tid = threadIdx.x;
  if (tid < p.batch) {
    const int slot = p.slots[tid];
    const bool reset = p.reset != nullptr && p.reset[tid] != 0;
    c.sequences[tid] = {slot, reset ? -1 : slot < 0 || p.ring_length <= 1 ? 0 : p.age[slot]};
  }
  if (T::kFlags) {
    c.flag = __ldcg(&c.ws.header->flag) + 1;
    if (tid == 0) *c.embedded_flag = c.flag;
    c.group = kConsumers / 8 / p.batch;
    c.unit_tile = tid / 8 / p.batch;
    c.unit_token = tid / 8 % p.batch;
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
    const LayerPointers& layer = c.layers[a.product == kHead ? 0 : phase / kProductsPerLayer];
    // In here: its registers are free outside of the q, f, i product.
    StateUnit<S, T::kFlags> state(c);
    const bool early = kEarly && a.product == kQfi && int(blockIdx.x) < state.Units(p);
    if (T::kFlags && early) state.Bind(layer, blockIdx.x);
    c.Wait();
    if (tid == 0) *c.progress = phase + 1;
    if (a.product == kHead) GridDependencyLaunch();
    RunProduct<T, kFp8>(c, a, [&] {
      if (kEarly) state.ClearLoaded();
      if (!early) return;
      if (!T::kFlags) state.Bind(layer, blockIdx.x);
      state.Load();
    });
    if (a.product == kHead) break;
    c.Arrive();
    if (a.product == kQfi) {
      RunStates<kEarly>(c, layer, state);
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
  uint8_t* activations = scratch + kScratchBytes;
  Control& control = *reinterpret_cast<Control*>(activations + SharedActivationBytes<T>(p));
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
    if (threadIdx.x == kConsumers) {
      if (p.trace == nullptr) {
        Produce<T, kFp8, false>(p, ranges, ring);
      } else {
        Produce<T, kFp8, true>(p, ranges, ring);
      }
    }
    if (threadIdx.x / 32 == kConsumerWarps + 1) Prefetch<S>(p, layers, &control.progress);
    if (T::kFlags && threadIdx.x / 32 == kConsumerWarps + 3) {
      BringRowScales(p, ranges, control);
    }
    if (threadIdx.x / 32 == kConsumerWarps + 2) Leave<T::kFlags>(p, &control.progress);
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(S::kConsumerRegisters));
    Context<T::kFlags> c = {p,
                            {},
                            ring,
                            reinterpret_cast<float*>(scratch),
                            SharedAddress(activations),
                            control.row_scale,
                            control.sequences,
                            &control.progress,
                            &control.flag,
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
  int limit = 0;
  HGRN2_CUDA_RETURN_IF_ERROR(DeviceAttribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, &limit));
  const int fixed = static_cast<int>(FixedSharedBytes<T>(p));
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
      if constexpr (T::kFlags) {
        if (pairs * 8 <= p.blocks) return LaunchAs<T, kFp8, StateTiling<128, 2>>(p, stream);
        if (pairs * 4 <= p.blocks) return LaunchAs<T, kFp8, StateTiling<128, 4>>(p, stream);
        return LaunchAs<T, kFp8, StateTiling<128, 8>>(p, stream);
      } else {
        if constexpr (T::kNTiles == 1) {
          if (pairs * 8 <= p.blocks) return LaunchAs<T, kFp8, StateTiling<128, 2>>(p, stream);
          if (pairs * 2 <= p.blocks) return LaunchAs<T, kFp8, StateTiling<128, 8>>(p, stream);
        }
        if (p.state_dtype == DType::kF32) return LaunchAs<T, kFp8, StateTiling<128, 8>>(p, stream);
        return LaunchAs<T, kFp8, StateTiling<128, 16>>(p, stream);
      }
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace hgrn2::cuda::persistent
