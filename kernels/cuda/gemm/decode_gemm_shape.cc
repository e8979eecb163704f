#include <algorithm>

#include "kernels/cuda/gemm/decode_gemm.h"

namespace hgrn2::cuda {
namespace {

constexpr int64_t kBlockBytes = 128, kShared = 220 * 1024, kHalfShared = 110 * 1024;
// Of the kernel without turns.
constexpr int32_t kMostNarrowTokens = 896;
constexpr int kMostStages = 16, kMultiprocessors = 132;
// Clusters of four with a multiprocessor per block: 30 fit at once, for a cluster lives in one
// group of 16 or 18 multiprocessors.
constexpr int kMostAloneInFours = 120;

// Blocks that can have a multiprocessor each.
int MostAlone(const DecodeGemmShape& s) {
  return s.split == 4 ? kMostAloneInFours : kMultiprocessors;
}
// Blocks that run at once.
int Places(const DecodeGemmShape& s) { return MostAlone(s) * (s.share ? 2 : 1); }
// Waves of blocks; of the wide kernel, tiles that a block takes.
int Turns(const DecodeGemmShape& s) { return static_cast<int>(CeilDiv(s.blocks(), Places(s))); }
int64_t KBlocks(int64_t cols, DType type) {
  return CeilDiv(cols * static_cast<int64_t>(SizeOf(type)), kBlockBytes);
}
// More blocks than can have a multiprocessor each: two share one, with half the ring, where there
// is an instance for that.
bool HasTooManyBlocks(const DecodeGemmShape& s) { return s.blocks() > MostAlone(s); }

// Clocks that a block takes for its products and what a split adds, by shared memory's bandwidth
// (128 bytes a clock): for 16 columns each warpgroup reads its tokens and all the rows, and what is
// read has to be written first.
int64_t BlockClocks(const DecodeGemmShape& s, int64_t k_blocks) {
  // Of wgmma, the one that all warpgroups have, and the stage's other rows.
  const int n = s.columns > 0 ? s.columns : s.row_tile;
  const int64_t read = s.groups * 4 * (64 + n) * 32, written = (n + s.groups * 64) * kBlockBytes,
                exchange = s.split > 1 ? 600 + 15 * s.row_tile : 0;
  return CeilDiv(k_blocks, s.split) * (read + written) / 128 + exchange;
}

// Clocks of a product of several tiles of tokens: waves of blocks, each with a start.
int64_t Clocks(const DecodeGemmShape& s, int64_t k_blocks) {
  constexpr int64_t kStart = 8000;
  return Turns(s) * (BlockClocks(s, k_blocks) * (s.share ? 2 : 1) + kStart);
}

// Whether `a`, whose blocks have a multiprocessor each, is better than `b`, whose have too, for one
// tile of tokens, by measurement: no split, if that keeps two thirds of the multiprocessors busy;
// else most blocks, for bytes from memory are what takes time.
bool IsBetter(const DecodeGemmShape& a, const DecodeGemmShape& b) {
  constexpr int kBusy = 88;
  const auto is_whole = [](const DecodeGemmShape& s) {
    return s.split == 1 && s.row_tile >= 64 && s.blocks() >= kBusy;
  };
  if (is_whole(a) != is_whole(b)) return is_whole(a);
  return a.blocks() > b.blocks();
}

// Clocks of the wide kernel: measured, beside what shared memory's bandwidth says.
int64_t WideClocks(const DecodeGemmShape& s, int64_t k_blocks, GemmEpilogue epilogue) {
  const int share = s.row_tile > 128 ? 105 : Turns(s) > 1 ? 115 : 88;
  const int64_t tile = BlockClocks(s, k_blocks) * share / 100,
                store = epilogue == GemmEpilogue::kResidual ? 11000 : 2000;
  return s.together ? 3500 + Turns(s) * (tile + store)
                    : 4000 + 2 * store + Turns(s) * (tile + 1300);
}

DecodeGemmShape CompleteWide(DecodeGemmShape s, int64_t rows, int32_t tokens,
                             GemmEpilogue epilogue) {
  if (!IsBuiltWide(s.row_tile, epilogue)) return {};
  s.groups = 2;
  s.row_tiles = static_cast<int>(CeilDiv(rows, s.row_tile));
  s.token_tiles = static_cast<int>(CeilDiv(tokens, kWideTokenTile * 2) * 2);
  s.stages = WideStageCount(s.row_tile);
  s.shared_bytes =
      static_cast<size_t>(s.stages * (s.row_tile + kWideTokenTile) * kBlockBytes) + 1024;
  return s;
}

DecodeGemmShape CompleteColumns(DecodeGemmShape s, int64_t rows, int64_t cols, int32_t tokens,
                                GemmEpilogue epilogue) {
  if (!IsBuiltColumns(s.columns, epilogue)) return {};
  const bool residual = epilogue == GemmEpilogue::kResidual;
  s.groups = residual ? 1 : 3, s.split = residual ? 2 : 1;
  const int64_t k_blocks = KBlocks(cols, DType::kBF16);
  if (k_blocks < s.split) return {};
  s.row_tile = s.groups * 64;
  s.row_tiles = static_cast<int>(CeilDiv(rows, s.row_tile));
  s.token_tiles = static_cast<int>(CeilDiv(tokens, s.columns));
  const int64_t stage = (s.row_tile + s.columns) * kBlockBytes,
                received = residual ? s.columns / 2 * kColumnStride * 4 : 0;
  int64_t most = std::min<int64_t>(kMostStages, std::max<int64_t>(CeilDiv(k_blocks, s.split), 2));
  if (s.stages > 0) most = std::min<int64_t>(most, s.stages);
  s.stages = static_cast<int>(std::min<int64_t>((kShared - received) / stage, most));
  s.received = static_cast<int>(s.stages * stage);
  s.shared_bytes = static_cast<size_t>(s.received + received) + 1024;
  return s;
}

// The fewest clocks for so many tokens, in one turn; row_tile 0 if there is none.
DecodeGemmShape ChooseColumns(int64_t rows, int64_t cols, int32_t tokens, DType type,
                              GemmEpilogue epilogue) {
  const int64_t k_blocks = KBlocks(cols, type);
  DecodeGemmShape best;
  for (const int columns : kColumnGemmTiles) {
    DecodeGemmShape s;
    s.columns = columns;
    s = CompleteDecodeGemm(s, rows, cols, tokens, type, epilogue);
    if (s.row_tile == 0 || HasTooManyBlocks(s)) continue;
    if (best.row_tile == 0 || Clocks(s, k_blocks) < Clocks(best, k_blocks)) best = s;
  }
  return best;
}

// The best for so many tokens; row_tile 0 if there is none.
DecodeGemmShape ChooseWide(int64_t rows, int64_t cols, int32_t tokens, DType type,
                           GemmEpilogue epilogue) {
  // Taking turns hides what is done with the sums, but the last ones, which take twice as long.
  constexpr int kFewTurns = 2;
  const int64_t k_blocks = KBlocks(cols, type);
  const auto clocks = [&](const DecodeGemmShape& s) { return WideClocks(s, k_blocks, epilogue); };
  DecodeGemmShape best;
  for (const int row_tile : kWideGemmRowTiles) {
    DecodeGemmShape s;
    s.wide = true, s.row_tile = row_tile;
    s = CompleteDecodeGemm(s, rows, cols, tokens, type, epilogue);
    if (s.row_tile == 0) continue;
    s.together = Turns(s) <= kFewTurns;
    if (best.row_tile == 0 || clocks(s) < clocks(best)) best = s;
  }
  return best;
}

}  // namespace

DecodeGemmShape CompleteDecodeGemm(DecodeGemmShape shape, int64_t rows, int64_t cols,
                                   int32_t tokens, DType type, GemmEpilogue epilogue) {
  if (type != DType::kBF16 && type != DType::kF8E4M3) return {};
  const int64_t row_bytes = cols * static_cast<int64_t>(SizeOf(type));
  const int parts = epilogue == GemmEpilogue::kSwiGlu ? 2 : 1;
  // 16 bytes: strides of the tensor copy engine. 16 rows: the order in which it brings them.
  if (rows < 16 || rows % (16 * parts) != 0 || row_bytes < 16 || row_bytes % 16 != 0 ||
      tokens < 1 || (!shape.wide && tokens > kMostNarrowTokens)) {
    return {};
  }
  if (shape.wide) return CompleteWide(shape, rows, tokens, epilogue);
  if (shape.columns > 0) {
    if (type != DType::kBF16) return {};
    return CompleteColumns(shape, rows, cols, tokens, epilogue);
  }
  static_assert(kSquareSumRows == 32);  // IsBuilt
  if (!IsBuilt(shape.row_tile, shape.groups, shape.split, epilogue)) return {};
  const int64_t k_blocks = KBlocks(cols, type);
  if (k_blocks < shape.split) return {};
  shape.row_tiles = static_cast<int>(CeilDiv(rows, shape.row_tile));
  const int64_t token_tile = shape.groups * 64;
  shape.token_tiles = static_cast<int>(CeilDiv(tokens, token_tile));
  const int64_t stage = (shape.row_tile + token_tile) * kBlockBytes;
  int64_t most =
      std::min<int64_t>(kMostStages, std::max<int64_t>(CeilDiv(k_blocks, shape.split), 2));
  if (shape.stages > 0) most = std::min<int64_t>(most, shape.stages);
  shape.share =
      HasTooManyBlocks(shape) && MayShare(shape.row_tile, shape.groups, shape.split, epilogue);
  // The tile's sums, where the stages were, and behind them those that the other blocks send.
  const int64_t partial = shape.split > 1 ? token_tile * shape.row_tile * 4 : 0,
                received = partial / shape.split * (shape.split - 1);
  const int64_t room = (shape.share ? kHalfShared : kShared) - received;
  shape.stages = static_cast<int>(std::min<int64_t>(room / stage, most));
  if (shape.stages < 2 || partial > room) return {};
  shape.received = static_cast<int>(std::max(shape.stages * stage, partial));
  shape.shared_bytes = static_cast<size_t>(shape.received + received) + 1024;
  return shape;
}

// One tile of tokens: the best of the cuts that give each block a multiprocessor to itself; if
// there are none, the one of the fewest blocks, two of which fit a multiprocessor if there is one.
// More: fewest clocks. docs/kernels/decode-gemm.md
DecodeGemmShape ChooseDecodeGemm(int64_t rows, int64_t cols, int32_t tokens, DType type,
                                 GemmEpilogue epilogue) {
  const int groups = DecodeGemmGroups(tokens, type);
  constexpr int kFewestKBlocks = 8;
  const int64_t k_blocks = KBlocks(cols, type);
  const auto rank = [](const DecodeGemmShape& s) {
    return !HasTooManyBlocks(s) ? 0 : s.share ? 1 : 2;
  };
  const auto is_better = [&](const DecodeGemmShape& s, const DecodeGemmShape& best) {
    if (best.row_tile == 0) return true;
    if (s.token_tiles > 1) return Clocks(s, k_blocks) < Clocks(best, k_blocks);
    if (rank(s) != rank(best)) return rank(s) < rank(best);
    return rank(s) == 0 ? IsBetter(s, best) : s.blocks() < best.blocks();
  };
  DecodeGemmShape best;
  for (const int row_tile : kDecodeGemmRowTiles) {
    for (const int split : kDecodeGemmSplits) {
      if (row_tile == 192 && tokens <= groups * 64) continue;
      if (split > 1 && k_blocks < split * kFewestKBlocks) continue;
      if (split == 4 && groups > 1) continue;
      DecodeGemmShape s;
      s.row_tile = row_tile, s.split = split, s.groups = groups;
      s = CompleteDecodeGemm(s, rows, cols, tokens, type, epilogue);
      if (s.row_tile > 0 && is_better(s, best)) best = s;
    }
  }
  if (tokens <= groups * 64) return best;
  const DecodeGemmShape columns = ChooseColumns(rows, cols, tokens, type, epilogue);
  if (columns.row_tile > 0 && Clocks(columns, k_blocks) < Clocks(best, k_blocks)) best = columns;
  const DecodeGemmShape wide = ChooseWide(rows, cols, tokens, type, epilogue);
  if (wide.row_tile == 0) return best;
  // Many waves of bfloat16 take longer than their clocks.
  const bool too_many = type == DType::kBF16 && tokens > 512 && HasTooManyBlocks(best);
  if (best.row_tile == 0 || too_many) return wide;
  return WideClocks(wide, k_blocks, epilogue) < Clocks(best, k_blocks) ? wide : best;
}

bool PreferDecodeGemm(int64_t rows, int64_t cols, int64_t tokens, DType type,
                      GemmEpilogue epilogue) {
  const DecodeGemmShape s =
      ChooseDecodeGemm(rows, cols, static_cast<int32_t>(tokens), type, epilogue);
  if (s.row_tile == 0) return false;
  if (tokens > kMaxDecodeGemmTokens) return epilogue == GemmEpilogue::kSwiGlu;
  if (s.token_tiles == 1) return true;
  const int turns = Turns(s);
  if (turns == 1) return true;
  if (tokens <= 256) return false;
  // In turns it is worth it if tiles past the end and the last turn leave little idle; FP8's other
  // way has more kernels.
  const int least = epilogue == GemmEpilogue::kResidual                         ? 65
                    : epilogue == GemmEpilogue::kSwiGlu && type == DType::kBF16 ? 74
                                                                                : 0;
  const int64_t room = int64_t{turns} * (Places(s) / s.split) * s.row_tile * s.token_tile();
  return 100 * rows * tokens >= least * room;
}

}  // namespace hgrn2::cuda
