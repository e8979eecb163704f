#include "engine/tokenizer/sentencepiece_encoder.h"

#include <algorithm>
#include <cfloat>
#include <queue>

#include "base/string_view.h"
#include "engine/tokenizer/unicode.h"

namespace hgrn2 {
namespace {

using PieceType = SentencePieceModel::PieceType;

// What an unknown character costs beside the worst piece.
constexpr float kUnknownPenalty = 10.0f;

// Byte-pair merging over symbols, which are adjacent views of one text.
class BpeMerger {
 public:
  BpeMerger(const SentencePieceModel& model, std::string_view text) : model_(model) {
    while (!text.empty()) {
      int32_t id = -1;
      const size_t user_defined = model.user_defined.Longest(text, &id);
      const size_t length = user_defined > 0 ? user_defined : unicode::CharLength(text[0]);
      const auto index = static_cast<int32_t>(symbols_.size());
      symbols_.push_back({text.substr(0, length), index - 1, index + 1, user_defined > 0});
      text.remove_prefix(length);
    }
    if (!symbols_.empty()) symbols_.back().next = -1;
  }

  std::vector<SentencePieceEncoder::Part> Run() {
    for (size_t i = 1; i < symbols_.size(); ++i) Queue(static_cast<int32_t>(i - 1), i);
    while (!queue_.empty()) {
      const Candidate top = queue_.top();
      queue_.pop();
      Symbol& left = symbols_[top.left];
      Symbol& right = symbols_[top.right];
      if (left.text.empty() || right.text.empty() ||
          left.text.size() + right.text.size() != top.size) {
        continue;  // a neighbour has been merged meanwhile
      }
      left.text = {left.text.data(), top.size};
      left.next = right.next;
      if (right.next >= 0) symbols_[right.next].previous = top.left;
      right.text = {};
      Queue(left.previous, top.left);
      Queue(top.left, left.next);
    }
    std::vector<SentencePieceEncoder::Part> out;
    for (int32_t i = symbols_.empty() ? -1 : 0; i >= 0; i = symbols_[i].next) {
      Resegment(symbols_[i].text, &out);
    }
    return out;
  }

 private:
  struct Symbol {
    std::string_view text;  // empty once merged into the left neighbour
    int32_t previous, next;
    bool frozen;  // a user-defined symbol
  };
  struct Candidate {
    float score;
    int32_t left, right;
    size_t size;
    bool operator<(const Candidate& other) const {
      return score < other.score || (score == other.score && left > other.left);
    }
  };

  void Queue(int32_t left, int32_t right) {
    if (left < 0 || right < 0 || symbols_[left].frozen || symbols_[right].frozen) return;
    const std::string_view piece(symbols_[left].text.data(),
                                 symbols_[left].text.size() + symbols_[right].text.size());
    const auto it = model_.normal.find(ToAbsl(piece));
    if (it == model_.normal.end()) return;
    queue_.push({model_.pieces[it->second].score, left, right, piece.size()});
    if (model_.TypeOf(it->second) == PieceType::kUnused) {
      split_of_[ToAbsl(piece)] = symbols_[left].text.size();
    }
  }

  // An unused piece only helps to form others: take its parts instead. Without recursion, whose
  // depth a model could choose.
  void Resegment(std::string_view piece, std::vector<SentencePieceEncoder::Part>* out) {
    std::vector<std::string_view> stack = {piece};
    while (!stack.empty()) {
      const std::string_view top = stack.back();
      stack.pop_back();
      const int32_t id = model_.PieceToId(top);
      const auto it =
          model_.TypeOf(id) == PieceType::kUnused ? split_of_.find(ToAbsl(top)) : split_of_.end();
      if (it == split_of_.end()) {
        out->push_back({id, top});
        continue;
      }
      stack.push_back(top.substr(it->second));
      stack.push_back(top.substr(0, it->second));
    }
  }

  const SentencePieceModel& model_;
  std::vector<Symbol> symbols_;
  std::priority_queue<Candidate> queue_;
  absl::flat_hash_map<absl::string_view, size_t>
      split_of_;  // unused pieces: bytes of the left part
};

}  // namespace

SentencePieceEncoder::SentencePieceEncoder(const SentencePieceModel& model)
    : model_(&model), min_score_(FLT_MAX), max_score_(FLT_MIN) {
  if (model.algorithm != SentencePieceModel::Algorithm::kUnigram) return;
  for (const auto& [text, id] : model.normal) trie_.Insert(text, id);
  for (const auto& piece : model.pieces) {
    if (piece.type != PieceType::kNormal) continue;
    min_score_ = std::min(min_score_, piece.score);
    max_score_ = std::max(max_score_, piece.score);
  }
}

std::vector<SentencePieceEncoder::Part> SentencePieceEncoder::Encode(std::string_view text) const {
  if (model_->algorithm == SentencePieceModel::Algorithm::kUnigram) return EncodeUnigram(text);
  return EncodeBpe(text);
}

std::vector<SentencePieceEncoder::Part> SentencePieceEncoder::EncodeBpe(
    std::string_view text) const {
  return BpeMerger(*model_, text).Run();
}

// Viterbi over byte positions. The arithmetic (float sums, double for the comparison) is
// SentencePiece's: ties and near-ties depend on it.
std::vector<SentencePieceEncoder::Part> SentencePieceEncoder::EncodeUnigram(
    std::string_view text) const {
  struct Node {
    int32_t id = -1;
    float score = 0;  // of the best path that ends here
    int32_t start = -1;
  };
  std::vector<Node> ends(text.size() + 1);
  const auto offer = [](Node* node, int32_t id, auto score, size_t start) {
    if (node->start >= 0 && !(score > node->score)) return;
    *node = {id, static_cast<float>(score), static_cast<int32_t>(start)};
  };
  const float unknown = min_score_ - kUnknownPenalty;
  for (size_t start = 0; start < text.size();) {
    const float so_far = ends[start].score;
    const size_t length = unicode::CharLength(text[start]);
    bool has_character = false;
    uint32_t node = ByteTrie::kRoot;
    for (size_t pos = start; pos < text.size();) {
      node = trie_.Step(node, text[pos++]);
      if (node == ByteTrie::kRoot) break;
      const int32_t id = trie_.Value(node);
      if (id < 0 || model_->TypeOf(id) == PieceType::kUnused) continue;
      const bool user_defined = model_->TypeOf(id) == PieceType::kUserDefined;
      const float score =
          user_defined ? (pos - start) * max_score_ - 0.1f : model_->pieces[id].score;
      offer(&ends[pos], id, score + so_far, start);
      has_character = has_character || pos - start == length;
    }
    if (!has_character) offer(&ends[start + length], model_->unk_id, unknown + so_far, start);
    start += length;
  }
  std::vector<Part> out;
  for (auto end = static_cast<int32_t>(text.size()); end > 0; end = ends[end].start) {
    out.push_back({ends[end].id, text.substr(ends[end].start, end - ends[end].start)});
  }
  std::reverse(out.begin(), out.end());
  return out;
}

}  // namespace hgrn2
