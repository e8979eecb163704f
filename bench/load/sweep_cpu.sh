#!/usr/bin/env bash
# A sweep of the CPU server with the embedded model: closed loops, then open-loop rates, then the
# highest rate that keeps a goodput. Writes JSON and HTML into OUT (default: build/load).
#   bench/load/sweep_cpu.sh [BUILD_DIR]         (default build/release)
set -euo pipefail
cd "$(dirname "$0")/../.."
bin=${1:-build/release}/bin
out=${OUT:-build/load}
port=${PORT:-50952}
seconds=${SECONDS_PER_RUN:-15}
mkdir -p "$out"
"$bin/hgrn2-server" --model models/hgrn2-gutenberg-12m --grpc-port "$port" --http-port "$((port + 1))" \
  --device cpu > "$out/server.log" 2>&1 &
server=$!
trap 'kill $server; wait $server || true' EXIT
until "$bin/hgrn2-client" health --target "localhost:$port" > /dev/null 2>&1; do
  kill -0 "$server" || { cat "$out/server.log"; exit 1; }
  sleep 0.3
done
load() {
  "$bin/hgrn2-client" load --target "localhost:$port" --quiet --warmup 2 --duration "$seconds" \
    --prompt-tokens uniform:32:256 --output-tokens uniform:16:128 --seed 1 \
    --metrics-url "http://localhost:$((port + 1))/metrics" "$@"
}
load --sweep-concurrency 1,2,4,8,16,32,64 --json "$out/closed.json" --html "$out/closed.html"
load --sweep auto --rate 1 --goodput ttft:1000,itl:250 --json "$out/open.json" --html "$out/open.html"
load --find-max --rate 4 --goodput ttft:1000,itl:250 --json "$out/find_max.json"
echo "reports: $out/closed.html $out/open.html"
