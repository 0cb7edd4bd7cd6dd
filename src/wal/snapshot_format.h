// The bytes of a snapshot file: a header that says whose state it is and of when, blocks with checksums, a footer with
// the checksum of all. Nothing in it is of one server: it is sent to others as it lies. Format:
// docs/internals/formats/snapshot.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/bytes.h"
#include "base/entry.h"
#include "base/error.h"
#include "base/membership.h"
#include "base/types.h"

namespace conclave::wal {

// Content per block. Large enough that zstd finds something and the headers cost nothing (0.04 %), small enough that a
// rotten one is found before much was applied.
inline constexpr size_t kSnapshotBlockBytes = size_t{64} << 10;
// A block's content and stored form are never larger, whatever a file claims.
inline constexpr size_t kSnapshotBlockBytesMax = size_t{1} << 20;
inline constexpr size_t kSnapshotHeaderBytesMax = size_t{4} << 10;

struct SnapshotHeader {
  ClusterId cluster;
  GroupId group;
  SnapshotMark mark;  // the state after applying mark.last, and the membership in force there
  friend bool operator==(const SnapshotHeader&, const SnapshotHeader&) = default;
};

// Bytes before the length of a header is known.
inline constexpr size_t kSnapshotPrefixBytes = 12;

void encode_snapshot_header(const SnapshotHeader& header, std::string& out);
// The whole header's length, from its first kSnapshotPrefixBytes. kMalformed, kVersion.
[[nodiscard]] Result<uint32_t> snapshot_header_bytes(ByteView prefix);
// Of exactly those bytes. kMalformed, kVersion.
[[nodiscard]] Result<SnapshotHeader> decode_snapshot_header(ByteView bytes);
// What every block's checksum begins with: binds it to its file.
[[nodiscard]] uint32_t snapshot_seed(ByteView encoded_header);

enum class SnapshotCodec : uint8_t { kPlain = 0, kZstd = 1 };

inline constexpr size_t kBlockHeaderBytes = 32;

struct SnapshotBlock {
  uint64_t number = 0;  // from 0
  uint32_t content_bytes = 0;
  uint32_t stored_bytes = 0;
  uint32_t stored_checksum = 0;
  SnapshotCodec codec = SnapshotCodec::kPlain;
};

// Appends header and stored bytes. `content` is at most kSnapshotBlockBytesMax; compressed if asked and if that is
// shorter.
void encode_snapshot_block(ByteView content, uint64_t number, bool compress, uint32_t seed, std::string& out);
// kMalformed if it is none of this file and number, or a footer.
[[nodiscard]] Result<SnapshotBlock> decode_block_header(ByteView bytes, uint64_t number, uint32_t seed);
// Checks what is stored, without unpacking it. kMalformed.
[[nodiscard]] Status check_block_stored(const SnapshotBlock& block, ByteView stored, uint32_t seed);
// Checks and unpacks; `content` is overwritten. kMalformed.
[[nodiscard]] Status decode_block_content(const SnapshotBlock& block, ByteView stored, uint32_t seed,
                                          std::string& content);

inline constexpr size_t kSnapshotFooterBytes = 32;

struct SnapshotFooter {
  uint64_t blocks = 0;
  uint64_t content_bytes = 0;
  uint32_t content_checksum = 0;  // of all content in order
};
void encode_snapshot_footer(const SnapshotFooter& footer, uint32_t seed, std::string& out);
// kMalformed if it is none of this file.
[[nodiscard]] Result<SnapshotFooter> decode_snapshot_footer(ByteView bytes, uint32_t seed);
// True if these bytes can only be a footer, whole or not: what follows the last block.
[[nodiscard]] bool looks_like_footer(ByteView bytes);

}  // namespace conclave::wal
