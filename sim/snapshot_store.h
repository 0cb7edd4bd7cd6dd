// SnapshotStore: the snapshots of one simulated server as files: written beside, synced, renamed, the directory synced;
// and the snapshots it is being sent, as far as they came. A file is a row of 512-byte sectors, each of which names the
// snapshot and its place and checks itself, so that a piece can be served alone and never wrongly.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/entry.h"
#include "base/error.h"
#include "env/disk.h"

namespace conclave::sim {

class SnapshotStore {
 public:
  explicit SnapshotStore(env::Disk& disk) : disk_(disk) {}

  // Finds what is there, syncs it, removes what is damaged or half made. Marks of the sound ones, ascending.
  Result<std::vector<SnapshotMark>> open();

  // A new one; durable under its name once the disk is done. kNoSpace: nothing was left behind.
  Status write(const SnapshotMark& mark, ByteView state);
  // The state. kMalformed, kUnreadable, kNotFound.
  Result<std::string> load(Position last);
  // Up to `bytes_max` bytes of the file, checked; `total` is its size.
  struct Piece {
    std::string bytes;
    uint64_t total = 0;
  };
  Result<Piece> read(Position last, uint64_t offset, uint64_t bytes_max);
  // Of all snapshots whose index is less than `index`, and of all transfers that are not beyond it.
  Status remove_before(LogIndex index);
  Status remove(Position last);

  // --- A transfer. Bytes of it that are there.
  [[nodiscard]] uint64_t received(Position last) const;
  // Stores a piece that continues what is there (another is ignored). True once it is whole, sound and under its name.
  // On kMalformed the transfer starts again.
  Result<bool> receive(const SnapshotMark& mark, uint64_t offset, uint64_t total, ByteView bytes);

 private:
  static std::string name_of(Position last, std::string_view kind);
  // The mark and the state, if each sector of the file is what it should be.
  Result<std::string> check(const std::string& path, Position last, SnapshotMark* mark);

  env::Disk& disk_;
  std::map<Position, uint64_t> partial_;  // bytes
};

}  // namespace conclave::sim
