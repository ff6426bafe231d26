#!/usr/bin/env bash
# Formats of the Go sources; their types are checked by building them, which `devcluster up` does.
set -euo pipefail
cd "$(dirname "$0")/.."
unformatted=$(find devcluster -name '*.go' -print0 | xargs -0 -r gofmt -l)
[ -z "$unformatted" ] || { echo "gofmt would change: $unformatted" >&2; exit 1; }
