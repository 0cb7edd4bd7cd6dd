#!/usr/bin/env bash
# Installs what building and testing Conclave needs on Debian 12. Probes for each command and header; where nothing is
# missing it does nothing, and needs neither root nor network (but for etcd's server, below, which is asked for once).
set -euo pipefail

missing=()
need_command() { command -v "$1" > /dev/null 2>&1 || missing+=("$2"); }
need_file() { [ -e "$1" ] || missing+=("$2"); }

need_command g++ g++
need_command make make
need_command cmake cmake
need_command ninja ninja-build
need_command git git
need_command ccache ccache
need_command clang++-19 clang-19
need_command clang-tidy-19 clang-tidy-19
need_command clang-format-19 clang-format-19
need_command protoc protobuf-compiler
need_file /usr/bin/python3 python3
need_file /usr/lib/llvm-19/lib/clang/19/lib/linux/libclang_rt.asan-x86_64.a libclang-rt-19-dev
need_file /usr/lib/llvm-19/bin/llvm-symbolizer llvm-19
need_file /usr/include/fmt/format.h libfmt-dev
need_file /usr/include/CLI/CLI.hpp libcli11-dev
need_file /usr/include/gtest/gtest.h libgtest-dev
need_file /usr/include/benchmark/benchmark.h libbenchmark-dev
need_file /usr/include/google/protobuf/message.h libprotobuf-dev
need_file /usr/include/zstd.h libzstd-dev
need_file /usr/include/zlib.h zlib1g-dev
need_file /usr/include/asio.hpp libasio-dev
need_file /usr/include/nghttp2/nghttp2.h libnghttp2-dev
need_file /usr/include/openssl/ssl.h libssl-dev
need_file /usr/include/spdlog/spdlog.h libspdlog-dev
need_file /usr/include/toml++/toml.h libtomlplusplus-dev

# The client library as others find it, and a resource of its examples.
need_command pkg-config pkgconf
need_command sqlite3 sqlite3

# Other people's clients, for tests/interop; bench_rpc compares itself with gRPC's.
need_command etcdctl etcd-client
need_file /usr/lib/go/bin/go golang-go
need_file /usr/share/gocode/src/go.etcd.io/etcd/clientv3/client.go golang-etcd-server-dev
need_file /usr/lib/python3/dist-packages/etcd3/client.py python3-etcd3
need_file /usr/include/grpcpp/grpcpp.h libgrpc++-dev
need_command grpc_cpp_plugin protobuf-compiler-grpc
need_command node nodejs
need_command npm npm

# etcd's own server, for tests/differential and for comparing: unpacked and not installed, since its package would start a server of its
# own. Without it that test is skipped, so a failure here is told and no more; it is tried once, and leaves a marker, so
# that a machine without a network is not kept waiting by every build.
unpack_etcd() {
  local place
  place="$(cd "$(dirname "$0")/.." && pwd)/build/etcd"
  if command -v etcd > /dev/null 2>&1 || [ -x "$place/usr/bin/etcd" ] || [ -e "$place/not-fetched" ]; then return 0; fi
  mkdir -p "$place"
  (cd "$place" && apt-get download -qq etcd-server > /dev/null 2>&1 && dpkg -x etcd-server_*.deb . && rm etcd-server_*.deb) || {
    touch "$place/not-fetched"
    echo "setup: etcd-server cannot be fetched; the comparison with it is skipped. To try again: rm $place/not-fetched" >&2
  }
}

if [ ${#missing[@]} -eq 0 ]; then
  unpack_etcd
  exit 0
fi

echo "setup: installing ${missing[*]}" >&2
as_root=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo > /dev/null 2>&1 || { echo "setup: run as root, or install sudo: ${missing[*]}" >&2; exit 1; }
  as_root=(sudo)
fi
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" > /dev/null
unpack_etcd
