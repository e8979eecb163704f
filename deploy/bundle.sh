#!/usr/bin/env bash
# Collects hgrn2-server, hgrn2-client and every library they need, except the C library and the NVIDIA
# driver, in one folder that runs from anywhere; the image and the tarball for bare machines are this folder.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

usage() {
  cat <<'TEXT'
usage: deploy/bundle.sh [--bin DIR] [--dir DIR | --tarball FILE] [--model DIR]...

  --bin DIR       where the built binaries are (default: build/release/bin)
  --dir DIR       write the folder there; must not exist
  --tarball FILE  write a reproducible tar.gz (default: build/hgrn2-server-VERSION-linux-ARCH.tar.gz)
  --model DIR     put this checkpoint into share/models; repeatable

The result needs a C library at least as new as this machine's (printed), and for CUDA the NVIDIA driver.
Needs patchelf.
TEXT
}

bin="$root/build/release/bin"
dir=""
tarball=""
models=()
while [[ $# -gt 0 ]]; do
  case "$1" in
    --help | -h) usage; exit 0 ;;
    --bin) bin="${2:?--bin needs a directory}"; shift 2 ;;
    --dir) dir="${2:?--dir needs a directory}"; shift 2 ;;
    --tarball) tarball="${2:?--tarball needs a file}"; shift 2 ;;
    --model) models+=("${2:?--model needs a directory}"); shift 2 ;;
    *) echo "unknown option: $1" >&2; usage >&2; exit 2 ;;
  esac
done
command -v patchelf >/dev/null || { echo "patchelf is not installed (apt-get install patchelf)" >&2; exit 1; }
for program in hgrn2-server hgrn2-client; do
  [[ -x "$bin/$program" ]] || { echo "$bin/$program: not found or not executable (--bin)" >&2; exit 1; }
done
[[ -z "$dir" || ! -e "$dir" ]] || { echo "$dir exists already" >&2; exit 1; }

version=$("$bin/hgrn2-server" --version | awk '{print $2}')
name="hgrn2-server-$version-linux-$(uname -m)"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
stage="$scratch/$name"
mkdir -p "$stage/bin" "$stage/lib" "$stage/share/models"

# The C library belongs to the kernel's loader and libcuda to the driver: both must be the host's own.
host_owned='^(ld-linux.*|libc|libm|libdl|libpthread|librt|libresolv|libnss_.*|libcuda|libnvidia-.*)\.so'

for program in hgrn2-server hgrn2-client; do
  install -m 755 "$bin/$program" "$stage/bin/$program"
  if missing=$(ldd "$bin/$program" | grep 'not found' | grep -v 'libcuda\.so'); then
    echo "$program lacks libraries on this machine:" >&2
    echo "$missing" >&2
    exit 1
  fi
  # Lines are "name => path (address)".
  ldd "$bin/$program" | awk '$2 == "=>" && $3 ~ /^\// {print $1, $3}'
done | sort -u | while read -r library path; do
  if [[ "$library" =~ $host_owned ]]; then continue; fi
  install -m 644 "$(readlink -f "$path")" "$stage/lib/$library"
done

strip --strip-unneeded "$stage"/bin/* "$stage"/lib/*  # before patchelf: afterwards it would break sections
# RPATH, not RUNPATH: it also counts for the libraries' own libraries, and LD_LIBRARY_PATH cannot break it.
# shellcheck disable=SC2016  # $ORIGIN is the loader's
for program in "$stage"/bin/*; do patchelf --force-rpath --set-rpath '$ORIGIN/../lib' "$program"; done
# shellcheck disable=SC2016
for library in "$stage"/lib/*; do patchelf --force-rpath --set-rpath '$ORIGIN' "$library"; done
for model in "${models[@]}"; do
  target="$stage/share/models/$(basename "$model")"
  mkdir -p "$target"
  install -m 644 "$model"/* "$target/"
done
install -m 644 "$root/deploy/hgrn2-server.service" "$stage/share/" 2>/dev/null || true

glibc=$(objdump -T "$stage"/bin/* "$stage"/lib/* 2>/dev/null | grep -o 'GLIBC_2\.[0-9]*' | sort -uV | tail -n 1 || true)
echo "$name: $(find "$stage/lib" -type f | wc -l) libraries, $(du -sm "$stage" | cut -f1) MB, needs ${glibc:-glibc}" >&2

if [[ -n "$dir" ]]; then
  mkdir -p "$(dirname "$dir")"
  chmod 755 "$stage"
  mv "$stage" "$dir"
  echo "$dir"
else
  tarball="${tarball:-$root/build/$name.tar.gz}"
  mkdir -p "$(dirname "$tarball")"
  # Same binaries, same archive.
  tar -C "$scratch" --sort=name --owner=0 --group=0 --numeric-owner --mode='u+rwX,go+rX,go-w' \
    --mtime="@${SOURCE_DATE_EPOCH:-0}" -cf - "$name" | gzip -n -6 >"$tarball"
  echo "$tarball"
fi
