#!/usr/bin/python3
"""Conclave beside Debian's etcd on this machine: three servers each on loopback, real disks, real syncs.

Rounds alternate (A B, B A, ...); each round starts both systems anew, one at a time, and runs every workload with the same
load generator, `conclave bench`. What counts is the median over the rounds of the ratio within a round, so that what else
the machine does hits both. CPU is user and system time of the three servers, per operation.

Ends with 1 if a workload is slower than etcd. Writes build/compare.json: {"workloads": [{"name", "unit", "conclave", "etcd", "zookeeper", "ratio_etcd", "ratio_zookeeper"}]};
a ratio above 1 means that Conclave is better. ZooKeeper is not measured yet: null.
"""
import argparse
import json
import pathlib
import shutil
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "interop"))
import cluster as clusters  # noqa: E402

# name, unit, arguments of the bench, figure taken, whether higher is better, whether CPU per operation is told too. The
# locks of sessions are Conclave's own: etcd's side of those rows is the same work by its v3lock service, a call each for
# the lock and the unlock, with a lease that is granted before.
WORKLOADS = [
    ("put, 1 client, p50", "ms", ["kv", "--workload", "put", "--clients", "1", "--connections", "1"], "p50_ms", False, False),
    ("put, 16 clients", "ops/s", ["kv", "--workload", "put", "--clients", "16", "--connections", "16"], "ops_per_s", True, True),
    ("put, 256 clients on 64 connections", "ops/s", ["kv", "--workload", "put", "--clients", "256", "--connections", "64"],
     "ops_per_s", True, True),
    ("put, 256 clients on 8 connections", "ops/s", ["kv", "--workload", "put", "--clients", "256", "--connections", "8"],
     "ops_per_s", True, True),
    ("linearizable get, 256 clients", "ops/s", ["kv", "--workload", "get", "--clients", "256", "--connections", "64"],
     "ops_per_s", True, True),
    ("lease grant and put under it, 64 clients", "ops/s",
     ["kv", "--workload", "lease", "--clients", "64", "--connections", "16"], "ops_per_s", True, True),
    ("v3lock, own lock each, 64 clients", "ops/s", ["lock", "--workload", "own", "--clients", "64", "--connections", "16"],
     "ops_per_s", True, True),
    ("v3lock, one lock, 64 waiters", "hand-overs/s",
     ["lock", "--workload", "contended", "--clients", "64", "--connections", "16"], "ops_per_s", True, True),
    ("sessions (etcd: v3lock), own lock each, 64 clients", "ops/s",
     {"conclave": ["locks", "--workload", "own", "--clients", "64", "--connections", "16"],
      "etcd": ["lock", "--workload", "own", "--clients", "64", "--connections", "16"]}, "ops_per_s", True, True),
    ("sessions (etcd: v3lock), one lock, 64 waiters", "hand-overs/s",
     {"conclave": ["locks", "--workload", "contended", "--clients", "64", "--connections", "16"],
      "etcd": ["lock", "--workload", "contended", "--clients", "64", "--connections", "16"]}, "ops_per_s", True, True),
    ("watch, 1000 watchers, last delivery p50", "ms", ["watch", "--watchers", "1000"], "p50_ms", False, False),
]
FAILOVER = "leader kill -9 to the next write, median"


def bench(binary, endpoints, arguments, seconds):
    command = [str(binary), "bench", *arguments, "--endpoints", endpoints, "--for", f"{seconds}s", "--json"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=seconds * 10 + 120, check=False)
    lines = result.stdout.strip().splitlines()
    if result.returncode != 0 or not lines:
        raise RuntimeError(f"{' '.join(command)}: {result.returncode}: {result.stdout[-500:]}{result.stderr[-500:]}")
    return json.loads(lines[-1])


