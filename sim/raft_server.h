// RaftServer: the driver of one consensus core in the simulated world, and the process around it: the log, snapshots,
// the register machine, forwarding of writes, reads. Built at a start of its machine from what the disk holds, gone at
// its end. Everything it does happens inside callbacks of the world.
//
// Duties of a driver, as step.h lists them, and one of its own: the boot it is given grows with every start, whatever
// happened to the disk. In the simulator the harness counts; a product keeps the count where a restored directory
// cannot take it back.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "raft/codec.h"
#include "raft/invariants.h"
#include "raft/raft.h"
#include "sim/minimal_log.h"
#include "sim/raft_check.h"
#include "sim/raft_knobs.h"
#include "sim/register_machine.h"
#include "sim/snapshot_store.h"
#include "sim/world.h"

namespace conclave::sim {

inline constexpr GroupId kRaftGroup{7};

// An answer to a client, from the server it asked.
struct ClientReply {
  uint32_t client = 0;
  uint64_t sequence = 0;
  enum class Kind : uint8_t {
    kDone = 1,
    kRefused = 2,       // known never to take effect
    kTryElsewhere = 3,  // not done here; a copy of the request may still take effect
  } kind = Kind::kDone;
  LogIndex index;
  ApplyResult result;  // of a write
  uint64_t value = 0;  // of a read
};

// What servers need of the harness.
class RaftHost {
 public:
  virtual ~RaftHost() = default;
  virtual void on_reply(const ClientReply& reply) = 0;
  // The server that runs, or ran last, on this machine: an id is never used for two disks.
  [[nodiscard]] virtual NodeId id_of(size_t node) const = 0;
  // A frame on its way out, for the hostile peer to learn from.
  virtual void on_sent(size_t from, size_t to, ByteView frame) = 0;
  // A message was refused; asked beside a hostile peer only.
  virtual void on_refused() = 0;
};

class RaftServer final : public env::NetworkReceiver {
 public:
  RaftServer(World& world, RaftHost& host, RaftCheck& check, const RaftKnobs& knobs, size_t node, NodeId id, Boot boot);

  // Reads the disk; the core starts when the disk is done.
  void start();

  // --- From the network.
  void on_frame(NodeId from, ByteView frame) override;
  void on_link_up(NodeId peer) override;
  void on_link_broken(NodeId peer) override;

  // --- From clients of this server, and from the harness as an administrator.
  void write(const Command& command);
  void read(uint32_t client, uint64_t sequence, uint8_t place);
  raft::Refusal transfer(NodeId to);
  raft::Refusal change_membership(const Membership& target);
  // Damages the records of up to `count` entries in a row on the disk, then finds them, at work or by starting again.
  // False if there is none at rest.
  bool suffer_holes(uint64_t count, bool found_at_work, Random& random);
  // Damages both copies of what the log says of itself, and starts again.
  bool suffer_loss_of_directory(Random& random);

  // Null until it started.
  [[nodiscard]] const raft::Raft* core() const { return raft_.get(); }
  [[nodiscard]] const RegisterMachine& machine() const { return machine_; }
  [[nodiscard]] NodeId id() const { return id_; }
  [[nodiscard]] bool is_dead() const { return dead_; }
  [[nodiscard]] std::string describe() const;
  // Says every message, write and change of role to stderr; set for the whole process.
  static void set_verbose(bool verbose);

 private:
  struct Held {
    WriteSequence after;
    NodeId to;
    env::Lane lane;
    std::string frame;
    std::optional<raft::Message> vote;  // for the check: said when it leaves
  };
  struct Proposal {
    Term term;
    uint32_t client = 0;
    uint64_t sequence = 0;
    NodeId origin;  // zero: asked here
  };
  struct WaitingRead {
    LogIndex index;
    uint32_t client = 0;
    uint64_t sequence = 0;
    uint8_t place = 0;
  };

  [[nodiscard]] Instant now() { return world_.machine(node_).clock.now(); }
  [[nodiscard]] SimDisk& disk() { return world_.machine(node_).disk; }
  // The process ends; a new one starts after a while. Nothing more happens in this one.
  void die();
  // False, and the process ends, if nothing may follow this error.
  bool survives(const Error& error);

  void begin();
  void step(const raft::Input& input);
  void step_once(const raft::Input& input);
  void check_step(const raft::Invariants::State& before, bool judged);
  void say(const std::string& what) const;
  void say_step(const raft::Input& input) const;
  void send_outputs();
  void send(NodeId to, env::Lane lane, std::string frame);
  bool fill_chunk(raft::SnapshotChunk& chunk, std::string& bytes);
  void store_chunk(const raft::ChunkToStore& chunk);
  void answer_reads();
  void arm();

  void write_next();
  void batch_done(WriteSequence sequence);
  void plan_mark();
  void plan_scrub();
  void scrub();
  void install();

  void apply();
  void applied(const Entry& entry, const ApplyResult& result);
  void take_snapshot();
  void snapshot_done(const SnapshotMark& mark);

  void propose(const Command& command, NodeId origin);
  void reply(NodeId origin, const ClientReply& reply);

  World& world_;
  RaftHost& host_;
  RaftCheck& check_;
  const RaftKnobs& knobs_;
  const size_t node_;
  const NodeId id_;
  const Boot boot_;
  bool dead_ = false;

  std::unique_ptr<env::DirectoryLock> lock_;
  std::unique_ptr<MinimalLog> log_;
  SnapshotStore snapshots_;
  Recovered recovered_;
  std::unique_ptr<raft::Raft> raft_;
  raft::Output output_;
  RegisterMachine machine_;
  bool lease_told_ = false;

  std::deque<Held> held_;
  bool writing_ = false;
  bool marked_ = true;  // the last batch is attested, or a mark is planned
  uint64_t batches_ = 0;
  WriteSequence durable_;

  SnapshotMark newest_;  // of the two kept
  SnapshotMark older_;
  bool snapshotting_ = false;
  bool snapshot_wanted_ = false;  // a kept one is damaged
  Instant snapshot_not_before_ = Instant::min();
  WriteSequence compact_after_;  // zero: none; then older ones go
  std::optional<SnapshotMark> install_;
  WriteSequence install_after_;

  EventHandle deadline_event_;
  Instant deadline_at_ = kNever;

  std::map<LogIndex, Proposal> proposals_;
  std::map<uint64_t, WaitingRead> asked_;  // by context
  uint64_t last_context_ = 0;
  std::vector<WaitingRead> reads_;
};

}  // namespace conclave::sim
