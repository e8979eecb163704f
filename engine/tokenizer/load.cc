// Finds a model directory's tokenizer.
#include <filesystem>
#include <fstream>
#include <iterator>
#include <system_error>

#include "base/status.h"
#include "engine/tokenizer/json_field.h"
#include "engine/tokenizer/tokenizer.h"

namespace hgrn2 {
namespace {

constexpr uintmax_t kMaxFileBytes = uintmax_t{256} << 20;

bool Exists(const std::string& path) {
  std::error_code error;
  return std::filesystem::exists(path, error);
}

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  std::error_code error;
  const uintmax_t size = std::filesystem::file_size(path, error);
  if (error) {
    return MakeStatus(absl::StatusCode::kInvalidArgument, "{}: cannot be read: {}", path,
                      error.message());
  }
  if (size > kMaxFileBytes) {
    return MakeStatus(absl::StatusCode::kInvalidArgument, "{}: has {} bytes; the limit is {}", path,
                      size, kMaxFileBytes);
  }
  std::ifstream in(path, std::ios::binary);
  std::string text(size, '\0');
  in.read(text.data(), static_cast<std::streamsize>(size));
  if (!in || in.gcount() != static_cast<std::streamsize>(size)) {
    return MakeStatus(absl::StatusCode::kInvalidArgument, "{}: cannot be read", path);
  }
  return text;
}

struct BosEos {
  bool bos = true, eos = false;  // the Llama form's defaults
};

absl::StatusOr<BosEos> ReadBosEos(const std::string& path) {
  BosEos result;
  if (!Exists(path)) return result;
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  ASSIGN_OR_RETURN(const nlohmann::json document, ParseJson(text, path));
  const JsonField root(document, path);
  RETURN_IF_ERROR(root.ExpectObject());
  ASSIGN_OR_RETURN(result.bos, root.Member("add_bos_token").BoolOr(true));
  ASSIGN_OR_RETURN(result.eos, root.Member("add_eos_token").BoolOr(false));
  return result;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> LoadTokenizer(const std::string& directory) {
  const std::string json = directory + "/tokenizer.json";
  if (Exists(json)) {
    ASSIGN_OR_RETURN(const std::string text, ReadFile(json));
    return ParseTokenizerJson(text, json);
  }
  const std::string model = directory + "/tokenizer.model";
  if (!Exists(model)) return nullptr;
  ASSIGN_OR_RETURN(const std::string bytes, ReadFile(model));
  ASSIGN_OR_RETURN(const BosEos add, ReadBosEos(directory + "/tokenizer_config.json"));
  return ParseSentencePieceModel(bytes, model, add.bos, add.eos);
}

}  // namespace hgrn2
