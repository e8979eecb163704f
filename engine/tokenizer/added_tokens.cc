#include "engine/tokenizer/added_tokens.h"

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "base/status.h"

namespace hgrn2 {
namespace {

bool EndsWithWord(std::string_view text) {
  if (text.empty()) return false;
  size_t pos = unicode::Previous(text, text.size());
  return unicode::IsWord(unicode::Next(text, &pos));
}
bool StartsWithWord(std::string_view text) {
  size_t pos = 0;
  return !text.empty() && unicode::IsWord(unicode::Next(text, &pos));
}
// Where the white space at the end of `text` begins.
size_t TrailingSpace(std::string_view text) {
  size_t end = text.size();
  while (end > 0) {
    const size_t previous = unicode::Previous(text, end);
    size_t pos = previous;
    if (!unicode::IsWhitespace(unicode::Next(text, &pos))) break;
    end = previous;
  }
  return end;
}
size_t LeadingSpace(std::string_view text) {
  size_t end = 0;
  for (size_t pos = 0; pos < text.size(); end = pos) {
    if (!unicode::IsWhitespace(unicode::Next(text, &pos))) break;
  }
  return end;
}

}  // namespace

absl::StatusOr<AddedTokens> AddedTokens::Create(std::vector<AddedToken> tokens,
                                                const Vocabulary& vocabulary,
                                                const Normalizer* normalizer,
                                                std::string_view file) {
  AddedTokens added;
  int index = 0;
  for (AddedToken& token : tokens) {
    const absl::Status status = added.Add(std::move(token), vocabulary, normalizer);
    if (!status.ok()) {
      return MakeStatus(absl::StatusCode::kInvalidArgument, "{}: added_tokens[{}] {}", file, index,
                        ToStd(status.message()));
    }
    ++index;
  }
  absl::flat_hash_set<std::string> special;
  for (const auto& [id, entry] : added.entries_) {
    if (entry.token.special) special.insert(entry.token.content);
  }
  for (auto& [id, entry] : added.entries_) {
    // `tokenizers` looks the decoded form up among the contents of special tokens.
    entry.skipped_as_special = special.contains(entry.pattern);
    ByteTrie& trie = entry.token.normalized ? added.normalized_ : added.raw_;
    if (entry.pattern.empty() || !trie.Insert(entry.pattern, id)) {
      return MakeStatus(absl::StatusCode::kInvalidArgument,
                        "{}: added_tokens: the normalized form of '{:.100}' is empty or that of "
                        "another token",
                        file, entry.token.content);
    }
  }
  return added;
}

absl::Status AddedTokens::Add(AddedToken token, const Vocabulary& vocabulary,
                              const Normalizer* normalizer) {
  if (token.content.empty()) return absl::OkStatus();
  if (token.content.size() > kMaxContentBytes) {
    return MakeStatus(absl::StatusCode::kInvalidArgument,
                      "has a content of {} bytes; the limit is {}", token.content.size(),
                      kMaxContentBytes);
  }
  Entry entry;
  NormalizedText text{token.content};
  if (token.normalized && normalizer != nullptr) RETURN_IF_ERROR(normalizer->Apply(&text));
  entry.pattern = std::move(text.text);
  if (entry.pattern.size() > 16 * kMaxContentBytes) {
    return absl::InvalidArgumentError("has too long a normalized form");
  }
  int32_t id = IdOf(token.content);
  if (id < 0) id = vocabulary.Find(token.content);
  if (id < 0) {
    id = std::max(max_id_ + 1, static_cast<int32_t>(vocabulary.size()));
    if (id > Vocabulary::kMaxId) return absl::InvalidArgumentError("has too large an id");
  }
  max_id_ = std::max(max_id_, id);
  ids_[token.content] = id;
  entry.token = std::move(token);
  entries_[id] = std::move(entry);
  return absl::OkStatus();
}

int32_t AddedTokens::IdOf(std::string_view content) const {
  const auto it = ids_.find(ToAbsl(content));
  return it == ids_.end() ? -1 : it->second;
}

std::vector<AddedTokens::Match> AddedTokens::Find(std::string_view text, bool normalized) const {
  std::vector<Match> out;
  const ByteTrie& trie = normalized ? normalized_ : raw_;
  size_t done = 0;
  for (size_t at = 0; !trie.empty() && at < text.size();) {
    int32_t id = -1;
    const size_t length = trie.Longest(text.substr(at), &id);
    if (length == 0) {
      ++at;
      continue;
    }
    size_t start = at;
    size_t stop = at + length;
    at = stop;
    const AddedToken& token = entries_.find(id)->second.token;
    if (token.single_word &&
        (EndsWithWord(text.substr(0, start)) || StartsWithWord(text.substr(stop)))) {
      continue;
    }
    // White space that the token before has taken stays with it.
    if (token.lstrip) start = std::max(TrailingSpace(text.substr(0, start)), done);
    if (token.rstrip) stop += LeadingSpace(text.substr(stop));
    if (done < start) out.push_back({-1, text.substr(done, start - done)});
    out.push_back({id, text.substr(std::min(start, stop), stop - std::min(start, stop))});
    done = stop;
  }
  if (done < text.size()) out.push_back({-1, text.substr(done)});
  return out;
}

}  // namespace hgrn2
