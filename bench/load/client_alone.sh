#!/usr/bin/env bash
# What the load client can do by itself: against null_server, with the client held to one core.
#   bench/load/client_alone.sh [BUILD_DIR]      (default build/release)
# Prints requests/s, streamed tokens/s, and the memory of 2 000 concurrent streams.
set -euo pipefail
bin=${1:-build/release}/bin
port=${PORT:-50951}
seconds=${SECONDS_PER_CASE:-10}
out=$(mktemp -d)
trap 'kill $server 2>/dev/null || true; rm -rf "$out"' EXIT

start_server() {
  "$bin/null_server" --port="$port" "$@" > "$out/server" &
  server=$!
  until grep -q null_server "$out/server"; do sleep 0.1; done
}
stop_server() { kill "$server"; wait "$server" 2>/dev/null || true; }
# The last core for the client, the others for the server's threads where there are several.
client() {
  /usr/bin/env taskset -c "$(($(nproc) - 1))" "$bin/hgrn2-client" load --target "127.0.0.1:$port" \
    --quiet --warmup 1 --json "$out/run.json" "$@" > "$out/table" || { cat "$out/table"; exit 1; }
}
report() {
  python3 - "$out/run.json" "$1" <<'PY'
import json, sys
r = json.load(open(sys.argv[1])); c = r["hgrn2"]["client"]
print(f'{sys.argv[2]:<28} {r["request_throughput"]:10.0f} req/s {r["output_throughput"]:10.0f} tok/s'
      f'   client CPU {c["cpu_share"]:.2f} cores, waited for it {c["poller_wait_share"]:.2f}')
PY
}

start_server
client --duration "$seconds" --concurrency 64 --connections 4 --prompt-tokens 32 --output-tokens 1
report "one token per request"
client --duration "$seconds" --concurrency 64 --connections 4 --prompt-tokens 32 --output-tokens 256
report "256 tokens per request"
client --duration "$seconds" --rate 5000 --arrival constant --connections 4 --prompt-tokens 32 --output-tokens 1
report "open loop, 5000 req/s"
stop_server

start_server --interval-us=50000
"$bin/hgrn2-client" load --target "127.0.0.1:$port" --quiet --concurrency 2000 --connections 8 \
  --requests 4000 --output-tokens 100 --json "$out/run.json" > "$out/table" &
client_pid=$!
peak=0
while kill -0 "$client_pid" 2>/dev/null; do
  rss=$(awk '/VmHWM/ {print $2}' "/proc/$client_pid/status" 2>/dev/null || echo 0)
  [ "${rss:-0}" -gt "$peak" ] && peak=$rss
  sleep 0.2
done
wait "$client_pid"
report "2000 streams, 20 tok/s each"
echo "peak memory of the client with 2000 streams: $((peak / 1024)) MiB"
