#!/usr/bin/env bash
# A sweep of the whole server of the 1.3B shape (random weights) on a GPU, within 240 s: closed loops of 1 to 1024
# streams, open loops judged by 500 ms to the first token and gaps of 20 ms, and the highest rate that keeps it.
#   bench/cuda/server_sweep.sh --bin DIR [--long] [--server-flags "--quantization fp8"] [--json FILE] ...
# Any option of bench/load/server_sweep.py may follow. Needs Python 3; DIR may be of deploy/bundle.sh.
set -euo pipefail
exec python3 "$(dirname "${BASH_SOURCE[0]}")/../load/server_sweep.py" --shape 1.3b --device cuda --pin \
  --closed 1,2,4,8,16,32,64,128,256,512,1024 --rate 16 --goodput ttft:500,itl:20 --seconds 6 --warmup 1 --drain 6 \
  --limit 240 "$@"
