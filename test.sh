#!/usr/bin/env bash
# Installs what tests need, builds, and runs every test.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

usage() {
  cat <<'TEXT'
usage: ./test.sh [--sanitizers] [--fuzz SECONDS] [-- CTEST FLAGS...]

Installs the packages that are missing (Debian 12, Ubuntu 24.04; root or sudo), builds build/release
and runs all tests. Tests that need a GPU or a package registry say "skipped" without one.

  --sanitizers    also build and run the unit and integration tests under ASan+UBSan and TSan
  --fuzz SECONDS  also run each fuzz target that long (needs clang)
  --              everything after it goes to ctest, e.g. -- -R Scheduler
TEXT
}

sanitizers=0
fuzz=0
ctest_flags=()
while [[ $# -gt 0 ]]; do
  case "$1" in
    --help | -h) usage; exit 0 ;;
    --sanitizers) sanitizers=1; shift ;;
    --fuzz) fuzz="${2:?--fuzz needs seconds}"; shift 2 ;;
    --) shift; ctest_flags=("$@"); break ;;
    *) echo "unknown option: $1" >&2; usage >&2; exit 2 ;;
  esac
done

run_preset() {
  tools/build.sh "$1"
  ctest --test-dir "build/$1" --output-on-failure -j "$(nproc)" "${ctest_flags[@]}"
}

options=(--tests)
if [[ $fuzz -gt 0 ]]; then options+=(--fuzz); fi
tools/install_packages.sh "${options[@]}"
tools/check_dependencies.py
if [[ $fuzz -gt 0 ]]; then tools/fuzz.sh "$fuzz"; fi
if [[ $sanitizers -eq 1 ]]; then
  ASAN_OPTIONS=detect_stack_use_after_return=1 run_preset dev
  TSAN_OPTIONS="suppressions=$PWD/tools/tsan.supp ignore_noninstrumented_modules=1" run_preset tsan
fi
run_preset release
