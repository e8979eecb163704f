// The forward pass on the CPU: reads like the equations of docs/model.md, one method per product,
// each one fork-join phase of the thread pool with its norm or activation fused in.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "engine/backend/cpu_state.h"
#include "engine/backend/cpu_weights.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/recurrence.h"
#include "kernels/cpu/thread_pool.h"

namespace hgrn2 {

// Tokens [row, row + tokens) of a batch belong to the sequence in `slot`.
struct CpuRun {
  int slot = 0;
  int row = 0;
  int tokens = 1;
  bool reset_state = false;
};

// Not thread-safe: the pool's threads work inside the calls only. A row's result depends on its own
// sequence alone, bit for bit.
class CpuModel {
 public:
  // `max_tokens`: rows of the largest batch. The pool outlives this.
  CpuModel(CpuWeights weights, DType state_dtype, int num_slots, int max_tokens,
           cpu::ThreadPool* pool);
  ~CpuModel();

  const CpuWeights& weights() const { return weights_; }
  CpuStatePool& states() { return states_; }

  // Advances the states by all tokens; keeps the residual stream for Logits.
  void Forward(std::span<const int32_t> tokens, std::span<const CpuRun> runs);

  // Logits of `rows` of the last Forward to out[rows.size(), logits_ld()], columns past the
  // vocabulary undefined.
  void Logits(std::span<const int32_t> rows, float* out);
  int64_t logits_ld() const { return int64_t{weights_.lm_head.num_panels()} * cpu::kPanelColumns; }

 private:
  struct ThreadScratch;
  // A norm whose output is the A of a product.
  struct NormedInput {
    const float* x = nullptr;  // [rows, d_padded]
    const float* weight = nullptr;
    float eps = 0;
    int rows = 0;
    const int32_t* row_index = nullptr;  // rows of x, if not all in order
  };

  void Embed(std::span<const int32_t> tokens);
  void Layer(int layer, std::span<const CpuRun> runs);
  void ShortConv(int layer, std::span<const CpuRun> runs);
  void Recurrence(int layer, std::span<const CpuRun> runs);
  void RunHead(int layer, const CpuRun& run, int head, int column, int columns,
               cpu::RecurrenceScratch* scratch);
  void SwiGluItem(const cpu::GemmParams& item, int first_row, ThreadScratch* scratch);

  // item(params, thread) for each piece of A W^T with A = norm(input).
  template <typename Item>
  void NormedProduct(const NormedInput& input, const cpu::PackedMatrix& weights, const Item& item);
  void Normalize(const NormedInput& input, int row, void* out) const;
  // C (+)= A W^T
  void PlainProduct(const cpu::GemmParams& params);

  const CpuWeights weights_;
  CpuStatePool states_;
  cpu::ThreadPool& pool_;
  const DType a_dtype_;  // of the products' left operands
  int rows_ = 0;         // of the last Forward
  // Rows of the batch, padded with zeros.
  cpu::AlignedBuffer<float> x_;         // [max_tokens, d_padded], the residual stream
  cpu::AlignedBuffer<float> qfi_;       // [max_tokens, 3, d_padded], before the activations
  cpu::AlignedBuffer<float> o_;         // [max_tokens, d_padded]
  cpu::AlignedBuffer<uint8_t> normed_;  // [max_tokens, d_padded] of a_dtype_
  cpu::AlignedBuffer<uint8_t> hidden_;  // [max_tokens, m_padded] of a_dtype_
  std::vector<std::unique_ptr<ThreadScratch>> scratch_;  // one per thread
  std::vector<CpuRun> by_length_;
};

}  // namespace hgrn2
