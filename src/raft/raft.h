// One replica of one group's consensus: Raft (Ongaro 2014) as a step function. It owns the log in memory, the vote, the
// membership and, as leader, what it knows of its peers. It owns no clock, socket, thread, disk or randomness beyond
// the generator seeded at construction, never blocks and never fails: the world goes in as inputs and out as outputs
// (step.h).
//
// Where this differs from the dissertation, and why: docs/internals/divergence.md.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "base/entry.h"
#include "base/random.h"
#include "base/ring.h"
#include "raft/log.h"
#include "raft/message.h"
#include "raft/options.h"
#include "raft/step.h"

namespace conclave::raft {

// What a server knows of another, in any role; the second half while it leads.
struct Peer {
  NodeId id;
  // Newest boot heard of, and the identity it last claimed.
  Boot boot;
  Incarnation incarnation;
  bool proven = false;
  // The network said that its process may have ended, and nothing was heard since: no answer is waited for.
  bool link_broken = false;
  // Answered this server's Hello.
  bool hello_answered = false;
  // What the peer is known to have had durable, in its newest life known and in earlier ones. Kept apart: a server that
  // starts is compared with what it was before, not with what it said since.
  Floor floor;
  Floor floor_before;
  enum class Campaign : uint8_t { kSilent, kGranted, kRefused, kBehind };
  Campaign campaign = Campaign::kSilent;

  // As leader.
  enum class Flow : uint8_t {
    kProbe,      // where the logs agree is being found: one message at a time
    kReplicate,  // entries are sent ahead of their acknowledgements
    kSnapshot,   // needs what the log no longer has
  };
  Flow flow = Flow::kProbe;
  bool probe_sent = false;
  LogIndex match;           // durable there and equal to this log
  LogIndex next;            // the next entry to send
  Ring<LogIndex> inflight;  // last index of each message with entries under way
  // How many there may be: fewer where the way to the peer loses what goes beyond; zero: as many as the options allow.
  size_t window = 0;
  size_t acknowledged = 0;  // messages since the window last grew
  Instant heard_at{};       // last answer in this term
  bool heard = false;       // any answer in this term
  ReadId round;             // newest round answered
  Instant promised_from{};  // begin of the newest round answered with a promise
  bool promised = false;
  LogIndex commit_sent;
  uint64_t snapshot_offset = 0;  // bytes of `snapshot` the peer has
  SnapshotMark snapshot;
  Instant snapshot_sent_at{};
  bool snapshot_waiting = false;
};

// Counts in a quorum as the voter of this incarnation.
[[nodiscard]] inline bool counts_as(const Peer& peer, Incarnation incarnation) {
  return peer.proven && peer.incarnation == incarnation;
}

struct Status {
  Role role = Role::kFollower;
  Term term;
  NodeId leader;  // known leader of this term, or zero
  Position last;
  LogIndex commit;
  LogIndex durable;
  Incarnation incarnation;
  bool voter = false;  // the newest configuration names this server under this incarnation
  // Why this server took a new identity when it started, if it did.
  Certainty certainty = Certainty::kCertain;
  bool proven = false;  // a quorum confirmed that nothing acknowledged is missing
  bool has_gap = false;
  bool transferring = false;
  // So many voters are known to have lost their identity that the others are no quorum: only `recover` helps.
  bool quorum_lost = false;
};

class Raft {
 public:
  // `recovered` is what the log found. The first input must be Start.
  Raft(const Options& options, Recovered&& recovered);
  Raft(const Raft&) = delete;
  Raft& operator=(const Raft&) = delete;

  // `now` never goes back. `output` is cleared first; what it points to is valid until the next step.
  void step(Instant now, const Input& input, Output& output);
  // Step with Tick is due at this time.
  [[nodiscard]] Instant next_deadline() const;

  [[nodiscard]] Status status() const;
  [[nodiscard]] const Membership& membership() const { return configurations_.back().membership; }
  // The configuration in force after the entry at `index`, which is not before the snapshot.
  [[nodiscard]] const Membership& membership_at(LogIndex index) const;
  [[nodiscard]] const Log& log() const { return log_; }
  [[nodiscard]] const Entry& entry(LogIndex index) const { return log_.entry(index); }
  [[nodiscard]] const Vote& vote() const { return vote_; }
  [[nodiscard]] const SnapshotMark& snapshot() const { return snapshot_; }
  [[nodiscard]] const std::vector<Peer>& peers() const { return peers_; }
  [[nodiscard]] const Options& options() const { return options_; }
  // What is known of every member's durable log, this one's excepted; to be written beside commit marks.
  [[nodiscard]] std::vector<Floor> floors() const;
  // As leader, with clock-lease reads on: until when a read may be answered without a round; otherwise long ago.
  [[nodiscard]] Instant lease_until() const;

