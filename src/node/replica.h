// One replica of one group: joins consensus, the log and the keyspace. Takes what clients and peers say and what the
// disk has finished, proposes or forwards, applies what is committed, answers. Owns no thread, clock, socket or disk:
// its host is the server or the simulator, and any number of replicas may stand in one process.
//
// A turn of the host's loop: hand over all that arrived, then call flush() once. What came in one turn is proposed,
// forwarded and confirmed together; there is no timer that trades latency for batching.
//
// What becomes of a write (architecture section 1, rule 4): it is answered from the entry this server applies, or
// refused as known not applied, or, when this server cannot tell any more, its outcome is unknown; one of the three,
// once. A proposal that a later term's first entry passed by was never applied and is proposed again.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/entry.h"
#include "env/network.h"
#include "keyspace/history_budget.h"
#include "keyspace/keyspace.h"
#include "keyspace/snapshot.h"
#include "node/backlog.h"
#include "node/digest_comparison.h"
#include "node/features.h"
#include "node/follower_lag.h"
#include "node/frame.h"
#include "node/lease_checkpoints.h"
#include "node/lease_clock.h"
#include "node/settings.h"
#include "node/storage.h"
#include "raft/raft.h"
#include "wal/batch.h"

namespace conclave::node {

// The host's number for a request; unique among those not yet answered.
using Ticket = uint64_t;

enum class RequestRefusal : uint8_t {
  kNoLeader,    // none was known within the request's time; known not applied
  kOverloaded,  // a queue is full here or at the leader; known not applied
  kTooLarge,    // the command is above the log's limit
  kNoSpace,     // the leader's disk is full, and this would need more of it; known not applied
  kTimedOut,    // a read or keep-alive that could not be proven in time
};
[[nodiscard]] std::string_view to_string(RequestRefusal refusal);

// Where a write stands in line. What gives something back goes first and is taken when other writes no longer are: a
// full queue or disk must not keep what would relieve it.
enum class WriteLane : uint8_t {
  kRelease = 0,  // of leases, of keys deleted, of history
  kWrite = 1,
};
inline constexpr size_t kWriteLanes = 2;
[[nodiscard]] WriteLane lane_of(keyspace::CommandKind kind, ByteView body);

// What a replica asks of the world. Called from within the replica's functions; must not call back into them.
class ReplicaWorld {
 public:
  virtual ~ReplicaWorld() = default;
  // For the disk (storage.h); what comes of it goes to Replica::on_storage, in the order it happened.
  virtual void store(StorageJob job) = 0;
  virtual void send(NodeId to, env::Lane lane, std::string frame) = 0;
  // A majority of the members agrees that the state after this entry is another one than here: by a fault of memory, or
  // a defect. The host says so and ends the process: what this server answers may be wrong.
  virtual void on_diverged(LogIndex index) = 0;
  // The cluster's feature level is above what this build knows (features.h; zero: not even the record is): what stands
  // in the log behind it may mean something else here. The host says so and ends the process.
  virtual void on_outdated(uint64_t level) = 0;
};

// Whom a replica answers. Called from within the replica's functions, mostly flush(). Of the replica's functions these
// may call write(), read(), read_at_least(), keep_alive() and administer() back, and no other.
class ReplicaClients {
 public:
  virtual ~ReplicaClients() = default;
  virtual void on_write_applied(Ticket ticket, const keyspace::Reply& reply) = 0;
  virtual void on_write_refused(Ticket ticket, RequestRefusal refusal) = 0;  // known not applied
  virtual void on_write_unknown(Ticket ticket) = 0;
  // The keyspace, as it is now, includes everything acknowledged before the read arrived; or the revision it asked for.
  virtual void on_read_ready(Ticket ticket) = 0;
  virtual void on_read_refused(Ticket ticket, RequestRefusal refusal) = 0;
  // Of keep_alive() its whole time, of lease_time() what is left of it; zero: the lease is gone.
  virtual void on_kept_alive(Ticket ticket, int64_t ttl_ms) = 0;
  virtual void on_keep_alive_refused(Ticket ticket, RequestRefusal refusal) = 0;
  // The configuration that carries the change, not a joint one, is applied at the leader.
  virtual void on_change_done(Ticket ticket) = 0;
  virtual void on_change_refused(Ticket ticket, ChangeRefusal refusal) = 0;  // known not done
  virtual void on_change_unknown(Ticket ticket) = 0;
  // After each entry: replies were given, watches have what they watch.
  virtual void on_applied(const keyspace::Effects& effects) = 0;
  // The keyspace is about to be destroyed; another, of a later state, takes its place. Whatever refers to it (watch
  // streams, reads under way) must end within the call.
  virtual void on_state_replaced() = 0;
  virtual void on_role_changed(const raft::Status& status) = 0;
};

struct ReplicaOptions {
  raft::Options raft;
  LeaseClock::Options leases;
  // Writes that wait here for a leader or their entry, and their bytes: beyond it they are refused at once. Releases
  // may take a quarter more. The same holds of what a leader has proposed and not applied: three quarters of
  // raft.uncommitted_bytes_max, and for releases all of it; and none of it older than half a request may take, for
  // releases all of that: who asked for what comes behind would have given up.
  size_t writes_pending_max = 65'536;
  size_t write_bytes_pending_max = size_t{64} << 20;
  size_t reads_pending_max = 65'536;
  size_t keep_alives_pending_max = 65'536;
  // One is made at a time: whoever asks for more is no operator.
  size_t changes_pending_max = 16;
  // etcd's: 5 s and two election timeouts.
  Duration request_timeout = std::chrono::seconds(7);
  // A forwarded command not met for so long is sent again, under the same number.
  Duration forward_retry = std::chrono::milliseconds(500);
  // Entries applied in one turn, and commands proposed: about 2 ms of small ones.
  uint32_t entries_per_turn = 2048;
  // Bytes of commands in one write of the log, but for a single larger one: a write must fit into a segment, and what
  // is written behind it waits for it.
  size_t batch_bytes_max = size_t{1} << 20;
  // Reads made ready in one turn; each looks for a key or begins a walk.
  uint32_t reads_per_turn = 2048;
  // The highest this build knows; a simulated build may know another one.
  uint64_t feature_level_max = kFeatureLevelMax;
  // When the leader has history compacted. On by default: keyspace/history_budget.h.
  keyspace::HistoryBudget::Options history;
  // A snapshot is taken once the log behind the last one has this many bytes, and half of what that snapshot took: what
  // is kept in memory and read at a start stays in proportion to the state.
  uint64_t snapshot_log_bytes = uint64_t{64} << 20;
  // Content handed to the disk and not yet taken.
  size_t snapshot_bytes_pending_max = size_t{1} << 20;
  // Replicas compare their states after every so many entries.
  uint64_t entries_per_digest = 1024;
};

// For people and metrics.
struct ReplicaCounters {
  uint64_t frames_refused = 0;                         // malformed or unbelievable
  std::map<raft::Refusal, uint64_t> messages_refused;  // consensus messages, by what consensus said to them
  uint64_t writes_proposed = 0;
  uint64_t writes_forwarded = 0;
  uint64_t entries_applied = 0;
  uint64_t snapshots_taken = 0;
  uint64_t snapshots_installed = 0;
  uint64_t leases_expired = 0;
  uint64_t compactions_proposed = 0;
  uint64_t digests_different = 0;  // of peers, or of this server: see DigestComparison
};

// A frame that only a leader sends: whoever sent it says that the cluster has one.
[[nodiscard]] bool is_from_leader(ByteView frame);

class Replica {
 public:
  // `keyspace` holds the state of recovered.snapshot (empty if there is none).
  Replica(const ReplicaOptions& options, Recovered&& recovered, std::unique_ptr<keyspace::Keyspace> keyspace,
          ReplicaWorld& world);
  // Before the first input. Must outlive this.
  void set_clients(ReplicaClients& clients) { clients_ = &clients; }
  Replica(const Replica&) = delete;
  Replica& operator=(const Replica&) = delete;

