// Runs a tokenizer over JSON lines, for differential_test.py.
//   tokenizer_cli <tokenizer.json | tokenizer.model> < requests > answers
// A request is {"text": "..."} or {"ids": [...]}; the answer to a text has its "ids" without and
// "special" with special tokens; every answer has the text of the ids with ("keep") and without
// ("skip") special tokens, and "stream": whether the incremental detokenizer gives the same.
#include <fstream>
#include <iostream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "engine/tokenizer/tokenizer.h"

namespace {

std::string Streamed(const hgrn2::Tokenizer& tokenizer, const std::vector<int32_t>& ids,
                     bool skip) {
  hgrn2::IncrementalDetokenizer stream(tokenizer, skip);
  std::string text;
  for (const int32_t id : ids) text += stream.Append(id);
  return text + stream.Flush();
}

void AddTexts(const hgrn2::Tokenizer& tokenizer, const std::vector<int32_t>& ids,
              nlohmann::json* answer) {
  bool same = true;
  for (const bool skip : {false, true}) {
    const std::string text = tokenizer.Decode(ids, skip);
    same = same && text == Streamed(tokenizer, ids, skip);
    (*answer)[skip ? "skip" : "keep"] = text;
  }
  (*answer)["stream"] = same;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: tokenizer_cli FILE\n";
    return 2;
  }
  const std::string path = argv[1];
  std::ifstream in(path, std::ios::binary);
  const std::string file((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  const bool is_json = path.size() > 5 && path.substr(path.size() - 5) == ".json";
  auto tokenizer = is_json ? hgrn2::ParseTokenizerJson(file, path)
                           : hgrn2::ParseSentencePieceModel(file, path, true, false);
  if (!tokenizer.ok()) {
    std::cerr << tokenizer.status() << "\n";
    return 1;
  }
  for (std::string line; std::getline(std::cin, line);) {
    const nlohmann::json request = nlohmann::json::parse(line);
    nlohmann::json answer;
    if (request.contains("ids")) {
      AddTexts(**tokenizer, request["ids"].get<std::vector<int32_t>>(), &answer);
    } else {
      const auto text = request["text"].get<std::string>();
      const auto ids = (*tokenizer)->Encode(text, false);
      const auto special = (*tokenizer)->Encode(text, true);
      if (!ids.ok() || !special.ok()) {
        answer["error"] = std::string(ids.status().message());
      } else {
        answer["ids"] = *ids;
        answer["special"] = *special;
        AddTexts(**tokenizer, *ids, &answer);
      }
    }
    std::cout << answer.dump() << "\n";
  }
  return 0;
}
