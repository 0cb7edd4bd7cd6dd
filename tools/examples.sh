#!/usr/bin/env bash
# The examples of docs/client.md against a server of their own: each runs, and ends with its server.
set -euo pipefail
cd "$(dirname "$0")/.."
conclave=${CONCLAVE:-build/release/conclave}
examples=${EXAMPLES:-build/client/examples}
directory=$(mktemp -d)
server=
finish() {
  if [ -n "$server" ]; then kill "$server" 2> /dev/null || true; fi
  wait
  rm -rf "$directory"
}
trap finish EXIT
read -r client peer <<< "$(/usr/bin/python3 -c '
import socket
sockets = [socket.socket() for _ in range(2)]
for each in sockets: each.bind(("127.0.0.1", 0))
print(*[each.getsockname()[1] for each in sockets])')"
"$conclave" start --name n1 --data "$directory/data" --client-listen "127.0.0.1:$client" --peer-listen "127.0.0.1:$peer" \
  > "$directory/out" 2> "$directory/err" &
server=$!
for _ in $(seq 100); do grep -q ready "$directory/out" && break; sleep 0.1; done
grep ready "$directory/out"
servers=127.0.0.1:$client
set -x
"$examples/session" "$servers"
"$examples/lock" "$servers" 3
echo | "$examples/election" "$servers" chief 1
echo | "$examples/fencing_writer" "$servers" file "$directory/report" "written once"
sqlite3 "$directory/report.db" < examples/fencing/row.sql
echo | "$examples/fencing_writer" "$servers" sql "$directory/report.db" "written once"
sqlite3 "$directory/report.db" "SELECT token > 0, text FROM report"
