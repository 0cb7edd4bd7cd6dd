#!/usr/bin/python3
"""gRPC's C++ library (interop_grpc, of grpc_client.cc) against one server and three, and with leaders killed under it.

grpc_test.py --client BINARY [--system conclave|etcd] [--conclave BINARY] [--nodes 1,3] [--tls] [CHECK ...]
"""
import driven


def main():
    parser = driven.parser(__doc__)
    parser.add_argument("--client", required=True, help="the interop_grpc binary")
    options = parser.parse_args()
    if options.system == "etcd":
        options.without.append("overload")  # it gives any number of snapshots at a time
    driven.run(options, [options.client])


if __name__ == "__main__":
    main()
