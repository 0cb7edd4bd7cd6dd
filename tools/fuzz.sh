#!/usr/bin/env bash
# Each fuzz target for a while (SECONDS_EACH, default 60), from its corpus. Findings stay in build/fuzz/.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${SECONDS_EACH:-60}
for target in build/fuzz/fuzz_*; do
  [ -f "$target" ] && [ -x "$target" ] || continue
  name=$(basename "$target")
  mkdir -p "build/fuzz/corpus/$name"
  echo "== $name"
  # No decoder takes memory for what an input only claims: one piece of this size is a finding.
  "$target" -max_total_time="$seconds" -malloc_limit_mb=64 -print_final_stats=0 -verbosity=0 -artifact_prefix="build/fuzz/$name-" \
    "build/fuzz/corpus/$name" "fuzz/corpus/$name"
done
echo "fuzz: nothing found"
