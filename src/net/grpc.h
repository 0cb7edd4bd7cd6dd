// What both ends of a gRPC call share.
#pragma once

#include <cstdint>
#include <string>

#include "base/time.h"

namespace conclave::net {

// gRPC's numbers, as they stand in the grpc-status trailer.
struct GrpcStatus {
  uint32_t code = 0;  // 0 is OK
  std::string message;
  // The server is at one of its limits, which passes: when it is worth asking again. Zero: nothing is said of that. It
  // travels as grpc-retry-pushback-ms, which gRPC's own retries obey, and as google.rpc.RetryInfo among the details.
  Duration retry_after{};
  // Stable, for programs; empty: the code and the message are all there is. As google.rpc.ErrorInfo among the details.
  std::string reason;
  [[nodiscard]] bool ok() const { return code == 0; }
};

// A queue that is full is worked off within some tens of milliseconds where the disk is well; where it is not, the next
// answer says the same again. Longer would leave a server idle that has room again.
inline constexpr Duration kRetryAfter = std::chrono::milliseconds(200);

// A message longer than this is refused (RESOURCE_EXHAUSTED) before it is collected: etcd takes requests of 1.5 MiB and
// some overhead; answers of ranges may be larger.
inline constexpr size_t kRequestBytesMax = (size_t{3} << 20) / 2 + (size_t{512} << 10);

}  // namespace conclave::net
