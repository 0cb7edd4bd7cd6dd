// Claim: a place in the queue for a lock, in the layout of etcd's own clients: a key NAME/LEASE under a session's
// lease; the oldest by create revision holds the lock. So Conclave's locks and theirs exclude each other. Knows no
// clock and waits for nothing by itself.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "cli/endpoints.h"

namespace conclave::cli {

// What stands before a claim.
struct ClaimState {
  bool stands = false;      // the claim itself
  std::string predecessor;  // the youngest claim before it; empty: it holds the lock
  int64_t revision = 0;     // as of
  [[nodiscard]] bool holds() const { return stands && predecessor.empty(); }
};

class Claim {
 public:
  Claim(Endpoints& endpoints, std::string_view name, int64_t lease, Duration timeout);

  // Enters the queue, at its end; again: the same place.
  [[nodiscard]] std::expected<void, Failure> enter();
  [[nodiscard]] std::expected<ClaimState, Failure> look();
  // The fencing token: grows with each claim on the name.
  [[nodiscard]] int64_t token() const { return token_; }
  [[nodiscard]] const std::string& key() const { return key_; }

 private:
  Endpoints& endpoints_;
  const std::string prefix_;
  const std::string key_;
  const int64_t lease_;
  const Duration timeout_;
  int64_t token_ = 0;
};

// The first key after all that begin with `prefix`, as the API's range_end wants it.
[[nodiscard]] std::string end_of_prefix(std::string_view prefix);

}  // namespace conclave::cli
