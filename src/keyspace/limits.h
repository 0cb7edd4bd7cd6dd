// Bounds of the keyspace with their reasons. What is bounded by the API alone (1.5 MiB a request) is checked there.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/limits.h"

namespace conclave::keyspace {

// etcd's default of max-txn-ops. Part of what the log's entries mean: every replica must refuse the same ones.
inline constexpr uint32_t kTxnOperationsMax = 128;

// Operations and compares of a transaction and all nested in it. etcd's budget is per path, so that nesting multiplies;
// without a bound on the sum one request of 1.5 MiB would cost seconds.
inline constexpr size_t kTxnTotalMax = 8192;

// The answer to one command. etcd has no bound but memory: 128 ranges of one transaction over everything are 128 times
// everything. Far above what clients take (a few MiB, unless told otherwise), far below what ends a server.
inline constexpr size_t kAnswerBytesMax = size_t{512} << 20;
// An answer's memory is kept for the next one up to here.
inline constexpr size_t kAnswerBytesKept = size_t{1} << 20;

// etcd's largest TTL, seconds.
inline constexpr int64_t kLeaseTtlSecondsMax = 9'000'000'000;
inline constexpr int64_t kLeaseTtlMsMax = kLeaseTtlSecondsMax * 1000;

// Work of one slice in units of about half a microsecond: one key looked at, or one KiB copied. 1,024 units stay below
// 2 ms also when every key is a cache miss. (docs/internals/keyspace.md has the measurement.)
inline constexpr uint32_t kSliceUnits = 1024;

// Sequences remembered per session: the width of the window's bit map (architecture rule 4).
inline constexpr uint64_t kSessionWindow = 64;
inline constexpr size_t kSecretHashBytes = 32;
inline constexpr size_t kSessionDescriptionBytesMax = 256;

// Guards and operations of one internal command, and its system records: records take effect in one turn, at about a
// microsecond each.
inline constexpr size_t kInternalGuardsMax = 8192;
inline constexpr size_t kInternalOperationsMax = 8192;
inline constexpr size_t kInternalRecordOperationsMax = 1024;
inline constexpr size_t kRecordKeyBytesMax = 1024;

// Leases ended by one expiry command. More gain nothing: the entry is a few tens of KiB.
inline constexpr size_t kExpireLeasesMax = 8192;

// What waits in one watcher before it falls back to history: enough for a burst, small enough that 100,000 slow
// watchers are no danger (events are shared between watchers, so bytes are counted but mostly not owned).
inline constexpr size_t kWatcherQueueEventsMax = 256;
inline constexpr size_t kWatcherQueueBytesMax = size_t{512} << 10;
// A revision with more events is never queued: watchers read it from history.
inline constexpr size_t kQueuedRevisionEventsMax = 128;
// Watchers of one stream. A stream is one connection's; a million watchers are a thousand streams.
inline constexpr size_t kStreamWatchersMax = size_t{1} << 20;
// Responses of a stream's own (created, canceled) that may wait before it stops taking requests.
inline constexpr size_t kStreamControlMax = 1024;

// One record of a snapshot: the largest value plus its key and frame.
inline constexpr size_t kSnapshotRecordBytesMax = 2 * kEntryBytesMax;

}  // namespace conclave::keyspace
