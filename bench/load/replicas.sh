#!/usr/bin/env bash
# Tokens per second of 1, 2 and 3 CPU replicas on this machine, one thread and one client each: what another
# replica adds. On two cores the third has none of its own.
#   bench/load/replicas.sh [BUILD_DIR] [STREAMS] [REQUESTS]     streams and requests of each client
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
bin="${1:-build/release}/bin"
streams="${2:-8}"
requests="${3:-64}"

work=$(mktemp -d)
servers=()
stop() {
  for server in "${servers[@]}"; do kill "$server" 2>/dev/null || true; done
  for server in "${servers[@]}"; do wait "$server" 2>/dev/null || true; done
  servers=()
}
trap 'stop; rm -rf "$work"' EXIT

for replicas in 1 2 3; do
  addresses=()
  for i in $(seq "$replicas"); do
    "$bin/hgrn2-server" --model models/hgrn2-gutenberg-12m --device cpu --host 127.0.0.1 --grpc-port 0 --http-port 0 \
      --num-threads 1 --max-num-seqs "$streams" 2>"$work/log$i" &
    servers+=($!)
    address=""
    for _ in $(seq 600); do
      address=$(sed -n 's/.*gRPC listening on \([^ ]*\).*/\1/p' "$work/log$i")
      [[ -n "$address" ]] && break
      sleep 0.1
    done
    addresses+=("$address")
  done
  clients=()
  for i in $(seq "$replicas"); do
    "$bin/hgrn2-client" load --target "${addresses[$((i - 1))]}" --requests "$requests" --concurrency "$streams" \
      --prompt-tokens 16 --output-tokens 100 --json "$work/report$i.json" >/dev/null &
    clients+=($!)
  done
  for client in "${clients[@]}"; do wait "$client"; done
  python3 - "$replicas" "$work" <<'PY'
import json, sys
replicas, work = int(sys.argv[1]), sys.argv[2]
rates = [json.load(open(f"{work}/report{i + 1}.json"))["output_throughput"] for i in range(replicas)]
print(f"{replicas} replicas: {sum(rates):.0f} tokens/s together, {sum(rates) / replicas:.0f} each")
PY
  stop
done
