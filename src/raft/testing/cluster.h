// Several cores in one thread, with every message and every write in the test's hands. Each step is judged by the
// invariants; what was committed anywhere is compared everywhere.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "raft/codec.h"
#include "raft/raft.h"
#include "raft/testing/durable.h"

namespace conclave::raft {

class Cluster {
 public:
  struct Server {
    NodeId id;
    Options options;
    Durable durable;
    std::unique_ptr<Raft> raft;  // null: down
    std::deque<OwnedWrite> writes;
    std::vector<std::pair<WriteSequence, OwnedMessage>> held;  // messages that wait for a write
    bool disk_stopped = false;                                 // writes pile up until complete_writes
    LogIndex applied;
    std::vector<ReadResult> reads;
    Boot boot{1};
    // A snapshot being received: bytes so far.
    std::map<LogIndex, uint64_t> partial;
  };
  // Says what happened, a line each, if set.
  using Trace = std::function<void(const std::string&)>;

  // Servers 1..count, all voters.
  explicit Cluster(uint64_t count, const Options& defaults = {});

  // ---- Time ----
  [[nodiscard]] Instant now() const { return now_; }
  // Lets time pass, running deadlines in order and delivering as deliver_all does.
  void advance(Duration duration);
  // Lets time pass for one server only, as if the others stood still: until its next deadline.
  void fire_deadline(uint64_t id);

  // ---- Servers ----
  Server& server(uint64_t id);
  Raft& raft(uint64_t id) { return *server(id).raft; }
  // A server that is no member yet, with an empty disk.
  void add_server(uint64_t id);
  void crash(uint64_t id);  // what is not durable is lost
  void restart(uint64_t id, const std::vector<LogIndex>& holes = {}, bool keep_terms = false);
  void restart_with(uint64_t id, Recovered&& recovered);
  void stop_disk(uint64_t id) { server(id).disk_stopped = true; }
  void start_disk(uint64_t id);
  [[nodiscard]] bool has(uint64_t id) const { return servers_.contains(id); }
  [[nodiscard]] bool up(uint64_t id) { return server(id).raft != nullptr; }

  // ---- Inputs ----
  // The output stays until the next input to the same cluster.
  const Output& step(uint64_t id, const Input& input);
  const Output& propose(uint64_t id, std::string_view command);
  const Output& read(uint64_t id, uint64_t context);
  void snapshot(uint64_t id, uint64_t keep = 0);  // of all applied, keeping `keep` entries before it

  // ---- Network ----
  struct Flight {
    OwnedMessage message;
  };
  [[nodiscard]] const std::deque<OwnedMessage>& flights() const { return flights_; }
  // Links that lose everything; directed.
  void cut(uint64_t from, uint64_t to) { cut_[{from, to}] = true; }
  void heal(uint64_t from, uint64_t to) { cut_[{from, to}] = false; }
  void isolate(uint64_t id);
  void heal_all() { cut_.clear(); }
  // True for messages that are lost on the way; called as each is sent.
  void set_filter(std::function<bool(const Message&)> lose) { lose_ = std::move(lose); }
  // Delivers the oldest message under way that `wanted` accepts; false if there is none.
  bool deliver_one(const std::function<bool(const Message&)>& wanted = nullptr);
  void drop(const std::function<bool(const Message&)>& unwanted);
  void inject(OwnedMessage message) { flights_.push_back(std::move(message)); }
  // Messages and writes until nothing is under way.
  void deliver_all();

  // ---- Questions ----
  // The leader of the highest term among those up, or zero.
  uint64_t leader();
  // Makes server `id` leader: by its own election, then all settled.
  void elect(uint64_t id);
  // Time passes until there is a leader that all reachable know; its id.
  uint64_t settle(Duration limit = std::chrono::seconds(20));
  [[nodiscard]] std::vector<std::string> committed(uint64_t id);  // commands, in order
  [[nodiscard]] const std::vector<std::string>& violations() const { return violations_; }
  void set_trace(Trace trace) { trace_ = std::move(trace); }
  // Every message ever refused, by reason.
  [[nodiscard]] const std::map<Refusal, int>& refusals() const { return refusals_; }

 private:
  void complete_writes(Server& server);
  void finish_step(Server& server);
  void send(const Message& message);
  void note_committed(Server& server);
  void say(const std::string& line) {
    if (trace_) trace_(line);
  }

  Options defaults_;
  Membership first_membership_;
  Instant now_{std::chrono::seconds(1000)};
  std::map<uint64_t, Server> servers_;
  std::deque<OwnedMessage> flights_;
  std::map<std::pair<uint64_t, uint64_t>, bool> cut_;
  std::function<bool(const Message&)> lose_;
  std::map<Term, NodeId> leaders_;
  std::map<LogIndex, Entry> committed_;
  std::vector<std::string> violations_;
  std::map<Refusal, int> refusals_;
  Output output_;
  Trace trace_;
};

}  // namespace conclave::raft
