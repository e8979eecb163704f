// The contents of a SentencePiece tokenizer.model (a protocol buffer, sentencepiece_model.proto).
//
// Read and run here rather than by libsentencepiece: the packaged library exports another version
// of protobuf's symbols than libprotobuf, which gRPC brings into the same process, and is not made
// for hostile files.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "engine/tokenizer/byte_trie.h"

namespace hgrn2 {

// U+2581, which stands for a space.
inline constexpr std::string_view kSpaceSymbol = "\xE2\x96\x81";

struct SentencePieceModel {
  enum class PieceType { kNormal = 1, kUnknown, kControl, kUserDefined, kUnused, kByte };
  enum class Algorithm { kUnigram = 1, kBpe = 2 };
  struct Piece {
    std::string text;
    float score = 0;
    PieceType type = PieceType::kNormal;
  };
  struct NormalizerSpec {
    std::string charsmap;
    bool add_dummy_prefix = true;
    bool remove_extra_whitespaces = true;
    bool escape_whitespaces = true;
  };

  // INVALID_ARGUMENT naming `file` for what is malformed, inconsistent or not supported.
  static absl::StatusOr<SentencePieceModel> Parse(std::string_view bytes, std::string_view file);

  // The id of a piece, the unknown piece's if there is none.
  int32_t PieceToId(std::string_view piece) const;
  PieceType TypeOf(int32_t id) const { return pieces[id].type; }

  std::vector<Piece> pieces;  // by id
  Algorithm algorithm = Algorithm::kUnigram;
  bool treat_whitespace_as_suffix = false;
  bool byte_fallback = false;
  std::string unk_surface = " \xE2\x81\x87 ";
  std::string bos_piece = "<s>";
  std::string eos_piece = "</s>";
  NormalizerSpec normalizer;
  NormalizerSpec denormalizer;

  int32_t unk_id = -1;
  int32_t byte_ids[256];                             // if byte_fallback
  absl::flat_hash_map<std::string, int32_t> normal;  // normal, user-defined and unused pieces
  absl::flat_hash_map<std::string, int32_t> reserved;
  ByteTrie user_defined;

 private:
  absl::Status Index(std::string_view file);
};

}  // namespace hgrn2
