#include "engine/tokenizer/sentencepiece_model.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <iterator>

#include "base/status.h"
#include "engine/tokenizer/unicode.h"

namespace hgrn2 {
namespace {

// One field of a protocol buffer message.
struct Field {
  uint32_t number = 0;
  uint64_t varint = 0;     // wire type 0
  std::string_view bytes;  // wire type 2, and the 4 or 8 bytes of types 5 and 1
};

class MessageReader {
 public:
  explicit MessageReader(std::string_view bytes) : rest_(bytes) {}

  bool done() const { return rest_.empty(); }
  // False if the message is malformed.
  bool Next(Field* field) {
    *field = Field();
    uint64_t key = 0;
    if (!Varint(&key) || key >> 32 != 0) return false;
    field->number = static_cast<uint32_t>(key >> 3);
    switch (key & 7) {
      case 0:
        return Varint(&field->varint);
      case 1:
        return Bytes(8, &field->bytes);
      case 2: {
        uint64_t size = 0;
        return Varint(&size) && Bytes(size, &field->bytes);
      }
      case 5:
        return Bytes(4, &field->bytes);
      default:  // groups are not used by the format
        return false;
    }
  }

 private:
  bool Varint(uint64_t* value) {
    *value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      if (rest_.empty()) return false;
      const auto b = static_cast<uint8_t>(rest_[0]);
      rest_.remove_prefix(1);
      *value |= uint64_t{b & 0x7Fu} << shift;
      if (b < 0x80) return true;
    }
    return false;
  }
  bool Bytes(uint64_t size, std::string_view* out) {
    if (size > rest_.size()) return false;
    *out = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return true;
  }

