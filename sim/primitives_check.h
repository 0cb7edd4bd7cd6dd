// PrimitivesCheck: what must hold of sessions, locks and elections as clients use them (sim/session_clients.h). It
// follows the one history, and judges what clients are told and what they believe:
//
//   what a server says at a place (session.proto) was so at that place: a grant, a loss, all that a session owns, an
//   end; by real time no two believe that they hold one name, clients of etcd's recipe included, and tokens grow from
//   one to
//     the next, but after a claim was deleted by hand;
//   a claim is put only by an operation that was asked for and not yet told as not done, and of one that was nothing is
//     left; one that tries has nobody before it; each sequence of a session changes the history at most once;
//   a session does not end by its time while its client counts on it, and nothing of it outlives it, but a lock that is
//     held back for its owner's delay, which nobody gets before that is over;
//   what an operator ends by decision ends so at any time, and its client learns of it when it is attached again
//     (operator_check.h);
//   the best candidate is elected (candidate_check.h), and observers see every leader and vacancy (leader_check.h).
//
// Told what happens, it only compares; violations go to NodeCheck, whose run this is.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "client/session_core.h"
#include "sim/candidate_check.h"
#include "sim/claim_history.h"
#include "sim/leader_check.h"
#include "sim/lock_check.h"
#include "sim/node_check.h"
#include "sim/operator_check.h"

namespace conclave::sim {

class PrimitivesCheck final : public NodeCheck::Observer, public LockCheck::Listener {
 public:
  struct Options {
    // Clocks may drift beyond their bound: then sessions may end too early, and only the history can be judged.
    bool clocks_lie = false;
  };
  // What a client believes at this moment, by its own clock.
  class Mind {
   public:
    virtual ~Mind() = default;
    [[nodiscard]] virtual bool is_safe() const = 0;
    [[nodiscard]] virtual bool holds(const std::string& name, int64_t token) const = 0;
  };
  struct Wish {
    // A resignation is a release.
    enum class Kind : uint8_t { kAcquire, kCampaign, kRelease, kTransfer, kProclaim } kind = Kind::kAcquire;
    std::vector<std::string> names;
    bool try_once = false;
    Duration lock_delay{};
    std::string value;     // of a campaign or proclaim: in the whole run its own
    int64_t token = 0;     // of a release or transfer
    int32_t priority = 0;  // of a campaign
    // For claims.
    [[nodiscard]] bool asks() const { return kind == Kind::kAcquire || kind == Kind::kCampaign; }
  };

  // All outlive the run; `check` and `recipes` are told to tell this.
  PrimitivesCheck(NodeCheck& check, LockCheck& recipes, const Options& options);

  // --- The history.
  void on_command(const NodeCheck::Commanded& command) override;
  void on_event(int64_t revision, const NodeCheck::Event& event) override;
  void on_lease_ended(LeaseId lease, bool by_time) override;
  // --- Clients of the recipe.
  void on_trusted(const std::string& lock, LeaseId lease, int64_t token) override;

  // --- What clients of sessions do and are told. A session is known by its number, and to be noted first.
  void note_session(int64_t session, const Mind& mind);
  // Its client asks for it under another number: it was not opened yet, as far as the client knows.
  void note_renamed(int64_t session, int64_t renamed);
  // Its client knows nothing of it any more.
  void note_forgotten(int64_t session);
  void note_asked(int64_t session, uint64_t operation, const Wish& wish);
  // It speaks by another stream.
  void note_connected(int64_t session) { sessions_.at(session).attach_floors.clear(); }
  // A message leaves the client, or arrives at it.
  void note_request(int64_t session, const v1::SessionRequest& request);
  void note_response(int64_t session, const v1::SessionResponse& response);
  void note_gone(int64_t session);  // a keep-alive was answered so
  void note_observing(int64_t session, const std::string& name) { leaders_.note_observing(session, name); }
  void note_stopped(int64_t session, const std::string& name) { leaders_.note_stopped(session, name); }
  void note_told(int64_t session, const client::SessionEvent& event, Instant now);
  // After whatever its client did or was told.
  void note_believes(int64_t session, Instant now);

  // --- What operators ask and are told.
  [[nodiscard]] OperatorCheck& operators() { return operators_; }
  void note_killed(int64_t session);
  void note_forced(const std::string& key, int64_t token);

  // Of a client that counts on a session which has ended; empty if there is none.
  [[nodiscard]] std::string who_is_not_told() const;
  // At the end there must be none: an operation not ended, something left of a session, an observer behind; empty if
  // so.
  [[nodiscard]] std::string what_is_open() const;
  [[nodiscard]] const LeaderCheck& leaders() const { return leaders_; }
  [[nodiscard]] const CandidateCheck& candidates() const { return candidates_; }
  [[nodiscard]] const OperatorCheck& operators() const { return operators_; }
  [[nodiscard]] uint64_t granted() const { return granted_; }
  [[nodiscard]] uint64_t held_back() const { return held_back_count_; }

