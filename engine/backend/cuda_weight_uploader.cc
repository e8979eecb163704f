#include "engine/backend/cuda_weight_uploader.h"

#include <algorithm>
#include <cstring>

#include "engine/backend/cuda_status.h"
#include "kernels/cuda/mlp/mlp.h"

namespace hgrn2 {

WeightUploader::~WeightUploader() {
  cudaStreamSynchronize(stream_);
  for (cudaEvent_t event : done_) {
    if (event) cudaEventDestroy(event);
  }
}

absl::Status WeightUploader::Init() {
  for (int i = 0; i < 2; ++i) {
    ASSIGN_OR_RETURN(host_[i], staging_memory_.AllocateHost(kStagingBytes, "weight staging"));
    ASSIGN_OR_RETURN(device_[i], staging_memory_.Allocate(kStagingBytes, "weight staging"));
    CUDA_RETURN_IF_ERROR(cudaEventCreateWithFlags(&done_[i], cudaEventDisableTiming));
  }
  return absl::OkStatus();
}

absl::Status WeightUploader::Matrix(std::span<const TensorView* const> parts, DType type,
                                    const char* what, cuda::MatrixView* out,
                                    const float* col_factor) {
  out->type = type;
  out->cols = parts[0]->shape.back();
  out->rows = 0;
  for (const TensorView* part : parts) out->rows += part->size() / out->cols;
  ASSIGN_OR_RETURN(void* data, memory_->Allocate(out->rows * out->cols * SizeOf(type), what));
  out->data = data;
  if (type == DType::kF8E4M3) {
    float* scale = nullptr;
    RETURN_IF_ERROR(memory_->Take(&scale, out->rows, what));
    out->scale = scale;
  }
  int64_t row = 0;
  for (const TensorView* part : parts) {
    RETURN_IF_ERROR(Rows(*part, out->cols, *out, row, col_factor));
    row += part->size() / out->cols;
  }
  return absl::OkStatus();
}

absl::Status WeightUploader::Rows(const TensorView& part, int64_t cols, const cuda::MatrixView& out,
                                  int64_t first_row, const float* col_factor) {
  const int64_t rows = part.size() / cols;
  const int64_t row_bytes = cols * static_cast<int64_t>(SizeOf(part.dtype));
  const int64_t chunk = std::max<int64_t>(1, static_cast<int64_t>(kStagingBytes) / row_bytes);
  for (int64_t begin = 0; begin < rows; begin += chunk) {
    const int64_t n = std::min(chunk, rows - begin);
    const int i = next_;
    next_ ^= 1;
    CUDA_RETURN_IF_ERROR(cudaEventSynchronize(done_[i]));
    std::memcpy(host_[i], static_cast<const uint8_t*>(part.data) + begin * row_bytes,
                n * row_bytes);
    uint8_t* dst = static_cast<uint8_t*>(const_cast<void*>(out.data)) +
                   (first_row + begin) * cols * SizeOf(out.type);
    const bool as_is = part.dtype == out.type;
    CUDA_RETURN_IF_ERROR(cudaMemcpyAsync(as_is ? dst : device_[i], host_[i], n * row_bytes,
                                         cudaMemcpyHostToDevice, stream_));
    if (!as_is && out.type == DType::kF8E4M3) {
      float* scale = const_cast<float*>(out.scale) + first_row + begin;
      CUDA_RETURN_IF_ERROR(
          cuda::QuantizeRows({device_[i], part.dtype, dst, scale, n, cols, col_factor}, stream_));
    } else if (!as_is) {
      CUDA_RETURN_IF_ERROR(
          cuda::Convert({device_[i], part.dtype, dst, out.type, n * cols}, stream_));
    }
    CUDA_RETURN_IF_ERROR(cudaEventRecord(done_[i], stream_));
  }
  return absl::OkStatus();
}

absl::Status WeightUploader::Floats(const std::vector<float>& values, const char* what,
                                    const float** out) {
  float* data = nullptr;
  RETURN_IF_ERROR(memory_->Take(&data, values.size(), what));
  *out = data;
  return CudaStatus(
      cudaMemcpy(data, values.data(), values.size() * sizeof(float), cudaMemcpyHostToDevice), what);
}

absl::Status WeightUploader::Finish() {
  return CudaStatus(cudaStreamSynchronize(stream_), "copying weights to the device");
}

}  // namespace hgrn2
