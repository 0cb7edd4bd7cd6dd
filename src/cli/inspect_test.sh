#!/bin/sh
# `conclave inspect` on the golden files: what is in them is told, damage is named, and the exit code says which it was.
# inspect_test.sh CONCLAVE GOLDEN_DIRECTORY SCRATCH_DIRECTORY
set -eu
conclave=$1
golden=$2
scratch=$3

fail() {
  echo "inspect_test: $1" >&2
  exit 1
}
rm -rf "$scratch"
mkdir -p "$scratch/wal" "$scratch/snapshots"
for file in manifest-a manifest-b segment-00000001; do cp "$golden/$file" "$scratch/wal/$file"; done
snapshot=0000000000000001-0000000000000003-0000000000000002.snapshot
cp "$golden/$snapshot" "$scratch/snapshots/$snapshot"

"$conclave" inspect wal "$scratch" > "$scratch/table" || fail "a sound log was called damaged"
grep -q "server 3" "$scratch/table" || fail "the table does not name the server"
"$conclave" inspect wal "$scratch/wal" -o json > "$scratch/json" || fail "the log's own directory was refused"
grep -q '"damaged":false' "$scratch/json" || fail "the JSON does not say that it is sound"
grep -q '"last_index":"70"' "$scratch/json" || fail "the JSON does not show a group's last index"
"$conclave" inspect snapshot "$scratch" -o json > "$scratch/json" || fail "a sound snapshot was called damaged"
grep -q '"index":"3"' "$scratch/json" || fail "the JSON does not show the snapshot's index"
"$conclave" inspect snapshot "$scratch/snapshots/$snapshot" | grep -q good || fail "the snapshot file was not called good"

# Some bytes in the body of the first batch, and in the snapshot's block.
printf 'rotten' | dd of="$scratch/wal/segment-00000001" bs=1 seek=1200 conv=notrunc 2> /dev/null
printf 'rotten' | dd of="$scratch/snapshots/$snapshot" bs=1 seek=110 conv=notrunc 2> /dev/null
code=0
"$conclave" inspect wal "$scratch" > "$scratch/table" || code=$?
[ "$code" = 1 ] || fail "exit code $code for a damaged log"
grep -q "acknowledged and damaged" "$scratch/table" || fail "the damage was not named"
code=0
"$conclave" inspect snapshot "$scratch" > "$scratch/table" || code=$?
[ "$code" = 1 ] || fail "exit code $code for a damaged snapshot"
grep -q "block 0" "$scratch/table" || fail "the damaged block was not named"
code=0
"$conclave" inspect wal "$scratch/nothing" 2> /dev/null || code=$?
[ "$code" = 1 ] || fail "exit code $code where nothing is"
code=0
"$conclave" inspect 2> /dev/null || code=$?
[ "$code" = 64 ] || fail "exit code $code for a wrong command line"
