#!/usr/bin/env bash
# The same seeds must give the same digests whatever compiler and optimisation level built them.
set -euo pipefail
cd "$(dirname "$0")/.."
jobs=$(nproc)
declare -A result
for compiler in g++ clang++-19; do
  for level in O0 O2; do
    build=build/digests/$compiler-$level
    if [ $compiler-$level = g++-O2 ]; then
      build=build/release  # what is shipped
      cmake --preset release > /dev/null
    else
      cmake -S . -B "$build" -G Ninja -DCMAKE_CXX_COMPILER=$compiler -DCMAKE_C_COMPILER=gcc -DCMAKE_CXX_FLAGS="-$level" > /dev/null
    fi
    cmake --build "$build" -j "$jobs" --target simulate keyspace_digest > /dev/null
    lines=""
    for suite in world raft node; do
      lines+="$suite $("$build/simulate" $suite --seeds 1-10 --seconds 20 --jobs "$jobs" | grep -o 'digest[ :=]*[0-9a-f]\{8,\}' | tail -1)"$'\n'
    done
    lines+="keyspace $("$build/keyspace_digest" | tail -1)"$'\n'
    result[$compiler-$level]=$lines
    printf '%s -%s\n%s' "$compiler" "$level" "$lines"
  done
done
first=${result[g++-O0]}
grep -q 'node digest' <<< "$first" || { echo "digests: no digest was printed"; exit 1; }
for key in "${!result[@]}"; do
  [ "${result[$key]}" = "$first" ] || { echo "digests: $key differs from g++-O0"; exit 1; }
done
echo "digests: equal on ${#result[@]} builds"
