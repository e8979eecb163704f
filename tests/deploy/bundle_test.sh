#!/usr/bin/env bash
# bundle_test.sh BIN_DIRECTORY: the portable tarball, twice the same, runs from another place without the machine's
# libraries in reach of a search path, answers, and drains. Skipped (77) without patchelf.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
bin="${1:?usage: bundle_test.sh BIN_DIRECTORY}"
command -v patchelf >/dev/null || { echo "SKIPPED: patchelf is not installed (apt-get install patchelf)" >&2; exit 77; }

scratch=$(mktemp -d)
server=0
cleanup() {
  if [[ $server -ne 0 ]]; then kill -KILL "$server" 2>/dev/null || true; fi
  rm -rf "$scratch"
}
trap cleanup EXIT
"$root/deploy/bundle.sh" --bin "$bin" --model "$root/models/hgrn2-gutenberg-12m" --tarball "$scratch/one.tar.gz"
"$root/deploy/bundle.sh" --bin "$bin" --model "$root/models/hgrn2-gutenberg-12m" --tarball "$scratch/two.tar.gz" >/dev/null
cmp "$scratch/one.tar.gz" "$scratch/two.tar.gz" || { echo "FAILED: two archives of the same binaries differ" >&2; exit 1; }
mkdir "$scratch/place"
tar -xzf "$scratch/one.tar.gz" -C "$scratch/place"
place=$(echo "$scratch"/place/hgrn2-server-*)

# Every library but the C library's and the driver's comes from the bundle.
for program in "$place"/bin/*; do
  outside=$(env -i ldd "$program" | awk '$2 == "=>" {print $1, $3}' | grep -Ev " $place/(bin/../)?lib/" |
    grep -Ev '^(libc|libm|libdl|libpthread|librt|libresolv|libcuda)\.so' || true)
  [[ -z "$outside" ]] || { echo "FAILED: $program takes from the machine: $outside" >&2; exit 1; }
done

env -i "$place/bin/hgrn2-server" --model "$place/share/models/hgrn2-gutenberg-12m" --device cpu --host 127.0.0.1 \
  --grpc-port 0 --http-port 0 2>"$scratch/log" &
server=$!
address=""
for _ in $(seq 600); do
  address=$(sed -n 's/.*gRPC listening on \([^ ]*\).*/\1/p' "$scratch/log")
  if [[ -n "$address" ]]; then break; fi
  kill -0 "$server" 2>/dev/null || { cat "$scratch/log" >&2; exit 1; }
  sleep 0.1
done
[[ -n "$address" ]] || { cat "$scratch/log" >&2; echo "FAILED: no server within 60 s" >&2; exit 1; }
env -i "$place/bin/hgrn2-client" health --target "$address" --timeout 30 | grep -qx SERVING
text=$(env -i "$place/bin/hgrn2-client" complete --target "$address" --temperature 0 --max-tokens 8 "Once upon a time")
[[ -n "$text" ]] || { echo "FAILED: no completion" >&2; exit 1; }
kill -TERM "$server"
wait "$server" || { echo "FAILED: exit status $? after SIGTERM" >&2; exit 1; }
server=0
echo "the bundle answered '$text' and drained"
