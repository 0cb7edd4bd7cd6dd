#include "keyspace/conflicts.h"

#include <utility>

namespace conclave::keyspace {

void DeletedKeys::add(const KeyRange& range) {
  switch (range.kind) {
    case KeyRange::Kind::kPoint: {
      std::string end(range.begin);
      end.push_back('\0');
      join(std::string(range.begin), std::move(end));
      return;
    }
    case KeyRange::Kind::kInterval:
      if (range.begin < range.end) join(std::string(range.begin), std::string(range.end));
      return;
    case KeyRange::Kind::kFrom:
      join(std::string(range.begin), std::nullopt);
      return;
  }
}

void DeletedKeys::add(const DeletedKeys& other) {
  for (const auto& [begin, end] : other.ranges_) join(begin, end);
}

bool DeletedKeys::contains(ByteView key) const {
  auto after = ranges_.upper_bound(key);
  if (after == ranges_.begin()) return false;
  const auto& [begin, end] = *std::prev(after);
  return !end || key < *end;
}

void DeletedKeys::join(std::string begin, std::optional<std::string> end) {
  auto at = ranges_.upper_bound(begin);
  if (at != ranges_.begin()) {
    auto before = std::prev(at);
    if (!before->second || *before->second >= begin) {
      begin = before->first;
      if (!before->second || (end && *before->second > *end)) end = before->second;
      at = ranges_.erase(before);
    }
  }
  while (at != ranges_.end() && (!end || at->first <= *end)) {
    if (!at->second || (end && *at->second > *end)) end = at->second;
    at = ranges_.erase(at);
  }
  ranges_.emplace(std::move(begin), std::move(end));
}

}  // namespace conclave::keyspace