  // ---- The world ----
  void start(Instant now);
  void on_frame(Instant now, NodeId from, ByteView frame);
  void on_link_up(Instant now, NodeId peer);
  void on_link_broken(Instant now, NodeId peer);
  void on_storage(Instant now, StorageResult result);
  // A deadline has come.
  void tick(Instant now);
  // The end of a turn.
  void flush(Instant now);
  [[nodiscard]] Instant next_deadline() const;
  // There is more to apply or requests came since the last flush(): another turn is due at once.
  [[nodiscard]] bool has_work() const;

  // ---- Clients; each is answered through ReplicaClients once, a refusal possibly within the call ----
  // header: kind, session and lease fields are the caller's, origin is set here. The body is canonical
  // (keyspace/validate.h).
  void write(Instant now, Ticket ticket, keyspace::CommandHeader header, ByteView body);
  void read(Instant now, Ticket ticket);
  // Ready once the state here includes this revision; no round, so it may be older than what others have acknowledged.
  void read_at_least(Instant now, Ticket ticket, Revision revision);
  void keep_alive(Instant now, Ticket ticket, LeaseId lease) { ask_of_lease(now, ticket, lease, true); }
  // How long it has to go, by the leader's clock. Answered as a keep-alive, and limited with them.
  void lease_time(Instant now, Ticket ticket, LeaseId lease) { ask_of_lease(now, ticket, lease, false); }

