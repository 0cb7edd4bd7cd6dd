// Limits with their reasons. What arrives from outside is compared with these before anything is allocated.
#pragma once

#include <cstddef>
#include <cstdint>

namespace conclave {

// Members of one group, voters and learners of both configurations together. Quorums grow with it and nothing is gained
// past seven voters; a fixed bound lets every per-member table be an array.
inline constexpr size_t kMembersMax = 16;

// One log entry. etcd's clients send requests up to 1.5 MiB; internal transactions may be larger; anything beyond is
// split by the layer that makes it.
inline constexpr size_t kEntryBytesMax = size_t{8} << 20;

// One message between peers: a batch of entries is cut before it, a single largest entry still fits.
inline constexpr size_t kPeerMessageBytesMax = kEntryBytesMax + (size_t{64} << 10);

// Entries in one message between peers. Bounds the work of one step; 64-byte entries fill 64 KiB here, more gains
// nothing (a 64 KiB write costs no more than 4 KiB on the disks measured).
inline constexpr size_t kEntriesPerMessageMax = 1024;

// Terms and indexes above this are refused from a peer: at a million a second they take 146,000 years to reach, and the
// arithmetic on what is below can never overflow.
inline constexpr uint64_t kProtocolNumberMax = uint64_t{1} << 62;

// Grain of everything that can tear or rot on a disk.
inline constexpr size_t kSectorBytes = 512;

// Alignment of writes that go past the page cache.
inline constexpr size_t kBlockBytes = 4096;

}  // namespace conclave
