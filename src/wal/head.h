// The head of a batch: its place, what each group was before it (the directory, which attests all earlier batches), and
// what it changes. Written twice, at the batch's begin and in its last sectors, so that votes, memberships and the
// account of what was written survive the loss of either. Format: docs/internals/formats/log.md, "Head".
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "wal/group_state.h"
#include "wal/sector.h"

namespace conclave::wal {

// Groups whose state every head repeats as long as there are no more than this; beyond, a head repeats those that the
// batch before it touched.
inline constexpr size_t kDirectoryGroupsMax = 8;
// Both copies of a head must leave room for a body in a segment; a base of some thousand groups fits.
inline constexpr size_t kHeadBytesMax = size_t{4} << 20;
// Magic, length, and the checksum at the end.
inline constexpr size_t kHeadBytesMin = 12;

struct Head {
  bool base =
      false;  // the first batch of a segment: the directory is of all groups, with membership, floors, certainty
  bool full = false;  // the directory is of all groups
  bool idle = false;  // an idle mark: attests, changes nothing
  uint64_t number = 0;
  uint64_t previous_number = 0;  // of the batch before; zero if there is none
  uint64_t sequence = 0;         // of the segment's use
  uint32_t slot = 0;
  uint32_t start_sector = 0;
  uint32_t sectors = 0;     // of the batch; a multiple of kSectorsPerBlock
  uint32_t body_bytes = 0;  // right behind the head's first copy
  uint32_t records = 0;
  std::vector<GroupState> directory;  // as decoded
  std::vector<Change> changes;        // views into the bytes decoded from
};

// Appends the encoding to `out`, checksum and all, with this directory instead of head.directory, which is the
// decoder's. Its length does not depend on sectors, body_bytes and records.
void encode_head(const Head& head, std::span<const GroupState* const> directory, uint32_t seed, std::string& out);
// Sets the sectors of an encoding made above, once its length has told them.
void set_head_sectors(uint32_t sectors, uint32_t seed, std::string& encoded);
// The length an encoding that begins with these bytes claims, 12 or more of them; kMalformed if it is none or too long.
[[nodiscard]] Result<uint32_t> head_bytes(ByteView begin);
// Of exactly these bytes. `head` is overwritten and its memory used again. kMalformed, kVersion.
[[nodiscard]] Status decode_head(ByteView bytes, uint32_t seed, Head& head);

}  // namespace conclave::wal
