// A log looked at without being opened: no lock, nothing written, no verdict made to last. For `conclave inspect` and
// `conclave recover`; of a log in use the newest batches may be missed.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "env/disk.h"
#include "wal/manifest.h"
#include "wal/replay.h"

namespace conclave::wal {

struct InspectedSegment {
  ManifestSegment listed;
  bool file_missing = false;
  uint64_t end_sector = 0;
  uint64_t batches = 0;
  uint64_t idle_marks = 0;
  uint64_t records = 0;
  uint64_t damaged_batches = 0;
  uint64_t gaps = 0;
  TailVerdict tail = TailVerdict::kClean;
};

struct InspectedGroup {
  GroupState state;
  LogIndex first;  // of the entries kept; zero if none
  uint64_t entries = 0;
  std::vector<Hole> holes;
};

struct LogInspection {
  Manifest manifest;
  std::vector<std::string> manifest_damage;
  std::vector<InspectedSegment> segments;
  std::vector<InspectedGroup> groups;
  std::vector<Finding> findings;
  bool unknown_groups = false;
  [[nodiscard]] bool damaged() const;
};
[[nodiscard]] std::string_view to_string(TailVerdict verdict);

// kNotFound: there is no log. kUnreadable: no copy of the manifest can be read. Else as File and Disk.
[[nodiscard]] Result<LogInspection> inspect_log(env::Disk& disk);

// The same, with what opening would hand over of each group.
struct LogContent {
  LogInspection inspection;
  std::vector<Recovered> groups;  // by id
};
// `snapshots`: as LogOptions::snapshots.
[[nodiscard]] Result<LogContent> read_log(env::Disk& disk, std::span<const GoodSnapshot> snapshots);

}  // namespace conclave::wal
