#!/usr/bin/python3
"""etcd's Go client against one server and three, and with leaders killed under it. Builds go/ with Debian's packages
(no modules, nothing is downloaded) and does what it asks for.

go_test.py [--system conclave|etcd] [--conclave BINARY] [--build DIRECTORY] [--nodes 1,3] [--tls] [CHECK ...]
"""
import os
import pathlib
import subprocess

import driven

HERE = pathlib.Path(__file__).resolve().parent


def build(directory, name="interop_go", sources=HERE / "go"):
    """Of all files in `sources`, with etcd's own client."""
    directory.mkdir(parents=True, exist_ok=True)
    binary = directory / name
    environment = {**os.environ, "GO111MODULE": "off", "GOPATH": "/usr/share/gocode", "GOFLAGS": "", "GOROOT": "",
                   "GOTOOLCHAIN": "local", "GOCACHE": str(directory / "gocache"), "CGO_ENABLED": "0"}
    # Debian's own compiler, whatever else is installed: that is the one its packages are built with.
    go = "/usr/lib/go/bin/go" if os.path.exists("/usr/lib/go/bin/go") else "go"
    files = sorted(str(path) for path in sources.glob("*.go"))
    subprocess.run([go, "build", "-p", "2", "-o", str(binary), *files], env=environment, check=True, timeout=600)
    return binary


def main():
    parser = driven.parser(__doc__)
    parser.add_argument("--build", type=pathlib.Path, default=HERE.parents[1] / "build/interop", help="for the Go binary")
    options = parser.parse_args()
    driven.run(options, [str(build(options.build.resolve()))])


if __name__ == "__main__":
    main()
