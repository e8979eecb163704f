#include <algorithm>
#include <cctype>
#include <charconv>
#include <set>
#include <utility>

#include "base/status.h"
#include "server/flags.h"
#include "server/otlp/json_post.h"

namespace hgrn2 {
namespace {

using Type = OptionSpec::Type;

std::string Quoted(std::string_view text) {
  // Values come from anywhere; an error stays one readable line.
  std::string out = "'";
  for (const char c : text.substr(0, 80)) {
    out += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '?' : c;
  }
  return out + (text.size() > 80 ? "...'" : "'");
}

absl::Status Refuse(const std::string& name, const std::string& limit, const std::string& text) {
  return InvalidArgument(name, "must be {}, got {}", limit, Quoted(text));
}

template <typename Number>
bool ParseNumber(const std::string& text, Number* out) {
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, *out);
  return error == std::errc() && stop == end && !text.empty();
}

OptionSpec Text(std::string name, std::string ServerOptions::*field, std::string limit,
                std::string help) {
  OptionSpec spec{name, Type::kString, std::move(limit), std::move(help), nullptr, nullptr};
  spec.set = [name, field, limit = spec.limit](const std::string& text, ServerOptions* options) {
    if (text.empty() || text.size() > 4096 || text.find('\0') != std::string::npos) {
      return Refuse(name, limit, text);
    }
    options->*field = text;
    return absl::OkStatus();
  };
  spec.get = [field](const ServerOptions& options) { return options.*field; };
  return spec;
}

OptionSpec Integer(std::string name, int32_t ServerOptions::*field, int32_t low, int32_t high,
                   std::string help) {
  OptionSpec spec{
      name,    Type::kInteger, fmt::format("an integer in [{}, {}]", low, high), std::move(help),
      nullptr, nullptr};
  spec.set = [name, field, low, high, limit = spec.limit](const std::string& text,
                                                          ServerOptions* options) {
    int32_t value = 0;
    if (!ParseNumber(text, &value) || value < low || value > high) {
      return Refuse(name, limit, text);
    }
    options->*field = value;
    return absl::OkStatus();
  };
  spec.get = [field](const ServerOptions& options) { return fmt::format("{}", options.*field); };
  return spec;
}

OptionSpec Number(std::string name, double ServerOptions::*field, double low, double high,
                  std::string unit, std::string help) {
  OptionSpec spec{name,
                  Type::kNumber,
                  fmt::format("a number{} in [{}, {}]", unit, low, high),
                  std::move(help),
                  nullptr,
                  nullptr};
  spec.set = [name, field, low, high, limit = spec.limit](const std::string& text,
                                                          ServerOptions* options) {
    double value = 0;
    if (!ParseNumber(text, &value) || !(value >= low && value <= high)) {
      return Refuse(name, limit, text);
    }
    options->*field = value;
    return absl::OkStatus();
  };
  spec.get = [field](const ServerOptions& options) { return fmt::format("{}", options.*field); };
  return spec;
}

// One of a few words, each standing for a value of the field.
template <typename Value>
OptionSpec Choice(std::string name, Value ServerOptions::*field,
                  std::vector<std::pair<std::string, Value>> choices, std::string help) {
  std::string limit;
  for (const auto& [word, value] : choices) {
    limit += fmt::format("{}{}", limit.empty() ? "" : "|", word);
  }
  OptionSpec spec{name, Type::kString, std::move(limit), std::move(help), nullptr, nullptr};
  spec.set = [name, field, choices, limit = spec.limit](const std::string& text,
                                                        ServerOptions* options) {
    for (const auto& [word, value] : choices) {
      if (word != text) continue;
      options->*field = value;
      return absl::OkStatus();
    }
    return Refuse(name, limit, text);
  };
  spec.get = [field, choices](const ServerOptions& options) {
    for (const auto& [word, value] : choices) {
      if (value == options.*field) return word;
    }
    return std::string();
  };
  return spec;
}

bool ParseDevices(const std::string& text, std::vector<DeviceSpec>* devices) {
  devices->clear();
  std::set<int32_t> cuda_indices;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t comma = std::min(text.find(',', begin), text.size());
    const std::string part = text.substr(begin, comma - begin);
    begin = comma + 1;
    DeviceSpec device;
    if (part == "cpu") {
      device.kind = DeviceSpec::Kind::kCpu;
    } else if (part == "cuda" || part.starts_with("cuda:")) {
      device.kind = DeviceSpec::Kind::kCuda;
      if (part.size() > 4 && !ParseNumber(part.substr(5), &device.index)) return false;
      if (device.index < 0 || device.index > 63) return false;
      if (!cuda_indices.insert(device.index).second) return false;
    } else if (part != "auto" || text != "auto") {
      return false;
    }
    devices->push_back(device);
  }
  return devices->size() <= 64;
}

