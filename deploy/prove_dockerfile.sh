#!/usr/bin/env bash
# Runs the Dockerfile's CPU stages without a container engine: every RUN of the stages cpu-packages and
# cpu-build in a debootstrap chroot, then the runtime stage in a second, bare one: the image's user, a
# read-only root, HEALTHCHECK, a completion, drain on SIGTERM. Takes minutes: not part of the tests.
# Needs root, debootstrap and Debian's archive. With CCACHE_DIR set, the chroot's compiler uses that cache.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

if [[ "${1:-}" == "--help" ]]; then
  echo "usage: deploy/prove_dockerfile.sh [WORK_DIRECTORY]   (default: build/prove_dockerfile; kept between runs)"
  exit 0
fi
work=$(realpath -m "${1:-$root/build/prove_dockerfile}")
[[ $EUID -eq 0 ]] || { echo "needs root, for chroot" >&2; exit 1; }
command -v debootstrap >/dev/null || { echo "debootstrap is not installed" >&2; exit 1; }
mkdir -p "$work"
builder="$work/builder"
runtime="$work/runtime"
mounts=()
server=
cleanup() {
  if [[ -n "$server" ]]; then kill -KILL "$server" 2>/dev/null || true; fi
  for m in "${mounts[@]}"; do umount -l "$m" 2>/dev/null || true; done
}
trap cleanup EXIT
bind() { mkdir -p "$2"; mount --bind "$1" "$2"; mounts=("$2" "${mounts[@]}"); }

# The parts of a RUN instruction of a stage, as one shell text each, separated by NUL.
stage_commands() {
  awk -v stage="$1" '
    /^FROM / { on = ($NF == stage) }
    !on { next }
    run { text = text "\n" $0 }
    /^RUN / { run = 1; text = substr($0, 5) }
    run && !/\\$/ { printf "%s%c", text, 0; run = 0 }' "$root/Dockerfile"
}

copy_context() {  # what .dockerignore lets through
  local entries=()
  while read -r line; do [[ "$line" == '!'* && -e "$root/${line#!}" ]] && entries+=("${line#!}"); done <"$root/.dockerignore"
  tar -C "$root" -cf - "${entries[@]}" | tar -C "$1" -xf -
}

run_stage() {  # STAGE CHROOT
  local count=0
  while IFS= read -r -d '' command; do
    echo "== $1: $command"
    chroot "$2" /usr/bin/env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root \
      "${cache[@]}" CMAKE_BUILD_PARALLEL_LEVEL="${CMAKE_BUILD_PARALLEL_LEVEL:-$(nproc)}" \
      /bin/bash -euo pipefail -c "cd /src && $command" </dev/null
    count=$((count + 1))
  done < <(stage_commands "$1")
  [[ $count -gt 0 ]] || { echo "the Dockerfile has no RUN in stage $1" >&2; exit 1; }
}

if [[ ! -x "$builder/bin/bash" ]]; then
  debootstrap --variant=minbase bookworm "$builder" >"$work/debootstrap.log"
  cp -a "$builder" "$runtime"
fi
for file in resolv.conf apt/apt.conf.d apt/sources.list apt/sources.list.d ssl/certs; do
  if [[ -e "/etc/$file" ]]; then mkdir -p "$builder/etc/$(dirname "$file")"; cp -rL "/etc/$file" "$builder/etc/$(dirname "$file")/"; fi
done
bind /proc "$builder/proc"
bind /dev "$builder/dev"
cache=()
if [[ -n "${CCACHE_DIR:-}" ]]; then
  bind "$CCACHE_DIR" "$builder/root/.cache/ccache"
  # Paths relative to the sources: what was compiled in another checkout is found.
  cache=(CCACHE_BASEDIR=/src CCACHE_NOHASHDIR=1 "CCACHE_MAXSIZE=$(ccache -k max_size)")
fi

mkdir -p "$builder/src/tools"
cp "$root/tools/install_packages.sh" "$builder/src/tools/"
run_stage cpu-packages "$builder"
rm -rf "$builder/src" "$builder/opt/hgrn2"
mkdir -p "$builder/src"
copy_context "$builder/src"
run_stage cpu-build "$builder"

echo "== cpu: COPY /opt/hgrn2, then as user 65532 on a read-only root"
rm -rf "$runtime/opt/hgrn2"
cp -a "$builder/opt/hgrn2" "$runtime/opt/hgrn2"
mount --bind "$runtime" "$runtime" && mounts=("$runtime" "${mounts[@]}")
mount -o remount,bind,ro "$runtime"
bind /proc "$runtime/proc"  # after the root: the loader finds $ORIGIN through it
# No function: $! must be the server, not a shell that waits for it.
in_image=(chroot --userspec=65532:65532 "$runtime" /usr/bin/env -i PATH=/opt/hgrn2/bin:/usr/bin:/bin HGRN2_LOG_FORMAT=json
  HGRN2_MODEL=/opt/hgrn2/share/models/hgrn2-gutenberg-12m)
"${in_image[@]}" /opt/hgrn2/bin/hgrn2-server --host 127.0.0.1 --grpc-port 50059 --http-port 8059 2>"$work/server.log" &
server=$!
healthy=0
for _ in $(seq 120); do
  if "${in_image[@]}" /opt/hgrn2/bin/hgrn2-client health --target 127.0.0.1:50059 >/dev/null 2>&1; then healthy=1; break; fi
  kill -0 "$server" 2>/dev/null || break
  sleep 0.5
done
[[ $healthy -eq 1 ]] || { cat "$work/server.log" >&2; echo "HEALTHCHECK did not pass" >&2; exit 1; }
"${in_image[@]}" /opt/hgrn2/bin/hgrn2-client complete --target 127.0.0.1:50059 --temperature 0 --max-tokens 12 "Once upon a time"
kill -TERM "$server"
status=0
wait "$server" || status=$?
server=
[[ $status -eq 0 ]] || { cat "$work/server.log" >&2; echo "the server's exit status is $status" >&2; exit 1; }
echo "== the server drained and exited 0"
echo "== image size: $(du -xsm "$runtime" | cut -f1) MB, of which /opt/hgrn2 $(du -sm "$runtime/opt/hgrn2" | cut -f1) MB"
echo "PROVED: stages cpu-packages, cpu-build and cpu of the Dockerfile"