  // ---- Operators ----
  // What raft says to it: kNone, or why not.
  [[nodiscard]] raft::Refusal transfer(Instant now, NodeId to);
  // On any server; answered through ReplicaClients like a request of a client.
  void administer(Instant now, Ticket ticket, const MemberChange& change);

  [[nodiscard]] const raft::Raft& raft() const { return raft_; }
  // Good until ReplicaClients::on_state_replaced.
  [[nodiscard]] keyspace::Keyspace& keyspace() { return *keyspace_; }
  [[nodiscard]] const keyspace::Keyspace& keyspace() const { return *keyspace_; }
  [[nodiscard]] LogIndex applied() const { return applied_; }
  // Of the newest entry applied.
  [[nodiscard]] Term applied_term() const { return applied_term_; }
  [[nodiscard]] const LeaseClock& lease_clock() const { return lease_clock_; }
  [[nodiscard]] const ReplicaCounters& counters() const { return counters_; }
  // The cluster's, as applied.
  [[nodiscard]] uint64_t feature_level() const { return feature_level_; }
  [[nodiscard]] size_t writes_pending() const { return writes_.size(); }
  // It follows, and is behind what its leader had applied a second ago. Judged anew with each turn.
  [[nodiscard]] bool is_lagging(Instant now) const;
  // A snapshot from a peer is being loaded.
  [[nodiscard]] bool is_installing() const { return install_.has_value(); }

 private:
  struct PendingWrite {
    Ticket ticket = 0;
    SharedBytes command;
    Instant deadline;
    WriteLane lane = WriteLane::kWrite;
    Term term;            // proposed or forwarded in; zero: waits for a leader
    uint64_t number = 0;  // forwarded under
  };
  struct WaitingRead {
    Ticket ticket = 0;
    Instant deadline;
  };
  struct WaitingKeepAlive {
    Ticket ticket = 0;
    LeaseId lease;
    bool renews = true;  // otherwise it only asks for the time left
    Instant deadline;
  };
  struct RemoteKeepAlives {
    NodeId from;
    Boot boot;
    uint64_t id = 0;
    bool renews = true;
    std::vector<LeaseId> leases;
    std::vector<int64_t> ttl_ms;  // of each
  };
  // All that one round of consensus will confirm.
  struct Round {
    std::vector<WaitingRead> reads;
    std::vector<WaitingKeepAlive> keep_alives;
    std::vector<int64_t> ttl_ms;  // of keep_alives
    std::vector<RemoteKeepAlives> remote;
  };
  // Keep-alives of leases that were not there when they came: this server may not have applied the grant yet. Looked at
  // again once it has applied what the round proved, in the same term.
  struct UnknownLeases {
    Term term;
    std::vector<WaitingKeepAlive> keep_alives;
    std::vector<RemoteKeepAlives> remote;
  };
  struct ForwardedKeepAlives {
    std::vector<WaitingKeepAlive> keep_alives;
    Term term;
    Instant deadline;
  };
  // What a leader knows of a server that forwards to it.
  struct ForwardSource {
    Boot boot;
    uint64_t next = 1;
  };

