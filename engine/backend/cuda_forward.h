// The forward pass of a step on a CUDA device: reads like the equations, enqueues and returns.
#pragma once

#include <cuda_runtime_api.h>

#include <functional>

#include "absl/status/status.h"
#include "engine/backend/cuda_buffers.h"
#include "engine/backend/cuda_model.h"
#include "engine/backend/cuda_step.h"
#include "kernels/cuda/gemm/decode_gemm.h"
#include "kernels/cuda/gemm/gemm.h"
#include "kernels/cuda/norm/norm.h"

namespace hgrn2 {

// Stateless between steps, apart from chosen algorithms. References outlive it. Every method may be
// captured in a graph once its shape has run before.
class CudaForward {
 public:
  CudaForward(const CudaModel& model, const CudaSizes& sizes, CudaBuffers& buffers,
              bool programmatic_launch);
  absl::Status Init();

  // Embedding, all layers and the rings' ages; the arrays of `shape` are in buffers.step_device.
  absl::Status Layers(const StepShape& shape, cudaStream_t stream);
  // Final norm, head and sampling of the step's rows.
  absl::Status SampleRows(const StepShape& shape, cudaStream_t stream);
  // Sampling alone, of `rows` rows that are in buffers.logits already.
  absl::Status SampleLogits(const StepShape& shape, int32_t rows, cudaStream_t stream);
  // Final norm and head, chunk by chunk: `take(first_row, rows)` enqueues what reads
  // buffers.logits.
  absl::Status Logits(const StepShape& shape, cudaStream_t stream,
                      const std::function<absl::Status(int32_t, int32_t)>& take);

  cuda::ReplayRing Ring(int32_t layer) const;

  // For benchmarks: layers of more rows are not fused. Of the whole process.
  static void LimitFusedRows(int32_t rows);

 private:
  template <typename T>
  const T* Array(const StepArray& array) const {
    return reinterpret_cast<const T*>(buffers_.step_device + array.offset);
  }
  static bool IsMixed(const StepShape& shape) {
    return shape.decode_slots.count > 0 && shape.prefill_items.count > 0;
  }
  const void* RecurrenceInput() const {
    const CudaActivations& a = buffers_.activations;
    return model_.conv_size > 0 ? a.qfi_conv : a.qfi;
  }
  absl::Status Sample(const StepShape& shape, int32_t first, int32_t rows, cudaStream_t stream);
  absl::Status Attention(const StepShape& shape, int32_t layer, cudaStream_t stream);
  absl::Status Recurrence(const StepShape& shape, int32_t layer, cudaStream_t stream);
  absl::Status DecodeRecurrence(const StepShape& shape, int32_t layer, cudaStream_t stream);
  absl::Status PrefillRecurrence(const StepShape& shape, int32_t layer, cudaStream_t stream);
  absl::Status ShortConv(const StepShape& shape, int32_t layer, cudaStream_t stream);
  absl::Status Mlp(const StepShape& shape, int32_t layer, cudaStream_t stream);
  // A layer whose norms, residual additions and SwiGLU are parts of its products (docs/kernels/
  // cuda-step.md).
  absl::Status FusedLayer(const StepShape& shape, int32_t layer, cudaStream_t stream);
  bool IsFused(int64_t rows) const;
  bool IsOwnProduct(const cuda::MatrixView& weight, int64_t rows,
                    cuda::GemmEpilogue epilogue) const;
  // Likewise of a layer that is not fused, or of the head: our kernel, or cuBLASLt.
  bool IsOwnAlone(const cuda::MatrixView& weight, int64_t rows) const;
  // Whether a layer that is not fused has SwiGLU in its product. FP8: act has no scales then.
  bool HasOwnSwiGlu(int64_t rows) const;
  const float* ActScale(int64_t rows) const {
    return HasOwnSwiGlu(rows) ? nullptr : buffers_.activations.act_scale;
  }
  // o goes into its product as the recurrence leaves it; whoever takes the product's output divides
  // by the root of o_squares. FP8 needs o's norm to quantise it.
  bool DefersGNorm() const {
    return model_.g_norm_in_o && model_.head_dim % cuda::kSumSquareGroup == 0;
  }
  // h = g_norm(o).
  absl::Status GNorm(const StepShape& shape, int32_t layer, cudaStream_t stream);
  // x += delta, which `product` of an input with scales x_scale gave (null: no delta), and h =
  // norm(x), of the type that products with `weight` read. delta_squares: delta is still to be
  // divided by the root of o_squares. norm_out: x's Euclidean norms, or null.
  absl::Status Norm(const cuda::MatrixView& weight, const float* norm,
                    const cuda::MatrixView* product, const float* x_scale, bool delta_squares,
                    float* norm_out, int64_t rows, cudaStream_t stream);
  // What every product of our kernels is given.
  cuda::DecodeGemmParams OwnProduct(const cuda::MatrixView& weight, const void* x,
                                    const float* x_scale, int64_t rows) const;
  absl::Status Product(const cuda::MatrixView& weight, const void* x, const float* x_scale,
                       void* out, DType out_type, int64_t rows, cudaStream_t stream);
  // As Product, but FP8 may leave the multiplication with weight.scale and x_scale to out's reader.
  absl::Status UnscaledProduct(const cuda::MatrixView& weight, const void* x, const float* x_scale,
                               void* out, int64_t rows, cudaStream_t stream);
  // Whether UnscaledProduct of that many rows does so: where cuBLASLt runs it.
  bool LeavesScales(const cuda::MatrixView& weight, int64_t rows) const;
  // Gives the norm that adds delta what UnscaledProduct has left out.
  void ScaleDelta(const cuda::MatrixView& product, const float* x_scale, int64_t product_rows,
                  cuda::RmsNormParams* p) const;

  const cuda::ModelView& model_;
  const CudaSizes& sizes_;
  CudaBuffers& buffers_;
  bool overlap_;
  bool has_decode_gemm_ = false;
  cuda::Gemm gemm_;
};

}  // namespace hgrn2
