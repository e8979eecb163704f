#include "engine/tokenizer/bpe.h"

#include <algorithm>
#include <atomic>
#include <queue>

#include "base/status.h"
#include "engine/tokenizer/byte_alphabet.h"
#include "engine/tokenizer/unicode.h"
#include "engine/tokenizer/word_cache.h"

namespace hgrn2 {
namespace {

// Below this many symbols, scanning for the best pair beats a heap.
constexpr size_t kShortWord = 40;

std::atomic<uint64_t> next_serial{1};

// A merge that was possible when it was queued. Lowest rank first, then leftmost.
struct Candidate {
  uint64_t rank_and_position;
  int32_t id;
  bool operator<(const Candidate& other) const {
    return rank_and_position > other.rank_and_position;
  }
};

struct Symbol {
  int32_t id;  // -1 once merged into its left neighbour
  int32_t previous, next;
};

}  // namespace

BpeModel::BpeModel(Vocabulary vocabulary, size_t merges, BpeOptions options)
    : vocabulary_(std::move(vocabulary)),
      merges_(merges),
      options_(std::move(options)),
      serial_(next_serial.fetch_add(1)) {
  for (int b = 0; b < 256; ++b) {
    byte_ids_[b] = vocabulary_.Find(ByteToAlphabet(static_cast<unsigned char>(b)));
    fallback_ids_[b] = vocabulary_.Find(fmt::format("<0x{:02X}>", b));
  }
  encodes_bytes_ =
      std::all_of(byte_ids_.begin(), byte_ids_.end(), [](int id) { return id >= 0; }) &&
      options_.continuing_subword_prefix.empty() && options_.end_of_word_suffix.empty();
  if (options_.has_unk_token) unk_id_ = vocabulary_.Find(options_.unk_token);
}

absl::StatusOr<std::unique_ptr<BpeModel>> BpeModel::Create(Vocabulary vocabulary,
                                                           const Merges& merges, BpeOptions options,
                                                           std::string_view file) {
  std::unique_ptr<BpeModel> model(
      new BpeModel(std::move(vocabulary), merges.size(), std::move(options)));
  uint32_t rank = 0;
  for (const auto& merge : merges) RETURN_IF_ERROR(model->AddMerge(merge, rank++, file));
  return model;
}

absl::Status BpeModel::AddMerge(const std::pair<std::string, std::string>& merge, uint32_t rank,
                                std::string_view file) {
  const auto& [left, right] = merge;
  const size_t prefix = options_.continuing_subword_prefix.size();
  const std::string merged = left + (right.size() < prefix ? "" : right.substr(prefix));
  const std::string* const parts[] = {&left, &right, &merged};
  int32_t ids[3];
  for (int i = 0; i < 3; ++i) {
    ids[i] = vocabulary_.Find(*parts[i]);
    if (ids[i] >= 0 && right.size() >= prefix) continue;
    return MakeStatus(absl::StatusCode::kInvalidArgument,
                      "{}: model.merges[{}] needs token '{:.100}', which is not in model.vocab",
                      file, rank, *parts[i]);
  }
  merges_.Insert(ids[0], ids[1], {rank, ids[2]});
  return absl::OkStatus();
}

bool BpeModel::FallBack(std::string_view character, std::vector<int32_t>* symbols) const {
  for (const char b : character) {
    if (fallback_ids_[static_cast<unsigned char>(b)] < 0) return false;
  }
  for (const char b : character) symbols->push_back(fallback_ids_[static_cast<unsigned char>(b)]);
  return true;
}

absl::Status BpeModel::Symbols(std::string_view word, std::vector<int32_t>* symbols) const {
  // An unknown token waits here for the ones it may fuse with. As in `tokenizers`, byte fallback
  // does not end that wait.
  bool unknown = false;
  std::string affixed;
  for (size_t pos = 0; pos < word.size();) {
    const size_t length = unicode::CharLength(word[pos]);
    std::string_view character = word.substr(pos, length);
    const bool first = pos == 0;
    pos += length;
    const bool last = pos >= word.size();
    const bool prefixed = !first && !options_.continuing_subword_prefix.empty();
    if (prefixed || (last && !options_.end_of_word_suffix.empty())) {
      affixed = prefixed ? options_.continuing_subword_prefix : "";
      affixed += character;
      if (last) affixed += options_.end_of_word_suffix;
      character = affixed;
    }
    const int32_t id = vocabulary_.Find(character);
    if (id >= 0) {
      if (unknown) symbols->push_back(unk_id_);
      unknown = false;
      symbols->push_back(id);
      continue;
    }
    if (options_.byte_fallback && FallBack(character, symbols)) continue;
    if (!options_.has_unk_token) continue;
    if (unk_id_ < 0) {
      return MakeStatus(
          absl::StatusCode::kFailedPrecondition,
          "the text has characters unknown to the tokenizer, whose unk_token '{:.100}' "
          "is not in its vocabulary",
          options_.unk_token);
    }
    if (unknown && !options_.fuse_unk) symbols->push_back(unk_id_);
    unknown = true;
  }
  if (unknown) symbols->push_back(unk_id_);
  return absl::OkStatus();
}

void BpeModel::MergeAll(std::vector<int32_t>* symbols) const {
  if (symbols->size() < 2) return;
  symbols->size() <= kShortWord ? MergeShort(symbols) : MergeLong(symbols);
}

void BpeModel::MergeShort(std::vector<int32_t>* symbols) const {
  int32_t* const s = symbols->data();
  size_t n = symbols->size();
  Merge pairs[kShortWord];  // pairs[i] merges s[i] and s[i + 1]
  for (size_t i = 0; i + 1 < n; ++i) pairs[i] = merges_.Find(s[i], s[i + 1]);
  while (n > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < n; ++i) {
      if (pairs[i].rank < pairs[best].rank) best = i;
    }
    if (pairs[best].rank == MergeTable::kNoRank) break;
    s[best] = pairs[best].id;
    std::copy(s + best + 2, s + n, s + best + 1);
    std::copy(pairs + best + 1, pairs + n - 1, pairs + best);
    --n;
    if (best + 1 < n) pairs[best] = merges_.Find(s[best], s[best + 1]);
    if (best > 0) pairs[best - 1] = merges_.Find(s[best - 1], s[best]);
  }
  symbols->resize(n);
}

