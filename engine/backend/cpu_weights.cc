#include "engine/backend/cpu_weights.h"

#include <algorithm>
#include <cstring>

namespace hgrn2 {
namespace {

using cpu::AlignedBuffer;
using cpu::kPadding;
using cpu::kPanelColumns;
using cpu::PackedMatrix;
using cpu::RoundUp;

// Sets columns [begin, begin + rows of `tensor`), column c going to map(c).
template <typename Map>
void SetColumns(const TensorView& tensor, cpu::ThreadPool* pool, PackedMatrix* out,
                const Map& map) {
  const int64_t rows = tensor.shape[0];
  const int64_t row_bytes = tensor.shape[1] * static_cast<int64_t>(SizeOf(tensor.dtype));
  const auto* data = static_cast<const uint8_t*>(tensor.data);
  pool->ForEach(static_cast<int>(RoundUp(rows, kPanelColumns) / kPanelColumns), [&](int block) {
    const int64_t end = std::min<int64_t>(rows, (block + 1) * int64_t{kPanelColumns});
    for (int64_t row = block * int64_t{kPanelColumns}; row < end; ++row) {
      out->SetColumn(map(row), data + row * row_bytes, tensor.dtype);
    }
  });
}

AlignedBuffer<float> Vector(const TensorView& tensor, int64_t padded, int64_t size) {
  AlignedBuffer<float> out(static_cast<size_t>(padded));
  for (int64_t i = 0; i < size; ++i) out[i] = tensor ? tensor.At(i) : 1.0f;
  return out;
}

// [d, 1, conv_size] tensors of q, f, i to [3][conv_size][d_padded].
AlignedBuffer<float> ConvWeights(const LayerWeights& layer, int64_t size, int64_t d,
                                 int64_t d_padded) {
  AlignedBuffer<float> out(static_cast<size_t>(3 * size * d_padded));
  const TensorView* const parts[] = {&layer.q_conv, &layer.f_conv, &layer.i_conv};
  for (int64_t part = 0; part < 3; ++part) {
    for (int64_t c = 0; c < d; ++c) {
      for (int64_t j = 0; j < size; ++j) {
        out[(part * size + j) * d_padded + c] = parts[part]->At(c * size + j);
      }
    }
  }
  return out;
}

CpuLayerWeights PackLayer(const ModelWeights& weights, int layer, const CpuWeights& sizes,
                          cpu::ThreadPool* pool) {
  const ModelConfig& config = weights.config;
  const LayerWeights& in = weights.layers[layer];
  const int64_t d = config.hidden_size;
  const int64_t dp = sizes.d_padded;
  const int64_t m = config.intermediate_size;
  CpuLayerWeights out;
  out.attn_norm = Vector(in.attn_norm, dp, d);
  out.qfi = PackedMatrix(3 * dp, d, sizes.dtype);
  const TensorView* const parts[] = {&in.q_proj, &in.f_proj, &in.i_proj};
  for (int64_t part = 0; part < 3; ++part) {
    SetColumns(*parts[part], pool, &out.qfi, [&](int64_t row) { return part * dp + row; });
  }
  if (config.conv_size > 0) out.conv = ConvWeights(in, config.conv_size, d, dp);
  out.lower_bound = AlignedBuffer<float>(static_cast<size_t>(dp + kPadding));
  std::copy_n(weights.lower_bounds.data() + layer * d, d, out.lower_bound.data());
  out.g_norm = Vector(in.g_norm, dp, d);
  out.o = PackedMatrix(d, d, sizes.dtype);
  SetColumns(in.o_proj, pool, &out.o, [](int64_t row) { return row; });
  out.mlp_norm = Vector(in.mlp_norm, dp, d);
  out.gate_up = PackedMatrix(2 * sizes.m_padded, d, sizes.dtype);
  SetColumns(in.gate_proj, pool, &out.gate_up,
             [](int64_t row) { return row / 16 * 32 + row % 16; });
  SetColumns(in.up_proj, pool, &out.gate_up,
             [](int64_t row) { return row / 16 * 32 + 16 + row % 16; });
  out.down = PackedMatrix(d, m, sizes.dtype);
  SetColumns(in.down_proj, pool, &out.down, [](int64_t row) { return row; });
  return out;
}

}  // namespace

int64_t CpuWeightBytes(const ModelConfig& config, DType dtype, DType embedding_dtype) {
  const int64_t d = RoundUp(config.hidden_size, kPadding);
  const int64_t m = RoundUp(config.intermediate_size, kPadding);
  const int64_t matrices =
      config.num_layers * (4 * d * d + 3 * d * m) + RoundUp(config.vocab_size, kPanelColumns) * d;
  const int64_t vectors = config.num_layers * d * (4 + 3 * config.conv_size) + d;
  return matrices * static_cast<int64_t>(SizeOf(dtype)) + vectors * 4 +
         int64_t{config.vocab_size} * config.hidden_size *
             static_cast<int64_t>(SizeOf(embedding_dtype));
}

int64_t CpuWeights::bytes() const { return CpuWeightBytes(config, dtype, embedding_dtype); }

CpuWeights PackCpuWeights(const ModelWeights& weights, DType dtype, cpu::ThreadPool* pool) {
  CpuWeights out;
  out.config = weights.config;
  out.d_padded = static_cast<int>(RoundUp(weights.config.hidden_size, kPadding));
  out.m_padded = static_cast<int>(RoundUp(weights.config.intermediate_size, kPadding));
  out.dtype = dtype;
  out.embedding_dtype = weights.embeddings.dtype;
  const size_t bytes = static_cast<size_t>(weights.embeddings.size()) * SizeOf(out.embedding_dtype);
  out.embeddings = AlignedBuffer<uint8_t>(bytes);
  std::memcpy(out.embeddings.data(), weights.embeddings.data, bytes);
  for (int layer = 0; layer < weights.config.num_layers; ++layer) {
    out.layers.push_back(PackLayer(weights, layer, out, pool));
  }
  out.norm = Vector(weights.norm, out.d_padded, weights.config.hidden_size);
  out.lm_head = PackedMatrix(weights.config.vocab_size, weights.config.hidden_size, dtype);
  SetColumns(weights.lm_head, pool, &out.lm_head, [](int64_t row) { return row; });
  return out;
}

}  // namespace hgrn2
