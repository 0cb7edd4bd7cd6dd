#!/bin/sh
# Wrong command lines are told apart from everything else (exit code 64), and a server that is not there gives 69.
# usage_test.sh CONCLAVE
set -eu
conclave=$1
unset CONCLAVE_ENDPOINTS

expect() {
  wanted=$1
  shift
  code=0
  "$conclave" "$@" > /dev/null 2>&1 < /dev/null || code=$?
  [ "$code" = "$wanted" ] || { echo "usage_test: conclave $*: exit code $code instead of $wanted" >&2; exit 1; }
}
expect 0 --help
expect 0 lock --help
expect 64
expect 64 nonsense
expect 64 kv
expect 64 kv put onlykey
expect 64 kv get
expect 64 kv get k --limit -1
expect 64 kv get k -o yaml
expect 64 kv get k --endpoints nowhere
expect 64 kv get k --endpoints https://127.0.0.1
expect 64 kv get k --endpoints https://127.0.0.1:1 --cacert /nowhere
expect 64 kv get k --endpoints https://127.0.0.1:1 --cert /nowhere
expect 69 kv get k --endpoints https://127.0.0.1:1
expect 64 kv get k --timeout 5
expect 64 kv put k v --lease xyz
expect 64 member
expect 64 member add
expect 64 member add n4
expect 64 member add n4=127.0.0.1:1,n5=127.0.0.1:2
expect 64 member rm
expect 64 member replace n1
expect 69 member ls --endpoints 127.0.0.1:1
expect 64 leader
expect 64 start --cluster xyz --join default=127.0.0.1:1
expect 64 start --cluster 12
expect 64 cert
expect 64 cert init --days 0
expect 64 cert issue
expect 64 cert issue n1
expect 64 cert issue n1 --peer --client
expect 64 cert issue a/b --peer
expect 74 cert issue n1 --peer --dir /nowhere
expect 64 lock
expect 64 lock ''
expect 64 lock name --ttl 1s
expect 64 lock name --ttl 25h
expect 64 lock name --ttl 10s --grace 5s
expect 64 lock name --grace 1ms
expect 64 lock name --try --wait 1s
expect 64 lock name -E 256
expect 64 status --nonsense
expect 64 bench
expect 64 bench kv --clients 0
expect 64 bench kv --workload nonsense
expect 64 bench lock --workload put
expect 64 bench kv --for 0s
# Port 1 is nobody's.
nobody=127.0.0.1:1
expect 69 kv put k v --endpoints $nobody
expect 69 kv get k --endpoints $nobody,$nobody
expect 69 lock name --endpoints $nobody -- true
expect 69 status --endpoints $nobody
expect 69 init --endpoints $nobody
