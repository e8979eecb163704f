// Tokenizers for tests.
#pragma once

#include <fstream>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>

#include "engine/tokenizer/tokenizer.h"

namespace hgrn2::testing {

inline std::string ReadFile(const std::string& relative) {
  std::ifstream in(std::string(HGRN2_SOURCE_DIR "/") + relative, std::ios::binary);
  if (!in) throw std::runtime_error("cannot read " + relative);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

inline std::unique_ptr<Tokenizer> MustParse(const nlohmann::json& document) {
  auto tokenizer = ParseTokenizerJson(document.dump(), "test.json");
  if (!tokenizer.ok()) throw std::runtime_error(std::string(tokenizer.status().message()));
  return *std::move(tokenizer);
}

inline std::unique_ptr<Tokenizer> MustParseModel(const std::string& relative) {
  auto tokenizer = ParseSentencePieceModel(ReadFile(relative), relative, true, false);
  if (!tokenizer.ok()) throw std::runtime_error(std::string(tokenizer.status().message()));
  return *std::move(tokenizer);
}

inline nlohmann::json ByteBase() {
  return nlohmann::json::parse(ReadFile("tests/data/tokenizer/byte_base.json"));
}
inline nlohmann::json LlamaBase() {
  return nlohmann::json::parse(ReadFile("tests/data/tokenizer/llama_base.json"));
}

inline std::vector<int32_t> MustEncode(const Tokenizer& tokenizer, std::string_view text,
                                       bool special = false) {
  auto ids = tokenizer.Encode(text, special);
  if (!ids.ok()) throw std::runtime_error(std::string(ids.status().message()));
  return *std::move(ids);
}

}  // namespace hgrn2::testing
