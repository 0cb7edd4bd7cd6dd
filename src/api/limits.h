// Bounds of the API with their reasons. Bytes of requests and streams per connection are bounded in net, what waits for
// consensus in node, watchers of one stream in keyspace.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/time.h"
#include "keyspace/limits.h"

namespace conclave::api {

// etcd's max-request-bytes.
inline constexpr size_t kRequestBytesMax = (size_t{3} << 20) / 2;

// One answer of a range. etcd has no bound but memory; gRPC's frames end at 4 GiB and protobuf's messages at 2.
inline constexpr size_t kRangeBytesMax = size_t{1} << 30;
// All answers that are being put together; beyond it whichever grows next is refused. What is done and not sent is
// bounded by net.
inline constexpr size_t kRangesBytesMax = kRangeBytesMax + (size_t{512} << 20);

// Work in one turn beside what the replica does: reads, and what streams send. In units of keyspace::kSliceUnits, about
// half a microsecond each; together about 2 ms in the worst case.
inline constexpr uint32_t kReadUnitsPerTurn = 2 * keyspace::kSliceUnits;
inline constexpr uint32_t kStreamUnitsPerTurn = 2 * keyspace::kSliceUnits;
// What one of many gets at a time, so that a large one does not hold up the small.
inline constexpr uint32_t kSharedUnits = 256;
// Work that has used so much, about a millisecond or 2 MiB, goes on when there is time for it (net::Loop::at_leisure),
// and then in smaller pieces: it holds up everybody else.
inline constexpr uint32_t kPromptUnits = 2 * keyspace::kSliceUnits;
inline constexpr uint32_t kLeisureUnits = 128;

// A stream stops sending with so much unsent: enough to fill a connection, little enough that ten thousand slow readers
// cost what ten thousand connections may. What is behind waits in the watcher's queue, or in history.
inline constexpr size_t kStreamBytesQueuedMax = size_t{256} << 10;

// Requests of one watch stream that wait because too many answers do. A client that sends more without reading is
// ended.
inline constexpr size_t kWatchRequestsWaitingMax = 1024;
inline constexpr size_t kWatchRequestBytesWaitingMax = size_t{4} << 20;

// Streams that watch, of all connections: some KiB each.
inline constexpr size_t kWatchStreamsMax = 262'144;

// Keep-alives of one stream without an answer. A client sends all its leases' at once.
inline constexpr size_t kKeepAlivesWaitingMax = 65'536;

// Calls of Lock and Campaign that wait, and claims being cleaned up behind cancelled ones: about 1 KiB each. 100,000
// waiting for one name is what is promised.
inline constexpr size_t kClaimsMax = 262'144;
// An entry with more events is not walked event by event for those who wait for a claim.
inline constexpr size_t kClaimEventsMax = 4096;
// Waiters looked at again in one turn then, at about a microsecond each.
inline constexpr size_t kClaimRechecksPerTurn = 1024;

// Streams that speak for sessions, those of single calls among them.
inline constexpr size_t kSessionStreamsMax = 262'144;
// Operations of one stream without an answer: thousands of sessions may begin at once. Beyond it they are refused.
inline constexpr size_t kSessionOperationsMax = 65'536;
// Sessions of one stream that are being opened or attached. Each answer tells all that a session owns, so the next
// wait.
inline constexpr size_t kSessionAttachmentsMax = 1024;
// Requests of one stream that wait, since its client does not read or too many attachments are under way.
inline constexpr size_t kSessionRequestsWaitingMax = 65'536;
// Of one stream: requests that wait, and answers that its client has not taken. A session that owns much is told so in
// 2 MiB, and what happens to many comes at once.
inline constexpr size_t kSessionStreamBytesMax = size_t{64} << 20;
// Less is not counted: net says that a client reads on only where there was more.
inline constexpr size_t kSessionBytesUncounted = size_t{64} << 10;
// The same of all streams; beyond it whichever grows next is ended, if it has more than kStreamBytesQueuedMax.
inline constexpr size_t kSessionStreamsBytesMax = size_t{512} << 20;
// How often one looks whether a lock that was asked back is released.
inline constexpr Duration kReleaseCheck = std::chrono::milliseconds(100);

// A streamed range is sent in parts of about this size; one key and its value may be larger.
inline constexpr size_t kRangePartBytes = size_t{64} << 10;
// How much is read between two looks at that size: a unit is a key or a KiB.
inline constexpr uint32_t kRangePartUnits = 64;

// Leases listed, or keys of one lease, between two looks at the budget.
inline constexpr size_t kLeasesPerStep = 512;

// /health and /readyz under way: probes that wait for a lost quorum must not pile up.
inline constexpr size_t kHttpReadsMax = 1024;

// Streams of a snapshot at a time: each keeps the past from being freed.
inline constexpr uint64_t kSnapshotsMax = 4;
// So does a watch in the middle of a large revision. A stream that does, and whose client takes nothing for so long, is
// ended.
inline constexpr Duration kHistoryPatience = std::chrono::minutes(1);

// One answer as JSON, before it becomes JSON: that is done in one piece, at some 50 MB/s.
inline constexpr size_t kJsonAnswerBytesMax = size_t{8} << 20;

// What this server asks on its own account is asked again after this.
inline constexpr Duration kOwnRetry = std::chrono::seconds(1);

// A lease made for a Lock or Campaign that came without one: etcd's session default, in seconds.
inline constexpr int64_t kSessionTtlSeconds = 60;

}  // namespace conclave::api
