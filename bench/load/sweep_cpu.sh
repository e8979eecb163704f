#!/usr/bin/env bash
# A sweep of the CPU server with the embedded model: closed loops, then open-loop rates, then the
# highest rate that keeps a goodput. Writes JSON and HTML into OUT (default: build/load).
#   bench/load/sweep_cpu.sh [BUILD_DIR]         (default build/release; 4 to 5 minutes)
set -euo pipefail
cd "$(dirname "$0")/../.."
out=${OUT:-build/load}
mkdir -p "$out"
python3 bench/load/server_sweep.py --bin "${1:-build/release}/bin" --model models/hgrn2-gutenberg-12m --device cpu \
  --seconds "${SECONDS_PER_RUN:-8}" --client-threads 1 --connections 1 --json "$out/sweep.json" --html "$out"
echo "reports: $out/closed.html $out/open.html"
