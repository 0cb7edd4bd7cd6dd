// The manifest: which segments make up the log, in order, and how far the sealed ones go. Two files, each written whole
// in place, one after the other: while one is being written the other is good, and since nothing is begun under a new
// generation before both have it, either alone is the truth. Format: docs/internals/formats/manifest.md.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "env/disk.h"
#include "wal/replay.h"
#include "wal/sector.h"

namespace conclave::wal {

inline constexpr std::string_view kLogDirectory = "wal";
[[nodiscard]] std::string segment_path(uint32_t slot);

// Segments of one log: a million of 64 MiB are 64 TiB.
inline constexpr size_t kSegmentsMax = size_t{1} << 20;
// A manifest file larger than this is none.
inline constexpr uint64_t kManifestBytesMax = uint64_t{256} << 20;

// Written when a manifest file is made, so that changing it on a full disk needs no space: some 600 segments fit.
inline constexpr size_t kManifestReservedBytes = size_t{8} << 10;

struct ManifestSegment {
  uint64_t sequence = 0;      // of this use; grows by one
  uint32_t slot = 0;          // the file
  uint64_t first_number = 0;  // no batch of this use has a lower one
  bool sealed = false;        // every segment but the last
  uint32_t end_sector = 0;    // of a sealed one
  // The uncertainties that stood when this segment was begun. Its base repeats them; until that is durable they are
  // here.
  bool all_uncertain = false;
  std::vector<Doubt> doubts;
  friend bool operator==(const ManifestSegment&, const ManifestSegment&) = default;
};

struct Manifest {
  Owner owner;
  uint64_t generation = 0;
  uint64_t segment_bytes = 0;
  std::vector<ManifestSegment> segments;
  friend bool operator==(const Manifest&, const Manifest&) = default;

  // Batch numbers one use of a segment can need: one for each block.
  [[nodiscard]] uint64_t numbers_per_segment() const { return segment_bytes / kBlockBytes; }
};

void encode_manifest(const Manifest& manifest, std::string& out);
// kMalformed, kVersion.
[[nodiscard]] Result<Manifest> decode_manifest(ByteView bytes);

struct ManifestFinding {
  bool present = false;         // one of the files exists
  bool valid = false;           // and one of them is good: `manifest` is the newest that is
  bool second_damaged = false;  // the second copy cannot be read: it is the one to write first
  Manifest manifest;
  std::vector<std::string> damage;  // for people
};

// Reads both files. Errors: those of the disk other than missing or unreadable files.
[[nodiscard]] Result<ManifestFinding> read_manifests(env::Disk& disk);

enum class ManifestOrder : uint8_t { kFirstCopyFirst, kSecondCopyFirst };

// Writes both files, one after the other, each durable; the one that is good last, if only one is. After an error
// nothing may be written to the log any more, but for kNoSpace from creating them.
[[nodiscard]] Status write_manifests(env::Disk& disk, const Manifest& manifest,
                                     ManifestOrder order = ManifestOrder::kFirstCopyFirst);

}  // namespace conclave::wal