OptionSpec Devices() {
  OptionSpec spec{"device",
                  Type::kString,
                  "auto|cpu|cuda|cuda:N, or several devices separated by commas",
                  "Where the model runs. auto: the first CUDA device if the server was built with "
                  "CUDA and there is one, else the CPU. Several devices (cuda:0,cuda:1) run one "
                  "engine each; a request goes to the least loaded.",
                  nullptr,
                  nullptr};
  spec.set = [limit = spec.limit](const std::string& text, ServerOptions* options) {
    std::vector<DeviceSpec> devices;
    if (!ParseDevices(text, &devices)) return Refuse("device", limit, text);
    options->devices = std::move(devices);
    return absl::OkStatus();
  };
  spec.get = [](const ServerOptions& options) {
    std::string text;
    for (const DeviceSpec& device : options.devices) {
      if (!text.empty()) text += ',';
      switch (device.kind) {
        case DeviceSpec::Kind::kAuto:
          text += "auto";
          break;
        case DeviceSpec::Kind::kCpu:
          text += "cpu";
          break;
        case DeviceSpec::Kind::kCuda:
          text += fmt::format("cuda:{}", device.index);
          break;
      }
    }
    return text;
  };
  return spec;
}

OptionSpec Seed() {
  OptionSpec spec{"seed",
                  Type::kInteger,
                  "an integer in [0, 18446744073709551615]",
                  "Seeds the seeds of requests without one, and dummy weights. Unset: random.",
                  nullptr,
                  nullptr};
  spec.set = [limit = spec.limit](const std::string& text, ServerOptions* options) {
    uint64_t value = 0;
    if (!ParseNumber(text, &value)) return Refuse("seed", limit, text);
    options->seed = value;
    return absl::OkStatus();
  };
  spec.get = [](const ServerOptions& options) {
    return options.seed.has_value() ? fmt::format("{}", *options.seed) : std::string();
  };
  return spec;
}

OptionSpec OtlpEndpoint() {
  OptionSpec spec =
      Text("otlp-endpoint", &ServerOptions::otlp_endpoint, "http://HOST[:PORT][/PATH]",
           "OpenTelemetry collector that gets a trace of each sampled request, as "
           "OTLP/HTTP in JSON, at /v1/traces below the path. Unset: "
           "OTEL_EXPORTER_OTLP_ENDPOINT, and without that no traces.");
  spec.set = [set = spec.set, limit = spec.limit](const std::string& text, ServerOptions* options) {
    return ParseHttpEndpoint(text) ? set(text, options) : Refuse("otlp-endpoint", limit, text);
  };
  return spec;
}

