// The states of all slots in host memory.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "engine/backend/backend.h"
#include "engine/loader/model_config.h"
#include "kernels/cpu/aligned_buffer.h"
#include "kernels/dtype.h"

namespace hgrn2 {

// One slab [L][slot][H][K][V_padded] and, with short convolutions, [L][slot][3][conv_size -
// 1][d_padded] floats. Single-threaded, except that different (layer, slot, head) may be used
// concurrently.
class CpuStatePool {
 public:
  // dtype: kF32, kF16 or kBF16.
  CpuStatePool(const ModelConfig& config, DType dtype, int num_slots);

  static int64_t BytesPerSlot(const ModelConfig& config, DType dtype);

  DType dtype() const { return dtype_; }
  int num_slots() const { return num_slots_; }
  int64_t state_ld() const { return v_padded_; }
  // [K][V_padded]
  void* Head(int layer, int slot, int head) {
    return slab_.data() +
           ((int64_t{layer} * num_slots_ + slot) * config_.num_heads + head) * head_bytes_;
  }
  // [3][conv_size - 1][d_padded]
  float* Conv(int layer, int slot) {
    return conv_.data() + (int64_t{layer} * num_slots_ + slot) * conv_size_;
  }

  void Copy(int from_slot, int to_slot);
  void Save(int slot, StateBlob* blob);
  // INVALID_ARGUMENT if a part of the blob has not the size its dtype and the model imply.
  absl::Status Restore(int slot, const StateBlob& blob);

 private:
  absl::Status CheckSizes(const StateBlob& blob) const;
  void RestoreHead(int layer, int slot, int head, const StateBlob& blob);

  const ModelConfig config_;
  const DType dtype_;
  const int num_slots_;
  const int64_t v_padded_;
  const int64_t d_padded_;
  const int64_t head_bytes_;
  const int64_t conv_size_;  // floats per layer and slot
  cpu::AlignedBuffer<uint8_t> slab_;
  cpu::AlignedBuffer<float> conv_;
};

}  // namespace hgrn2