def kill_leaders(binary, cluster, kills):
    """Milliseconds from kill -9 of the leader to the end of the gap in a stream of writes, for each kill."""
    gaps = []
    for _ in range(kills):
        leader = clusters.wait_until("a leader", cluster.leader, 60)
        endpoints = ",".join(s.endpoint for s in cluster.servers if s is not leader)
        writer = subprocess.Popen([str(binary), "bench", "failover", "--endpoints", endpoints, "--connections", "4", "--for",
                                   "4s", "--timeout", "5s", "--json"], stdout=subprocess.PIPE, text=True)
        time.sleep(1.5)  # it writes by now, and for some seconds more
        leader.kill()
        out, _ = writer.communicate(timeout=120)
        gaps.append(json.loads(out.strip().splitlines()[-1])["max_ms"])
        leader.start()
        cluster.wait_healthy()
    return gaps


def run_system(system, options, chosen):
    """Name -> figure, and name + ' CPU' -> microseconds an operation."""
    binary = options.conclave if system == "conclave" else options.etcd
    directory = ROOT / "build" / "compare" / system
    figures = {}
    with clusters.Cluster(system, 3, binary, directory=directory) as cluster:
        endpoints = ",".join(server.endpoint for server in cluster.servers)
        for name, _, arguments, figure, _, with_cpu in chosen:
            before = sum(server.cpu_seconds() for server in cluster.servers)
            chosen_arguments = arguments[system] if isinstance(arguments, dict) else arguments
            result = bench(options.conclave, endpoints, chosen_arguments, options.seconds)
            used = sum(server.cpu_seconds() for server in cluster.servers) - before
            figures[name] = result[figure]
            if with_cpu:
                # The generator warms up for a tenth of the time, which the servers work for, too.
                operations = result["ops_per_s"] * options.seconds * 1.1
                figures[name + ", server CPU"] = used / operations * 1e6
        if options.kills and (options.only is None or options.only in FAILOVER):
            figures[FAILOVER] = statistics.median(kill_leaders(options.conclave, cluster, options.kills))
    shutil.rmtree(directory, ignore_errors=True)
    return figures


def units(chosen):
    for name, unit, _, _, higher, with_cpu in chosen:
        yield name, unit, higher
        if with_cpu:
            yield name + ", server CPU", "us/op", False
    yield FAILOVER, "ms", False


def summary(rounds, chosen):
    workloads = []
    for name, unit, higher in units(chosen):
        ours = [each["conclave"][name] for each in rounds if name in each["conclave"]]
        theirs = [each["etcd"][name] for each in rounds if name in each["etcd"]]
        if not ours:
            continue
        ratios = [a / b if higher else b / a for a, b in zip(ours, theirs)]
        workloads.append({"name": name, "unit": unit, "conclave": statistics.median(ours), "etcd": statistics.median(theirs),
                          "zookeeper": None, "ratio_etcd": statistics.median(ratios), "ratio_zookeeper": None})
    return workloads


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--conclave", default=ROOT / "build" / "release" / "conclave", type=pathlib.Path)
    # Installed, or as tools/setup.sh unpacks it.
    parser.add_argument("--etcd", default=shutil.which("etcd") or ROOT / "build" / "etcd" / "usr" / "bin" / "etcd")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5, help="of each workload")
    parser.add_argument("--kills", type=int, default=3, help="of the leader, in each round")
    parser.add_argument("--only", help="workloads whose name has this in it")
    parser.add_argument("--out", default=ROOT / "build" / "compare.json", type=pathlib.Path)
    options = parser.parse_args()
    chosen = [each for each in WORKLOADS if options.only is None or options.only in each[0]]
    rounds = []
    for number in range(options.rounds):
        order = ["conclave", "etcd"] if number % 2 == 0 else ["etcd", "conclave"]
        rounds.append({system: run_system(system, options, chosen) for system in order})
        print(f"round {number + 1} of {options.rounds} done", file=sys.stderr, flush=True)
    workloads = summary(rounds, chosen)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({"workloads": workloads}, indent=1) + "\n")
    print(f"{'workload':<56}{'unit':>13}{'conclave':>12}{'etcd':>12}{'ratio':>8}")
    for each in workloads:
        print(f"{each['name']:<56}{each['unit']:>13}{each['conclave']:>12.2f}{each['etcd']:>12.2f}{each['ratio_etcd']:>8.2f}")
    slower = [each["name"] for each in workloads if each["ratio_etcd"] < 1]
    if slower:
        print("slower than etcd: " + "; ".join(slower))
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(main())
