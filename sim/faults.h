// The names of everything that can go wrong in the simulated world, and how often it did. A kind stands here once; the
// row of the fault catalogue it answers to is beside it. What a kind does is in disk.h, network.h and nemesis.h.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace conclave::sim {

enum class FaultKind : uint8_t {
  // Network.
  kMessageLost,       // N1
  kMessageDelayed,    // N1: held back far longer than the link's usual delay
  kMessageReplayed,   // N1: delivered again, soon or long after
  kMessageReordered,  // N1: overtakes its lane
  kMessageCorrupted,  // N8: bytes changed in flight; the checksum drops it
  kQueueFull,         // N6: a bounded queue dropped a frame
  kLinkClogged,       // N1: one direction stands still for a while, nothing lost
  kSwizzle,           // N5: many links clogged one by one, released in random order
  kLinkCut,           // N3: one direction cut
  kLinkFlapping,      // N6
  kLinkHalfOpen,      // N6: one direction swallows everything and nobody is told
  kLinkBreakHidden,   // a link broke and this end was not told
  kPartition,         // N2: two sides
  kPartitionPartial,  // N4: two groups cut off from each other, the rest reaches both
  kPartitionBridge,   // N4: two groups joined by one node
  kPartitionRing,     // N4: each node reaches only its neighbours
  kIsolation,         // N2, N3: one node cut off, in both directions or in one
  // Process.
  kKill,             // P1: the process ends, the page cache stays
  kPowerLoss,        // P5, one machine
  kPowerLossAll,     // P5
  kCrashInDiskCall,  // P2: power lost in the middle of a sequence of disk calls
  kFreeze,           // P3, C3
  // Clock.
  kDrift,             // C2, inside the declared bound
  kDriftBeyondBound,  // C2
  kWallJump,          // C1
  // Disk.
  kUnsyncedLost,      // a crash dropped sectors nobody had synced
  kNameLost,          // a crash dropped a name nobody had synced
  kTornWrite,         // D1: one sector half written
  kCorruptSector,     // D2, D3, D4
  kStaleSector,       // D6: a lost write, the old content stays
  kMisdirectedWrite,  // D5
  kMisdirectedRead,   // D5
  kUnreadableSector,  // D7
  kWriteError,        // D7
  kSyncError,         // D8: the dirty pages are dropped, the next sync succeeds
  kNoSpace,           // D9
  kSlowDisk,          // D10, D11
  kHungDisk,          // D11
  kLyingSync,         // D6: reported durable, lost at the next loss of power
  kMissingFile,       // D14
  kLostDisk,          // D12
  kRolledBackDisk,    // D13
  kCount,
};

inline constexpr size_t kFaultKinds = static_cast<size_t>(FaultKind::kCount);

// The kind's fixed name, as printed and as written in files of decisions.
[[nodiscard]] std::string_view to_string(FaultKind kind);
[[nodiscard]] std::optional<FaultKind> fault_kind_of(std::string_view name);

// True for kinds after which acknowledged bytes of a machine may be gone or wrong. In the bounded regime only a
// minority of the machines suffers these (swarm.h).
[[nodiscard]] bool destroys_durable_data(FaultKind kind);

// One flag or one number per kind.
template <class T>
class PerFault {
 public:
  T& operator[](FaultKind kind) { return values_[static_cast<size_t>(kind)]; }
  const T& operator[](FaultKind kind) const { return values_[static_cast<size_t>(kind)]; }
  friend bool operator==(const PerFault&, const PerFault&) = default;

 private:
  std::array<T, kFaultKinds> values_{};
};

using FaultCounters = PerFault<uint64_t>;
using FaultSet = PerFault<bool>;

}  // namespace conclave::sim
