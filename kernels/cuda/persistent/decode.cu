// What the persistent decode kernel supports, and the choice of its instance.
#include "kernels/cuda/persistent/context.cuh"
#include "kernels/cuda/persistent/decode.h"

namespace hgrn2::cuda::persistent {

// decode_{bf16,fp8}_{1,2,4}.cu
template <bool kFp8, int kNTiles>
cudaError_t LaunchTiles(const DecodeParams& params, cudaStream_t stream);
// decode_{bf16,fp8}_flags.cu
template <bool kFp8>
cudaError_t LaunchFlags(const DecodeParams& params, cudaStream_t stream);

namespace {

template <bool kFp8>
cudaError_t LaunchBatch(const DecodeParams& p, cudaStream_t stream) {
  if (WithFlags(p)) return LaunchFlags<kFp8>(p, stream);
  if (p.batch <= 8) return LaunchTiles<kFp8, 1>(p, stream);
  if (p.batch <= 16) return LaunchTiles<kFp8, 2>(p, stream);
  return LaunchTiles<kFp8, 4>(p, stream);
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
  Workspace<false> w;
  return LayOut(shape, max_batch, nullptr, &w);
}

bool WithFlags(const DecodeParams& p) {
  return p.exchange == Exchange::kAuto && p.batch <= kMaxFlagBatch &&
         ActivationBytes(p.shape, p.batch) <= kMaxActivationBytes;
}

bool Supports(const ModelView& model, DType state_dtype, int32_t ring_length,
              int compute_capability, const char** why) {
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
