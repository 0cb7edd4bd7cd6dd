#!/usr/bin/python3
"""Runs fleet_cancels against three real servers.

cancels_test.py --conclave BINARY --cancels BINARY [COUNT [SEED]]
"""
import argparse
import pathlib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "interop"))
import cluster  # noqa: E402  (the path is set above)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    cluster.add_arguments(parser)
    parser.add_argument("--cancels", required=True)
    parser.add_argument("more", nargs="*")
    options = parser.parse_args()
    with cluster.make(options, 3) as servers:
        endpoints = ",".join(server.endpoint for server in servers.servers)
        sys.exit(subprocess.run([options.cancels, endpoints, *options.more], timeout=240,
                                preexec_fn=cluster.end_with_parent).returncode)


if __name__ == "__main__":
    main()
