#include "engine/backend/cpu_state.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "base/status.h"
#include "kernels/cpu/ops.h"
#include "kernels/cpu/packed_matrix.h"
#include "kernels/cpu/recurrence.h"

namespace hgrn2 {
namespace {

int64_t PaddedColumns(const ModelConfig& c) {
  return cpu::RoundUp(c.head_dim, cpu::kStateColumnPadding);
}
int64_t HeadBytes(const ModelConfig& c, DType dtype) {
  return c.head_dim * PaddedColumns(c) * static_cast<int64_t>(SizeOf(dtype));
}
int64_t ConvFloats(const ModelConfig& c) {
  return c.conv_size > 0 ? 3 * (c.conv_size - 1) * cpu::RoundUp(c.hidden_size, cpu::kPadding) : 0;
}

}  // namespace

CpuStatePool::CpuStatePool(const ModelConfig& config, DType dtype, int num_slots)
    : config_(config),
      dtype_(dtype),
      num_slots_(num_slots),
      v_padded_(PaddedColumns(config)),
      d_padded_(cpu::RoundUp(config.hidden_size, cpu::kPadding)),
      head_bytes_(HeadBytes(config, dtype)),
      conv_size_(ConvFloats(config)),
      slab_(static_cast<size_t>(head_bytes_ * config.num_heads * config.num_layers * num_slots)),
      conv_(static_cast<size_t>(conv_size_ * config.num_layers * num_slots)) {}

int64_t CpuStatePool::BytesPerSlot(const ModelConfig& config, DType dtype) {
  return config.num_layers * (config.num_heads * HeadBytes(config, dtype) + 4 * ConvFloats(config));
}

void CpuStatePool::Copy(int from_slot, int to_slot) {
  if (from_slot == to_slot) return;
  for (int layer = 0; layer < config_.num_layers; ++layer) {
    std::memcpy(Head(layer, to_slot, 0), Head(layer, from_slot, 0),
                static_cast<size_t>(head_bytes_ * config_.num_heads));
    if (conv_size_ == 0) continue;
    std::memcpy(Conv(layer, to_slot), Conv(layer, from_slot), static_cast<size_t>(conv_size_) * 4);
  }
}

void CpuStatePool::Save(int slot, StateBlob* blob) {
  const int64_t row = config_.head_dim * static_cast<int64_t>(SizeOf(dtype_));
  const int64_t padded_row = v_padded_ * static_cast<int64_t>(SizeOf(dtype_));
  blob->dtype = dtype_;
  blob->scales.clear();
  blob->state.resize(static_cast<size_t>(config_.StateSize()) * SizeOf(dtype_));
  blob->conv.resize(static_cast<size_t>(config_.ConvStateSize()));
  uint8_t* state = blob->state.data();
  float* conv = blob->conv.data();
  for (int layer = 0; layer < config_.num_layers; ++layer) {
    const auto* from = static_cast<const uint8_t*>(Head(layer, slot, 0));
    for (int64_t r = 0; r < int64_t{config_.num_heads} * config_.head_dim; ++r, state += row) {
      std::memcpy(state, from + r * padded_row, static_cast<size_t>(row));
    }
    for (int64_t r = 0; r < conv_size_ / d_padded_; ++r, conv += config_.hidden_size) {
      std::copy_n(Conv(layer, slot) + r * d_padded_, config_.hidden_size, conv);
    }
  }
}

absl::Status CpuStatePool::CheckSizes(const StateBlob& blob) const {
  const size_t state = static_cast<size_t>(config_.StateSize()) * SizeOf(blob.dtype);
  const size_t conv = static_cast<size_t>(config_.ConvStateSize());
  const size_t scales = blob.dtype == DType::kF8E4M3
                            ? static_cast<size_t>(config_.num_layers) * config_.hidden_size * 4
                            : 0;
  if (blob.state.size() != state) {
    return InvalidArgument("state", "has {} bytes, the model needs {}", blob.state.size(), state);
  }
  if (blob.conv.size() != conv) {
    return InvalidArgument("conv", "has {} values, the model needs {}", blob.conv.size(), conv);
  }
  if (blob.scales.size() != scales) {
    return InvalidArgument("scales", "has {} bytes, the model needs {}", blob.scales.size(),
                           scales);
  }
  return absl::OkStatus();
}

void CpuStatePool::RestoreHead(int layer, int slot, int head, const StateBlob& blob) {
  const int64_t dim = config_.head_dim;
  const int64_t first = (int64_t{layer} * config_.num_heads + head) * dim;  // row of the blob
  auto* to = static_cast<uint8_t*>(Head(layer, slot, head));
  const int64_t to_row = v_padded_ * static_cast<int64_t>(SizeOf(dtype_));
  const int64_t from_row = dim * static_cast<int64_t>(SizeOf(blob.dtype));
  std::vector<float> values(static_cast<size_t>(dim));
  for (int64_t k = 0; k < dim; ++k) {
    const uint8_t* from = blob.state.data() + (first + k) * from_row;
    if (blob.dtype == dtype_) {
      std::memcpy(to + k * to_row, from, static_cast<size_t>(from_row));
      continue;
    }
    if (blob.dtype == DType::kF8E4M3) {
      const float scale = cpu::ToFloat(blob.scales.data() + (first + k) * 4, DType::kF32);
      for (int64_t v = 0; v < dim; ++v) values[v] = scale * cpu::Fp8E4M3ToFloat(from[v]);
    } else {
      cpu::ConvertToFloat(from, blob.dtype, dim, values.data());
    }
    cpu::ConvertFromFloat(values.data(), dtype_, dim, to + k * to_row);
  }
}

absl::Status CpuStatePool::Restore(int slot, const StateBlob& blob) {
  RETURN_IF_ERROR(CheckSizes(blob));
  const float* conv = blob.conv.data();
  for (int layer = 0; layer < config_.num_layers; ++layer) {
    for (int head = 0; head < config_.num_heads; ++head) RestoreHead(layer, slot, head, blob);
    for (int64_t r = 0; r < conv_size_ / d_padded_; ++r, conv += config_.hidden_size) {
      std::copy_n(conv, config_.hidden_size, Conv(layer, slot) + r * d_padded_);
    }
  }
  return absl::OkStatus();
}

}  // namespace hgrn2
