#!/usr/bin/env bash
# run_in_venv.sh VENV SCRIPT [ARGUMENT...]: runs a Python script with the packages of requirements.txt (or $REQUIREMENTS), which
# are installed into VENV once. Exit status 77 (skipped) where they cannot be had.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
requirements="${REQUIREMENTS:-$here/requirements.txt}"
venv="$1"
shift
stamp="$venv/requirements.txt"

skip() {
  echo "SKIPPED: $1" >&2
  exit 77
}

mkdir -p "$(dirname "$venv")"
exec 9>"$venv.lock"
flock 9  # tests may start at the same time
if ! cmp -s "$requirements" "$stamp"; then
  python3 -m venv "$venv" >"$venv.log" 2>&1 || skip "no Python virtual environment ($(tail -n 1 "$venv.log")); apt-get install python3-venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$requirements" >"$venv.log" 2>&1 ||
    skip "packages of $requirements cannot be installed from PyPI: $(tail -n 1 "$venv.log")"
  cp "$requirements" "$stamp"
fi
exec 9>&-
exec "$venv/bin/python3" "$@"