std::vector<OptionSpec> ModelOptions() {
  using O = ServerOptions;
  using OptionalDType = std::optional<DType>;
  return {
      Text("model", &O::model, "a directory",
           "Checkpoint directory in the Hugging Face layout: config.json, model.safetensors or "
           "shards, tokenizer.json or tokenizer.model. Required."),
      Text("served-model-name", &O::served_model_name, "a name of 1 to 4096 bytes",
           "Name that requests and metrics use. Default: the name of the model's directory."),
      Devices(),
      Choice<OptionalDType>(
          "dtype", &O::dtype,
          {{"auto", std::nullopt}, {"float32", DType::kF32}, {"bfloat16", DType::kBF16}},
          "Type of weights and matrix products. auto: the checkpoint's where the "
          "device is fast at it."),
      Choice<OptionalDType>(
          "state-dtype", &O::state_dtype,
          {{"auto", std::nullopt},
           {"float32", DType::kF32},
           {"float16", DType::kF16},
           {"bfloat16", DType::kBF16},
           {"fp8", DType::kF8E4M3}},
          "Type in which recurrent states are stored. auto: the device's default."),
      Integer("state-replay", &O::state_replay, 0, 32,
              "CUDA: tokens kept beside a state before they are folded into it; larger values "
              "write and round the state less often. 1: at every token. 0: 32 for fp8 states, 16 "
              "for others."),
      Choice<bool>("quantization", &O::fp8_weights, {{"none", false}, {"fp8", true}},
                   "CUDA: fp8 keeps the weights of the matrix products in 8 bits."),
      Choice<LoadFormat>("load-format", &O::load_format,
                         {{"auto", LoadFormat::kAuto}, {"dummy", LoadFormat::kDummy}},
                         "dummy: seeded random weights from config.json alone."),
      Number("gpu-memory-utilization", &O::gpu_memory_utilization, 0.05, 1, "",
             "CUDA: part of the device's memory that may be used."),
      Integer("num-threads", &O::num_threads, 0, 1024,
              "CPU: compute threads per engine. 0: the CPUs this process may use."),
      Integer("max-num-seqs", &O::max_num_seqs, 1, 65536,
              "State slots per device: sequences that run at the same time. Each costs the state "
              "bytes printed at start; lowered to what fits."),
      Integer("max-num-batched-tokens", &O::max_num_batched_tokens, 0, 1 << 20,
              "Tokens of one step, prefill and decode together. 0: the device's default."),
      Integer("max-num-prefill-tokens", &O::max_num_prefill_tokens, 0, 1 << 20,
              "Most prompt tokens of a step in which other sequences decode: fewer keep streams "
              "steadier, more begin answers sooner. 0: the device's default, and more when many "
              "prompts wait."),
      Integer("max-num-queued-reqs", &O::max_num_queued_reqs, 1, 1000000,
              "Waiting requests per device; beyond it requests get RESOURCE_EXHAUSTED."),
      Integer("max-prompt-tokens", &O::max_prompt_tokens, 1, 1 << 30,
              "Longest prompt that is taken."),
      Seed(),
  };
}

