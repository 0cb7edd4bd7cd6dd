# The front door. Each target does its own set-up first; a target that builds uses the preset named in docs/internals/testing.md.
SHELL := /bin/bash
JOBS ?= $(shell nproc)
FOR ?= 45m
SEEDS ?= 1-60
SECONDS_SIMULATED ?= 60

ROUNDS ?= 5
REQUESTS ?= 200000
SEED ?= 1

.PHONY: help setup build test interop demo compare hostile sim soak bench fuzz asan tsan tidy format planted digests differential clean

help:
	@sed -n 's/^## //p' Makefile

## make setup     install what is missing (packages by apt); does nothing where nothing is
setup:
	@tools/setup.sh

build/%/build.ninja: CMakePresets.json | setup
	cmake --preset $*

## make build     the release preset; binaries in build/release/
build: setup
	cmake --preset release > /dev/null
	cmake --build build/release -j $(JOBS)

## make test      every test that belongs in a check-in
test: build
	cd build/release && ctest --output-on-failure -j $(JOBS)

## make interop   other people's clients against real servers; part of make test
interop: build
	cd build/release && ctest --output-on-failure -j $(JOBS) -L interop

## make demo      the main job in front of you: three servers, a lock, a leader killed
demo: build
	@tools/demo.sh

## make compare   beside Debian's etcd on this machine: make compare ROUNDS=5; writes build/compare.json
compare: build
	@tools/compare.py --rounds $(ROUNDS)

## make hostile   attacks on a real server, and what they cost who does nothing wrong: medians of nine rounds beside a quiet side
hostile: build
	@tests/hostile/hostile.py --rounds 9 --json

## make sim       simulated seeds: make sim SEEDS=1-300 SECONDS_SIMULATED=120
sim: build
	build/release/simulate --seeds $(SEEDS) --seconds $(SECONDS_SIMULATED) --jobs $(JOBS)
	build/release/simulate primitives --seeds $(SEEDS) --seconds $(SECONDS_SIMULATED) --jobs $(JOBS)

## make soak      a million damaged logs, tens of millions of keyspace steps, then fresh seeds: make soak FOR=45m
soak: build
	@seed=$$(date +%s); echo "wal_damage_test: CONCLAVE_WAL_SEED=$$seed"; \
	  CONCLAVE_WAL_DAMAGES=1000000 CONCLAVE_WAL_SEED=$$seed build/release/wal_damage_test --gtest_brief=1
	CONCLAVE_KEYSPACE_STEPS=5000000 build/release/keyspace_model_test --gtest_brief=1
	@tools/soak.py --for $(FOR) --jobs $(JOBS)

## make bench     every benchmark, as tables
bench: build
	@tools/bench.sh

## make fuzz      each fuzz target for 60 s
fuzz: setup
	cmake --preset fuzz > /dev/null
	cmake --build build/fuzz -j $(JOBS) --target fuzzers
	@tools/fuzz.sh

## make asan tsan the tests under address and undefined, and under thread sanitizer
asan tsan: setup
	cmake --preset $@ > /dev/null
	cmake --build build/$@ -j $(JOBS)
	cd build/$@ && CONCLAVE_KEYSPACE_STEPS=50000 CONCLAVE_WAL_DAMAGES=2000 CONCLAVE_NODE_CRASH_STRIDE=10 ctest --output-on-failure -j $(JOBS)

## make tidy      clang-tidy over what changed since BASE (default: everything)
tidy: setup
	cmake --preset tidy > /dev/null
	@tools/tidy.sh $(BASE)

## make format    clang-format in place
format: setup
	@git ls-files '*.cc' '*.h' | xargs clang-format-19 -i

## make planted   plants each known bug in a copy of the tree; each must be found
planted: setup
	@tools/planted.py --jobs $(JOBS)

## make digests   the same digests by g++ and clang, -O0 and -O2
digests: setup
	@tools/digests.sh

## make differential  200,000 random requests over gRPC, and as JSON, to us and to Debian's etcd: REQUESTS=200000 SEED=1
differential: build
	@for over in grpc json; do \
	  tests/differential/differential.py --conclave build/release/conclave --driver build/release/differential \
	    --over $$over --requests $(REQUESTS) --seed $(SEED) || exit; done

clean:
	rm -rf build
