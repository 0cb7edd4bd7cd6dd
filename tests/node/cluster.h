// Cluster: whole servers below the wire on one thread, each the product's Replica and Storage on a TraceDisk, driven as
// the real server drives them. Time, messages and disks move by the test's hand, a millisecond a step, so that the same
// calls give the same run. One of them, the victim, can be made to end in the middle of any storage call, with what
// that call left of its disk; another process of it then begins on that.
//
// It keeps what the victim has promised to others, and holds against it what the next process finds. What must hold
// over all servers, and between them and their clients, NodeCheck knows.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "env/clock.h"
#include "node/replica.h"
#include "node/storage.h"
#include "sim/node_check.h"
#include "sim/trace_disk.h"

namespace conclave::node {

// Where a process ends, and what is left of what it had not synced: see TraceDisk::crash_torn.
struct CrashPoint {
  static constexpr size_t kNothingTorn = SIZE_MAX;
  uint64_t call = 0;  // the n-th storage call of the process, from 1 on
  std::vector<bool> kept;
  size_t torn = kNothingTorn;
  size_t cut = 0;
  bool keep_front = true;

  [[nodiscard]] sim::TraceImage image_of(const sim::TraceDisk& disk) const {
    return disk.crash_torn(kept, torn, cut, keep_front);
  }
};

// One end of the victim, and perhaps one more of the process that takes its place.
struct CrashPlan {
  CrashPoint first;
  Duration down{};           // after each
  uint64_t second_call = 0;  // of the second process; zero: it goes on
  uint64_t second_kept = 0;  // of what is not synced then, by bit, from the lowest on and over again
};

// What the newest process of the victim found, where an earlier one has ended.
struct Found {
  Position snapshot;
  std::string membership;
  // Of a write that the earlier process was not told to be durable.
  bool had_write_under_way = false;
  bool has_write_under_way = false;
};

struct ClusterOptions {
  uint64_t voters = 3;
  uint64_t spares = 0;  // servers with an empty disk, numbered behind the voters: a leader must reach them
  NodeId victim{1};
  ReplicaOptions replica;
  StorageOptions storage;
};

class Cluster {
 public:
  // Called in the middle of a storage call of the victim.
  using Visit = std::function<void(const sim::TraceDisk& disk, uint64_t call)>;

  // Server 1 asks for votes before the others do, and leads.
  explicit Cluster(const ClusterOptions& options);
  Cluster(const Cluster&) = delete;
  Cluster& operator=(const Cluster&) = delete;

  // ---- The victim's storage calls, from count_calls() on ----
  void count_calls() { counting_ = true; }
  void visit_calls(Visit visit) { visit_ = std::move(visit); }
  void crash_at(const CrashPlan& plan) { plan_ = plan; }
  // From now on it lives.
  void crash_no_more() { plan_.reset(); }
  [[nodiscard]] uint64_t crashes() const { return crashes_; }

  // ---- Time ----
  void start(NodeId id);
  // Steps until the condition holds; false if it did not within `most`, or the victim crashed before, or something is
  // wrong.
  [[nodiscard]] bool run_until(const std::function<bool()>& holds, Duration most);
  void run_for(Duration duration);

  // ---- Links ----
  void cut_off(NodeId id);
  void reconnect(NodeId id);

  // ---- Clients ----
  void put(NodeId at, const std::string& key, const std::string& value);
  void get(NodeId at, const std::string& key);
  void administer(NodeId at, const MemberChange& change);
  // All that was asked of servers that are up is answered.
  [[nodiscard]] bool is_answered() const { return pending_.empty(); }

  // ---- What is seen ----
  [[nodiscard]] const Replica& replica(NodeId id) const { return *servers_.at(id).replica; }
  [[nodiscard]] bool is_up(NodeId id) const { return servers_.at(id).replica != nullptr; }
  // Of the highest term; not set: none.
  [[nodiscard]] NodeId leader() const;
  [[nodiscard]] bool is_member(NodeId id) const;
  // Nothing to send, to apply or to write.
  [[nodiscard]] bool is_quiet() const;
  // Why not all members of the leader's configuration stand at one place with one state; empty if they do.
  [[nodiscard]] std::string why_not_even() const;
  // Changes of membership that were acknowledged, and are not in the leader's configuration; empty if all are.
  [[nodiscard]] std::string lost_changes() const;
  [[nodiscard]] uint64_t changes_refused() const { return changes_refused_; }
  [[nodiscard]] std::string judge_history() const { return check_.judge(operations_); }
  [[nodiscard]] const Found& found() const { return found_; }
  // The first thing wrong, or empty.
  [[nodiscard]] const std::string& violation() const { return check_.violation(); }
  // Over what the victim owes to others: it differs where one image must be judged differently.
  [[nodiscard]] uint64_t promises_hash() const;

