// The golden cases: small checkpoints with the reference implementation's float32 results.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/loader/weights.h"
#include "tests/testing/numeric.h"

namespace hgrn2::testing {

// "base" (one head of 128), "heads" (4 heads of 64, tied embeddings), "conv" (short convolutions),
// "nolb" (no lower bound, float32 file, eps 1e-5, heads of 32).
inline constexpr const char* kGoldenCases[] = {"base", "heads", "conv", "nolb"};

// The repository's root, and paths under it.
std::string SourcePath(const std::string& relative);
inline std::string GoldenDirectory(const std::string& name) {
  return SourcePath("tests/data/golden/" + name);
}
inline std::string EmbeddedModelDirectory() { return SourcePath("models/hgrn2-gutenberg-12m"); }

// N rows of T tokens. Every accessor's row n is in [0, num_rows).
struct GoldenCase {
  std::string name;
  ModelWeights weights;
  int64_t num_rows = 0;    // N
  int64_t num_tokens = 0;  // T

  std::vector<int32_t> input_ids;          // [N, T]
  std::vector<float> logits;               // [N, T, vocab]
  std::vector<std::vector<float>> states;  // per layer, [N, H, K, V] (transposed from the file)

  // Greedy continuation of each row's first greedy_prompt_len tokens, and at each of its steps the
  // gap between the best and the second logit.
  int64_t greedy_prompt_len = 0;
  int64_t num_greedy = 0;            // G
  std::vector<int32_t> greedy_ids;   // [N, G]
  std::vector<float> greedy_margin;  // [N, G]

  std::vector<int32_t> RowIds(int64_t n) const;   // [T]
  std::vector<float> RowLogits(int64_t n) const;  // [T, vocab]
  // [L, H, K, V]: the layout of StateBlob and of reference::State::s.
  std::vector<float> RowState(int64_t n) const;
  std::vector<int32_t> GreedyPrompt(int64_t n) const;
};

// Aborts with the reason if the case cannot be read: the data is part of the repository.
GoldenCase LoadGolden(const std::string& name);

}  // namespace hgrn2::testing
