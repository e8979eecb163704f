#!/usr/bin/env bash
# Installs what building and testing need, from Debian 12's or Ubuntu 24.04's own packages. Does nothing
# when all are there.
set -euo pipefail

ubuntu_2404=0
if (. /etc/os-release 2>/dev/null && [[ "${VERSION_ID:-}" == "24.04" ]]); then ubuntu_2404=1; fi
# Debian 12 has Boost 1.74, too old for us, and 1.81, which cannot be installed beside it.
if [[ $ubuntu_2404 -eq 1 ]]; then boost=libboost-dev; else boost=libboost1.81-dev; fi
# clang's version decides the name of its sanitizer and fuzzer runtime.
if [[ $ubuntu_2404 -eq 1 ]]; then clang_version=18; else clang_version=14; fi

packages=(
  build-essential cmake ninja-build ccache mold git pkg-config curl
  libgrpc++-dev protobuf-compiler-grpc libprotobuf-dev protobuf-compiler libabsl-dev
  prometheus-cpp-dev "$boost" libyaml-cpp-dev libcli11-dev nlohmann-json3-dev
  libspdlog-dev libfmt-dev libhwy-dev libpcre2-dev libutf8proc-dev
  libssl-dev zlib1g-dev
)
test_packages=(libgtest-dev libgmock-dev libbenchmark-dev python3 python3-venv xz-utils)
# What tests run beside the server; a test whose tool is missing is skipped.
test_tools=(haproxy nginx-light prometheus patchelf openssl nodejs)
# Ubuntu has a browser as a snap only.
if [[ $ubuntu_2404 -eq 0 ]]; then test_tools+=(chromium); fi
fuzz_packages=("clang-$clang_version" "libclang-rt-$clang_version-dev" clang)

if [[ "${1:-}" == "--help" ]]; then
  echo "usage: tools/install_packages.sh [--test-libraries] [--tests] [--fuzz] [--print]"
  echo "  Installs the packages for building (--test-libraries: and building the tests, --tests: and running"
  echo "  all of them, --fuzz: and fuzzing). No service is started."
  echo "  --print: only lists them."
  exit 0
fi
print=0
for option in "$@"; do
  case "$option" in
    --test-libraries) packages+=("${test_packages[@]}") ;;
    --tests) packages+=("${test_packages[@]}" "${test_tools[@]}") ;;
    --fuzz) packages+=("${fuzz_packages[@]}") ;;
    --print) print=1 ;;
    *) echo "unknown option: $option" >&2; exit 2 ;;
  esac
done
if [[ $print -eq 1 ]]; then
  printf '%s\n' "${packages[@]}"
  exit 0
fi
if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
  echo "This is not Debian or Ubuntu: install the equivalents of these packages yourself:" >&2
  printf '  %s\n' "${packages[@]}" >&2
  exit 1
fi

missing=()
for package in "${packages[@]}"; do
  status=$(dpkg-query -W -f='${Status}' "$package" 2>/dev/null || true)
  [[ "$status" == "install ok installed" ]] || missing+=("$package")
done
if [[ ${#missing[@]} -eq 0 ]]; then exit 0; fi

sudo=()
if [[ $EUID -ne 0 ]]; then
  command -v sudo >/dev/null || { echo "Run as root or install sudo: these packages are missing: ${missing[*]}" >&2; exit 1; }
  sudo=(sudo)
fi
echo "Installing: ${missing[*]}"
# Debian starts the daemons of what it installs unless this file says no; the tests start their own.
policy=/usr/sbin/policy-rc.d
if [[ ! -e $policy ]]; then
  trap '"${sudo[@]}" rm -f "$policy"' EXIT
  printf '#!/bin/sh\nexit 101\n' | "${sudo[@]}" tee "$policy" >/dev/null
  "${sudo[@]}" chmod 755 "$policy"
fi
"${sudo[@]}" apt-get update -qq
"${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