  void on(Instant now, const Persisted& result);
  void on(Instant now, const SnapshotContentTaken& result);
  void on(Instant now, const SnapshotStored& result);
  void on(Instant now, const SnapshotNotStored& result);
  void on(Instant now, ChunkRead& result);
  void on(Instant now, const ChunkStored& result);
  void on(Instant now, StateLoaded& result);
  void on(Instant now, const SpaceChanged& result);

  void step(Instant now, const raft::Input& input);
  void take_output(Instant now);
  [[nodiscard]] wal::Batch batch_of(const raft::Write& write, Instant now);
  void apply_committed(Instant now);
  void finish_entry(Instant now, const Entry& entry);
  void resolve(const keyspace::Reply& reply);
  void on_term_passed(Term term);
  void take_settings(Instant now);
  void lead_leases(Instant now);
  void walk_leases(Instant now);
  void follow_leases();
  // It leads, and every lease there is has its deadline: keep-alives may be acknowledged and leases ended.
  [[nodiscard]] bool keeps_leases() const { return lease_clock_.is_leading() && !lease_walk_; }

  void store_chunk(const raft::ChunkToStore& chunk);
  void send_chunk(const raft::Message& message);
  void begin_snapshot(Instant now);
  void read_snapshot();

  void flush_writes(Instant now);
  void propose(Instant now, WriteLane lane);
  [[nodiscard]] std::optional<size_t> propose_batch(Instant now, WriteLane lane, size_t count);
  void forward(Instant now, WriteLane lane);
  // Why the leader takes no more of this lane now.
  [[nodiscard]] std::optional<RequestRefusal> refusal_of(Instant now, WriteLane lane, size_t bytes) const;
  void refuse_waiting(WriteLane lane, size_t count, RequestRefusal refusal);
  void note_proposed(Instant now, size_t bytes);
  void resend(Instant now, uint64_t from);
  void send_forward(uint64_t first, const std::vector<ByteView>& commands);
  void forget(std::map<uint64_t, PendingWrite>::iterator write);
  void flush_round(Instant now);
  void forward_keep_alives(Instant now);
  void expire_leases(Instant now);
  [[nodiscard]] bool propose_end(Instant now, const keyspace::CommandHeader& header, ByteView body);
  void end_lingering(Instant now, std::vector<LeaseId>& due);
  void checkpoint_leases(Instant now);
  // Nothing: erases it.
  [[nodiscard]] bool propose_remaining(Instant now, LeaseId lease, std::optional<int64_t> remaining_ms);
  void on_round(Instant now, const raft::ReadResult& result);
  void retry_rounds(Instant now);
  void look_again(Instant now);
  void answer_remote(const RemoteKeepAlives& remote, bool ok);
  [[nodiscard]] bool admit_read(Ticket ticket);
  void release_reads();
  // Those whose place is reached.
  template <class Place>
  void release_from(std::multimap<Place, WaitingRead>& waiting, Place reached, uint32_t& count);
  void compact_history(Instant now);
  void expire_requests(Instant now);
  void expire_writes(Instant now);
  void expire_rounds(Instant now);
  void ask_of_lease(Instant now, Ticket ticket, LeaseId lease, bool renews);
  int64_t time_of(Instant now, LeaseId lease, bool renews);