 private:
  struct Operation {
    Wish wish;
    std::optional<client::Outcome> outcome;
    bool sent = false;
    bool written = false;  // its value was
    // It may put a claim still, or change one.
    [[nodiscard]] bool may_act() const;
    [[nodiscard]] bool is_undone() const;
  };
  struct Session {
    const Mind* mind = nullptr;  // null: its client does not speak for it any more
    bool stands = false;         // in the history
    bool has_ended = false;      // once
    bool was_opened = false;     // as its client was told, and counts on it
    bool expired = false;        // and ended so
    bool was_ended = false;      // as its client was told, or did itself
    int64_t ended_at = 0;        // the revision of the state in which it had
    int64_t attached_at = 0;     // that its client was shown all at
    // Of each attachment asked for by this stream and not answered: the newest revision that anybody had been told
    // then.
    std::deque<int64_t> attach_floors;
    std::map<uint64_t, Operation> operations;
    std::map<uint64_t, uint64_t> asked_as;               // acquires and campaigns by sequence
    std::set<uint64_t> transfers;                        // sequences of those
    std::map<std::string, int64_t> held;                 // granted, and not let go by itself
    std::set<std::pair<std::string, int64_t>> believed;  // names and tokens that its client counted on
    std::set<uint64_t> changed;                          // sequences that changed the history
  };
  // By whom a claim was put.
  struct Origin {
    int64_t session = 0;
    uint64_t operation = 0;
    int64_t token = 0;
  };
  // A lock that nobody gets, since its owner was lost.
  struct Delay {
    int64_t token = 0;
    Instant until{};
  };
  struct Newest {
    int64_t token = 0;
    std::string who;
  };

  void on_record(const NodeCheck::RecordChange& change);
  void on_claim_put(Session& session, int64_t id, int64_t revision, const NodeCheck::Event& event, bool tail);
  [[nodiscard]] uint64_t who_put(const Session& session, int64_t id, const NodeCheck::Event& event) const;
  void check_taken_back(int64_t id, const std::string& key, int64_t token, bool by_hand);
  void on_claim_deleted(int64_t id, const std::string& name, const std::string& key, int64_t token);
  void check_value(const NodeCheck::Event& event);
  void check_told(int64_t session, const std::string& name, int64_t token, bool granted, int64_t revision);
  void check_attached(int64_t session, const v1::SessionAttached& attached, int64_t revision);
  void check_ended_told(int64_t session, const std::string& how);
  void check_stood(int64_t session, const v1::SessionResponse& response) const;
  void on_ended(int64_t session, const client::OperationEnded& ended, Instant now);
  void on_granted(int64_t session, const client::HeldClaim& claim, Instant now);
  void check_nothing_left(int64_t session, uint64_t number, const Operation& operation);
  void check_alone(const std::string& name, int64_t session, int64_t token, Instant now);
  void check_shown(int64_t id, Session& session);
  void check_grows(const std::string& name, int64_t token, const std::string& who);
  [[nodiscard]] bool believes(const Session& session, const std::string& name, int64_t token) const;
  [[nodiscard]] bool is_disowned(const std::string& name, int64_t token) const {
    return disowned_.contains({name, token});
  }

  NodeCheck& check_;
  LockCheck& recipes_;
  const Options options_;
  ClaimHistory claims_;
  LeaderCheck leaders_;
  CandidateCheck candidates_;
  OperatorCheck operators_;
  std::map<int64_t, Session> sessions_;
  std::map<std::string, std::set<int64_t>> holders_;            // by name
  std::map<std::string, Newest> newest_;                        // that somebody believed in, by name
  std::map<std::string, Origin> origins_;                       // by key
  std::map<std::string, std::pair<int64_t, uint64_t>> values_;  // session and operation
  std::map<std::string, Delay> delays_;                         // by name
  std::set<std::pair<std::string, int64_t>> disowned_;          // deleted by hand, or with a lease revoked or killed
  std::set<std::string> records_;                               // of sessions, that stand
  int64_t told_revision_ = 0;                                   // the newest that anybody was told
  uint64_t granted_ = 0;
  uint64_t held_back_count_ = 0;

  // --- Of the entry that is being told.
  NodeCheck::Commanded command_;
  int64_t revision_before_ = 0;
  struct Deleted {
    std::string name;
    bool delayed = false;  // of an owner who counted on it and asked for a delay
  };
  std::multimap<int64_t, Deleted> deleted_;  // by session
};

}  // namespace conclave::sim
