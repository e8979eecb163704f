// Encoding in bytes/s and incremental decoding in tokens/s, per form of tokenizer. The text is the
// model card's prose and data notes, repeated (natural English, some markup).
#include <benchmark/benchmark.h>

#include <fstream>
#include <iterator>

#include "engine/tokenizer/tokenizer.h"

namespace hgrn2 {
namespace {

std::string ReadFile(const std::string& path) {
  std::ifstream in(HGRN2_SOURCE_DIR "/" + path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

const std::string& Text() {
  static const std::string text = [] {
    const std::string once = ReadFile("models/hgrn2-gutenberg-12m/README.md") +
                             ReadFile("models/hgrn2-gutenberg-12m/DATA.md");
    std::string all;
    while (!once.empty() && all.size() < (1 << 20)) all += once;
    return all;
  }();
  return text;
}

std::unique_ptr<Tokenizer> Load(int form) {
  auto tokenizer = [&]() -> absl::StatusOr<std::unique_ptr<Tokenizer>> {
    const std::string data = "tests/data/tokenizer/";
    switch (form) {
      case 0:
        return LoadTokenizer(HGRN2_SOURCE_DIR "/models/hgrn2-gutenberg-12m");
      case 1:
        return ParseTokenizerJson(ReadFile(data + "llama_base.json"), "llama_base.json");
      case 2:
        return ParseSentencePieceModel(ReadFile(data + "bpe.model"), "bpe.model", true, false);
      default:
        return ParseSentencePieceModel(ReadFile(data + "unigram.model"), "unigram", true, false);
    }
  }();
  return tokenizer.ok() ? *std::move(tokenizer) : nullptr;
}

constexpr const char* kForms[] = {"embedded byte-level", "llama byte-fallback", "sentencepiece BPE",
                                  "sentencepiece unigram"};

void BM_Encode(benchmark::State& state) {
  const auto tokenizer = Load(static_cast<int>(state.range(0)));
  if (tokenizer == nullptr) return state.SkipWithError("cannot load the tokenizer");
  const std::string text = Text().substr(0, state.range(1));
  for (auto _ : state) benchmark::DoNotOptimize(tokenizer->Encode(text, true));
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * text.size()));
  state.SetLabel(kForms[state.range(0)]);
}
BENCHMARK(BM_Encode)->ArgsProduct({{0, 1, 2, 3}, {1 << 10, 1 << 20}})->MinTime(0.3);

// One word of a megabyte: the heap and the hash table without help from the cache.
void BM_EncodeOneWord(benchmark::State& state) {
  const auto tokenizer = Load(0);
  if (tokenizer == nullptr) return state.SkipWithError("cannot load the tokenizer");
  std::string text;
  for (const char c : Text()) {
    if (c >= 'a' && c <= 'z') text += c;
  }
  for (auto _ : state) benchmark::DoNotOptimize(tokenizer->Encode(text, true));
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * text.size()));
}
BENCHMARK(BM_EncodeOneWord)->MinTime(0.3);

void BM_IncrementalDecode(benchmark::State& state) {
  const auto tokenizer = Load(static_cast<int>(state.range(0)));
  if (tokenizer == nullptr) return state.SkipWithError("cannot load the tokenizer");
  const auto ids = tokenizer->Encode(Text().substr(0, 1 << 16), true);
  if (!ids.ok()) return state.SkipWithError("cannot encode");
  for (auto _ : state) {
    IncrementalDetokenizer stream(*tokenizer, true);
    for (const int32_t id : *ids) benchmark::DoNotOptimize(stream.Append(id));
    benchmark::DoNotOptimize(stream.Flush());
  }
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations() * ids->size()));
  state.SetLabel(kForms[state.range(0)]);
}
BENCHMARK(BM_IncrementalDecode)->DenseRange(0, 3)->MinTime(0.3);

}  // namespace
}  // namespace hgrn2

BENCHMARK_MAIN();
