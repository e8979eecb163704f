#!/usr/bin/env bash
# CPU time of hgrn2-server per streamed token with next to no model behind it: gRPC, scheduling, sampling
# (4096 logits, temperature 0.8, top_p 0.95) and detokenising. The model is one random layer of width 64.
#   bench/load/server_overhead.sh [BUILD_DIR] [STREAMS] [REQUESTS]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
bin="${1:-build/release}/bin"
streams="${2:-64}"
requests="${3:-400}"
tokens=200

work=$(mktemp -d)
trap 'kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; rm -rf "$work"' EXIT
cp models/hgrn2-gutenberg-12m/tokenizer.json models/hgrn2-gutenberg-12m/tokenizer_config.json "$work"
cat >"$work/config.json" <<'JSON'
{"model_type": "hgrn2", "hidden_size": 64, "num_hidden_layers": 1, "num_heads": 1, "intermediate_size": 256,
 "vocab_size": 4096, "bos_token_id": 0, "eos_token_id": 0, "torch_dtype": "bfloat16"}
JSON
"$bin/hgrn2-server" --model "$work" --load-format dummy --device cpu --host 127.0.0.1 --grpc-port 0 --http-port 0 \
  --num-threads 1 --max-num-seqs "$streams" 2>"$work/log" &
server=$!
for _ in $(seq 100); do
  address=$(sed -n 's/.*gRPC listening on \([^ ]*\).*/\1/p' "$work/log")
  [[ -n "$address" ]] && break
  sleep 0.1
done

cpu_ticks() { awk '{print $14 + $15}' "/proc/$server/stat"; }
load() {
  "$bin/hgrn2-client" load --target "$address" --requests "$1" --concurrency "$streams" --prompt-tokens 8 \
    --output-tokens $tokens --temperature 0.8 --top-p 0.95 --json "$2" >/dev/null
}
load "$streams" "$work/warm-up.json"
before=$(cpu_ticks)
load "$requests" "$work/report.json"
after=$(cpu_ticks)
python3 - "$before" "$after" "$(getconf CLK_TCK)" "$work/report.json" <<'PY'
import json, sys
before, after, hertz = (float(x) for x in sys.argv[1:4])
report = json.load(open(sys.argv[4]))
def find(tree, key):
    if key in tree:
        return tree[key]
    return next((v for v in (find(t, key) for t in tree.values() if isinstance(t, dict)) if v), 0)
tokens = report["total_output_tokens"] if "total_output_tokens" in report else report["total_output"]
seconds = (after - before) / hertz
print(f"{report['completed']} requests, {tokens} tokens, {report['output_throughput']:.0f} tokens/s; "
      f"server CPU {seconds:.2f} s: {seconds / tokens * 1e6:.1f} us per streamed token, "
      f"{find(report, 'tokens_per_message'):.2f} tokens per message")
PY
