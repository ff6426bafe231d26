#!/usr/bin/env bash
# Formats of the Go sources; their types are checked by building them, which `devcluster up` does.
set -euo pipefail
cd "$(dirname "$0")/.."
go=$(.venv/bin/python -c 'from devcluster.cluster import default_home; from devcluster.programs import go_toolchain
print(go_toolchain(default_home(), say=lambda _: None))')
unformatted=$(find devcluster -name '*.go' -print0 | xargs -0 -r "$(cd / && "$go" env GOROOT)/bin/gofmt" -l)
[ -z "$unformatted" ] || { echo "gofmt would change: $unformatted" >&2; exit 1; }
