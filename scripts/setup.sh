#!/usr/bin/env bash
# Makes .venv from requirements.lock: every package pinned and hash-checked, the project itself editable.
set -euo pipefail
cd "$(dirname "$0")/.."

fits() { "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }
python=
for candidate in python3 python3.11 python3.12 python3.13; do
  if fits "$candidate"; then python=$candidate; break; fi
done
if [ -z "$python" ]; then
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "setup: Python 3.11 or newer with venv is needed and was not found; install python3 and python3-venv" >&2
    exit 1
  fi
  echo "setup: installing python3 and python3-venv"
  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3 python3-venv >/dev/null
  python=python3
fi

new=$([ -x .venv/bin/python ] || echo " (about 6 GB: this takes minutes)")
echo "setup: .venv with $("$python" --version) and requirements.lock$new"
[ -x .venv/bin/python ] || "$python" -m venv .venv
.venv/bin/python -m pip install -q --disable-pip-version-check "uv==${UV_VERSION:?}"
export VIRTUAL_ENV=$PWD/.venv
.venv/bin/uv pip install -q --no-deps --require-hashes -r requirements.lock # the lock is complete: nothing is left to resolve
.venv/bin/uv pip install -q --no-deps --no-build-isolation -e . # compiles the kernels with what the lock has
echo "setup: done"