  void on(Instant now, NodeId from, const Forward& frame);
  void on(Instant now, NodeId from, const ForwardReply& frame);
  void on(Instant now, NodeId from, const KeepAlive& frame);
  void on(Instant now, NodeId from, const KeepAliveReply& frame);
  void on(Instant now, NodeId from, const StateDigest& frame);
  void on(Instant now, NodeId from, const FeatureQuery& frame);
  void on(Instant now, NodeId from, const Features& frame);
  void on(Instant now, NodeId from, const AppliedUpTo& frame);

  // administration.cc
  struct PendingChange {
    enum class State : uint8_t {
      kWaiting,    // for a leader, or for the change before it
      kForwarded,  // in `term` under `id`
      kProposed,   // as the entry at `index` of `term`
      kCarried,    // that entry is applied: the change is made, and ends with the next configuration
    };
    MemberChange change;
    Instant deadline;
    State state = State::kWaiting;
    // Of a client here; zero: of another server, with the boot and the id of its request.
    Ticket ticket = 0;
    NodeId from;
    Boot boot;
    uint64_t id = 0;
    Term term;
    LogIndex index;
    Instant retry_at = kNever;
  };
  // What a leader remembers of a server that forwards changes to it: the newest one, and what it was answered.
  struct ChangeSource {
    Boot boot;
    uint64_t id = 0;
    std::string reply;
  };
  void on(Instant now, NodeId from, const ChangeRequest& frame);
  void on(Instant now, NodeId from, const ChangeReply& frame);
  void flush_changes(Instant now);
  void send_change(Instant now, PendingChange& change);
  [[nodiscard]] ChangeRefusal target_of(Instant now, const MemberChange& change, Membership& target) const;
  [[nodiscard]] bool is_safe_without(Instant now, const Membership& target) const;
  [[nodiscard]] ChangeRefusal propose_change(Instant now, PendingChange& change);
  void follow_changes(const Entry& entry);
  void abandon_changes();
  void end_change(const PendingChange& change, ChangeRefusal refusal);
  void lose_change(const PendingChange& change);
  [[nodiscard]] Instant next_change_deadline() const;

  // features.cc
  void raise_feature_level(Instant now);
  [[nodiscard]] Instant next_features_deadline() const;

  void send_to_others(env::Lane lane, const std::string& frame);
  void tell_digest();
  void tell_applied(Instant now);
  void hand_over(Instant now);
  void plan_hand_over(Instant now);
  [[nodiscard]] bool tells_applied() const { return leads() && applied_term_ == raft_.status().term; }
  void take_verdict(DigestComparison::Verdict verdict, LogIndex index);

  [[nodiscard]] bool leads() const { return raft_.status().role == raft::Role::kLeader; }

  ReplicaOptions options_;
  ReplicaWorld& world_;
  ReplicaClients* clients_ = nullptr;
  std::unique_ptr<keyspace::Keyspace> keyspace_;
  raft::Raft raft_;
  raft::Output output_;
  LeaseClock lease_clock_;
  LeaseCheckpoints lease_checkpoints_;
  ReplicaCounters counters_;

  // Messages that wait for a write.
  struct Held {
    WriteSequence after;
    NodeId to;
    env::Lane lane;
    std::string frame;
  };
  std::deque<Held> held_;

  // Applying.
  LogIndex applied_;
  Term applied_term_;      // of the newest entry applied
  bool applying_ = false;  // the keyspace is in the middle of entry applied_ + 1
  LogIndex commit_written_;
  Instant commit_written_at_{};