 private:
  friend class Invariants;
  friend class MessageChecker;

  struct Configuration {
    LogIndex index;  // of its entry; of the first, the snapshot's
    Membership membership;
  };
  struct Pending {
    WriteSequence sequence;
    LogIndex last;  // log_ is durable up to here once this write is
    Instant began;
  };
  struct PendingRead {
    NodeId peer;           // zero: of this server
    uint64_t context = 0;  // of this server's driver, or the peer's ReadId
    Boot boot;             // the peer's
    ReadId round;          // zero: waits for a round to begin
    LogIndex index;
  };
  struct ForwardedRead {
    uint64_t context = 0;
    ReadId id;
    Instant deadline;
  };
  struct Pull {
    enum class Kind : uint8_t { kNone, kRepair, kCatchUp, kAwaitDurable };
    Kind kind = Kind::kNone;
    uint64_t id = 0;
    NodeId peer;
    Position target;  // catch-up: the last position that made the peer worth asking
    Position prev;
    Position proof;  // repair: the known place behind the hole
    Instant retry_at = kNever;
    uint32_t attempts = 0;
  };

  // raft.cc: dispatch, checks, writes, sends, timers.
  void on(const Start& input);
  void on(const Tick& input);
  void on(const Receive& input);
  void on(const WriteDone& input);
  void on(const Propose& input);
  void on(const ProposeMembership& input);
  void on(const Read& input);
  void on(const Transfer& input);
  void on(const LinkBroken& input);
  void on(const LinkUp& input);
  void on(const Compact& input);
  void on(const SnapshotUnreadable& input);
  void on(const ChunkStored& input);
  void on(const HoleFound& input);
  void on(const ClockLease& input);
  // Whether the message may be looked at: well-formed, believable, and an answer to something. What is refused changes
  // nothing, not even what its header says of the sender.
  [[nodiscard]] Refusal check(const Message& message) const;
  void finish();
  void refuse(Refusal refusal) { output_->refused = refusal; }
  void send(NodeId to, const Body& body, WriteSequence after = WriteSequence());
  Write& write();
  void write_vote();
  void write_log_from(LogIndex first);
  void forget_durable_from(LogIndex index);
  [[nodiscard]] WriteSequence pending_log_write() const;
  Peer* find_peer(NodeId id);
  [[nodiscard]] const Peer* find_peer(NodeId id) const;
  void sync_peers();
  void note_sender(const Header& header);
  template <class Counts>
  [[nodiscard]] bool has_quorum(const Membership& membership, Counts&& counts) const;
  [[nodiscard]] bool is_voter() const { return membership().is_voter(options_.self, vote_.incarnation); }

  // election.cc
  void become_follower(Term term, NodeId leader);
  void become_leader();
  void leave_leadership();
  void campaign_pre();
  void campaign(bool transfer);
  void tally();
  [[nodiscard]] bool is_stopped_by_log() const;
  template <class Counts>
  [[nodiscard]] bool has_campaign_quorum(Counts&& counts) const;
  [[nodiscard]] bool can_campaign() const;
  [[nodiscard]] bool hears_leader() const;
  void reset_election_deadline();
  void retry_election_soon();
  void handle(const Header& header, const VoteRequest& request);
  void handle(const Header& header, const VoteReply& reply);
  void handle(const Header& header, const TimeoutNow& request);
  void hand_over_if_caught_up();
  void hand_over_from_stalled_disk();
  [[nodiscard]] const Peer* best_transferee() const;

  // replication.cc
  LogIndex append_as_leader(EntryType type, SharedBytes payload);
  void send_appends(Peer& peer);
  [[nodiscard]] size_t window_of(const Peer& peer) const;
  void widen(Peer& peer) const;
  void send_append(Peer& peer, size_t count);
  void broadcast_heartbeat();
  void broadcast_appends();
  void advance_commit();
  void set_commit(LogIndex index);
  void handle(const Header& header, const AppendRequest& request);
  void handle(const Header& header, const AppendReply& reply);
  // Merges entries that follow a matching place into the log; check() has seen that they contradict nothing.
  void merge(const EntrySlices& entries);
  [[nodiscard]] Floors make_floors() const;
  void learn_floors(const Floors& floors);

  // reads.cc
  void start_read_round();
  void finish_reads();
  void fail_reads(Refusal refusal);
  void add_read(PendingRead read);
  void handle(const Header& header, const ReadRequest& request);
  void handle(const Header& header, const ReadReply& reply);

