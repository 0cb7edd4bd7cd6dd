#!/bin/sh
# Runs every seed of a corpus file; each must be good. usage: corpus_test.sh PATH-OF-SIMULATE SUITE FILE
set -u
simulate=$1
suite=$2
file=$3
runs=0
while read -r seed seconds story; do
  case $seed in '#'* | '') continue ;; esac
  if ! "$simulate" "$suite" --seed "$seed" --seconds "$seconds"; then
    echo "failed again: seed $seed, once: $story"
    exit 1
  fi
  runs=$((runs + 1))
done <"$file"
[ "$runs" -gt 0 ] || { echo "$file holds no seed"; exit 1; }
