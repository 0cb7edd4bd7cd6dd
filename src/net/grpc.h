// What both ends of a gRPC call share.
#pragma once

#include <cstdint>
#include <string>

namespace conclave::net {

// gRPC's numbers, as they stand in the grpc-status trailer.
struct GrpcStatus {
  uint32_t code = 0;  // 0 is OK
  std::string message;
  [[nodiscard]] bool ok() const { return code == 0; }
};

// A message longer than this is refused (RESOURCE_EXHAUSTED) before it is collected: etcd takes requests of 1.5 MiB and
// some overhead; answers of ranges may be larger.
inline constexpr size_t kRequestBytesMax = (size_t{3} << 20) / 2 + (size_t{512} << 10);

}  // namespace conclave::net
