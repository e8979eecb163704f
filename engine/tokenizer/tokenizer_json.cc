// tokenizer.json to an HfTokenizer: the document's outline, the model and the added tokens. The
// pipeline's components are in tokenizer_json_components.cc.
#include <utility>

#include "base/status.h"
#include "engine/tokenizer/hf_tokenizer.h"
#include "engine/tokenizer/json_field.h"
#include "engine/tokenizer/tokenizer_json_components.h"

namespace hgrn2 {
namespace {

absl::StatusOr<Vocabulary> ReadVocabulary(const JsonField& field) {
  RETURN_IF_ERROR(field.ExpectObject());
  Vocabulary vocabulary;
  for (const auto& [token, value] : field.value().items()) {
    const JsonField entry(value, field.file(), fmt::format("{}['{:.100}']", field.path(), token));
    ASSIGN_OR_RETURN(const int64_t id, entry.Int(0, Vocabulary::kMaxId));
    if (!vocabulary.Insert(token, static_cast<int32_t>(id))) {
      return entry.Error(fmt::format("has the id {} of another token", id));
    }
  }
  return vocabulary;
}

// "a b" or ["a", "b"].
absl::StatusOr<std::pair<std::string, std::string>> ReadMerge(const JsonField& field) {
  if (field.value().is_array()) {
    if (field.value().size() != 2) return field.Error("must have two elements");
    ASSIGN_OR_RETURN(std::string left, field.Element(0).String());
    ASSIGN_OR_RETURN(std::string right, field.Element(1).String());
    return std::pair(std::move(left), std::move(right));
  }
  ASSIGN_OR_RETURN(const std::string text, field.String());
  const size_t space = text.find(' ');
  if (space == text.npos || text.find(' ', space + 1) != text.npos) {
    return field.Error("must be two tokens separated by one space");
  }
  return std::pair(text.substr(0, space), text.substr(space + 1));
}

absl::StatusOr<BpeModel::Merges> ReadMerges(const JsonField& field) {
  RETURN_IF_ERROR(field.ExpectArray());
  BpeModel::Merges merges;
  merges.reserve(field.value().size());
  for (size_t i = 0; i < field.value().size(); ++i) {
    // A line of the merges.txt format that survived in some files.
    const auto* line = field.value()[i].get_ptr<const std::string*>();
    if (line != nullptr && line->rfind("#version", 0) == 0) continue;
    ASSIGN_OR_RETURN(auto merge, ReadMerge(field.Element(i)));
    merges.push_back(std::move(merge));
  }
  return merges;
}

absl::StatusOr<std::unique_ptr<BpeModel>> ReadModel(const JsonField& field) {
  RETURN_IF_ERROR(field.ExpectObject());
  // Files of old versions have no type; only BPE has merges.
  ASSIGN_OR_RETURN(const std::string type, field.Member("type").StringOr("BPE"));
  if (type != "BPE") {
    return field.Member("type").Error(fmt::format("'{:.40}' is not supported; BPE is", type));
  }
  const JsonField dropout = field.Member("dropout");
  if (!dropout.is_null() && !(dropout.value().is_number() && dropout.value().get<double>() == 0)) {
    return dropout.Error("is not supported: encoding would be random");
  }
  BpeOptions options;
  options.has_unk_token = !field.Member("unk_token").is_null();
  ASSIGN_OR_RETURN(options.unk_token, field.Member("unk_token").StringOr(""));
  ASSIGN_OR_RETURN(options.fuse_unk, field.Member("fuse_unk").BoolOr(false));
  ASSIGN_OR_RETURN(options.byte_fallback, field.Member("byte_fallback").BoolOr(false));
  ASSIGN_OR_RETURN(options.ignore_merges, field.Member("ignore_merges").BoolOr(false));
  ASSIGN_OR_RETURN(options.continuing_subword_prefix,
                   field.Member("continuing_subword_prefix").StringOr(""));
  ASSIGN_OR_RETURN(options.end_of_word_suffix, field.Member("end_of_word_suffix").StringOr(""));
  ASSIGN_OR_RETURN(Vocabulary vocabulary, ReadVocabulary(field.Member("vocab")));
  ASSIGN_OR_RETURN(const BpeModel::Merges merges, ReadMerges(field.Member("merges")));
  return BpeModel::Create(std::move(vocabulary), merges, std::move(options), field.file());
}

absl::StatusOr<AddedToken> ReadAddedToken(const JsonField& field) {
  RETURN_IF_ERROR(field.ExpectObject());
  AddedToken token;
  RETURN_IF_ERROR(field.Member("id").Int(0, Vocabulary::kMaxId).status());
  ASSIGN_OR_RETURN(token.content, field.Member("content").String());
  ASSIGN_OR_RETURN(token.special, field.Member("special").BoolOr(false));
  ASSIGN_OR_RETURN(token.normalized, field.Member("normalized").BoolOr(!token.special));
  ASSIGN_OR_RETURN(token.single_word, field.Member("single_word").BoolOr(false));
  ASSIGN_OR_RETURN(token.lstrip, field.Member("lstrip").BoolOr(false));
  ASSIGN_OR_RETURN(token.rstrip, field.Member("rstrip").BoolOr(false));
  return token;
}

absl::StatusOr<std::vector<AddedToken>> ReadAddedTokens(const JsonField& field) {
  std::vector<AddedToken> tokens;
  if (field.is_null()) return tokens;
  RETURN_IF_ERROR(field.ExpectArray());
  for (size_t i = 0; i < field.value().size(); ++i) {
    ASSIGN_OR_RETURN(AddedToken token, ReadAddedToken(field.Element(i)));
    tokens.push_back(std::move(token));
  }
  return tokens;
}

// The ids in templates come straight from the file: check them against the vocabulary.
absl::Status CheckTemplates(const PostProcessor& processor, int32_t end, std::string_view file) {
  for (const auto& t : processor.templates()) {
    for (const auto& item : t) {
      for (const int32_t id : item.ids) {
        if (id < end) continue;
        return MakeStatus(absl::StatusCode::kInvalidArgument,
                          "{}: post_processor adds token {}, but ids end at {}", file, id, end - 1);
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> ParseTokenizerJson(std::string_view json,
                                                              std::string_view file) {
  ASSIGN_OR_RETURN(const nlohmann::json document, ParseJson(json, file));
  const JsonField root(document, file);
  RETURN_IF_ERROR(root.ExpectObject());
  // "truncation" and "padding" are defaults for training and batching; a server applies its own
  // limits and never cuts a prompt silently, so they are not read.
  HfTokenizer::Parts parts;
  ASSIGN_OR_RETURN(parts.model, ReadModel(root.Member("model")));
  ASSIGN_OR_RETURN(parts.normalizer, ReadNormalizer(root.Member("normalizer")));
  ASSIGN_OR_RETURN(parts.pre_tokenizer, ReadPreTokenizer(root.Member("pre_tokenizer")));
  ASSIGN_OR_RETURN(parts.post_processor, ReadPostProcessor(root.Member("post_processor")));
  ASSIGN_OR_RETURN(parts.decoder, ReadDecoder(root.Member("decoder")));
  ASSIGN_OR_RETURN(std::vector<AddedToken> added, ReadAddedTokens(root.Member("added_tokens")));
  ASSIGN_OR_RETURN(parts.added, AddedTokens::Create(std::move(added), parts.model->vocabulary(),
                                                    parts.normalizer.get(), file));
  const PostProcessor post_processor = parts.post_processor;
  auto tokenizer = std::make_unique<HfTokenizer>(std::move(parts));
  RETURN_IF_ERROR(CheckTemplates(post_processor, tokenizer->vocab_size(), file));
  return tokenizer;
}

}  // namespace hgrn2
