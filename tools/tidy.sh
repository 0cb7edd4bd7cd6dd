#!/usr/bin/env bash
# clang-tidy over the sources that changed since BASE (a commit), or over all of them. The tidy preset must be configured.
set -euo pipefail
cd "$(dirname "$0")/.."
base=${1:-}
if [ -n "$base" ]; then
  files=$(git diff --name-only --diff-filter=d "$base" -- '*.cc'; git ls-files --others --exclude-standard -- '*.cc')
else
  files=$(git ls-files -co --exclude-standard -- '*.cc')
fi
known=$(python3 -c '
import json, os
for entry in json.load(open("build/tidy/compile_commands.json")):
    print(os.path.relpath(entry["file"]))' | sort -u)
files=$(sort -u <<< "$files" | grep -Fxf <(echo "$known") || true)
[ -n "$files" ] || { echo "tidy: nothing to check"; exit 0; }
# Generated sources must exist before their users are parsed.
for target in conclave_proto bench_grpc_proto interop_grpc_services; do
  if grep -q "^build $target:" build/tidy/build.ninja; then cmake --build build/tidy --target $target > /dev/null; fi
done
echo "$files" | xargs -P "$(nproc)" -n 4 clang-tidy-19 --quiet -p build/tidy 2> >(grep -v 'warnings generated\|Suppressed\|Use -header-filter' >&2 || true)
echo "tidy: $(wc -l <<< "$files") files clean"
