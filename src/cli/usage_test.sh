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
# Plaintext beyond loopback, of either port, only where it was said.
expect 64 start --data /nowhere --client-listen 0.0.0.0:0
expect 64 start --data /nowhere --peer-listen 0.0.0.0:0
expect 64 start --data /nowhere --join default=192.0.2.1:1
expect 74 start --data /proc/nowhere --client-listen 0.0.0.0:0 --insecure-plaintext
expect 64 start --cluster xyz --join default=127.0.0.1:1
expect 64 start --cluster 12
expect 64 start --data /nowhere --etcd-version latest
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
expect 69 settings --endpoints $nobody
expect 64 setting
expect 64 setting clock-lease-reads
expect 64 setting clock-lease-reads maybe
expect 69 setting clock-lease-reads on --endpoints $nobody
expect 64 start --log-format yaml
expect 64 start --log-level much
expect 64 setting quota
expect 64 setting quota lots
expect 69 setting quota 4GiB --endpoints $nobody

# Configuration: what cannot be is refused before anything is begun; a server starts on a file alone.
work=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2> /dev/null || true; rm -rf "$work"' EXIT
# Certificates: keys are their owner's alone, and nothing that is there is replaced unless it is said.
expect 0 cert init --dir "$work/tls"
expect 0 cert issue n1 --host 127.0.0.1 --dir "$work/tls"
expect 0 cert issue n1 --peer --dir "$work/tls"
expect 0 cert issue me --client --dir "$work/tls"
for key in ca server-n1 peer-n1 client-me; do
  [ "$(stat -c %a "$work/tls/$key.key")" = 600 ] || { echo "usage_test: $key.key is readable by others" >&2; exit 1; }
  [ -s "$work/tls/$key.pem" ] || { echo "usage_test: no $key.pem" >&2; exit 1; }
done
before=$(cat "$work/tls/ca.pem" "$work/tls/server-n1.pem")
expect 1 cert init --dir "$work/tls"
expect 1 cert issue n1 --host 127.0.0.1 --dir "$work/tls"
[ "$before" = "$(cat "$work/tls/ca.pem" "$work/tls/server-n1.pem")" ] || { echo "usage_test: replaced" >&2; exit 1; }
expect 0 cert issue n1 --host 127.0.0.1 --dir "$work/tls" --force
echo 'client_lisen = "127.0.0.1:0"' > "$work/wrong.toml"
expect 64 start --config "$work/wrong.toml"
expect 64 start --config "$work/nowhere.toml"
expect 64 config show --config "$work/wrong.toml"
cat > "$work/server.toml" << END
name = "one"
data = "$work/data"
client_listen = "127.0.0.1:0"
peer_listen = "127.0.0.1:0"
history_age = "5m"
etcd_version = "3.5.9"
END
shown=$(CONCLAVE_NAME=two "$conclave" config show --config "$work/server.toml" --history-mib 7)
for line in 'name +two +CONCLAVE_NAME' "client_listen +127.0.0.1:0 +$work/server.toml:3" 'history_mib +7 +--history-mib'; do
  echo "$shown" | grep -Eq "$line" || { echo "usage_test: config show has no line '$line': $shown" >&2; exit 1; }
done
CONCLAVE_CONFIG="$work/server.toml" "$conclave" start > "$work/out" 2> "$work/err" &
server=$!
waited=0
until grep -q '^ready .* name=one ' "$work/out"; do
  waited=$((waited + 1))
  [ $waited -lt 300 ] || { echo "usage_test: no server by its file: $(cat "$work/err")" >&2; exit 1; }
  sleep 0.1
done
endpoint=$(sed -n 's/^ready client=\([^ ]*\) .*/\1/p' "$work/out")
expect 0 setting clock-lease-reads on --endpoints "$endpoint"
"$conclave" settings -o json --endpoints "$endpoint" | grep -q '"clock_lease_reads":true'
expect 0 setting clock-lease-reads off --endpoints "$endpoint"
expect 0 setting quota 3GiB --endpoints "$endpoint"
"$conclave" settings --endpoints "$endpoint" | grep -q '^quota *3GiB '
"$conclave" settings -o json --endpoints "$endpoint" | grep -q '"quota_bytes":"3221225472"'
"$conclave" status -o json --endpoints "$endpoint" | grep -q '"version":"3.5.9"'
expect 64 setting quota 1000 --endpoints "$endpoint"
expect 0 setting quota 0 --endpoints "$endpoint"
"$conclave" settings --endpoints "$endpoint" | grep -q '^quota *off '
kill "$server"
wait "$server"
server=
