#include "sim/faults.h"

#include "base/assert.h"

namespace conclave::sim {

std::string_view to_string(FaultKind kind) {
  switch (kind) {
    case FaultKind::kMessageLost:
      return "message-lost";
    case FaultKind::kMessageDelayed:
      return "message-delayed";
    case FaultKind::kMessageReplayed:
      return "message-replayed";
    case FaultKind::kMessageReordered:
      return "message-reordered";
    case FaultKind::kMessageCorrupted:
      return "message-corrupted";
    case FaultKind::kQueueFull:
      return "queue-full";
    case FaultKind::kLinkClogged:
      return "link-clogged";
    case FaultKind::kSwizzle:
      return "swizzle";
    case FaultKind::kLinkCut:
      return "link-cut";
    case FaultKind::kLinkFlapping:
      return "link-flapping";
    case FaultKind::kLinkHalfOpen:
      return "link-half-open";
    case FaultKind::kLinkBreakHidden:
      return "link-break-hidden";
    case FaultKind::kPartition:
      return "partition";
    case FaultKind::kPartitionPartial:
      return "partition-partial";
    case FaultKind::kPartitionBridge:
      return "partition-bridge";
    case FaultKind::kPartitionRing:
      return "partition-ring";
    case FaultKind::kIsolation:
      return "isolation";
    case FaultKind::kKill:
      return "kill";
    case FaultKind::kPowerLoss:
      return "power-loss";
    case FaultKind::kPowerLossAll:
      return "power-loss-all";
    case FaultKind::kCrashInDiskCall:
      return "crash-in-disk-call";
    case FaultKind::kFreeze:
      return "freeze";
    case FaultKind::kDrift:
      return "drift";
    case FaultKind::kDriftBeyondBound:
      return "drift-beyond-bound";
    case FaultKind::kWallJump:
      return "wall-jump";
    case FaultKind::kUnsyncedLost:
      return "unsynced-lost";
    case FaultKind::kNameLost:
      return "name-lost";
    case FaultKind::kTornWrite:
      return "torn-write";
    case FaultKind::kCorruptSector:
      return "corrupt-sector";
    case FaultKind::kStaleSector:
      return "stale-sector";
    case FaultKind::kMisdirectedWrite:
      return "misdirected-write";
    case FaultKind::kMisdirectedRead:
      return "misdirected-read";
    case FaultKind::kUnreadableSector:
      return "unreadable-sector";
    case FaultKind::kWriteError:
      return "write-error";
    case FaultKind::kSyncError:
      return "sync-error";
    case FaultKind::kNoSpace:
      return "no-space";
    case FaultKind::kSlowDisk:
      return "slow-disk";
    case FaultKind::kHungDisk:
      return "hung-disk";
    case FaultKind::kLyingSync:
      return "lying-sync";
    case FaultKind::kMissingFile:
      return "missing-file";
    case FaultKind::kLostDisk:
      return "lost-disk";
    case FaultKind::kRolledBackDisk:
      return "rolled-back-disk";
    case FaultKind::kCount:
      break;
  }
  UNREACHABLE();
}

std::optional<FaultKind> fault_kind_of(std::string_view name) {
  for (size_t i = 0; i < kFaultKinds; ++i) {
    const auto kind = static_cast<FaultKind>(i);
    if (to_string(kind) == name) return kind;
  }
  return std::nullopt;
}

bool destroys_durable_data(FaultKind kind) {
  switch (kind) {
    case FaultKind::kTornWrite:
    case FaultKind::kCorruptSector:
    case FaultKind::kStaleSector:
    case FaultKind::kMisdirectedWrite:
    case FaultKind::kMisdirectedRead:
    case FaultKind::kUnreadableSector:
    case FaultKind::kLyingSync:
    case FaultKind::kMissingFile:
    case FaultKind::kLostDisk:
    case FaultKind::kRolledBackDisk:
      return true;
    default:
      return false;
  }
}

}  // namespace conclave::sim
