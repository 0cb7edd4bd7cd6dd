#!/bin/sh
# The simulator's command line: exit codes, and that a failure can be shrunk to a file and replayed from it.
# usage: simulate_test.sh PATH-OF-SIMULATE SCRATCH-DIRECTORY
set -u
simulate=$1
scratch=$2/simulate_test.$$
mkdir -p "$scratch" || exit 1
trap 'rm -rf "$scratch"' EXIT

expect() {
  wanted=$1
  shift
  "$@" >"$scratch/out" 2>"$scratch/err"
  got=$?
  if [ "$got" -ne "$wanted" ]; then
    echo "exit code $got, not $wanted: $*"
    cat "$scratch/out" "$scratch/err"
    exit 1
  fi
}
says() {
  if ! grep -q -- "$1" "$scratch/out"; then
    echo "does not say '$1':"
    cat "$scratch/out"
    exit 1
  fi
}

expect 0 "$simulate" --list
says canary
expect 1 "$simulate" nonesuch
expect 1 "$simulate" world --seeds 5-1
expect 1 "$simulate" world --seconds nothing
expect 1 "$simulate" canary --replay "$scratch/absent"
expect 0 "$simulate" world --seeds 1-4 --seconds 10 --jobs 2 --twice
expect 0 "$simulate" world --seed 1 --seconds 5
expect 5 "$simulate" world --seeds 1-1 --seconds 1 --coverage
expect 2 "$simulate" canary --seeds 1-2 --seconds 10 --json
says 'FAILED: safety violation'
says 'commit '
says '--seed 1 --seconds 10'
says 'violated: node '
tail -n 1 "$scratch/out" | grep -q '^{.*"failed":2.*}$' || { echo "the last line is no object"; exit 1; }
expect 2 "$simulate" canary --seed 1 --seconds 10 --shrink --out "$scratch/decisions"
expect 2 "$simulate" canary --replay "$scratch/decisions"
lines=$(grep -c '^[a-z.-]* [0-9]* [0-9]* ' "$scratch/decisions")
if [ "$lines" -ne 1 ]; then
  echo "one loss of power is enough, not $lines decisions:"
  cat "$scratch/decisions"
  exit 1
fi
