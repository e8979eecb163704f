// The persistent decode kernel: phases, launch, and what it supports.
#include "kernels/cuda/persistent/decode.h"

#include <algorithm>

#include "kernels/cuda/persistent/context.cuh"
#include "kernels/cuda/persistent/epilogue.cuh"
#include "kernels/cuda/persistent/product.cuh"
#include "kernels/cuda/persistent/state.cuh"

namespace hgrn2::cuda::persistent {
namespace {

// Shared memory: stages | scratch | Control | layers' pointers | tile ranges.
struct Control {
  uint64_t full[kMaxStages];
  uint64_t empty[kMaxStages];
  float row_scale[kMaxBatch];
};

size_t FixedSharedBytes(const ModelShape& s) {
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
  for (int base = blockIdx.x * (kConsumers / 16); base < total; base += p.blocks * (kConsumers / 16)) {
    const int item = base + threadIdx.x / 16;
    const int token = item / groups;
    const int64_t channel = item % groups * 16 + part;
    const bool valid = item < total;
    float x = 0;
    if (valid && __ldg(p.slots + token) >= 0) {
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

// Residual stream at the layer's entry -> at its exit. On entry the block has passed the barrier
// behind the writers of x_in; on exit it has arrived at the one behind its own.
template <typename T, bool kFp8>
__device__ __forceinline__ void RunLayer(Context& c, int l) {
  const DecodeParams& p = c.p;
  const LayerPointers& layer = c.layers[l];
  const TileRange* ranges = c.ranges + l * kProductsPerLayer;
  const int64_t d = p.shape.d, m = p.shape.m;
  const int kpw_d = KStepsPerWarp(d), kpw_m = KStepsPerWarp(m);
  const bool last = l == p.shape.layers - 1;
  const float carried = kFp8 ? kFp8ActivationScale : 1.0f;

  QfiEpilogue<kFp8> qfi{c, layer};
  RunProduct<T, kFp8>(c, ranges[kQfi], d, kpw_d, c.ws.x_in, qfi);
  c.Arrive();

  RunStates(c, layer);
  c.Arrive();

  c.Wait();
  ResidualEpilogue<kFp8, true> out{c, layer.scale[kOut], layer.mlp_norm, carried};
  RunProduct<T, kFp8>(c, ranges[kOut], d, kpw_d, c.ws.o_in, out);
  c.Arrive();

  c.Wait();
  GateUpEpilogue<kFp8> gate_up{c, layer};
  RunProduct<T, kFp8>(c, ranges[kGateUp], d, kpw_d, c.ws.x_in, gate_up);
  c.Arrive();

  c.Wait();
  ResidualEpilogue<kFp8, false> down{c, layer.scale[kDown],
                                     last ? p.final_norm : c.layers[l + 1].attn_norm,
                                     last ? 1.0f : carried};
  RunProduct<T, kFp8>(c, ranges[kDown], m, kpw_m, c.ws.u, down);
  c.Arrive();
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

template <typename T, bool kFp8>
__device__ __forceinline__ void Consume(Context& c) {
  const DecodeParams& p = c.p;
  GridDependencyWait();
  Embed<kFp8>(c);
  c.Arrive();
  for (int l = 0; l < p.shape.layers; ++l) {
    c.Wait();
    RunLayer<T, kFp8>(c, l);
  }
  c.Wait();
  Leave(c);
  GridDependencyLaunch();
  HeadEpilogue head{c};
  RunProduct<T, false>(c, c.ranges[p.shape.NumPhases() - 1], p.shape.d, KStepsPerWarp(p.shape.d),
                       c.ws.x_in, head);
}

template <typename T, bool kFp8>
__global__ void __launch_bounds__(kThreads, 1)
    DecodeKernel(const __grid_constant__ DecodeParams p, int stages) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  extern __shared__ uint8_t raw_shared[];
  uint8_t* shared = raw_shared + (128 - SharedAddress(raw_shared) % 128) % 128;
  uint8_t* scratch = shared + stages * kStageBytes;
  Control& control = *reinterpret_cast<Control*>(scratch + kScratchBytes);
  auto* layers = reinterpret_cast<LayerPointers*>(&control + 1);
  auto* ranges = reinterpret_cast<TileRange*>(reinterpret_cast<uint8_t*>(layers) +
                                              Align256(p.shape.layers * sizeof(LayerPointers)));
  RingState ring = {SharedAddress(control.full), SharedAddress(control.empty), SharedAddress(shared),
                    stages};
  if (threadIdx.x == 0) {
    for (int i = 0; i < stages; ++i) {
      MbarrierInit(ring.full + i * 8, 1);
      MbarrierInit(ring.empty + i * 8, kConsumerWarps);
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
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
    asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
    if (threadIdx.x == kConsumers) Produce<T, kFp8>(p, ranges, ring);
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
    Context c = {p, {}, ring, reinterpret_cast<float*>(scratch), control.row_scale, layers, ranges};
    LayOut(p.shape, p.batch, p.workspace, &c.ws);
    Consume<T, kFp8>(c);
  }
#endif
}

template <typename T, bool kFp8>
cudaError_t LaunchAs(const DecodeParams& p, cudaStream_t stream) {
  auto* kernel = DecodeKernel<T, kFp8>;
  int device = 0, limit = 0;
  HGRN2_CUDA_RETURN_IF_ERROR(cudaGetDevice(&device));
  HGRN2_CUDA_RETURN_IF_ERROR(
      cudaDeviceGetAttribute(&limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
  const int stages = std::min<int>(
      kMaxStages, (limit - static_cast<int>(FixedSharedBytes(p.shape))) / kStageBytes);
  if (stages < 2) return cudaErrorInvalidValue;
  const size_t shared = FixedSharedBytes(p.shape) + stages * kStageBytes;
  HGRN2_CUDA_RETURN_IF_ERROR(cudaFuncSetAttribute(
      kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared)));
  return Launch(kernel, dim3(p.blocks), dim3(kThreads), shared, stream, p.programmatic, p, stages);
}

template <bool kFp8>
cudaError_t LaunchBatch(const DecodeParams& p, cudaStream_t stream) {
  // Registers for activations: 2 x k-steps x n-tiles.
  if (p.batch <= 8) return LaunchAs<Tiling<1, 24>, kFp8>(p, stream);
  if (p.batch <= 16) return LaunchAs<Tiling<2, 16>, kFp8>(p, stream);
  return LaunchAs<Tiling<4, 8>, kFp8>(p, stream);
}

bool IsLayerType(const ModelView& model, bool fp8) {
  const DType type = fp8 ? DType::kF8E4M3 : DType::kBF16;
  for (int l = 0; l < model.num_layers; ++l) {
    const LayerView& layer = model.layers[l];
    for (const MatrixView* w : {&layer.qfi, &layer.o, &layer.gate_up, &layer.down}) {
      if (w->type != type) return false;
    }
  }
  return true;
}

}  // namespace

ModelShape ShapeOf(const ModelView& model) {
  ModelShape s;
  s.d = model.d;
  s.m = model.m;
  s.vocab = model.vocab;
  s.layers = model.num_layers;
  s.fp8 = model.num_layers > 0 && model.layers[0].qfi.type == DType::kF8E4M3;
  return s;
}

size_t WorkspaceBytes(const ModelShape& shape, int32_t max_batch) {
  Workspace w;
  return LayOut(shape, max_batch, nullptr, &w);
}

bool Supports(const ModelView& model, DType state_dtype, int32_t ring_length, int compute_capability,
              const char** why) {
  auto fail = [&](const char* text) {
    *why = text;
    return false;
  };
  if (compute_capability / 10 != 9) return fail("needs a device of compute capability 9.x");
  if (model.activation_type != DType::kBF16) return fail("needs bfloat16 activations");
  if (model.conv_size > 0) return fail("short convolutions are not fused");
  if (model.head_dim != 32 && model.head_dim != 64 && model.head_dim != 128) {
    return fail("needs a head width of 32, 64 or 128");
  }
  if (model.d % 64 != 0 || model.m % 64 != 0) return fail("needs d and m to be multiples of 64");
  if (state_dtype == DType::kF8E4M3) return fail("an FP8 state has a scale per row");
  if (ring_length < 1 || ring_length > kMaxReplay) return fail("ring too long");
  if (model.num_layers < 1 || model.num_layers > kMaxLayers) return fail("too many layers");
  const ModelShape shape = ShapeOf(model);
  for (int product = 0; product <= kHead; ++product) {
    if (shape.Shape(product).tiles > 65535) return fail("too many rows");
  }
  if (!IsLayerType(model, shape.fp8)) return fail("needs all layers in bfloat16 or all in FP8");
  if (model.lm_head.type != DType::kBF16) return fail("needs a bfloat16 head");
  return true;
}

cudaError_t LaunchDecode(const DecodeParams& params, cudaStream_t stream) {
  if (params.batch < 1 || params.batch > kMaxBatch || params.shape.layers > kMaxLayers) {
    return cudaErrorInvalidValue;
  }
  return params.shape.fp8 ? LaunchBatch<true>(params, stream) : LaunchBatch<false>(params, stream);
}

}  // namespace hgrn2::cuda::persistent
