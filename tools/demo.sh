#!/usr/bin/env bash
# The main job in front of the reader: three servers on this machine, a lock that three workers want, the leader killed, the
# next write timed. Ends what it started, by its own process ids, and removes its directory.
set -euo pipefail
cd "$(dirname "$0")/.."
conclave=${CONCLAVE:-$PWD/build/release/conclave}
directory=$(mktemp -d)
declare -A pid
finish() {
  for name in "${!pid[@]}"; do kill "${pid[$name]}" 2> /dev/null || true; done
  wait 2> /dev/null || true
  rm -rf "$directory"
}
trap finish EXIT
say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
[ -t 1 ] || say() { printf '\n%s\n' "$*"; }
milliseconds() { echo $(($(date +%s%N) / 1000000)); }

read -r p1 p2 p3 c1 c2 c3 <<< "$(/usr/bin/python3 -c '
import socket
sockets = [socket.socket() for _ in range(6)]
for each in sockets: each.bind(("127.0.0.1", 0))
print(*[each.getsockname()[1] for each in sockets])')"
declare -A client=([n1]=$c1 [n2]=$c2 [n3]=$c3)
join=n1=127.0.0.1:$p1,n2=127.0.0.1:$p2,n3=127.0.0.1:$p3
export CONCLAVE_ENDPOINTS=127.0.0.1:$c1,127.0.0.1:$c2,127.0.0.1:$c3

start() {
  "$conclave" start --name "$1" --join "$join" --data "$directory/$1" --client-listen "127.0.0.1:${client[$1]}" \
    > "$directory/$1.out" 2>> "$directory/$1.log" &
  pid[$1]=$!
  for _ in $(seq 200); do grep -qs ready "$directory/$1.out" && return; sleep 0.05; done
  echo "$1 did not start:"; cat "$directory/$1.log"; exit 1
}
leader() {
  "$conclave" status -o json 2> /dev/null |
    /usr/bin/python3 -c 'import json, sys
for line in json.load(sys.stdin)["servers"]:
    if line.get("role") == "leader": print(line["name"])'
}

say "Three servers, each with its own disk and sockets; then one init."
for name in n1 n2 n3; do start "$name"; cat "$directory/$name.out"; done
"$conclave" init
"$conclave" status

say "Three workers want the lock 'backup'. One holds it at a time; each grant's token is greater than the last."
worker='echo "  $1 holds backup, token $CONCLAVE_TOKEN"; sleep 0.4; echo "  $1 is done"'
workers=()
for each in ann bob cem; do
  "$conclave" lock backup --wait 30s -- sh -c "$worker" worker "$each" &
  workers+=($!)
done
for each in "${workers[@]}"; do wait "$each"; done

say "The leader is killed (kill -9) while somebody holds the lock."
"$conclave" lock backup -- sh -c 'echo "  dan holds backup, token $CONCLAVE_TOKEN"; sleep 2; echo "  dan still held it all along"' &
holder=$!
sleep 0.5
victim=$(leader)
[ -n "$victim" ] || { echo "there is no leader"; exit 1; }
others=$(for name in n1 n2 n3; do [ "$name" = "$victim" ] || echo "127.0.0.1:${client[$name]}"; done | paste -sd,)
began=$(milliseconds)
kill -9 "${pid[$victim]}"
"$conclave" kv put after-the-kill yes --endpoints "$others" > "$directory/put"
echo "  $victim, the leader, is gone; the next write was acknowledged $(($(milliseconds) - began)) ms later ($(cat "$directory/put"))"
wait "${pid[$victim]}" 2> /dev/null || true
wait "$holder"
"$conclave" status || true

say "It comes back, and catches up."
start "$victim"
for _ in $(seq 100); do "$conclave" kv get after-the-kill --endpoints "127.0.0.1:${client[$victim]}" > /dev/null 2>&1 && break; sleep 0.05; done
"$conclave" kv get after-the-kill --endpoints "127.0.0.1:${client[$victim]}"
"$conclave" status

say "To go on: README.md; 'build/release/conclave --help'; the same code in a simulated world: 'build/release/simulate --seeds 1-20'."
