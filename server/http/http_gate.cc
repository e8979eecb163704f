#include "server/http/http_gate.h"

#include <algorithm>
#include <cctype>
#include <fstream>

#include "base/status.h"

namespace hgrn2 {
namespace {

// Looks at every byte of both, whatever they are.
bool EqualInConstantTime(std::string_view presented, std::string_view key) {
  volatile unsigned char difference = presented.size() == key.size() ? 0 : 1;
  for (size_t i = 0; i < presented.size(); ++i) {
    const char other = key.empty() ? '\0' : key[i % key.size()];
    difference = static_cast<unsigned char>(difference | (presented[i] ^ other));
  }
  return difference == 0;
}

bool IsBearer(std::string_view value) {
  constexpr std::string_view kScheme = "bearer ";
  return value.size() > kScheme.size() &&
         std::equal(kScheme.begin(), kScheme.end(), value.begin(), [](char a, char b) {
           return a == std::tolower(static_cast<unsigned char>(b));
         });
}

}  // namespace

bool HasApiKey(std::string_view authorization, const std::vector<std::string>& keys) {
  if (!IsBearer(authorization)) return false;
  bool found = false;
  for (const std::string& key : keys) {
    const bool equal = EqualInConstantTime(authorization.substr(7), key);
    found = found || equal;
  }
  return found;
}

bool HttpGate::Authorized(const HttpRequest& request) const {
  return options_.api_keys.empty() || HasApiKey(request.Header("authorization"), options_.api_keys);
}

HttpHeaders HttpGate::CorsHeaders(const HttpRequest& request) const {
  const std::string_view origin = request.Header("origin");
  if (options_.cors_allow_origins.empty() || origin.empty()) return {};
  for (const std::string& allowed : options_.cors_allow_origins) {
    if (allowed != "*" && allowed != origin) continue;
    return {{"Access-Control-Allow-Origin", allowed == "*" ? "*" : std::string(origin)},
            {"Access-Control-Expose-Headers", "x-request-id, retry-after"},
            {"Vary", "Origin"}};
  }
  return {{"Vary", "Origin"}};
}

HttpHeaders HttpGate::PreflightHeaders(const HttpRequest& request,
                                       const std::string& methods) const {
  if (CorsHeaders(request).size() < 2) return {};
  const std::string_view wanted = request.Header("access-control-request-headers");
  return {{"Access-Control-Allow-Methods", methods},
          {"Access-Control-Allow-Headers",
           wanted.empty() ? "authorization, content-type, x-request-id" : std::string(wanted)},
          {"Access-Control-Max-Age", "600"}};
}

std::vector<std::string> SplitList(std::string_view list) {
  std::vector<std::string> out;
  while (true) {
    const size_t comma = list.find(',');
    const std::string_view item = list.substr(0, comma);
    const size_t begin = item.find_first_not_of(" \t");
    if (begin != std::string_view::npos) {
      out.emplace_back(item.substr(begin, item.find_last_not_of(" \t") - begin + 1));
    }
    if (comma == std::string_view::npos) return out;
    list.remove_prefix(comma + 1);
  }
}

absl::StatusOr<std::vector<std::string>> LoadApiKeys(std::string_view flag, std::string_view list,
                                                     const std::string& file) {
  constexpr size_t kMaxKeyBytes = 4096;
  const std::string file_flag = std::string(flag) + "-file";
  std::vector<std::string> keys = SplitList(list);
  if (!file.empty()) {
    std::ifstream stream(file);
    if (!stream) return InvalidArgument(file_flag, "cannot open file '{}'", file);
    const size_t before = keys.size();
    for (std::string line; std::getline(stream, line);) {
      for (std::string& key : SplitList(line)) keys.push_back(std::move(key));
    }
    // Serving everybody because a file is empty is not what its owner wants.
    if (keys.size() == before) {
      return InvalidArgument(file_flag, "file '{}' has no keys", file);
    }
  }
  for (const std::string& key : keys) {
    const bool visible = std::all_of(key.begin(), key.end(), [](char c) {
      return static_cast<unsigned char>(c) > 0x20 && static_cast<unsigned char>(c) < 0x7f;
    });
    if (!visible || key.size() > kMaxKeyBytes) {
      return InvalidArgument(flag, "keys are up to {} visible ASCII characters", kMaxKeyBytes);
    }
  }
  return keys;
}

}  // namespace hgrn2
