// Keys and values: as much of etcd's API as a holder needs to keep its data in the cluster, under a guard.
#pragma once

#include <optional>

#include "conclave/held.h"

namespace conclave::client {

struct KeyValue {
  std::string key{};
  std::string value{};
  int64_t create_revision = 0;
  int64_t mod_revision = 0;
};

// All of `when` true: all of `then`, at one revision; otherwise nothing.
struct Transaction {
  struct Put {
    std::string key{};
    std::string value{};
    int64_t lease = 0;  // a session's number: the key ends with it
  };
  std::vector<Guard> when{};
  std::vector<Put> puts{};
  std::vector<std::string> erasures{};
  std::vector<std::string> reads{};
};

struct Committed {
  bool succeeded = false;  // the compares were true
  int64_t revision = 0;
  std::vector<std::optional<KeyValue>> read{};  // one for each of `reads`
};

class Io;

// Any thread but the client's. At most the client's request_timeout each; errors: kRejected with the server's words,
// kNotApplied, and of changes kOutcomeUnknown, which are never repeated on a guess.
class Kv {
 public:
  [[nodiscard]] std::expected<int64_t, Error> put(std::string key, std::string value);  // the revision
  [[nodiscard]] std::expected<std::optional<KeyValue>, Error> get(std::string key);
  [[nodiscard]] std::expected<bool, Error> erase(std::string key);  // whether it was there
  [[nodiscard]] std::expected<Committed, Error> commit(const Transaction& transaction);
  // Only while `held` is. It waits while that is in jeopardy, is decided by the cluster, and succeeds only if it is
  // still held when this returns. kLost says that it is not: nothing was changed, unless the reason is
  // APPLIED_THEN_LOST: then it was applied while held, and the answer came too late to go on from.
  [[nodiscard]] std::expected<Committed, Error> commit(const Held& held, Transaction transaction);

 private:
  friend class Client;
  explicit Kv(std::shared_ptr<Io> io);
  std::shared_ptr<Io> io_;
};

}  // namespace conclave::client
