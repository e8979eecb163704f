#!/usr/bin/env bash
# tools/sanitize.sh [PRESET...]: builds the tests of what threads and strangers touch most (engine, frontend,
# gRPC and HTTP servers, without kernels and client) under sanitizers and runs them whole, a process per binary.
# Presets: dev (ASan + UBSan), tsan; default: both. Every test there is: ./test.sh --sanitizers.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
tests=(scheduler_test engine_test engine_router_test frontend_test convert_test completion_queue_test grpc_service_test
       stream_connection_test http_server_test metrics_test request_log_test otlp_test)
export ASAN_OPTIONS=detect_stack_use_after_return=1
export TSAN_OPTIONS="suppressions=$PWD/tools/tsan.supp ignore_noninstrumented_modules=1"
if [[ $# -eq 0 ]]; then set -- dev tsan; fi
for preset in "$@"; do
  tools/build.sh "$preset" "${tests[@]}"
  for test in "${tests[@]}"; do
    echo "== $preset: $test"
    "build/$preset/bin/$test" --gtest_brief=1
  done
done
