#include "engine/tokenizer/tokenizer_json_components.h"

#include <utility>

#include "base/status.h"
#include "engine/tokenizer/unicode.h"

namespace hgrn2 {
namespace {

absl::StatusOr<std::string> Type(const JsonField& field) {
  RETURN_IF_ERROR(field.ExpectObject());
  return field.Member("type").String();
}

absl::Status Unsupported(const JsonField& field, std::string_view type) {
  return field.Member("type").Error(fmt::format("'{:.40}' is not supported", type));
}

// {"String": "..."} or {"Regex": "..."}.
struct Pattern {
  std::string literal;
  std::unique_ptr<Regex> regex;  // null: literal
};

absl::StatusOr<Pattern> ReadPattern(const JsonField& field) {
  RETURN_IF_ERROR(field.ExpectObject());
  Pattern pattern;
  const JsonField regex = field.Member("Regex");
  if (regex.is_null()) {
    ASSIGN_OR_RETURN(pattern.literal, field.Member("String").String());
    if (pattern.literal.empty()) return field.Member("String").Error("must not be empty");
    return pattern;
  }
  ASSIGN_OR_RETURN(const std::string text, regex.String());
  auto compiled = Regex::Compile(text);
  if (!compiled.ok()) return regex.Error(ToStd(compiled.status().message()));
  pattern.regex = *std::move(compiled);
  return pattern;
}

absl::StatusOr<std::string> ReadChar(const JsonField& field) {
  ASSIGN_OR_RETURN(const std::string text, field.String());
  if (!unicode::IsSingleChar(text)) return field.Error("must be one character");
  return text;
}

template <typename T, typename Read>
absl::StatusOr<std::vector<T>> ReadList(const JsonField& field, const Read& read) {
  RETURN_IF_ERROR(field.ExpectArray());
  std::vector<T> list;
  for (size_t i = 0; i < field.value().size(); ++i) {
    auto item = read(field.Element(i));
    if (!item.ok()) return std::move(item).status();
    if (*item != nullptr) list.push_back(*std::move(item));
  }
  return list;
}

absl::StatusOr<std::unique_ptr<Normalizer>> ReadReplaceNormalizer(const JsonField& field) {
  ASSIGN_OR_RETURN(Pattern pattern, ReadPattern(field.Member("pattern")));
  ASSIGN_OR_RETURN(std::string content, field.Member("content").String());
  return MakeReplace(std::move(pattern.literal), std::move(pattern.regex), std::move(content));
}

absl::StatusOr<SplitBehavior> ReadBehavior(const JsonField& field) {
  if (field.is_null()) return SplitBehavior::kIsolated;
  ASSIGN_OR_RETURN(const std::string name, field.String());
  if (name == "Removed") return SplitBehavior::kRemoved;
  if (name == "Isolated") return SplitBehavior::kIsolated;
  if (name == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (name == "Contiguous") return SplitBehavior::kContiguous;
  return field.Error(fmt::format("'{:.40}' is not a split behavior", name));
}

absl::StatusOr<std::unique_ptr<PreTokenizer>> ReadSplit(const JsonField& field) {
  ASSIGN_OR_RETURN(Pattern pattern, ReadPattern(field.Member("pattern")));
  ASSIGN_OR_RETURN(const SplitBehavior behavior, ReadBehavior(field.Member("behavior")));
  ASSIGN_OR_RETURN(const bool invert, field.Member("invert").BoolOr(false));
  return MakeSplit(std::move(pattern.literal), std::move(pattern.regex), behavior, invert);
}

struct MetaspaceFields {
  std::string replacement;
  PrependScheme scheme = PrependScheme::kAlways;
  bool split = true;
};

// The old form has add_prefix_space (and str_rep, which repeats the replacement), the new one
// prepend_scheme and split.
absl::StatusOr<MetaspaceFields> ReadMetaspace(const JsonField& field) {
  MetaspaceFields result;
  ASSIGN_OR_RETURN(result.replacement, ReadChar(field.Member("replacement")));
  const JsonField scheme = field.Member("prepend_scheme");
  ASSIGN_OR_RETURN(const bool prefix, field.Member("add_prefix_space").BoolOr(true));
  ASSIGN_OR_RETURN(const std::string name, scheme.StringOr(prefix ? "always" : "never"));
  if (name == "first") {
    result.scheme = PrependScheme::kFirst;
  } else if (name == "never") {
    result.scheme = PrependScheme::kNever;
  } else if (name != "always") {
    return scheme.Error(fmt::format("'{:.40}' is not one of always, first, never", name));
  }
  if (!prefix && result.scheme != PrependScheme::kNever) {
    return field.Member("add_prefix_space").Error("does not match prepend_scheme");
  }
  ASSIGN_OR_RETURN(result.split, field.Member("split").BoolOr(true));
  return result;
}

// A template item: {"SpecialToken": {"id": name}} or {"Sequence": {"id": "A"}}.
absl::StatusOr<PostProcessor::Item> ReadItem(const JsonField& field, const JsonField& specials) {
  RETURN_IF_ERROR(field.ExpectObject());
  PostProcessor::Item item;
  const JsonField sequence = field.Member("Sequence");
  if (!sequence.is_null()) {
    ASSIGN_OR_RETURN(const std::string id, sequence.Member("id").String());
    if (id != "A") return sequence.Member("id").Error("must be A in a template for one sequence");
    item.sequence = true;
    return item;
  }
  ASSIGN_OR_RETURN(const std::string name, field.Member("SpecialToken").Member("id").String());
  const JsonField ids = specials.Member(name).Member("ids");
  RETURN_IF_ERROR(ids.ExpectArray());
  for (size_t i = 0; i < ids.value().size(); ++i) {
    ASSIGN_OR_RETURN(const int64_t id, ids.Element(i).Int(0, INT32_MAX));
    item.ids.push_back(static_cast<int32_t>(id));
  }
  return item;
}

absl::Status ReadTemplate(const JsonField& field, PostProcessor* processor) {
  const JsonField single = field.Member("single");
  RETURN_IF_ERROR(single.ExpectArray());
  if (single.value().size() > 64) return single.Error("has more than 64 items");
  PostProcessor::Template t;
  for (size_t i = 0; i < single.value().size(); ++i) {
    ASSIGN_OR_RETURN(PostProcessor::Item item,
                     ReadItem(single.Element(i), field.Member("special_tokens")));
    t.push_back(std::move(item));
  }
  processor->Add(std::move(t));
  return absl::OkStatus();
}

// Bert and Roberta: [cls] A [sep], each given as [token, id].
absl::Status ReadClsSep(const JsonField& field, PostProcessor* processor) {
  PostProcessor::Template t(3);
  t[1].sequence = true;
  for (const int end : {0, 2}) {
    const JsonField pair = field.Member(end == 0 ? "cls" : "sep");
    RETURN_IF_ERROR(pair.ExpectArray());
    if (pair.value().size() != 2) return pair.Error("must be [token, id]");
    ASSIGN_OR_RETURN(const int64_t id, pair.Element(1).Int(0, INT32_MAX));
    t[end].ids = {static_cast<int32_t>(id)};
  }
  processor->Add(std::move(t));
  return absl::OkStatus();
}

absl::Status AddPostProcessor(const JsonField& field, PostProcessor* processor) {
  if (field.is_null()) return absl::OkStatus();
  ASSIGN_OR_RETURN(const std::string type, Type(field));
  if (type == "ByteLevel") return absl::OkStatus();  // changes offsets only
  if (type == "TemplateProcessing") return ReadTemplate(field, processor);
  if (type == "RobertaProcessing" || type == "BertProcessing") return ReadClsSep(field, processor);
  if (type != "Sequence") return Unsupported(field, type);
  const JsonField list = field.Member("processors");
  RETURN_IF_ERROR(list.ExpectArray());
  // Each template can double a text.
  if (list.value().size() > 8) return list.Error("has more than 8 elements");
  for (size_t i = 0; i < list.value().size(); ++i) {
    RETURN_IF_ERROR(AddPostProcessor(list.Element(i), processor));
  }
  return absl::OkStatus();
}

absl::Status AddDecoder(const JsonField& field, std::vector<std::unique_ptr<Decoder>>* out) {
  ASSIGN_OR_RETURN(const std::string type, Type(field));
  if (type == "ByteLevel") {
    out->push_back(MakeByteLevelDecoder());
  } else if (type == "ByteFallback") {
    out->push_back(MakeByteFallbackDecoder());
  } else if (type == "Fuse") {
    out->push_back(MakeFuseDecoder());
  } else if (type == "Strip") {
    ASSIGN_OR_RETURN(std::string content, ReadChar(field.Member("content")));
    ASSIGN_OR_RETURN(const int64_t start, field.Member("start").Int(0, INT32_MAX));
    ASSIGN_OR_RETURN(const int64_t stop, field.Member("stop").Int(0, INT32_MAX));
    out->push_back(MakeStripDecoder(std::move(content), start, stop));
  } else if (type == "Replace") {
    ASSIGN_OR_RETURN(Pattern pattern, ReadPattern(field.Member("pattern")));
    ASSIGN_OR_RETURN(std::string content, field.Member("content").String());
    out->push_back(MakeReplaceDecoder(std::move(pattern.literal), std::move(pattern.regex),
                                      std::move(content)));
  } else if (type == "Metaspace") {
    ASSIGN_OR_RETURN(MetaspaceFields m, ReadMetaspace(field));
    out->push_back(
        MakeMetaspaceDecoder(std::move(m.replacement), m.scheme != PrependScheme::kNever));
  } else if (type == "BPEDecoder") {
    ASSIGN_OR_RETURN(std::string suffix, field.Member("suffix").StringOr("</w>"));
    if (suffix.empty()) return field.Member("suffix").Error("must not be empty");
    out->push_back(MakeBpeDecoder(std::move(suffix)));
  } else if (type == "Sequence") {
    const JsonField list = field.Member("decoders");
    RETURN_IF_ERROR(list.ExpectArray());
    for (size_t i = 0; i < list.value().size(); ++i) {
      RETURN_IF_ERROR(AddDecoder(list.Element(i), out));
    }
  } else {
    return Unsupported(field, type);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Normalizer>> ReadNormalizer(const JsonField& field) {
  if (field.is_null()) return nullptr;
  ASSIGN_OR_RETURN(const std::string type, Type(field));
  if (type == "NFC") return MakeUnicodeNormalizer(unicode::Form::kNfc);
  if (type == "NFD") return MakeUnicodeNormalizer(unicode::Form::kNfd);
  if (type == "NFKC") return MakeUnicodeNormalizer(unicode::Form::kNfkc);
  if (type == "NFKD") return MakeUnicodeNormalizer(unicode::Form::kNfkd);
  if (type == "Lowercase") return MakeLowercase();
  if (type == "ByteLevel") return MakeByteLevelNormalizer();
  if (type == "Replace") return ReadReplaceNormalizer(field);
  if (type == "Prepend") {
    ASSIGN_OR_RETURN(std::string prefix, field.Member("prepend").String());
    return MakePrepend(std::move(prefix));
  }
  if (type == "Strip") {
    ASSIGN_OR_RETURN(const bool left, field.Member("strip_left").BoolOr(true));
    ASSIGN_OR_RETURN(const bool right, field.Member("strip_right").BoolOr(true));
    return MakeStrip(left, right);
  }
  if (type != "Sequence") return Unsupported(field, type);
  ASSIGN_OR_RETURN(auto steps, ReadList<std::unique_ptr<Normalizer>>(field.Member("normalizers"),
                                                                     ReadNormalizer));
  return MakeNormalizerSequence(std::move(steps));
}

absl::StatusOr<std::unique_ptr<PreTokenizer>> ReadPreTokenizer(const JsonField& field) {
  if (field.is_null()) return nullptr;
  ASSIGN_OR_RETURN(const std::string type, Type(field));
  if (type == "ByteLevel") {
    ASSIGN_OR_RETURN(const bool prefix, field.Member("add_prefix_space").BoolOr(true));
    ASSIGN_OR_RETURN(const bool use_regex, field.Member("use_regex").BoolOr(true));
    return MakeByteLevel(prefix, use_regex);
  }
  if (type == "Metaspace") {
    ASSIGN_OR_RETURN(MetaspaceFields m, ReadMetaspace(field));
    return MakeMetaspace(std::move(m.replacement), m.scheme, m.split);
  }
  if (type == "Split") return ReadSplit(field);
  if (type == "Digits") {
    ASSIGN_OR_RETURN(const bool individual, field.Member("individual_digits").BoolOr(false));
    return MakeDigits(individual);
  }
  if (type == "Punctuation") {
    ASSIGN_OR_RETURN(const SplitBehavior behavior, ReadBehavior(field.Member("behavior")));
    return MakePunctuation(behavior);
  }
  if (type == "Whitespace") return MakeWhitespace();
  if (type == "WhitespaceSplit") return MakeWhitespaceSplit();
  if (type != "Sequence") return Unsupported(field, type);
  ASSIGN_OR_RETURN(auto steps, ReadList<std::unique_ptr<PreTokenizer>>(
                                   field.Member("pretokenizers"), ReadPreTokenizer));
  return MakePreTokenizerSequence(std::move(steps));
}

absl::StatusOr<PostProcessor> ReadPostProcessor(const JsonField& field) {
  PostProcessor processor;
  RETURN_IF_ERROR(AddPostProcessor(field, &processor));
  return processor;
}

absl::StatusOr<std::unique_ptr<DecoderChain>> ReadDecoder(const JsonField& field) {
  std::vector<std::unique_ptr<Decoder>> decoders;
  if (field.is_null()) {
    decoders.push_back(MakeSpaceJoinDecoder());
  } else {
    RETURN_IF_ERROR(AddDecoder(field, &decoders));
  }
  return std::make_unique<DecoderChain>(std::move(decoders));
}

}  // namespace hgrn2
