// File descriptors of this process: how many it may have, and how many of them are for connections of clients. What
// else it opens (the log, snapshots, links between servers, standard streams) must never find none left because clients
// are many.
#pragma once

#include <cstddef>
#include <cstdint>

namespace conclave::server {

// Raises the soft limit to the hard one, which needs no right. How many there may be now.
[[nodiscard]] uint64_t raise_descriptor_limit();

[[nodiscard]] size_t connections_max_of(uint64_t descriptors);

// How many are open. The system counts them by listing them all, some hundred nanoseconds each, on the loop's thread:
// so where connections are many only what was not one of them when they were few is taken from a list.
class DescriptorCount {
 public:
  // With so many connections of clients, each of which is one.
  [[nodiscard]] uint64_t count(size_t connections);

 private:
  uint64_t others_ = 0;
};

}  // namespace conclave::server