  std::string_view rest_;
};

// Calls take(field) for every field; false if the message is malformed or take() says so.
template <typename Take>
bool ForEachField(std::string_view message, const Take& take) {
  MessageReader reader(message);
  Field field;
  while (!reader.done()) {
    if (!reader.Next(&field) || !take(field)) return false;
  }
  return true;
}

using Piece = SentencePieceModel::Piece;
using PieceType = SentencePieceModel::PieceType;

bool ReadPiece(std::string_view message, Piece* piece) {
  return ForEachField(message, [piece](const Field& f) {
    if (f.number == 1) piece->text = f.bytes;
    if (f.number == 2) {
      if (f.bytes.size() != 4) return false;
      std::memcpy(&piece->score, f.bytes.data(), 4);
    }
    if (f.number == 3) {
      if (f.varint < 1 || f.varint > 6) return false;
      piece->type = static_cast<PieceType>(f.varint);
    }
    return true;
  });
}

bool ReadNormalizer(std::string_view message, SentencePieceModel::NormalizerSpec* spec) {
  return ForEachField(message, [spec](const Field& f) {
    if (f.number == 2) spec->charsmap = f.bytes;
    if (f.number == 3) spec->add_dummy_prefix = f.varint != 0;
    if (f.number == 4) spec->remove_extra_whitespaces = f.varint != 0;
    if (f.number == 5) spec->escape_whitespaces = f.varint != 0;
    return true;
  });
}

bool ReadTrainer(std::string_view message, SentencePieceModel* model, uint64_t* algorithm) {
  return ForEachField(message, [&](const Field& f) {
    if (f.number == 3) *algorithm = f.varint;
    if (f.number == 24) model->treat_whitespace_as_suffix = f.varint != 0;
    if (f.number == 35) model->byte_fallback = f.varint != 0;
    if (f.number == 44) model->unk_surface = f.bytes;
    if (f.number == 46 && !f.bytes.empty()) model->bos_piece = f.bytes;
    if (f.number == 47 && !f.bytes.empty()) model->eos_piece = f.bytes;
    return true;
  });
}

// The byte of a piece <0xHH> (upper-case digits), or -1.
int ByteOf(std::string_view piece) {
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  if (piece.size() != 6 || piece.substr(0, 3) != "<0x" || piece[5] != '>') return -1;
  const size_t high = kDigits.find(piece[3]);
  const size_t low = kDigits.find(piece[4]);
  return high == kDigits.npos || low == kDigits.npos ? -1 : static_cast<int>(high * 16 + low);
}

template <typename... Args>
absl::Status Refused(std::string_view file, fmt::format_string<Args...> format, Args&&... args) {
  return MakeStatus(absl::StatusCode::kInvalidArgument, "{}: {}", file,
                    fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace

absl::StatusOr<SentencePieceModel> SentencePieceModel::Parse(std::string_view bytes,
                                                             std::string_view file) {
  SentencePieceModel model;
  uint64_t algorithm = 1;
  const bool well_formed = ForEachField(bytes, [&](const Field& f) {
    if (f.number == 1) return ReadPiece(f.bytes, &model.pieces.emplace_back());
    if (f.number == 2) return ReadTrainer(f.bytes, &model, &algorithm);
    if (f.number == 3) return ReadNormalizer(f.bytes, &model.normalizer);
    if (f.number == 5) return ReadNormalizer(f.bytes, &model.denormalizer);
    return true;
  });
  if (!well_formed) return Refused(file, "not a SentencePiece model, or truncated");
  if (algorithm != 1 && algorithm != 2) {
    return Refused(file, "trainer_spec.model_type {} is not supported; unigram (1) and BPE (2) are",
                   algorithm);
  }
  if (!model.denormalizer.charsmap.empty()) {
    return Refused(file, "denormalizer_spec.precompiled_charsmap is not supported");
  }
  model.algorithm = static_cast<Algorithm>(algorithm);
  RETURN_IF_ERROR(model.Index(file));
  return model;
}

absl::Status SentencePieceModel::Index(std::string_view file) {
  std::fill(std::begin(byte_ids), std::end(byte_ids), -1);
  if (pieces.size() > (size_t{1} << 24)) return Refused(file, "pieces has more than 2^24 elements");
  if (!unicode::IsValid(unk_surface)) return Refused(file, "unk_surface is not UTF-8");
  for (size_t i = 0; i < pieces.size(); ++i) {
    const Piece& piece = pieces[i];
    const auto id = static_cast<int32_t>(i);
    if (piece.text.empty()) return Refused(file, "pieces[{}] is empty", i);
    if (!unicode::IsValid(piece.text)) return Refused(file, "pieces[{}] is not UTF-8", i);
    if (!std::isfinite(piece.score)) return Refused(file, "pieces[{}].score is not finite", i);
    const bool is_normal = piece.type == PieceType::kNormal ||
                           piece.type == PieceType::kUserDefined ||
                           piece.type == PieceType::kUnused;
    if (!(is_normal ? normal : reserved).try_emplace(piece.text, id).second) {
      return Refused(file, "pieces[{}] '{:.100}' is defined twice", i, piece.text);
    }
    if (piece.type == PieceType::kUserDefined) user_defined.Insert(piece.text, id);
    if (piece.type == PieceType::kUnknown) {
      if (unk_id >= 0) return Refused(file, "pieces[{}] is a second unknown piece", i);
      unk_id = id;
    }
    if (piece.type == PieceType::kByte) {
      const int byte = ByteOf(piece.text);
      if (byte < 0 || !byte_fallback) return Refused(file, "pieces[{}] is no byte piece", i);
      byte_ids[byte] = id;
    }
  }
  if (unk_id < 0) return Refused(file, "pieces has no unknown piece");
  if (byte_fallback &&
      std::find(std::begin(byte_ids), std::end(byte_ids), -1) != std::end(byte_ids)) {
    return Refused(file, "byte_fallback needs 256 byte pieces");
  }
  return absl::OkStatus();
}

int32_t SentencePieceModel::PieceToId(std::string_view piece) const {
  const auto it = reserved.find(ToAbsl(piece));
  if (it != reserved.end()) return it->second;
  const auto at = normal.find(ToAbsl(piece));
  return at == normal.end() ? unk_id : at->second;
}

}  // namespace hgrn2
