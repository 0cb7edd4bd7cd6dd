#!/usr/bin/env bash
# There is no server yet: what is proven so far is shown instead, consensus in a world of broken disks and networks.
set -euo pipefail
cd "$(dirname "$0")/.."
cat <<'TEXT'
Conclave has no server yet. What stands is shown by the simulator: servers of the real consensus core, on simulated disks
that tear, rot and lie and a network that loses, repeats and delays, with clients whose histories are checked.
TEXT
build/release/simulate raft --seeds 1-20 --seconds 60 --jobs "$(nproc)"
cat <<'TEXT'
Go on: `build/release/simulate raft --seed 7 --verbose` tells one run; docs/internals/testing.md explains the rest.
TEXT
