#!/usr/bin/python3
"""One server of ours and one of Debian's etcd, both with their data in memory, and the same random requests to both.

differential.py [--over grpc|json] [--requests N] [--seed N] [--conclave BINARY] [--driver BINARY]
Where there is no etcd it says so and ends with 77.
"""
import argparse
import os
import pathlib
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "interop"))
import cluster  # noqa: E402


def find_etcd():
    unpacked = pathlib.Path(__file__).resolve().parents[2] / "build/etcd/usr/bin/etcd"
    return str(unpacked) if unpacked.exists() else "/usr/bin/etcd"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    release = pathlib.Path(__file__).resolve().parents[2] / "build/release"
    parser.add_argument("--conclave", default=str(release / "conclave"))
    parser.add_argument("--driver", default=str(release / "differential"), help="what asks and compares")
    parser.add_argument("--etcd", default=find_etcd(), help="etcd's server: installed, or unpacked by tools/setup.sh")
    parser.add_argument("--requests", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--over", choices=["grpc", "json"], default="grpc", help="what carries the requests")
    options = parser.parse_args()
    if not os.path.exists(options.etcd):
        print(f"there is no {options.etcd}: install etcd-server")
        return 77
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(prefix="conclave-differential-", dir=memory) as directory, \
            cluster.Cluster("conclave", 1, options.conclave, directory=f"{directory}/conclave") as ours, \
            cluster.Cluster("etcd", 1, options.etcd, directory=f"{directory}/etcd") as theirs:
        return subprocess.run([options.driver, "--ports", str(ours.servers[0].client_port), str(theirs.servers[0].client_port),
                               "--seed", str(options.seed), "--requests", str(options.requests), "--over", options.over],
                              preexec_fn=cluster.end_with_parent, timeout=3000, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
