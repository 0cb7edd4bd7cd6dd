// NodeServer: a whole server below the wire in the simulated world: the product's Replica and Storage, driven as the
// real server drives them. Built at a start of its machine from what the disk holds, gone at its end. What the product
// gives to threads is given to the world here: turns to its events, disk work to the simulated disk's time.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "keyspace/watch_stream.h"
#include "node/replica.h"
#include "node/storage.h"
#include "sim/node_check.h"
#include "sim/sessions_host.h"
#include "sim/world.h"

namespace conclave::sim {

inline constexpr GroupId kNodeGroup{1};
inline constexpr ClusterId kNodeCluster{77};

// A lock by etcd's recipe, as one of those who claim it sees it.
struct LockView {
  int64_t own = 0;          // create revision of its own claim; zero: there is none
  int64_t oldest = 0;       // that of the oldest claim
  std::string predecessor;  // the newest claim that is older than its own; of a look
};

struct NodeAnswer {
  NodeOutcome outcome = NodeOutcome::kUnknown;
  int64_t revision = 0;
  bool changed = false;                                // of a put, swap or delete
  std::string value;                                   // of a read, or a swap that changed nothing
  int64_t mod_revision = 0;                            // of what was read
  LockView lock;                                       // of a claim, or a look at a lock
  int64_t ttl_ms = 0;                                  // of a keep-alive; zero: gone
  keyspace::ErrorId error = keyspace::ErrorId::kNone;  // of a write applied
};

// Takes the events of a watch.
class WatchSink {
 public:
  virtual ~WatchSink() = default;
  virtual void on_response(const keyspace::WatchResponse& response) = 0;
  // The stream is gone.
  virtual void on_watch_lost() = 0;
};

struct NodeKnobs {
  node::ReplicaOptions replica;  // identity and seed are set for each start
  node::StorageOptions storage;
  layers::SessionsOptions sessions;
  uint64_t clients = 8;
  uint64_t lease_clients = 4;
  uint64_t lock_clients = 4;
  uint64_t locks = 2;
  uint64_t session_clients = 0;
  uint64_t sessions_per_client = 2;
  uint64_t elections = 0;
  Duration session_ttl_max = std::chrono::seconds(5);
  Duration trouble_mean = std::chrono::seconds(4);  // of a client of sessions; zero: none
  uint64_t watchers = 2;
  uint64_t keys = 8;
  uint64_t value_bytes = 8;
  Duration think_mean = std::chrono::milliseconds(60);
  Duration operation_timeout = std::chrono::seconds(2);
  uint64_t read_percent = 40;
  // Of what is no read.
  uint64_t swap_percent = 0;
  uint64_t delete_percent = 0;
  // At each look of the administrator.
  uint32_t compact_per_thousand = 0;
  uint32_t clock_lease_per_thousand = 0;
  uint32_t transfer_per_thousand = 0;
  uint32_t membership_per_thousand = 0;
  uint64_t newer_build_from_boot = 1;  // that knows one feature level more; never exchanged for the older one
  std::vector<bool> spare;             // machines outside the first configuration
};

class NodeServer final : public env::NetworkReceiver, private node::ReplicaWorld, private node::ReplicaClients {
 public:
  using Done = std::function<void(const NodeAnswer&)>;

  NodeServer(World& world, NodeCheck& check, const NodeKnobs& knobs, size_t node, Boot boot);
  ~NodeServer() override;

  // Reads the disk; the replica starts when the disk is done.
  void start();
  // Lays out a member of a new cluster on the machine's disk, with no server on it.
  static void lay_out(World& world, NodeCheck& check, const NodeKnobs& knobs, size_t node,
                      const Membership& membership);

  // --- From the network.
  void on_frame(NodeId from, ByteView frame) override;
  void on_link_up(NodeId peer) override;
  void on_link_broken(NodeId peer) override;

  // --- From clients of this server; answered once, or never if the process ends before.
  void put(const std::string& key, const std::string& value, LeaseId lease, Done done);
  void swap(const std::string& key, int64_t expected, const std::string& value, Done done);
  void erase(const std::string& key, Done done);
  void compact(int64_t revision, Done done);
  void set_clock_lease_reads(bool on);
  void get(const std::string& key, Done done);
  // Claims a lock unless the claim stands, and reads who has the oldest claim: one transaction, as clientv3/concurrency
  // makes it. `key` begins with `prefix`.
  void claim(const std::string& prefix, const std::string& key, const std::string& value, LeaseId lease, Done done);
  // A linearizable read of the claims on a lock: the own one, the oldest, and the one to wait for.
  void look(const std::string& prefix, const std::string& key, Done done);
  void grant(LeaseId lease, Duration ttl, Done done);
  void revoke(LeaseId lease, Done done);
  void keep_alive(LeaseId lease, Done done);
  // All keys from this revision on, or one; ended by unwatch() or by the server.
  void watch(WatchSink& sink, int64_t from_revision);
  void watch_key(WatchSink& sink, const std::string& key, int64_t from_revision);
  void unwatch(WatchSink& sink);
  // For operators of sessions. Shows the state once a round has proven that it is of now or later; not in the middle of
  // a large entry. `look` may ask for more.
  void inspect(std::function<void(const keyspace::View&)> look);
  void command(const keyspace::CommandHeader& header, const std::string& body, Done done) {
    write(header, body, std::move(done));
  }
  void transfer();
  void administer(const node::MemberChange& change, Done done);
  // A stream of sessions, ended by close_sessions() or by the server; zero: it takes none now.
  [[nodiscard]] layers::StreamId open_sessions(std::shared_ptr<SessionSink> sink);
  void ask_sessions(layers::StreamId stream, const v1::SessionRequest& request);
  void introduce_sessions(layers::StreamId stream, const v1::SessionIdentity& identity);
  void withdraw_sessions(layers::StreamId stream, SessionId session, uint64_t sequence);
  void close_sessions(layers::StreamId stream);

