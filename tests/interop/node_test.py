#!/usr/bin/python3
"""npm's etcd3 against one server and three, and with leaders killed under it. Installs into the build directory what
node/package-lock.json names, once.

node_test.py [--system conclave|etcd] [--conclave BINARY] [--build DIRECTORY] [--nodes 1,3] [--tls] [CHECK ...]
Ends with 77 where nothing is installed and the registry cannot be reached.
"""
import os
import pathlib
import shutil
import subprocess
import sys

import driven

HERE = pathlib.Path(__file__).resolve().parent
SKIPPED = 77
# What npm says when it is the network that fails, or who stands between, and not the package.
UNREACHABLE = ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ECONNRESET", "ENETUNREACH", "EHOSTUNREACH", "ETIMEDOUT",
               "ERR_SOCKET_TIMEOUT", "FETCH_ERROR", "SELF_SIGNED_CERT_IN_CHAIN", "UNABLE_TO_GET_ISSUER_CERT")


def install(directory):
    """What the lock file names, below `directory`; a copy of that file says what is installed there."""
    directory.mkdir(parents=True, exist_ok=True)
    installed = directory / "installed.json"
    lock = (HERE / "node/package-lock.json").read_bytes()
    if installed.exists() and installed.read_bytes() == lock:
        return
    for name in ("package.json", "package-lock.json"):
        shutil.copyfile(HERE / "node" / name, directory / name)
    done = subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1",
                           "--fetch-timeout=60000"], cwd=directory, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode != 0:
        print(done.stdout + done.stderr, file=sys.stderr)
        sys.exit(SKIPPED if any(word in done.stderr for word in UNREACHABLE) else 1)
    installed.write_bytes(lock)


def main():
    parser = driven.parser(__doc__)
    parser.add_argument("--build", type=pathlib.Path, default=HERE.parents[1] / "build/interop/node", help="for the packages")
    options = parser.parse_args()
    directory = options.build.resolve()
    install(directory)
    driven.run(options, ["node", str(HERE / "node/interop.js")], {**os.environ, "NODE_PATH": str(directory / "node_modules")})


if __name__ == "__main__":
    main()
