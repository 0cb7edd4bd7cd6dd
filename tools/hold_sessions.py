#!/usr/bin/python3
"""A million live sessions against three real servers on this machine: opened over a thousand streams, held and renewed.
Prints what bench_sessions says, and of each server its CPU share while they are held and its memory.

hold_sessions.py [--conclave BINARY] [--bench BINARY] [--streams N] [--sessions N] [--ttl S] [--seconds S]
"""
import argparse
import os
import pathlib
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/interop"))
import cluster  # noqa: E402  (the path is set above)


def resident(server):
    for line in pathlib.Path(f"/proc/{server.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    cluster.add_arguments(parser)
    parser.add_argument("--bench", default=str(ROOT / "build/release/bench_sessions"))
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--sessions", type=int, default=1000)
    parser.add_argument("--ttl", type=int, default=30)
    parser.add_argument("--seconds", type=int, default=180)
    options = parser.parse_args()
    count = options.streams * options.sessions
    with cluster.make(options, 3) as servers:
        empty = [resident(server) for server in servers.servers]
        process = subprocess.Popen(
            [options.bench, "--endpoints", ",".join(server.endpoint for server in servers.servers), "--streams",
             str(options.streams), "--sessions", str(options.sessions), "--ttl", str(options.ttl), "--seconds",
             str(options.seconds)], stdout=subprocess.PIPE, text=True, preexec_fn=cluster.end_with_parent)
        opened = process.stdout.readline()
        print(opened, end="", flush=True)
        begin, before = time.monotonic(), [server.cpu_seconds() for server in servers.servers]
        held = process.stdout.readline()
        took = time.monotonic() - begin
        for server, cpu, memory in zip(servers.servers, before, empty):
            share = (server.cpu_seconds() - cpu) / took
            print(f"{server.name}{' (leads)' if server == servers.leader() else ''}: {100 * share:.0f} % of a core while "
                  f"held, {(resident(server) - memory) / max(count, 1):.0f} bytes a session with its stream")
        print(held, end="")
        code = process.wait(timeout=60)
    print(f"on {os.cpu_count()} cores, with the clients")
    sys.exit(code)


if __name__ == "__main__":
    main()