  // A snapshot of our own, being read into the disk's hands.
  struct Taking {
    SnapshotMark mark;
    std::unique_ptr<keyspace::SnapshotReader> reader;  // null once all was read
    size_t pending = 0;                                // bytes the disk has not taken yet
  };
  std::optional<Taking> taking_;
  uint64_t applied_bytes_ = 0;        // of commands since the last snapshot was begun
  uint64_t snapshot_file_bytes_ = 0;  // of the last one
  Instant snapshot_not_before_{};     // after one that found no space
  bool retake_snapshot_ = false;      // the last one's file is no good any more
  Instant retaken_at_{};              // when that was last the reason
  // A peer's snapshot: to be loaded once `write` is durable.
  struct Install {
    SnapshotMark mark;
    WriteSequence after;
    bool loading = false;
  };
  std::optional<Install> install_;
  // Chunks whose bytes are being read.
  std::map<uint64_t, raft::Message> chunks_;
  uint64_t last_chunk_ = 0;

  // Writes by request number, which is their order.
  std::map<uint64_t, PendingWrite> writes_;
  uint64_t last_request_ = 0;
  size_t write_bytes_ = 0;
  std::array<std::deque<uint64_t>, kWriteLanes> waiting_;  // requests that wait for a leader, ascending
  Backlog backlog_;                                        // as leader
  // Forwarding in the term it was begun in.
  Term forward_term_;
  uint64_t forward_next_ = 1;
  std::map<uint64_t, uint64_t> forwarded_;  // number -> request, not met yet
  Instant forward_retry_at_ = kNever;
  std::map<NodeId, ForwardSource> sources_;  // as leader, in this term
  Term sources_term_;

  bool dirty_ = false;              // requests came since the last flush(), or were left over by it
  bool disk_full_ = false;          // the log finds no space for another segment
  Instant hand_over_at_ = kNever;   // of a leader without space
  int hand_overs_ = 0;              // tries, and terms begun without space, since there was some
  NodeId handed_to_;                // the newest it was offered to, or itself
  bool clock_lease_reads_ = false;  // the cluster's setting, as applied

  // Reads and keep-alives.
  std::vector<WaitingRead> new_reads_;
  std::vector<WaitingKeepAlive> new_keep_alives_;
  std::vector<RemoteKeepAlives> new_remote_;
  // Those that found no leader, or lost it: asked again at retry_rounds_at_. New ones do not wait for them.
  std::vector<WaitingRead> failed_reads_;
  std::vector<WaitingKeepAlive> failed_keep_alives_;
  std::map<uint64_t, Round> rounds_;  // by raft's context
  uint64_t last_round_ = 0;
  std::multimap<LogIndex, WaitingRead> confirmed_reads_;  // wait for the state to reach the index
  std::multimap<Revision, WaitingRead> revision_reads_;   // wait for the state to reach the revision
  std::multimap<LogIndex, UnknownLeases> unknown_leases_;
  std::map<uint64_t, ForwardedKeepAlives> forwarded_keep_alives_;
  uint64_t last_keep_alive_frame_ = 0;
  size_t reads_pending_ = 0;
  size_t keep_alives_pending_ = 0;
  Instant retry_rounds_at_ = kNever;
  Instant requests_checked_at_{};

  // Changes of membership, in the order they came. Few.
  std::list<PendingChange> changes_;
  uint64_t last_change_ = 0;
  std::map<NodeId, ChangeSource> change_sources_;  // as leader, in this term
  Term change_sources_term_;

  DigestComparison digests_;

  FollowerLag lag_;
  Instant applied_told_at_{};  // as leader

  uint64_t feature_level_ = 1;  // the cluster's, as applied
  // As leader, in this term: the levels of those who told theirs.
  std::map<NodeId, uint64_t> features_;
  Term features_term_;
  Instant features_asked_at_ = Instant::min();

  keyspace::HistoryBudget history_;
  Instant history_checked_at_{};

  // A new leader gives every lease its deadline in slices; the last one that has it.
  std::optional<LeaseId> lease_walk_;
  // Leases that are due and wait for one more turn of input (rule 2).
  bool expiry_armed_ = false;
  Instant expiry_not_before_{};  // after a proposal of ends that was not taken
  std::vector<LeaseId> due_;
};

}  // namespace conclave::node
