// Everything that can be set about a server, as native values. Flags, environment and configuration
// file are turned into this once, by server/flags.h; the defaults here are the documented ones.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/loader/weights.h"
#include "kernels/dtype.h"

namespace hgrn2 {

struct DeviceSpec {
  enum class Kind { kAuto, kCpu, kCuda };
  Kind kind = Kind::kAuto;
  int32_t index = 0;  // of a CUDA device

  bool operator==(const DeviceSpec&) const = default;
};

struct ServerOptions {
  std::string model;              // directory
  std::string served_model_name;  // empty: the directory's name
  std::string host = "0.0.0.0";
  int32_t grpc_port = 50051;  // 0: any free one
  int32_t http_port = 8000;

  std::vector<DeviceSpec> devices = {DeviceSpec{}};  // one engine each
  std::optional<DType> dtype;                        // unset: auto
  std::optional<DType> state_dtype;
  bool fp8_weights = false;
  LoadFormat load_format = LoadFormat::kAuto;
  int32_t num_threads = 0;
  int32_t state_replay = 0;  // 0: the backend's, by state_dtype
  double gpu_memory_utilization = 0.9;

  int32_t max_num_seqs = 64;
  int32_t max_num_batched_tokens = 0;  // 0: the backend's
  int32_t max_num_prefill_tokens = 0;  // 0: the engine's
  int32_t max_num_queued_reqs = 1024;
  int32_t max_prompt_tokens = 1 << 20;
  std::optional<uint64_t> seed;

  int32_t grpc_max_message_bytes = 16 << 20;
  int32_t stream_buffer_bytes = 4 << 20;
  double grpc_max_connection_age = 0;  // seconds; 0: off
  double grpc_max_connection_age_grace = 30;
  std::string grpc_api_key;       // comma-separated
  std::string grpc_api_key_file;  // one per line
  std::string grpc_tls_cert;      // PEM files; empty: no TLS
  std::string grpc_tls_key;
  std::string grpc_tls_client_ca;  // empty: clients need no certificate
  int32_t http_num_threads = 1;
  int32_t http_max_connections = 4096;
  int32_t http_max_header_bytes = 16 << 10;
  int32_t http_max_body_bytes = 4 << 20;
  int32_t http_max_response_bytes = 64 << 20;
  double http_header_timeout = 10;  // seconds, as all of these
  double http_body_timeout = 60;
  double http_idle_timeout = 60;
  double http_write_timeout = 60;
  std::string http_api_key;       // comma-separated
  std::string http_api_key_file;  // one per line
  std::string cors_allow_origin;  // comma-separated
  int32_t chat_max_tokens = 1024;
  std::string chat_template;  // a file instead of the checkpoint's
  int32_t response_store_bytes = 64 << 20;
  double liveness_timeout = 30;

  double shutdown_timeout = 30;
  std::string otlp_endpoint;  // http://HOST[:PORT][/PATH]; empty: no traces
  double otlp_sample_ratio = 1;
  std::string log_level = "info";
  std::string log_format = "text";
};

}  // namespace hgrn2
