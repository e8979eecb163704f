#!/usr/bin/env bash
# What the load client can do by itself: against servers that do no work, with the client held to one
# core, over gRPC and over HTTP.
#   bench/load/client_alone.sh [--check] [BUILD_DIR]      (default build/release)
# Prints for each case requests/s, streamed tokens/s, and the client's CPU time per request and token (which
# other load on the machine disturbs less); then the memory of 2 000 concurrent streams. With --check, exits with
# 1 if one core would not do 5 000 requests/s or 100 000 tokens/s, or 2 000 streams take 300 MB.
set -euo pipefail
check=0
if [[ "${1:-}" == --check ]]; then
  check=1
  shift
fi
bin=${1:-build/release}/bin
port=${PORT:-18951}  # no port that the system gives to outgoing connections
seconds=${SECONDS_PER_CASE:-10}
out=$(mktemp -d)
server=
trap 'kill $server 2>/dev/null || true; rm -rf "$out"' EXIT

start_server() {  # NAME ARGUMENT...
  "$bin/$1" --port="$port" "${@:2}" > "$out/server" &
  server=$!
  until grep -q "$1" "$out/server"; do
    kill -0 "$server" 2>/dev/null || { echo "$1 does not listen on port $port" >&2; exit 1; }
    sleep 0.1
  done
}
stop_server() {
  kill "$server"
  wait "$server" 2>/dev/null || true
}
# The last core for the client, the others for the server's threads where there are several.
client() {
  local name=$1
  shift
  taskset -c "$(($(nproc) - 1))" "$bin/hgrn2-client" load --target "$target" --quiet --warmup 1 \
    --duration "$seconds" --prompt-tokens 32 --json "$out/run.json" "$@" > "$out/table" || { cat "$out/table"; exit 1; }
  report "$name"
}
report() {
  python3 - "$out/run.json" "$1" "$check" <<'PY'
import json, sys
r = json.load(open(sys.argv[1])); c = r["hgrn2"]["client"]
assert r["completed"] and not r["failed"] and not r["hgrn2"]["interrupted"], r["hgrn2"]["errors"]
print(f'{sys.argv[2]:<36}{r["request_throughput"]:9.0f} req/s {r["output_throughput"]:9.0f} tok/s'
      f'   client CPU {c["cpu_share"]:.2f} cores: {c["cpu_share"] / r["request_throughput"] * 1e6:6.1f} us/request,'
      f' {c["cpu_share"] / r["output_throughput"] * 1e6:5.2f} us/token; waited for it {c["poller_wait_share"]:.2f}')
if sys.argv[3] == "1":
    if "one token" in sys.argv[2]:
        assert c["cpu_share"] / r["request_throughput"] <= 1 / 5000, "less than 5 000 requests/s on a core"
    if "256 tokens" in sys.argv[2]:
        assert c["cpu_share"] / r["output_throughput"] <= 1 / 100000, "less than 100 000 tokens/s on a core"
PY
}

for transport in gRPC HTTP; do
  if [[ $transport == gRPC ]]; then name=null_server target="127.0.0.1:$port"; else name=null_http_server target="http://127.0.0.1:$port"; fi
  start_server $name
  client "$transport, one token per request" --concurrency 64 --connections 4 --output-tokens 1
  client "$transport, 256 tokens per request" --concurrency 64 --connections 4 --output-tokens 256
  client "$transport, open loop, 5000 req/s" --rate 5000 --arrival constant --connections 4 --output-tokens 1
  stop_server
  start_server $name --interval-us=50000
  "$bin/hgrn2-client" load --target "$target" --quiet --concurrency 2000 --connections 8 --requests $((4000 - 2000 * check)) \
    --output-tokens 100 --json "$out/run.json" > "$out/table" &
  client_pid=$!
  peak=0
  while kill -0 "$client_pid" 2>/dev/null; do
    rss=$(awk '/VmHWM/ {print $2}' "/proc/$client_pid/status" 2>/dev/null || true)
    [[ "${rss:-0}" -gt "$peak" ]] && peak=$rss
    sleep 0.2
  done
  wait "$client_pid"
  stop_server
  report "$transport, 2000 streams of 20 tok/s"
  echo "$transport, peak memory of the client with 2000 streams: $((peak / 1024)) MiB"
  if [[ $check -eq 1 && $peak -gt 300000 ]]; then
    echo "more than 300 MB" >&2
    exit 1
  fi
done