void BpeModel::MergeLong(std::vector<int32_t>* symbols) const {
  const auto n = static_cast<int32_t>(symbols->size());
  std::vector<Symbol> list(n);
  for (int32_t i = 0; i < n; ++i) list[i] = {(*symbols)[i], i - 1, i + 1 < n ? i + 1 : -1};
  std::vector<Candidate> initial;
  const auto candidate = [](Merge merge, int32_t position) {
    return Candidate{uint64_t{merge.rank} << 32 | static_cast<uint32_t>(position), merge.id};
  };
  for (int32_t i = 0; i + 1 < n; ++i) {
    const Merge merge = merges_.Find(list[i].id, list[i + 1].id);
    if (merge.rank != MergeTable::kNoRank) initial.push_back(candidate(merge, i));
  }
  std::priority_queue<Candidate> queue(std::less<Candidate>(), std::move(initial));
  const auto push = [&](int32_t left) {
    const Merge merge = merges_.Find(list[left].id, list[list[left].next].id);
    if (merge.rank != MergeTable::kNoRank) queue.push(candidate(merge, left));
  };
  while (!queue.empty()) {
    const Candidate top = queue.top();
    queue.pop();
    const auto at = static_cast<int32_t>(top.rank_and_position & 0xFFFFFFFF);
    if (list[at].id < 0 || list[at].next < 0) continue;
    const int32_t right = list[at].next;
    const Merge now = merges_.Find(list[at].id, list[right].id);
    if (now.rank == MergeTable::kNoRank || now.id != top.id) continue;  // a neighbour has changed
    list[at].id = top.id;
    list[at].next = list[right].next;
    list[right].id = -1;
    if (list[at].next >= 0) list[list[at].next].previous = at;
    if (list[at].previous >= 0) push(list[at].previous);
    if (list[at].next >= 0) push(at);
  }
  symbols->clear();
  for (const Symbol& symbol : list) {
    if (symbol.id >= 0) symbols->push_back(symbol.id);
  }
}

absl::Status BpeModel::Encode(std::string_view word, std::vector<int32_t>* ids) const {
  if (word.empty()) return absl::OkStatus();
  const bool cacheable = WordCache::Fits(word);
  WordCache& cache = WordCache::ForModel(serial_);
  if (cacheable && cache.Find(word, ids)) return absl::OkStatus();
  std::vector<int32_t> symbols;
  const int32_t whole = options_.ignore_merges ? vocabulary_.Find(word) : -1;
  if (whole >= 0) {
    symbols.push_back(whole);
  } else {
    RETURN_IF_ERROR(Symbols(word, &symbols));
    MergeAll(&symbols);
  }
  if (cacheable) cache.Insert(word, symbols.data(), symbols.size());
  ids->insert(ids->end(), symbols.begin(), symbols.end());
  return absl::OkStatus();
}

absl::Status BpeModel::EncodeBytes(std::string_view bytes, std::vector<int32_t>* ids) const {
  if (bytes.empty()) return absl::OkStatus();
  const bool cacheable = WordCache::Fits(bytes);
  WordCache& cache = WordCache::ForModel(serial_);
  if (cacheable && cache.Find(bytes, ids)) return absl::OkStatus();
  std::vector<int32_t> symbols;
  const int32_t whole = options_.ignore_merges ? vocabulary_.Find(BytesToAlphabet(bytes)) : -1;
  if (whole >= 0) {
    symbols.push_back(whole);
  } else {
    symbols.reserve(bytes.size());
    for (const char b : bytes) symbols.push_back(byte_ids_[static_cast<unsigned char>(b)]);
    MergeAll(&symbols);
  }
  if (cacheable) cache.Insert(bytes, symbols.data(), symbols.size());
  ids->insert(ids->end(), symbols.begin(), symbols.end());
  return absl::OkStatus();
}

}  // namespace hgrn2
