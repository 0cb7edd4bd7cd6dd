#!/usr/bin/env bash
# The README's five minutes: three servers on free ports, each command shown there, and the end.
set -euo pipefail
cd "$(dirname "$0")/.."
conclave=${CONCLAVE:-build/release/conclave}
directory=$(mktemp -d)
pids=()
finish() {
  for pid in "${pids[@]}"; do kill "$pid" 2> /dev/null || true; done
  wait
  rm -rf "$directory"
}
trap finish EXIT
free_ports() {
  /usr/bin/python3 -c '
import socket
sockets = [socket.socket() for _ in range(6)]
for each in sockets: each.bind(("127.0.0.1", 0))
print(*[each.getsockname()[1] for each in sockets])'
}
read -r p1 p2 p3 c1 c2 c3 <<< "$(free_ports)"
clients=("$c1" "$c2" "$c3")
join=n1=127.0.0.1:$p1,n2=127.0.0.1:$p2,n3=127.0.0.1:$p3
for i in 1 2 3; do
  "$conclave" start --name "n$i" --join "$join" --data "$directory/d$i" --client-listen "127.0.0.1:${clients[i - 1]}" \
    > "$directory/out$i" 2> "$directory/err$i" &
  pids+=($!)
done
for i in 1 2 3; do
  for _ in $(seq 100); do grep -q ready "$directory/out$i" && break; sleep 0.1; done
  grep ready "$directory/out$i"
done
export CONCLAVE_ENDPOINTS=127.0.0.1:$c1,127.0.0.1:$c2,127.0.0.1:$c3
set -x
"$conclave" init
"$conclave" status
"$conclave" kv put greeting hello
"$conclave" kv get greeting
"$conclave" lock backup -- sh -c 'echo holding backup, token $CONCLAVE_TOKEN'