 private:
  struct Clock final : env::Clock {
    explicit Clock(const Instant& shown) : now_shown(shown) {}
    Instant now() override { return now_shown; }
    int64_t wall_milliseconds() override { return to_milliseconds(now_shown.time_since_epoch()); }
    const Instant& now_shown;
  };
  // What a server has told others, in all its lives.
  struct Promises {
    Term term;
    Incarnation incarnation;
    NodeId candidate;  // voted for in `term`
    Term match_term;   // of the newest acknowledgement of entries
    LogIndex match;
    LogIndex installed;
  };
  // A server's log as of a write.
  struct Written {
    WriteSequence sequence;
    Vote vote;
    Position last;
    Membership membership;  // the newest, committed or not
  };
  struct Server final : ReplicaWorld, ReplicaClients {
    Cluster* cluster = nullptr;
    NodeId id;
    Boot boot;
    std::unique_ptr<sim::TraceDisk> disk;
    std::unique_ptr<Storage> storage;
    std::unique_ptr<Replica> replica;  // null: down
    std::vector<StorageJob> inbox;
    std::vector<StorageResult> results;  // told when the disk is done
    Instant worked_at{};
    Instant disk_busy_until{};
    bool wants_idle = false;
    bool has_background = false;
    bool is_replaced = false;
    bool is_cut_off = false;
    Promises promises;
    // The last write known to be durable, and those handed over after it.
    Written durable;
    std::deque<Written> under_way;

    void store(StorageJob job) override;
    void send(NodeId to, env::Lane lane, std::string frame) override;
    void on_diverged(LogIndex index) override;
    void on_outdated(uint64_t level) override;
    void on_write_applied(Ticket ticket, const keyspace::Reply& reply) override;
    void on_write_refused(Ticket ticket, RequestRefusal refusal) override;
    void on_write_unknown(Ticket ticket) override;
    void on_read_ready(Ticket ticket) override;
    void on_read_refused(Ticket ticket, RequestRefusal refusal) override;
    void on_kept_alive(Ticket, int64_t) override {}
    void on_keep_alive_refused(Ticket, RequestRefusal) override {}
    void on_change_done(Ticket ticket) override;
    void on_change_refused(Ticket ticket, ChangeRefusal refusal) override;
    void on_change_unknown(Ticket ticket) override;
    void on_applied(const keyspace::Effects& effects) override;
    void on_state_replaced() override { is_replaced = true; }
    void on_role_changed(const raft::Status&) override {}
  };
  // A frame, or news of the link to `from`; they keep their order.
  struct Mail {
    enum class Kind : uint8_t { kFrame, kLinkUp, kLinkBroken } kind = Kind::kFrame;
    NodeId from;
    NodeId to;
    std::string frame;
  };
  struct Request {
    NodeId at;
    size_t operation = SIZE_MAX;  // none: a change
    MemberChange change;
  };

  void lay_out(Server& server, const Membership& membership);
  [[nodiscard]] StorageOptions storage_options(NodeId id) const;
  void begin(Server& server, Storage::Opened opened);
  void hook(Server& server);
  [[nodiscard]] std::optional<CrashPoint> crash_now(const sim::TraceDisk& disk) const;
  void crash(Server& server);
  void step();
  [[nodiscard]] Instant next_deadline() const;
  void deliver(const Mail& mail);
  void take_results(Server& server);
  void turn(Server& server);
  void work_disk(Server& server);
  [[nodiscard]] bool is_linked(NodeId a, NodeId b) const;
  void tell_links(NodeId id, Mail::Kind kind);
  void note_promises(Server& server, ByteView frame);
  void check_found(const Server& server, const Storage::Opened& opened, const FoundReplica& found);
  void check_written(Server& server);
  Ticket ask(NodeId at, sim::NodeOperation operation);
  void answer(Ticket ticket, sim::NodeOutcome outcome, const std::function<void(sim::NodeOperation&)>& fill = {});
  void violate(const Server& server, std::string_view what);

  const ClusterOptions options_;
  Instant now_{std::chrono::seconds(1000)};
  Clock clock_{now_};
  sim::NodeCheck check_{sim::NodeCheck::Options{}};
  std::map<NodeId, Server> servers_;
  std::deque<Mail> mail_;
  std::vector<sim::NodeOperation> operations_;
  std::map<Ticket, Request> pending_;
  std::vector<MemberChange> changes_made_;
  uint64_t changes_refused_ = 0;
  Ticket last_ticket_ = 0;

  bool counting_ = false;
  uint64_t calls_ = 0;  // of the victim's process
  Visit visit_;
  std::optional<CrashPlan> plan_;
  std::optional<sim::TraceImage> left_;  // by a crash: the process is over as soon as the call under way returns
  Instant restart_at_ = kNever;
  uint64_t crashes_ = 0;
  Found found_;
};

}  // namespace conclave::node