  // membership_change.cc
  void propose_change(const Membership& target);
  void note_configuration(const Entry& entry);
  void on_configuration_committed();
  void admit_caught_up();
  [[nodiscard]] bool may_change_membership() const;
  [[nodiscard]] bool is_caught_up(const Peer& peer) const;

  // recovery.cc: hello, floors, holes, catch-up, snapshots.
  void send_hellos();
  void take_new_identity(Certainty certainty);
  void check_proven();
  static void note_floor(Peer& peer, const Floor& floor);
  void handle(const Header& header, const Hello& hello);
  void handle(const Header& header, const PullRequest& request);
  void handle(const Header& header, const PullReply& reply);
  void start_repair();
  void start_catch_up();
  void send_pull();
  void end_pull();
  void send_chunk(Peer& peer);
  void send_pulled_chunk(const Header& header, uint64_t pull, const SnapshotMark& mark, uint64_t offset);
  void go_on_pulling();
  void handle(const Header& header, const SnapshotChunk& chunk);
  void handle(const Header& header, const SnapshotReply& reply);
  void install(const SnapshotMark& mark);

  Options options_;
  Random random_;
  Instant now_{};
  Output* output_ = nullptr;
  bool started_ = false;

  // Durable state, and what is on its way there.
  Log log_;
  Vote vote_;
  SnapshotMark snapshot_;
  SnapshotMark snapshot_before_;               // the older of two kept: a transfer under way goes on with it
  std::vector<Configuration> configurations_;  // ascending; the last one is in force (dissertation 4.1)
  WriteSequence last_write_;
  WriteSequence done_write_;
  WriteSequence vote_write_;  // the newest write with a vote
  Ring<Pending> pending_;
  LogIndex durable_;  // the log is on this disk up to here, gaps apart
  LogIndex commit_;
  Certainty certainty_;
  // As found at start: what floors are compared with.
  Incarnation start_incarnation_;
  Term start_term_;
  Position start_last_;
  bool proven_ = false;

  // This step's write, resolved to slices at its end.
  LogIndex write_first_;  // zero: none
  LogIndex fill_first_;   // zero: none
  LogIndex fill_last_;

  // Any role.
  Role role_ = Role::kFollower;
  NodeId leader_;
  std::vector<Peer> peers_;  // members of the newest configuration but this server, by id
  Instant election_deadline_ = kNever;
  Instant hello_deadline_ = kNever;
  bool clock_lease_ = false;
  Instant no_vote_until_ = Instant::min();  // after a restart with promises
  Pull pull_;
  uint64_t last_pull_ = 0;
  size_t next_repair_peer_ = 0;
  ReadId last_read_;

  // Follower.
  Instant heard_leader_at_{};
  bool leader_link_broken_ = false;
  LogIndex verified_;  // the log equals the leader's of this term up to here
  ReadId round_answered_;
  Instant promised_until_ = Instant::min();
  Term promised_term_;
  std::vector<ForwardedRead> forwarded_reads_;

  // Candidate.
  Term campaign_term_;
  bool campaign_transfer_ = false;

  // Leader.
  LogIndex term_first_;  // the index of this term's first entry
  Instant heartbeat_deadline_ = kNever;
  ReadId round_;
  std::array<Instant, 64> round_began_{};  // by round modulo 64
  Ring<PendingRead> reads_;
  NodeId transfer_to_;
  Instant transfer_deadline_ = kNever;
  bool transfer_sent_ = false;
  bool lease_forfeited_ = false;  // handed over once: never a clock lease again in this term
  Instant handover_not_before_{};
  size_t uncommitted_bytes_ = 0;
};

// True if voters for whom counts(id, incarnation) holds are a majority of each configuration in force.
template <class Counts>
bool Raft::has_quorum(const Membership& membership, Counts&& counts) const {
  size_t voters = 0;
  size_t voters_before = 0;
  size_t yes = 0;
  size_t yes_before = 0;
  for (const Member& member : membership.members()) {
    if (member.role == MemberRole::kVoter) {
      ++voters;
      yes += counts(member.id, member.incarnation) ? 1 : 0;
    }
    if (membership.is_joint() && member.role_before == MemberRole::kVoter) {
      ++voters_before;
      yes_before += counts(member.id, member.incarnation_before) ? 1 : 0;
    }
  }
  return voters > 0 && yes > voters / 2 && (!membership.is_joint() || yes_before > voters_before / 2);
}

}  // namespace conclave::raft
