// Device memory of a CUDA backend: what it needs, how many slots fit, and the buffers themselves.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/backend/cuda_memory.h"
#include "engine/loader/model_config.h"
#include "kernels/cuda/recurrence/recurrence.h"
#include "kernels/cuda/sampling/sampling.h"
#include "kernels/dtype.h"

namespace hgrn2 {

// cuBLASLt's products never run on fewer rows: up to this many tokens results are then the same
// bits whatever their number.
inline constexpr int64_t kLeastProductRows = 64;

// Everything that sizes depend on.
struct CudaSizes {
  ModelConfig config;
  DType activation = DType::kBF16;
  DType state_dtype = DType::kF16;
  bool fp8_weights = false;
  int32_t ring_length = 1;  // N of replay; 1: none
  int32_t max_tokens = 0;
  int32_t num_slots = 0;

  // Products never see more rows than this.
  int64_t PaddedTokens() const;
  // Rows of their inputs: DecodeGemm reads past the tokens.
  int64_t ActivationRows() const;
  // Rows of logits that exist at once; the head runs over more in turns.
  int32_t LogitChunk() const;
  // A sequence's state, ring and short-convolution inputs; then its sampling tables.
  int64_t StateBytesPerSlot() const;
  int64_t BytesPerSlot() const;
  int64_t WorkspaceBytes() const;
};

// Bytes of one layer's part of a slot.
struct SlotLayerBytes {
  int64_t state = 0, scales = 0, ring = 0, conv = 0;
};
SlotLayerBytes SlotBytes(const CudaSizes& sizes);

// What a backend may take of its device's memory, in bytes.
struct MemoryBudget {
  int64_t total = 0;         // the device's
  double utilization = 1.0;  // --gpu-memory-utilization
  int64_t taken = 0;         // by others and by the driver, before the backend takes any
  int64_t reserve = 0;       // left to the driver: graphs, the library's kernels

  int64_t Bytes() const {
    return static_cast<int64_t>(static_cast<double>(total) * utilization) - taken - reserve;
  }
};

// The number of slots, at most sizes.num_slots, that fit in the budget beside the weights and the
// workspace. RESOURCE_EXHAUSTED with the arithmetic if none does. Pure.
absl::StatusOr<int32_t> FitSlots(const CudaSizes& sizes, int64_t weight_bytes,
                                 const MemoryBudget& budget);

// Activations of a step, T rows. The attention's and the MLP's share memory: neither outlives its
// half of a layer. Device memory.
struct CudaActivations {
  float* x = nullptr;          // [T][d] residual stream
  void* delta = nullptr;       // [T][d] output of the last product, not added to x yet
  void* h = nullptr;           // [T][d] a product's input
  float* h_scale = nullptr;    // [T]
  void* qfi = nullptr;         // [T][3d]
  void* qfi_conv = nullptr;    // [T][3d], short convolution only
  void* o = nullptr;           // [T][d]
  void* gate_up = nullptr;     // [T][2m]
  void* act = nullptr;         // [T][m]
  float* act_scale = nullptr;  // [T]; fused FP8 layers: of delta
  float* o_squares = nullptr;  // [T][d / kSumSquareGroup] partial sums of squares of o
  float* x_squares = nullptr;  // [F][d / kSquareSumRows], likewise of x; F: rows of fused layers
  // FP8 alone.
  float* x_norm = nullptr;          // [F] Euclidean
  uint32_t* act_squares = nullptr;  // [F][kSquareStride] DecodeGemmParams::squares
  void* gemm_workspace = nullptr;
};

// All pointers are to device memory unless they say otherwise.
struct CudaBuffers {
  CudaActivations activations;
  void* prefill_workspace = nullptr;
  void* head_in = nullptr;  // [LogitChunk][d]
  float* logits = nullptr;  // [LogitChunk][vocab]

  // States.
  std::vector<cuda::StateSlab> state;  // per layer
  std::vector<void*> ring;             // per layer
  std::vector<void*> conv_state;       // per layer
  uint8_t* state_base = nullptr;       // the slabs of all layers, one after the other; as below
  uint8_t* scales_base = nullptr;
  uint8_t* ring_base = nullptr;
  uint8_t* conv_base = nullptr;
  int32_t* age = nullptr;             // [slots]
  int32_t* identity = nullptr;        // [slots] 0, 1, 2...: a list of one slot is a pointer into it
  uint8_t* ones = nullptr;            // [slots]
  uint32_t* work_counters = nullptr;  // [2] DecodeStepParams'

  // Sampling.
  cuda::SlotSamplingParams* slot_params = nullptr;  // [slots]
  float* bias = nullptr;                            // [slots][vocab]
  uint32_t* token_flags = nullptr;                  // [slots][vocab]
  int32_t* last_token = nullptr;                    // [slots]
  int32_t* resolved_tokens = nullptr;               // [T]
  uint32_t* num_generated = nullptr;                // [slots]
  uint32_t* step = nullptr;                         // steps begun
  cuda::TokenResult* results[2] = {};               // pinned host memory, [max_tokens + slots]

  // The step's arrays (StepShape): two of the host for the pipeline, one of the device.
  uint8_t* step_host[2] = {};
  uint8_t* step_device = nullptr;
  size_t step_bytes = 0;

  absl::Status Allocate(const CudaSizes& sizes, DeviceMemory* memory, cudaStream_t stream);
};

}  // namespace hgrn2
