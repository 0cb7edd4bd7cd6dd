// RaftCheck: what must hold between servers, looked at after each step of any of them: one leader a term, log matching,
// leader completeness, what is committed is durable on a quorum of the identities in force, one state at one index, one
// vote a term and identity, and a restarted server that knows what it had made durable.
//
// It is told what happens and only compares; it decides nothing. What a fault provably destroyed is excused where the
// caller says that this machine's disk was struck.
#pragma once

#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "raft/raft.h"
#include "sim/minimal_log.h"

namespace conclave::sim {

class RaftCheck {
 public:
  // The first violation, or empty. Later ones are consequences.
  [[nodiscard]] const std::string& violation() const { return violation_; }
  void violate(std::string what) {
    // After a loss that nobody can see anything may be found wrong.
    if (violation_.empty() && silent_loss_.empty()) violation_ = std::move(what);
  }

  // --- One server, by its id, which names one voter's disk for good.
  // A new server with this content of its disk.
  void note_new(NodeId id, const LogDirectory& directory);
  // A batch is written; the next note_durable makes it durable.
  void note_written(NodeId id, const LogDirectory& directory);
  void note_durable(NodeId id);
  // It starts again with what its log reports. `struck`: a fault that may destroy durable data has struck its disk.
  void note_recovered(NodeId id, const Recovered& recovered, bool struck);
  void note_boot(NodeId id, Boot boot);
  // After each step, with the core as it is then.
  void note_step(const raft::Raft& raft, const raft::Output& output);
  // A message leaves: what it says of a vote is durable.
  void note_sent(const raft::Message& message);
  // An entry was applied, or a snapshot loaded.
  void note_state(NodeId id, LogIndex index, uint64_t digest);
  void note_struck(NodeId id) { servers_[id].struck = true; }

  // --- What is known.
  // Entry i is at [i - 1].
  [[nodiscard]] const std::vector<Entry>& committed() const { return committed_; }
  [[nodiscard]] uint64_t leaders_elected() const { return leaders_.size(); }
  // A server that lost, without a trace on its disk, something it had acknowledged, and acts under its old identity
  // with the consent of a quorum. What follows from it is no fault of consensus.
  [[nodiscard]] bool has_silent_loss() const { return !silent_loss_.empty(); }
  [[nodiscard]] const std::string& silent_loss() const { return silent_loss_; }
  [[nodiscard]] uint64_t losses_found() const { return losses_found_; }

 private:
  struct Known {
    Term term;
    Term before;  // of the entry before; zero if it was not known
    uint64_t hash = 0;
  };
  struct Server {
    bool known = false;
    LogDirectory durable;
    bool has_written = false;
    LogDirectory written;
    bool struck = false;
    bool lost = false;  // recovered less than it had, under a certain identity
    Incarnation lost_identity;
    Boot boot;
    LogIndex commit_checked;
    bool was_leader = false;
    Term term;
    Membership membership;  // before the step: what it counts by
  };

  void check_entry(NodeId id, const Entry& entry, Term before);
  void check_commit(const raft::Raft& raft, Server& server);
  void check_quorum_durable(const Membership& membership, NodeId leader, LogIndex index);
  void check_leader(const raft::Raft& raft, Term term);

  std::string violation_;
  std::string silent_loss_;
  uint64_t losses_found_ = 0;
  std::map<NodeId, Server> servers_;
  std::map<Term, NodeId> leaders_;
  std::map<std::tuple<Term, NodeId, Incarnation>, NodeId> votes_;
  std::vector<Entry> committed_;
  std::vector<Term> committed_in_;                  // the term in which it was first known as committed
  std::vector<std::vector<Known>> entries_;         // by index - 1
  std::vector<std::pair<bool, uint64_t>> digests_;  // by index
};

}  // namespace conclave::sim
