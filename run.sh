#!/usr/bin/env bash
# Builds the server, starts it on the model that ships in models/ and streams a completion.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

usage() {
  cat <<'TEXT'
usage: ./run.sh [--serve] [--prompt TEXT] [--max-tokens N] [-- SERVER FLAGS...]

Installs the packages that are missing (Debian 12, Ubuntu 24.04; root or sudo), builds into
build/release, starts hgrn2-server on models/hgrn2-gutenberg-12m and streams a completion with
hgrn2-client. Then the server is stopped, unless --serve is given.

  --serve         leave the server running in the foreground (Ctrl-C drains and stops it)
  --prompt TEXT   what to complete (default: "Once upon a time")
  --max-tokens N  how much to generate (default: 120)
  --              everything after it goes to hgrn2-server, e.g. -- --model /path --max-num-seqs 32

CUDA is used when nvcc and a GPU are there. Ports: --grpc-port and --http-port after "--"
(default here: any that is free, unless --serve is given: 50051 and 8000).
TEXT
}

serve=0
prompt="Once upon a time"
max_tokens=120
server_flags=()
while [[ $# -gt 0 ]]; do
  case "$1" in
    --help | -h) usage; exit 0 ;;
    --serve) serve=1; shift ;;
    --prompt) prompt="${2:?--prompt needs a text}"; shift 2 ;;
    --max-tokens) max_tokens="${2:?--max-tokens needs a number}"; shift 2 ;;
    --) shift; server_flags=("$@"); break ;;
    *) echo "unknown option: $1" >&2; usage >&2; exit 2 ;;
  esac
done

tools/install_packages.sh --test-libraries
tools/build.sh release hgrn2-server hgrn2-client
bin=build/release/bin

if [[ $serve -eq 1 ]]; then
  exec "$bin/hgrn2-server" --model models/hgrn2-gutenberg-12m "${server_flags[@]}"
fi

log=$(mktemp)
"$bin/hgrn2-server" --model models/hgrn2-gutenberg-12m --host 127.0.0.1 --grpc-port 0 --http-port 0 \
  "${server_flags[@]}" 2>"$log" &
server=$!
trap 'kill -TERM $server 2>/dev/null || true; wait $server 2>/dev/null || true; rm -f "$log"' EXIT
address=""
for _ in $(seq 300); do
  address=$(sed -n 's/.*gRPC listening on \([^ ]*\).*/\1/p' "$log" | tail -n 1)
  [[ -n "$address" ]] && break
  kill -0 "$server" 2>/dev/null || { cat "$log" >&2; exit 1; }
  sleep 0.1
done
[[ -n "$address" ]] || { cat "$log" >&2; echo "the server did not start within 30 s" >&2; exit 1; }
cat "$log" >&2

echo
"$bin/hgrn2-client" complete --target "$address" --max-tokens "$max_tokens" --stats "$prompt"
echo
echo "To keep it running: ./run.sh --serve     Then: $bin/hgrn2-client complete \"Once upon a time\""
