// Reads the four pipeline members of tokenizer.json. Unknown types are refused by name.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "engine/tokenizer/decoders.h"
#include "engine/tokenizer/json_field.h"
#include "engine/tokenizer/normalizers.h"
#include "engine/tokenizer/post_processor.h"
#include "engine/tokenizer/pre_tokenizers.h"

namespace hgrn2 {

// Null where the member is null.
absl::StatusOr<std::unique_ptr<Normalizer>> ReadNormalizer(const JsonField& field);
absl::StatusOr<std::unique_ptr<PreTokenizer>> ReadPreTokenizer(const JsonField& field);

absl::StatusOr<PostProcessor> ReadPostProcessor(const JsonField& field);
absl::StatusOr<std::unique_ptr<DecoderChain>> ReadDecoder(const JsonField& field);

}  // namespace hgrn2
