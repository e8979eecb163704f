#!/usr/bin/env bash
# tools/build.sh PRESET [TARGET...]: configures (when needed) and builds a preset of CMakePresets.json.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
preset="${1:?usage: tools/build.sh release|dev|tsan|fuzz [TARGET...]}"
shift
# nvcc is often installed without being on PATH.
if ! command -v nvcc >/dev/null && [[ -x /usr/local/cuda/bin/nvcc ]]; then PATH="$PATH:/usr/local/cuda/bin"; fi
if [[ ! -f "build/$preset/build.ninja" ]]; then
  cmake --preset "$preset" -Wno-dev
fi
cmake --build --preset "$preset" ${*:+--target "$@"}
