#include "server/devices.h"

#include "base/log.h"
#include "base/status.h"

namespace hgrn2 {
namespace {

BackendOptions ToBackendOptions(const DeviceSpec& device, const ServerOptions& options) {
  BackendOptions out;
  out.dtype = options.dtype;
  out.state_dtype = options.state_dtype;
  out.num_slots = options.max_num_seqs;
  out.max_batched_tokens = options.max_num_batched_tokens;
  out.num_threads = options.num_threads;
  out.device_index = device.index;
  out.state_replay = options.state_replay;
  out.fp8_weights = options.fp8_weights;
  out.memory_utilization = options.gpu_memory_utilization;
  return out;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Backend>> MakeBackend(const DeviceSpec& device,
                                                     const ModelWeights& weights,
                                                     const ServerOptions& options) {
  const BackendOptions backend_options = ToBackendOptions(device, options);
#ifdef HGRN2_WITH_CUDA
  if (device.kind != DeviceSpec::Kind::kCpu) {
    auto backend = MakeCudaBackend(weights, backend_options);
    // None, or none that this build supports. Anything else, such as too little memory, is an
    // error: silently serving from the CPU would look like a working GPU server.
    const bool none = backend.status().code() == absl::StatusCode::kFailedPrecondition;
    if (device.kind == DeviceSpec::Kind::kCuda || !none) return backend;
    LOG_INFO("using the CPU: {}", ToStd(backend.status().message()));
  }
#else
  if (device.kind == DeviceSpec::Kind::kCuda) {
    return InvalidArgument("device", "this server was built without CUDA; use cpu or auto");
  }
#endif
  return MakeCpuBackend(weights, backend_options);
}

}  // namespace hgrn2
