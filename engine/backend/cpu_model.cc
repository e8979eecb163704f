#include "engine/backend/cpu_model.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "kernels/cpu/ops.h"

namespace hgrn2 {
namespace {

using cpu::GemmGrid;
using cpu::GemmParams;
using cpu::kPanelColumns;
using cpu::kTileRows;

// The reference's g_norm uses this whatever norm_eps says.
constexpr float kGateNormEps = 1e-5f;
// Up to this many rows each thread normalises all rows for itself, which is cheaper than a phase.
constexpr int kInlineNormRows = cpu::kFewRows;
// Rows of gate/up products between product and activation, small enough for the L1 cache.
constexpr int kSwiGluRows = 4 * kTileRows;
// Rows normalised per item.
constexpr int kNormRows = 4;

}  // namespace

struct CpuModel::ThreadScratch {
  ThreadScratch(int d_padded, int head_dim, size_t element)
      : normed(kInlineNormRows * static_cast<size_t>(d_padded) * element),
        tile(static_cast<size_t>(kSwiGluRows) * kPanelColumns),
        recurrence(head_dim) {
    static_assert(kSwiGluRows >= cpu::kFewRows * cpu::kFewRowsPanels);
  }
  cpu::AlignedBuffer<uint8_t> normed;
  cpu::AlignedBuffer<float> tile;
  cpu::RecurrenceScratch recurrence;
};

CpuModel::CpuModel(CpuWeights weights, DType state_dtype, int num_slots, int max_tokens,
                   cpu::ThreadPool* pool)
    : weights_(std::move(weights)),
      states_(weights_.config, state_dtype, num_slots),
      pool_(*pool),
      a_dtype_(cpu::ActivationDType(weights_.dtype)) {
  const size_t rows = static_cast<size_t>(max_tokens);
  const size_t d = static_cast<size_t>(weights_.d_padded);
  x_ = cpu::AlignedBuffer<float>(rows * d);
  qfi_ = cpu::AlignedBuffer<float>(rows * 3 * d + cpu::kPadding);  // heads read past their end
  o_ = cpu::AlignedBuffer<float>(rows * d);
  normed_ = cpu::AlignedBuffer<uint8_t>(rows * d * SizeOf(a_dtype_));
  hidden_ = cpu::AlignedBuffer<uint8_t>(rows * weights_.m_padded * SizeOf(a_dtype_));
  for (int i = 0; i < pool_.num_threads(); ++i) {
    scratch_.push_back(std::make_unique<ThreadScratch>(weights_.d_padded, weights_.config.head_dim,
                                                       SizeOf(a_dtype_)));
  }
}

CpuModel::~CpuModel() = default;

void CpuModel::Normalize(const NormedInput& input, int row, void* out) const {
  cpu::RmsNormParams p;
  const int64_t from = input.row_index != nullptr ? input.row_index[row] : row;
  p.x = input.x + from * weights_.d_padded;
  p.weight = input.weight;
  p.size = weights_.config.hidden_size;
  p.padded = weights_.d_padded;
  p.eps = input.eps;
  p.out_dtype = a_dtype_;
  p.out = out;
  cpu::RmsNorm(p);
}

template <typename Item>
void CpuModel::NormedProduct(const NormedInput& input, const cpu::PackedMatrix& weights,
                             const Item& item) {
  const size_t row_bytes = static_cast<size_t>(weights_.d_padded) * SizeOf(a_dtype_);
  GemmParams params;
  params.weights = &weights;
  params.lda = weights_.d_padded;
  params.rows = input.rows;
  params.num_panels = weights.num_panels();
  const GemmGrid grid = cpu::ChooseGemmGrid(params.rows, params.num_panels, pool_.num_threads());
  const bool inlined = input.rows <= kInlineNormRows;
  if (!inlined) {
    pool_.ForEach((input.rows + kNormRows - 1) / kNormRows, [&](int block) {
      const int end = std::min(input.rows, (block + 1) * kNormRows);
      for (int r = block * kNormRows; r < end; ++r) {
        Normalize(input, r, normed_.data() + r * row_bytes);
      }
    });
  }
  pool_.Run(grid.num_items(), [&](cpu::ThreadPool::Worker worker) {
    int index;
    if (!worker.Next(&index)) return;
    GemmParams p = params;
    uint8_t* const own = scratch_[worker.index()]->normed.data();
    if (inlined) {
      for (int r = 0; r < input.rows; ++r) Normalize(input, r, own + r * row_bytes);
    }
    p.a = inlined ? own : normed_.data();
    do {
      item(p, grid, index, worker.index());
    } while (worker.Next(&index));
  });
}

void CpuModel::PlainProduct(const GemmParams& params) {
  const GemmGrid grid = cpu::ChooseGemmGrid(params.rows, params.num_panels, pool_.num_threads());
  pool_.ForEach(grid.num_items(), [&](int item) { Gemm(GemmItem(params, grid, item)); });
}

void CpuModel::Embed(std::span<const int32_t> tokens) {
  const int64_t d = weights_.config.hidden_size;
  const size_t row_bytes = static_cast<size_t>(d) * SizeOf(weights_.embedding_dtype);
  for (size_t t = 0; t < tokens.size(); ++t) {
    cpu::ConvertToFloat(weights_.embeddings.data() + tokens[t] * row_bytes,
                        weights_.embedding_dtype, d, x_.data() + t * weights_.d_padded);
  }
}

void CpuModel::Forward(std::span<const int32_t> tokens, std::span<const CpuRun> runs) {
  rows_ = static_cast<int>(tokens.size());
  HGRN2_CHECK(tokens.size() * weights_.d_padded <= x_.size(), "batch exceeds max_batched_tokens");
  pool_.Wake();
  // Long sequences first: they are the largest items of the recurrence.
  by_length_.assign(runs.begin(), runs.end());
  std::stable_sort(by_length_.begin(), by_length_.end(),
                   [](const CpuRun& a, const CpuRun& b) { return a.tokens > b.tokens; });
  Embed(tokens);
  for (int layer = 0; layer < weights_.config.num_layers; ++layer) Layer(layer, by_length_);
}

void CpuModel::Layer(int layer, std::span<const CpuRun> runs) {
  const CpuLayerWeights& w = weights_.layers[layer];
  const float eps = weights_.config.norm_eps;
  const int64_t dp = weights_.d_padded;
  const auto product_to = [&](float* c, int64_t ldc, bool accumulate) {
    return [=](GemmParams p, const GemmGrid& grid, int item, int) {
      p.c = c;
      p.ldc = ldc;
      p.accumulate = accumulate;
      Gemm(GemmItem(p, grid, item));
    };
  };
  // q, f, i = attn_norm(x) W
  NormedProduct({x_.data(), w.attn_norm.data(), eps, rows_}, w.qfi,
                product_to(qfi_.data(), 3 * dp, false));
  if (weights_.config.conv_size > 0) ShortConv(layer, runs);
  Recurrence(layer, runs);
  // x += g_norm(o) Wo
  NormedProduct({o_.data(), w.g_norm.data(), kGateNormEps, rows_}, w.o,
                product_to(x_.data(), dp, true));
  // x += (swish(h Wgate) * (h Wup)) Wdown, h = mlp_norm(x)
  NormedProduct({x_.data(), w.mlp_norm.data(), eps, rows_}, w.gate_up,
                [&](const GemmParams& p, const GemmGrid& grid, int item, int thread) {
                  SwiGluItem(GemmItem(p, grid, item), item % grid.row_items * grid.row_step,
                             scratch_[thread].get());
                });
  GemmParams down;
  down.weights = &w.down;
  down.a = hidden_.data();
  down.lda = weights_.m_padded;
  down.rows = rows_;
  down.num_panels = w.down.num_panels();
  down.c = x_.data();
  down.ldc = dp;
  down.accumulate = true;
  PlainProduct(down);
}

void CpuModel::SwiGluItem(const GemmParams& item, int first_row, ThreadScratch* scratch) {
  const int64_t mp = weights_.m_padded;
  const int panel_step = item.rows <= cpu::kFewRows ? cpu::kFewRowsPanels : 1;
  for (int panel = 0; panel < item.num_panels; panel += panel_step) {
    GemmParams p = item;
    p.panel_begin = item.panel_begin + panel;
    p.num_panels = std::min(panel_step, item.num_panels - panel);
    p.c = scratch->tile.data();
    p.ldc = int64_t{p.num_panels} * kPanelColumns;
    for (int row = 0; row < item.rows; row += kSwiGluRows) {
      p.rows = std::min(kSwiGluRows, item.rows - row);
      p.a = static_cast<const uint8_t*>(item.a) +
            row * item.lda * static_cast<int64_t>(SizeOf(a_dtype_));
      Gemm(p);
      cpu::SwiGluParams s;
      s.gate_up = p.c;
      s.ld = p.ldc;
      s.rows = p.rows;
      s.num_panels = p.num_panels;
      s.out_dtype = a_dtype_;
      s.out = hidden_.data() + ((first_row + row) * mp + p.panel_begin * kPanelColumns / 2) *
                                   static_cast<int64_t>(SizeOf(a_dtype_));
      s.ldo = mp;
      cpu::SwiGlu(s);
    }
  }
}

void CpuModel::ShortConv(int layer, std::span<const CpuRun> runs) {
  const int64_t dp = weights_.d_padded;
  const int size = weights_.config.conv_size;
  // Items: sequence, part (q, f, i).
  pool_.ForEach(static_cast<int>(runs.size()) * 3, [&](int item) {
    const CpuRun& run = runs[item / 3];
    const int part = item % 3;
    cpu::ShortConvParams p;
    p.x = qfi_.data() + (int64_t{run.row} * 3 + part) * dp;
    p.ldx = 3 * dp;
    p.rows = run.tokens;
    p.channels = weights_.d_padded;
    p.weight = weights_.layers[layer].conv.data() + part * size * dp;
    p.ldw = dp;
    p.size = size;
    p.history = states_.Conv(layer, run.slot) + part * (size - 1) * dp;
    if (run.reset_state && size > 1)
      std::memset(p.history, 0, static_cast<size_t>((size - 1) * dp) * sizeof(float));
    cpu::ShortConv(p);
  });
}

void CpuModel::Recurrence(int layer, std::span<const CpuRun> runs) {
  const int heads = weights_.config.num_heads;
  const int columns = static_cast<int>(states_.state_ld());
  // Cut heads by columns when there are too few for the threads.
  const int pairs = static_cast<int>(runs.size()) * heads;
  int slices = 1;
  while (pairs * slices < pool_.num_threads() &&
         columns / (2 * slices) >= 2 * cpu::kStateColumnPadding) {
    slices *= 2;
  }
  const int step =
      static_cast<int>(cpu::RoundUp((columns + slices - 1) / slices, cpu::kStateColumnPadding));
  pool_.Run(pairs * slices, [&](cpu::ThreadPool::Worker worker) {
    int item;
    while (worker.Next(&item)) {
      const int column = item % slices * step;
      if (column >= columns) continue;
      RunHead(layer, runs[item / slices / heads], item / slices % heads, column,
              std::min(step, columns - column), &scratch_[worker.index()]->recurrence);
    }
  });
}

void CpuModel::RunHead(int layer, const CpuRun& run, int head, int column, int columns,
                       cpu::RecurrenceScratch* scratch) {
  const int64_t dp = weights_.d_padded;
  const int dim = weights_.config.head_dim;
  const float* qfi = qfi_.data() + int64_t{run.row} * 3 * dp + int64_t{head} * dim;
  cpu::RecurrenceParams p;
  p.q = qfi;
  p.f = qfi + dp;
  p.i = qfi + 2 * dp;
  p.ld = 3 * dp;
  p.lower_bound = weights_.layers[layer].lower_bound.data() + int64_t{head} * dim;
  p.tokens = run.tokens;
  p.head_dim = dim;
  p.state = states_.Head(layer, run.slot, head);
  p.state_ld = states_.state_ld();
  p.state_dtype = states_.dtype();
  p.column_begin = column;
  p.columns = columns;
  p.zero_state = run.reset_state;
  p.o = o_.data() + int64_t{run.row} * dp + int64_t{head} * dim;
  p.ldo = dp;
  p.scratch = scratch;
  run.tokens == 1 ? cpu::RecurrentStep(p) : cpu::ChunkedRecurrence(p);
}

void CpuModel::Logits(std::span<const int32_t> rows, float* out) {
  const NormedInput input{x_.data(), weights_.norm.data(), weights_.config.norm_eps,
                          static_cast<int>(rows.size()), rows.data()};
  NormedProduct(input, weights_.lm_head, [&](GemmParams p, const GemmGrid& grid, int item, int) {
    p.c = out;
    p.ldc = logits_ld();
    Gemm(GemmItem(p, grid, item));
  });
}

}  // namespace hgrn2
