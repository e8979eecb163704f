#!/usr/bin/env bash
# What HTTP costs beside gRPC, with next to no model behind either (one random layer of width 64):
#   1. server CPU per token, streamed over gRPC, streamed over HTTP (server-sent events), and over HTTP without a
#      stream, which is the engine, sampling and detokenising with one answer at the end;
#   2. time to first token and time per token at one and the same rate of requests;
#   3. many concurrent streams, with the server held to two cores.
#   bench/load/http_overhead.sh [BUILD_DIR] [STREAMS] [REQUESTS] [CONCURRENT]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
bin="${1:-build/release}/bin"
streams="${2:-64}"
requests="${3:-256}"
concurrent="${4:-1000}"
tokens=200

work=$(mktemp -d)
server=
trap '[[ -n "$server" ]] && kill "$server" 2>/dev/null; wait 2>/dev/null; rm -rf "$work"' EXIT
cp models/hgrn2-gutenberg-12m/tokenizer.json models/hgrn2-gutenberg-12m/tokenizer_config.json "$work"
cat >"$work/config.json" <<'JSON'
{"model_type": "hgrn2", "hidden_size": 64, "num_hidden_layers": 1, "num_heads": 1, "intermediate_size": 256,
 "vocab_size": 4096, "bos_token_id": 0, "eos_token_id": 0, "torch_dtype": "bfloat16"}
JSON

start() {  # SLOTS
  : >"$work/log"
  taskset -c 0,1 "$bin/hgrn2-server" --model "$work" --load-format dummy --device cpu --host 127.0.0.1 --grpc-port 0 \
    --http-port 0 --num-threads 1 --max-num-seqs "$1" --max-num-queued-reqs 10000 \
    2>"$work/log" &
  server=$!
  for _ in $(seq 100); do
    grpc=$(sed -n 's/.*gRPC listening on \([^ ]*\).*/\1/p' "$work/log")
    http=$(sed -n 's/.*HTTP listening on \([^ ]*\).*/http:\/\/\1/p' "$work/log")
    [[ -n "$grpc" && -n "$http" ]] && break
    sleep 0.1
  done
}
stop() { kill "$server"; wait "$server" || true; server=; }
cpu_ticks() { awk '{print $14 + $15}' "/proc/$server/stat"; }
load() {  # TARGET OPTION...
  "$bin/hgrn2-client" load --target "$1" --quiet --prompt-tokens 8 --output-tokens $tokens --vocab-size 4096 \
    --temperature 0.8 --top-p 0.95 --json "$work/report.json" "${@:2}" >"$work/table" || { cat "$work/table"; exit 1; }
}

# The same requests without a stream, from as many threads.
cat >"$work/whole.py" <<'PY'
import http.client, json, random, sys, threading
host, streams, requests, tokens = sys.argv[1].removeprefix("http://"), *map(int, sys.argv[2:5])
def run(thread):
    connection = http.client.HTTPConnection(host, timeout=300)
    rng = random.Random(thread)
    for _ in range(requests // streams):
        body = {"prompt": [rng.randrange(1, 4096) for _ in range(8)], "max_tokens": tokens, "ignore_eos": True,
                "temperature": 0.8, "top_p": 0.95}
        connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
        answer = json.loads(connection.getresponse().read())
        assert answer["usage"]["completion_tokens"] == tokens, answer
threads = [threading.Thread(target=run, args=(i,)) for i in range(streams)]
for thread in threads: thread.start()
for thread in threads: thread.join()
PY

measure() {  # NAME COMMAND...
  local name=$1 before after
  shift
  before=$(cpu_ticks)
  "$@"
  after=$(cpu_ticks)
  awk -v t=$((after - before)) -v hz="$(getconf CLK_TCK)" -v n=$((requests / streams * streams * tokens)) -v name="$name" \
    'BEGIN { printf "%s: %.1f us of server CPU per token\n", name, t / hz / n * 1e6 }' | tee -a "$work/cpu"
}

start "$streams"
requests=$((requests / streams * streams))
load "$grpc" --requests "$streams" --concurrency "$streams"
load "$http" --requests "$streams" --concurrency "$streams"
measure "HTTP, not streamed" python3 "$work/whole.py" "$http" "$streams" "$requests" $tokens
measure "gRPC, streamed" load "$grpc" --requests "$requests" --concurrency "$streams"
measure "HTTP, streamed" load "$http" --requests "$requests" --concurrency "$streams"

for target in "$grpc" "$http" "$grpc" "$http"; do
  load "$target" --requests 200 --rate 20 --arrival constant
  python3 - "$work/report.json" "$target" "$work/latency" <<'PY'
import json, sys
r = json.load(open(sys.argv[1]))
name = "HTTP" if sys.argv[2].startswith("http") else "gRPC"
keys = ("median_ttft_ms", "p99_ttft_ms", "median_tpot_ms", "median_e2el_ms")
print(f'{name} at 20 requests/s: ' + ", ".join(f"{k} {r[k]:.3f}" for k in keys) + f', failed {r["failed"]}')
open(sys.argv[3], "a").write(json.dumps([name] + [r[k] for k in keys]) + "\n")
PY
done
python3 - "$work/latency" <<'PY'
import json, sys
rows = [json.loads(line) for line in open(sys.argv[1])]
best = lambda name, i: min(row[i] for row in rows if row[0] == name)
print("HTTP / gRPC (better run of each): " + ", ".join(
    f"{key} {best('HTTP', i) / best('gRPC', i):.3f}" for i, key in ((1, "TTFT"), (3, "time per token"), (4, "end to end"))))
PY
stop

start "$concurrent"
load "$http" --requests "$concurrent" --concurrency "$concurrent"
python3 - "$work/report.json" "$concurrent" "$(awk '/VmRSS/ {print $2}' "/proc/$server/status")" <<'PY'
import json, sys
r = json.load(open(sys.argv[1]))
print(f'{sys.argv[2]} concurrent HTTP streams on two cores: {r["completed"]} completed, {r["failed"]} failed, '
      f'{r["output_throughput"]:.0f} tokens/s, median TTFT {r["median_ttft_ms"]:.0f} ms, '
      f'server memory {int(sys.argv[3]) / 1024:.0f} MiB')
PY
