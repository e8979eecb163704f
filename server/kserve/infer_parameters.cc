#include "server/kserve/infer_parameters.h"

#include <charconv>
#include <cmath>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

#include "base/status.h"
#include "server/utf8.h"

namespace hgrn2 {
namespace {

using Json = nlohmann::json;
constexpr int kMaxJsonDepth = 8;

// A number, also as text: some clients send nothing else.
template <typename T>
bool ParseText(const std::string& text, T* out) {
  const char* const end = text.data() + text.size();
  const auto result = std::from_chars(text.data(), end, *out);
  return result.ec == std::errc() && result.ptr == end;
}

absl::Status ToInt64(const std::string& name, const InferValue& value, int64_t* out) {
  if (const auto* number = std::get_if<int64_t>(&value)) {
    *out = *number;
    return absl::OkStatus();
  }
  if (const auto* number = std::get_if<uint64_t>(&value);
      number != nullptr && *number <= static_cast<uint64_t>(INT64_MAX)) {
    *out = static_cast<int64_t>(*number);
    return absl::OkStatus();
  }
  if (const auto* number = std::get_if<double>(&value);
      number != nullptr && std::trunc(*number) == *number && std::abs(*number) < 9e15) {
    *out = static_cast<int64_t>(*number);
    return absl::OkStatus();
  }
  const auto* text = std::get_if<std::string>(&value);
  if (text != nullptr && ParseText(*text, out)) return absl::OkStatus();
  return InvalidArgument(name, "must be an integer");
}

absl::Status ToInt32(const std::string& name, const InferValue& value, int32_t* out) {
  int64_t wide = 0;
  RETURN_IF_ERROR(ToInt64(name, value, &wide));
  if (wide < std::numeric_limits<int32_t>::min() || wide > std::numeric_limits<int32_t>::max()) {
    return InvalidArgument(name, "must be an integer of 32 bits, got {}", wide);
  }
  *out = static_cast<int32_t>(wide);
  return absl::OkStatus();
}

absl::Status ToUint64(const std::string& name, const InferValue& value, uint64_t* out) {
  if (const auto* number = std::get_if<uint64_t>(&value)) {
    *out = *number;
    return absl::OkStatus();
  }
  if (const auto* text = std::get_if<std::string>(&value);
      text != nullptr && ParseText(*text, out)) {
    return absl::OkStatus();
  }
  int64_t number = 0;
  RETURN_IF_ERROR(ToInt64(name, value, &number));
  if (number < 0) return InvalidArgument(name, "must not be negative, got {}", number);
  *out = static_cast<uint64_t>(number);
  return absl::OkStatus();
}

absl::Status ToFloat(const std::string& name, const InferValue& value, float* out) {
  double number = 0;
  if (const auto* real = std::get_if<double>(&value)) {
    number = *real;
  } else if (const auto* integer = std::get_if<int64_t>(&value)) {
    number = static_cast<double>(*integer);
  } else if (const auto* natural = std::get_if<uint64_t>(&value)) {
    number = static_cast<double>(*natural);
  } else if (const auto* text = std::get_if<std::string>(&value);
             text == nullptr || !ParseText(*text, &number)) {
    return InvalidArgument(name, "must be a number");
  }
  *out = static_cast<float>(number);  // ranges, NaN included, are the frontend's
  return absl::OkStatus();
}

absl::Status ToBool(const std::string& name, const InferValue& value, bool* out) {
  if (const auto* flag = std::get_if<bool>(&value)) {
    *out = *flag;
    return absl::OkStatus();
  }
  const auto* text = std::get_if<std::string>(&value);
  if (text != nullptr && (*text == "true" || *text == "True" || *text == "1")) {
    *out = true;
  } else if (text != nullptr && (*text == "false" || *text == "False" || *text == "0")) {
    *out = false;
  } else {
    return InvalidArgument(name, "must be true or false");
  }
  return absl::OkStatus();
}

absl::Status ToText(const std::string& name, const InferValue& value, std::string* out) {
  const auto* text = std::get_if<std::string>(&value);
  if (text == nullptr) return InvalidArgument(name, "must be text");
  if (!IsUtf8(*text)) return InvalidArgument(name, "must be valid UTF-8");
  *out = *text;
  return absl::OkStatus();
}

using Setter = std::function<absl::Status(const std::string&, const InferValue&, InferRequest*)>;

template <auto kConvert, typename T>
Setter Into(T SamplingRequest::*field) {
  return [field](const std::string& name, const InferValue& value, InferRequest* out) {
    return kConvert(name, value, &(out->completion.sampling.*field));
  };
}
template <auto kConvert, typename T>
Setter Into(std::optional<T> SamplingRequest::*field) {
  return [field](const std::string& name, const InferValue& value, InferRequest* out) {
    return kConvert(name, value, &(out->completion.sampling.*field).emplace());
  };
}

absl::Status SetStop(const std::string& name, const InferValue& value, InferRequest* out) {
  std::string text;
  RETURN_IF_ERROR(ToText(name, value, &text));
  // A list, where the carrier has room for one value only.
  if (text.starts_with('[')) {
    const Json list = Json::parse(text, nullptr, /*allow_exceptions=*/false);
    if (list.is_array()) {
      for (const Json& item : list) {
        if (!item.is_string()) return InvalidArgument(name, "must be a list of texts");
        out->completion.sampling.stop.push_back(item.get<std::string>());
      }
      return absl::OkStatus();
    }
  }
  out->completion.sampling.stop.push_back(std::move(text));
  return absl::OkStatus();
}

absl::Status SetEcho(bool inverted, const std::string& name, const InferValue& value,
                     InferRequest* out) {
  bool flag = false;
  RETURN_IF_ERROR(ToBool(name, value, &flag));
  out->completion.echo = flag != inverted;
  return absl::OkStatus();
}

absl::Status SetTimeout(const std::string& name, const InferValue& value, InferRequest* out) {
  constexpr int64_t kMaxTimeout = int64_t{365} * 24 * 3600 * 1000000;
  int64_t timeout = 0;
  RETURN_IF_ERROR(ToInt64(name, value, &timeout));
  if (timeout < 0 || timeout > kMaxTimeout) {
    return InvalidArgument(name, "must be in [0, {}] microseconds, got {}", kMaxTimeout, timeout);
  }
  if (timeout > 0) out->timeout_us = timeout;
  return absl::OkStatus();
}

const std::map<std::string, Setter, std::less<>>& Setters() {
  using S = SamplingRequest;
  static const auto* const setters = new std::map<std::string, Setter, std::less<>>{
      {"max_tokens", Into<ToInt32>(&S::max_tokens)},
      {"min_tokens", Into<ToInt32>(&S::min_tokens)},
      {"temperature", Into<ToFloat>(&S::temperature)},
      {"top_p", Into<ToFloat>(&S::top_p)},
      {"top_k", Into<ToInt32>(&S::top_k)},
      {"min_p", Into<ToFloat>(&S::min_p)},
      {"presence_penalty", Into<ToFloat>(&S::presence_penalty)},
      {"frequency_penalty", Into<ToFloat>(&S::frequency_penalty)},
      {"repetition_penalty", Into<ToFloat>(&S::repetition_penalty)},
      {"seed", Into<ToUint64>(&S::seed)},
      {"ignore_eos", Into<ToBool>(&S::ignore_eos)},
      {"skip_special_tokens", Into<ToBool>(&S::skip_special_tokens)},
      {"include_stop_str_in_output", Into<ToBool>(&S::include_stop_str_in_output)},
      {"stop", SetStop},
      {"timeout", SetTimeout},
      {"echo", [](const auto& n, const auto& v, auto* out) { return SetEcho(false, n, v, out); }},
      {"exclude_input_in_output",
       [](const auto& n, const auto& v, auto* out) { return SetEcho(true, n, v, out); }},
      {"priority", [](const auto& n, const auto& v,
                      auto* out) { return ToInt32(n, v, &out->completion.priority); }},
      {"user",
       [](const auto& n, const auto& v, auto* out) { return ToText(n, v, &out->completion.user); }},
      {"stream", [](const auto& n, const auto& v,
                    auto* out) { return ToBool(n, v, &out->stream.emplace()); }},
      // What asks for something that always happens.
      {"triton_enable_empty_final_response",
       [](const auto& n, const auto& v, auto*) {
         bool flag;
         return ToBool(n, v, &flag);
       }},
      {"binary_data_output",
       [](const auto& n, const auto& v, auto*) {
         bool flag;
         return ToBool(n, v, &flag);
       }},
  };
  return *setters;
}

absl::StatusOr<InferValue> FromJson(const std::string& name, const Json& json) {
  if (json.is_boolean()) return InferValue(json.get<bool>());
  if (json.is_number_unsigned()) return InferValue(json.get<uint64_t>());
  if (json.is_number_integer()) return InferValue(json.get<int64_t>());
  if (json.is_number_float()) return InferValue(json.get<double>());
  if (json.is_string()) return InferValue(json.get<std::string>());
  return InvalidArgument(name, "must be a number, a text, true or false");
}

}  // namespace

absl::Status ApplyParameters(const InferParameters& parameters, InferRequest* out) {
  for (const auto& [name, values] : parameters) {
    const auto setter = Setters().find(name);
    if (setter == Setters().end()) {
      return InvalidArgument(SafeUtf8(name, 128), "there is no parameter or tensor of this name");
    }
    if (values.size() > 1 && name != "stop") {
      return InvalidArgument(name, "must have one value, got {}", values.size());
    }
    for (const InferValue& value : values) RETURN_IF_ERROR(setter->second(name, value, out));
  }
  return absl::OkStatus();
}

absl::Status AddJsonParameters(const std::string& name, const std::string& json,
                               InferParameters* out) {
  int depth = 0;
  for (const char c : json) {
    if (c == '[' || c == '{') ++depth;  // brackets in texts count as well: a bound is a bound
  }
  if (depth > kMaxJsonDepth * 16) return InvalidArgument(name, "has too many brackets");
  const Json object = Json::parse(json, nullptr, /*allow_exceptions=*/false);
  if (!object.is_object()) return InvalidArgument(name, "must be a JSON object");
  for (const auto& [key, value] : object.items()) {
    std::vector<InferValue> values;
    if (value.is_null()) continue;
    if (value.is_array()) {
      for (const Json& item : value) {
        ASSIGN_OR_RETURN(InferValue converted, FromJson(key, item));
        values.push_back(std::move(converted));
      }
    } else {
      ASSIGN_OR_RETURN(InferValue converted, FromJson(key, value));
      values.push_back(std::move(converted));
    }
    if (!out->emplace(key, std::move(values)).second) return InvalidArgument(key, "is given twice");
  }
  return absl::OkStatus();
}

}  // namespace hgrn2
