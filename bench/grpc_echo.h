// The other side of bench_rpc: the same echo served by gRPC C++, in each of its three ways.
#pragma once

#include <cstdint>
#include <functional>

namespace conclave::bench {

enum class GrpcWay : uint8_t {
  kAsync,     // a completion queue and one thread that serves it
  kCallback,  // gRPC's own threads
  kSync,      // gRPC's own threads, one for each call under way
};

// Never returns. `listening` is told the port, which is a free one of 127.0.0.1.
[[noreturn]] void serve_grpc_echo(GrpcWay way, const std::function<void(uint16_t port)>& listening);

}  // namespace conclave::bench
