#!/usr/bin/env bash
# A sweep of the CPU server with the embedded model: closed loops, then open-loop rates, then the
# highest rate that keeps a goodput. Writes JSON and HTML into OUT (default: build/load).
#   bench/load/sweep_cpu.sh [BUILD_DIR]         (default build/release; 4 to 5 minutes)
set -euo pipefail
cd "$(dirname "$0")/../.."
bin=${1:-build/release}/bin
out=${OUT:-build/load}
seconds=${SECONDS_PER_RUN:-8}
mkdir -p "$out"
"$bin/hgrn2-server" --model models/hgrn2-gutenberg-12m --host 127.0.0.1 --grpc-port 0 --http-port 0 \
  --device cpu > "$out/server.log" 2>&1 &
server=$!
trap 'kill $server; wait $server || true' EXIT
address() { sed -n "s/.*$1 listening on \([^ ]*\).*/\1/p" "$out/server.log"; }
until [[ -n "$(address HTTP)" ]]; do
  kill -0 "$server" || { cat "$out/server.log"; exit 1; }
  sleep 0.3
done
load() {
  "$bin/hgrn2-client" load --target "$(address gRPC)" --quiet --warmup 2 --duration "$seconds" --drain 10 \
    --prompt-tokens uniform:32:256 --output-tokens uniform:16:128 --seed 1 \
    --metrics-url "http://$(address HTTP)/metrics" "$@"
}
load --sweep-concurrency 1,2,4,8,16,32,64 --json "$out/closed.json" --html "$out/closed.html"
load --sweep auto --rate 2 --goodput ttft:1000,itl:250 --json "$out/open.json" --html "$out/open.html"
load --find-max --rate 8 --precision 0.1 --goodput ttft:1000,itl:250 --json "$out/find_max.json"
echo "reports: $out/closed.html $out/open.html"
