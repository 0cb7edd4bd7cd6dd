// The keys a command deletes, as a set of ranges one can ask: part of finding a key that is put and deleted at once.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "base/bytes.h"
#include "keyspace/requests.h"

namespace conclave::keyspace {

// Disjoint ranges in order; overlapping ones are joined as they come, so that a question is one look-up.
class DeletedKeys {
 public:
  void add(const KeyRange& range);
  void add(const DeletedKeys& other);
  [[nodiscard]] bool contains(ByteView key) const;

 private:
  void join(std::string begin, std::optional<std::string> end);
  // begin -> end, not included; no end: to the last key there can be.
  std::map<std::string, std::optional<std::string>, std::less<>> ranges_;
};

}  // namespace conclave::keyspace
