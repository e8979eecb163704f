// A checkpoint packed for the CPU kernels.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/loader/weights.h"
#include "kernels/cpu/aligned_buffer.h"
#include "kernels/cpu/packed_matrix.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/dtype.h"

namespace hgrn2 {

// Vectors are zero-padded to a multiple of cpu::kPadding; d_padded is d so padded.
struct CpuLayerWeights {
  cpu::AlignedBuffer<float> attn_norm;    // [d_padded]
  cpu::PackedMatrix qfi;                  // [3 * d_padded, d]: q, f, i
  cpu::AlignedBuffer<float> conv;         // [3][conv_size][d_padded], if short convolutions are on
  cpu::AlignedBuffer<float> lower_bound;  // [d_padded + kPadding]: heads read past their end
  cpu::AlignedBuffer<float> g_norm;       // [d_padded], ones without elementwise_affine
  cpu::PackedMatrix o;                    // [d, d]
  cpu::AlignedBuffer<float> mlp_norm;     // [d_padded]
  cpu::PackedMatrix gate_up;              // [m_padded / 16][16 gates, 16 ups], d
  cpu::PackedMatrix down;                 // [d, m]
};

struct CpuWeights {
  ModelConfig config;
  int d_padded = 0;
  int m_padded = 0;
  DType dtype = DType::kF32;               // of the matrices: kF32 or kBF16
  DType embedding_dtype = DType::kF32;     // the checkpoint's
  cpu::AlignedBuffer<uint8_t> embeddings;  // [vocab, d]
  std::vector<CpuLayerWeights> layers;
  cpu::AlignedBuffer<float> norm;  // [d_padded]
  cpu::PackedMatrix lm_head;       // [vocab, d]

  int64_t bytes() const;
};

// Bytes PackCpuWeights will allocate, before it does.
int64_t CpuWeightBytes(const ModelConfig& config, DType dtype, DType embedding_dtype);

CpuWeights PackCpuWeights(const ModelWeights& weights, DType dtype, cpu::ThreadPool* pool);

}  // namespace hgrn2