  // Null until it started.
  [[nodiscard]] node::Replica* replica() { return replica_.get(); }
  [[nodiscard]] bool is_dead() const { return dead_; }
  [[nodiscard]] std::string describe() const;
  // Says starts, and what was found on the disk, to stderr; set for the whole process.
  static void set_verbose(bool verbose);
  [[nodiscard]] static bool is_verbose();

 private:
  void say(const std::string& what) const;
  struct Request {
    enum class Kind : uint8_t {
      kWrite,
      kSwap,
      kDelete,
      kClaim,
      kRead,
      kLook,
      kInspect,
      kKeepAlive,
      kChange
    } kind = Kind::kWrite;
    std::string key;
    std::string prefix;  // of a look
    std::function<void(const keyspace::View&)> inspects;
    Done done;
  };
  struct Watch {
    WatchSink* sink = nullptr;
    std::unique_ptr<keyspace::WatchStream> stream;
    bool asked = false;  // it may have something to send
  };

  // node::ReplicaWorld
  void store(node::StorageJob job) override;
  void send(NodeId to, env::Lane lane, std::string frame) override;
  void on_diverged(LogIndex index) override;
  void on_outdated(uint64_t level) override;
  // node::ReplicaClients
  void on_write_applied(node::Ticket ticket, const keyspace::Reply& reply) override;
  void on_write_refused(node::Ticket ticket, node::RequestRefusal refusal) override;
  void on_write_unknown(node::Ticket ticket) override;
  void on_read_ready(node::Ticket ticket) override;
  void on_read_refused(node::Ticket ticket, node::RequestRefusal refusal) override;
  void on_kept_alive(node::Ticket ticket, int64_t ttl_ms) override;
  void on_keep_alive_refused(node::Ticket ticket, node::RequestRefusal refusal) override;
  void on_change_done(node::Ticket ticket) override;
  void on_change_refused(node::Ticket ticket, node::ChangeRefusal refusal) override;
  void on_change_unknown(node::Ticket ticket) override;
  void on_applied(const keyspace::Effects& effects) override;
  void on_state_replaced() override;
  void on_role_changed(const raft::Status&) override {}

  [[nodiscard]] Instant now() { return world_.machine(node_).clock.now(); }
  void die();
  bool survives(const Error& error);
  void begin(node::FoundReplica found);
  void plan_turn(Duration after = {});
  void turn();
  void arm();
  [[nodiscard]] Instant next_deadline() const;
  void work_disk();
  void disk_done(std::vector<node::StorageResult> results);
  void plan_idle(Duration after);
  void send_watches();
  void answer(node::Ticket ticket, const NodeAnswer& answer);
  node::Ticket ask(Request request);
  void write(const keyspace::CommandHeader& header, const std::string& body, Done done,
             Request::Kind kind = Request::Kind::kWrite);
  void watch(WatchSink& sink, const keyspace::WatchCreate& create);
  void read_transaction(Request::Kind kind, const std::string& body, NodeAnswer& answer);
  [[nodiscard]] LockView view_of(const Request& request);
  // The create revision and key of the first claim in this range; zero if there is none.
  [[nodiscard]] std::pair<int64_t, std::string> first_of(const keyspace::RangeRequest& range);

  World& world_;
  NodeCheck& check_;
  const NodeKnobs& knobs_;
  const size_t node_;
  const NodeId id_;
  const Boot boot_;
  bool dead_ = false;

  std::unique_ptr<node::Storage> storage_;
  std::vector<node::StorageJob> inbox_;  // for when the disk is free
  bool disk_busy_ = false;
  bool idle_planned_ = false;
  uint64_t works_ = 0;
  std::unique_ptr<node::Replica> replica_;
  bool replaced_ = false;  // the state was, and its digest is to be looked at
  std::unique_ptr<SessionsHost> sessions_;

  bool turn_planned_ = false;
  EventHandle deadline_event_;
  Instant deadline_at_ = kNever;

  std::map<node::Ticket, Request> requests_;
  node::Ticket last_ticket_ = 0;
  std::vector<Watch> watches_;
};

}  // namespace conclave::sim
