#!/usr/bin/python3
"""etcd's Go client against one server and three, and with leaders killed under it. Builds go/ with Debian's packages
(no modules, nothing is downloaded) and answers what it asks for.

go_test.py [--system conclave|etcd] [--conclave BINARY] [--build DIRECTORY] [--nodes 1,3] [CHECK ...]
"""
import argparse
import os
import pathlib
import subprocess
import sys
import threading

import cluster

HERE = pathlib.Path(__file__).resolve().parent
LIMIT = 420


def build(directory):
    directory.mkdir(parents=True, exist_ok=True)
    binary = directory / "interop_go"
    environment = {**os.environ, "GO111MODULE": "off", "GOPATH": "/usr/share/gocode", "GOFLAGS": "", "GOROOT": "",
                   "GOTOOLCHAIN": "local", "GOCACHE": str(directory / "gocache"), "CGO_ENABLED": "0"}
    # Debian's own compiler, whatever else is installed: that is the one its packages are built with.
    go = "/usr/lib/go/bin/go" if os.path.exists("/usr/lib/go/bin/go") else "go"
    sources = sorted(str(path) for path in (HERE / "go").glob("*.go"))
    subprocess.run([go, "build", "-p", "2", "-o", str(binary), *sources], env=environment, check=True, timeout=600)
    return binary


def run(options, binary, nodes):
    with cluster.make(options, nodes) as servers:
        process = subprocess.Popen([str(binary), servers.endpoints, *options.checks], stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, text=True, bufsize=1, preexec_fn=cluster.end_with_parent)
        timer = threading.Timer(LIMIT, process.kill)
        timer.start()
        dead = []
        try:
            for line in process.stdout:
                line = line.rstrip("\n")
                if line == "kill leader":
                    leader = servers.leader()
                    leader.kill()
                    dead.append(leader)
                elif line == "bring back":
                    for server in dead:
                        server.start()
                    dead.clear()
                    servers.wait_healthy()
                else:
                    print(f"{options.system}, {nodes} servers: {line}", flush=True)
                    # A check that failed may have left a server dead.
                    if line.startswith("FAIL") and dead:
                        for server in dead:
                            server.start()
                        dead.clear()
                        servers.wait_healthy()
                    continue
                process.stdin.write("done\n")
                process.stdin.flush()
            return process.wait(timeout=30)
        finally:
            timer.cancel()
            if process.poll() is None:
                process.kill()
                process.wait(timeout=30)
            process.stdin.close()
            process.stdout.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    cluster.add_arguments(parser)
    parser.add_argument("--build", type=pathlib.Path, default=HERE.parents[1] / "build/interop", help="for the Go binary")
    parser.add_argument("--nodes", default="1,3", help="sizes of the clusters")
    parser.add_argument("checks", nargs="*")
    options = parser.parse_args()
    binary = build(options.build.resolve())
    codes = [run(options, binary, int(nodes)) for nodes in options.nodes.split(",")]
    sys.exit(1 if any(codes) else 0)


if __name__ == "__main__":
    main()
