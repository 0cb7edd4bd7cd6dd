#!/usr/bin/python3
"""Where a server's CPU goes while it takes puts: three servers on loopback, `conclave bench kv` against them, and perf.

profile.py [--conclave BINARY] [--clients 256] [--connections 64] [--seconds 10]

Each sample counts for the first thing on its stack that one of the rows names, from the innermost frame outwards; so what
malloc costs counts for who called it. Prints a table for the leader and one for the followers. Needs perf, as root.
"""
import argparse
import collections
import pathlib
import re
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "interop"))
import cluster as clusters  # noqa: E402

KERNEL = [
    ("disk: write and sync", r"ext4_|xfs_|blk_|submit_bio|iomap_|virtio_queue_rq|pwrite|fdatasync|vfs_fsync"),
    ("network in the kernel: send", r"tcp_sendmsg|sock_sendmsg|__sys_sendto|sock_write_iter|____sys_sendmsg"),
    ("network in the kernel: receive", r"tcp_recvmsg|sock_recvmsg|__sys_recvfrom|sock_read_iter|____sys_recvmsg"),
    ("waiting and waking", r"epoll|futex|schedule|eventfd|hrtimer|ep_"),
]
USER = [
    ("consensus", r"conclave::raft::"),
    ("keyspace", r"conclave::keyspace::"),
    ("log: encoding, checksums", r"conclave::wal::|crc32c"),
    ("HTTP/2, gRPC framing, peer links", r"nghttp2|conclave::net::|asio::"),
    ("services: protobuf, checks", r"conclave::api::|google::protobuf|etcdserverpb|mvccpb"),
    ("replica: batching, answers", r"conclave::node::"),
    ("hand-over between threads", r"conclave::server::"),
]


def category(frames):
    if "[kernel" in frames[0]:
        text = " ".join(frame for frame in frames if "[kernel" in frame)
        return next((name for name, names in KERNEL if re.search(names, text)), "kernel, other")
    for frame in frames:
        for name, names in USER:
            if re.search(names, frame):
                return name
    return "other"


def count(files):
    counted = collections.Counter()
    for file in files:
        script = subprocess.run(["perf", "script", "-i", str(file), "-F", "comm,ip,sym,dso"], capture_output=True, text=True,
                                check=True)
        for block in script.stdout.split("\n\n"):
            frames = [line.strip() for line in block.splitlines()[1:] if line.strip()]
            if frames:
                counted[category(frames)] += 1
    return counted


def show(title, counted):
    total = sum(counted.values())
    print(f"\n{title}: {total} samples")
    for name, samples in counted.most_common():
        print(f"  {name:<36}{100 * samples / total:6.1f} %")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--conclave", default=str(ROOT / "build/release/conclave"))
    parser.add_argument("--clients", default="256")
    parser.add_argument("--connections", default="64")
    parser.add_argument("--seconds", type=int, default=10)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="conclave-profile-") as directory:
        with clusters.Cluster("conclave", 3, options.conclave, directory=f"{directory}/servers") as cluster:
            leader = cluster.leader()
            load = subprocess.Popen([options.conclave, "bench", "kv", "--workload", "put", "--clients", options.clients,
                                     "--connections", options.connections, "--endpoints", cluster.endpoints, "--for",
                                     f"{options.seconds + 4}s"])
            time.sleep(2)  # past the warm-up
            recorders = [subprocess.Popen(["perf", "record", "-q", "-F", "999", "-g", "-o", f"{directory}/{server.name}", "-p",
                                           str(server.pid), "--", "sleep", str(options.seconds)]) for server in cluster.servers]
            for recorder in recorders:
                recorder.wait()
            load.wait()
        show("leader", count([f"{directory}/{leader.name}"]))
        show("followers", count([f"{directory}/{s.name}" for s in cluster.servers if s is not leader]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