std::vector<OptionSpec> ServingOptions() {
  using O = ServerOptions;
  return {
      Text("host", &O::host, "an address or host name", "Address to listen on."),
      Integer("grpc-port", &O::grpc_port, 0, 65535, "gRPC port. 0: any free one, see the log."),
      Integer(
          "http-port", &O::http_port, 0, 65535,
          "Port of the OpenAI-compatible API, /metrics, /health and /ready. 0: any free one, see "
          "the log."),
      Integer("grpc-max-message-bytes", &O::grpc_max_message_bytes, 1 << 16, 1 << 30,
              "Largest request, and largest answer of a unary call."),
      Integer(
          "stream-buffer-bytes", &O::stream_buffer_bytes, 1 << 10, 1 << 30,
          "Unsent output kept for one slow reader of a stream, over gRPC or HTTP; beyond it the "
          "request is cancelled (RESOURCE_EXHAUSTED)."),
      Number("grpc-max-connection-age", &O::grpc_max_connection_age, 0, 86400 * 30, " of seconds",
             "Age at which a connection is asked to go, so that clients see new replicas. 0: off."),
      Number("grpc-max-connection-age-grace", &O::grpc_max_connection_age_grace, 0, 86400,
             " of seconds", "Time that calls of such a connection have to finish."),
      Text("grpc-api-key", &O::grpc_api_key, "keys separated by commas",
           "API keys of every gRPC service but health and reflection, sent as metadata "
           "'authorization: Bearer KEY'. Unset, and no grpc-api-key-file: everybody may call."),
      Text("grpc-api-key-file", &O::grpc_api_key_file, "a file",
           "File with API keys, one a line, in addition to grpc-api-key."),
      Text("grpc-tls-cert", &O::grpc_tls_cert, "a file",
           "PEM file of the certificate chain of the gRPC port. Unset: no TLS."),
      Text("grpc-tls-key", &O::grpc_tls_key, "a file", "PEM file of that certificate's key."),
      Text("grpc-tls-client-ca", &O::grpc_tls_client_ca, "a file",
           "PEM file of the authority whose certificates gRPC clients must have. Unset: they need "
           "none."),
      Integer("http-num-threads", &O::http_num_threads, 1, 64, "Threads of the HTTP server."),
      Integer("http-max-connections", &O::http_max_connections, 1, 65536,
              "Open HTTP connections; further ones are closed at once."),
      Integer("http-max-header-bytes", &O::http_max_header_bytes, 1 << 10, 1 << 20,
              "Largest HTTP request head; beyond it 431."),
      Integer("http-max-body-bytes", &O::http_max_body_bytes, 0, 1 << 30,
              "Largest HTTP request body; beyond it 413."),
      Integer("http-max-response-bytes", &O::http_max_response_bytes, 1 << 16, 1 << 30,
              "Largest answer over HTTP that is not streamed."),
      Number("http-header-timeout", &O::http_header_timeout, 0.1, 3600, " of seconds",
             "Time for an HTTP request's head to arrive whole; beyond it 408."),
      Number("http-body-timeout", &O::http_body_timeout, 0.1, 3600, " of seconds",
             "Time for an HTTP request's body to arrive whole; beyond it 408."),
      Number("http-idle-timeout", &O::http_idle_timeout, 0.1, 3600, " of seconds",
             "Time between two HTTP requests of a connection, after which it is closed."),
      Number("http-write-timeout", &O::http_write_timeout, 0.1, 3600, " of seconds",
             "Time without an HTTP client taking anything of its answer, after which the "
             "connection is closed and the request cancelled."),
      Text(
          "http-api-key", &O::http_api_key, "keys separated by commas",
          "API keys of /v1, /tokenize and /detokenize, sent as 'Authorization: Bearer KEY'. Unset, "
          "and no http-api-key-file: everybody may ask. gRPC has grpc-api-key."),
      Text("http-api-key-file", &O::http_api_key_file, "a file",
           "File with API keys, one a line, in addition to http-api-key."),
      Text("cors-allow-origin", &O::cors_allow_origin, "origins separated by commas, or *",
           "Web origins whose pages may use the HTTP API. Unset: none but the server's own."),
      Integer("chat-max-tokens", &O::chat_max_tokens, 1, 1 << 20,
              "Most tokens of an answer of /v1/chat/completions and /v1/responses whose request "
              "sets no limit, unless generation_config.json has max_new_tokens."),
      Text("chat-template", &O::chat_template, "a file",
           "Jinja chat template to use instead of the checkpoint's."),
      Integer("response-store-bytes", &O::response_store_bytes, 0, 1 << 30,
              "Memory for the responses of /v1/responses that previous_response_id can go on from; "
              "the least recently used go first. 0: none are kept."),
      Number("liveness-timeout", &O::liveness_timeout, 1, 3600, " of seconds",
             "/health fails when the engine's loop has not turned for so long."),
      Number("shutdown-timeout", &O::shutdown_timeout, 0, 86400, " of seconds",
             "After SIGTERM, time that running requests have to finish."),
      OtlpEndpoint(),
      Number("otlp-sample-ratio", &O::otlp_sample_ratio, 0, 1, "",
             "Part of the requests without a traceparent that get a trace of their own; with one, "
             "its sampled flag decides."),
      Choice<std::string>("log-level", &O::log_level,
                          {{"trace", "trace"},
                           {"debug", "debug"},
                           {"info", "info"},
                           {"warning", "warning"},
                           {"error", "error"},
                           {"off", "off"}},
                          "Least severe messages that are logged, to stderr."),
      Choice<std::string>("log-format", &O::log_format, {{"text", "text"}, {"json", "json"}},
                          "json: one object per line."),
  };
}

}  // namespace

std::string OptionSpec::EnvironmentName() const {
  std::string out = "HGRN2_";
  for (const char c : name) {
    out += c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  }
  return out;
}

const std::vector<OptionSpec>& OptionTable() {
  static const std::vector<OptionSpec>* const table = [] {
    auto* all = new std::vector<OptionSpec>(ModelOptions());
    for (OptionSpec& spec : ServingOptions()) all->push_back(std::move(spec));
    return all;
  }();
  return *table;
}

std::string FlagsMarkdown() {
  const ServerOptions defaults;
  std::string out =
      "| Flag and configuration key | Environment | Default | Must be | Meaning |\n"
      "|---|---|---|---|---|\n";
  const auto cell = [](const std::string& text) {
    std::string escaped;
    for (const char c : text) {
      if (c == '|') escaped += '\\';
      escaped += c;
    }
    return escaped;
  };
  for (const OptionSpec& spec : OptionTable()) {
    const std::string value = spec.get(defaults);
    out += fmt::format("| `--{}` | `{}` | {} | {} | {} |\n", spec.name, spec.EnvironmentName(),
                       value.empty() ? value : fmt::format("`{}`", value), cell(spec.limit),
                       cell(spec.help));
  }
  return out;
}

}  // namespace hgrn2
