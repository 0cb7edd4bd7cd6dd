#!/usr/bin/env bash
# Every benchmark that was built, as tables; each ends with one line of JSON.
set -euo pipefail
cd "$(dirname "$0")/.."
for bench in build/release/bench_*; do
  [ -x "$bench" ] || continue
  echo "== $(basename "$bench")"
  "$bench" --json
done
