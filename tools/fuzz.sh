#!/usr/bin/env bash
# tools/fuzz.sh SECONDS: builds the libFuzzer targets with clang and runs each that long on its corpus.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
seconds="${1:?usage: tools/fuzz.sh SECONDS}"
command -v clang++ >/dev/null || { echo "fuzzing skipped: clang++ is not installed"; exit 0; }
tools/build.sh fuzz fuzzers
for target in build/fuzz/bin/*_fuzzer; do
  name=$(basename "$target" _fuzzer)
  corpus="tests/fuzz/corpus/$name"
  work="build/fuzz/corpus/$name"
  mkdir -p "$work"
  echo "== $name: $seconds s"
  "$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=4096 -print_final_stats=1 \
    -artifact_prefix="build/fuzz/$name-" "$work" "$corpus" 2>&1 | tail -n 12
done
