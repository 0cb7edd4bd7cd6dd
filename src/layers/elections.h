// Elections: who waits to be elected, and what the leader decides of it. A candidate of a session is a system record
// (claim_record.h); this is an index over those, kept on every server. Who is elected, or stands in line while somebody
// of etcd's recipe does, is decided by the server that leads, on state that includes its term's first entry, by a
// command that carries the term (architecture section 1, rule 6).
//
// The rule. Nobody stands in line: the best candidate, by priority and then by age, gets its claim, guarded by that
// nobody came meanwhile. Somebody else's claim stands, and no claim of a session waits: the best gets its claim at the
// tail, and is bound to it; it goes back to the candidates, as what it was, once nobody else's claim stands. Otherwise
// all wait.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/types.h"
#include "keyspace/interface.h"

namespace conclave::layers {

class CommandBuilder;

struct Candidate {
  int32_t priority = 0;
  LogIndex since;  // the entry of its campaign
  SessionId session;
  LogIndex record_at;  // the entry that wrote its record: a later one, if it was bound meanwhile
  // The best first.
  friend bool operator<(const Candidate& a, const Candidate& b) {
    if (a.priority != b.priority) return a.priority > b.priority;
    if (a.since != b.since) return a.since < b.since;
    return a.session < b.session;
  }
};

// As its record says; nothing where that cannot be read.
[[nodiscard]] std::optional<Candidate> candidate_of(SessionId session, const keyspace::Record& record);

// Who stands in line for a name.
struct Line {
  std::optional<keyspace::KeyValue> owner;  // the oldest
  std::optional<keyspace::KeyValue> next;   // who owns after it; not known where very many stand
  bool foreign = false;                     // somebody's who is no session's candidate, the owner or behind it
  std::optional<keyspace::KeyValue> bound;  // a session's candidate, behind the owner
  int64_t claims = 0;
};
[[nodiscard]] Line line_of(const keyspace::View& view, ByteView name);

class Elections {
 public:
  // ---- The index ----
  // From nothing; some records at a time, and entries may be applied between. True when all were read.
  void begin_rebuild();
  [[nodiscard]] bool rebuild(const keyspace::View& view, size_t records_max);
  [[nodiscard]] bool is_rebuilding() const { return rebuilding_; }
  // An entry changed this system record.
  void on_record(const keyspace::View& view, ByteView key);
  [[nodiscard]] bool empty() const { return names_.empty(); }
  // In the order in which they would be elected, at most `count`.
  [[nodiscard]] std::vector<Candidate> candidates(const std::string& name, size_t count) const;
  [[nodiscard]] size_t count(const std::string& name) const;
  // Who would be elected now, besides one, and has no claim.
  [[nodiscard]] std::optional<Candidate> best(const keyspace::View& view, const std::string& name,
                                              SessionId except = {}) const;

  // ---- The leader's decisions ----
  void lead(Term term);
  void follow() { term_ = Term(); }
  [[nodiscard]] Term term() const { return term_; }
  // An entry changed a key directly below this name.
  void on_claims_changed(const std::string& name);
  void on_all_changed();
  struct Decision {
    std::string name;
    std::string command;
  };
  // The next, if this server leads and there is one; every decision is to be followed by on_decided().
  [[nodiscard]] std::optional<Decision> decide(const keyspace::View& view);
  void on_decided(const std::string& name);
  [[nodiscard]] bool has_decisions() const { return term_ != Term() && !rebuilding_ && !changed_.empty(); }

 private:
  struct Name {
    std::set<Candidate> candidates;
    bool under_way = false;  // a decision is
  };
  void remove(const std::string& name, SessionId session);
  [[nodiscard]] std::optional<std::string> command_for(const keyspace::View& view, const std::string& name) const;

  std::map<std::string, Name> names_;  // those with candidates, or with a decision under way
  std::map<std::pair<std::string, SessionId>, Candidate> known_;
  std::set<std::string> changed_;
  Term term_;
  bool rebuilding_ = false;
  std::string rebuild_from_;
};

// Appends to a command what elects a candidate: its claim instead of its record, guarded by that it still is one.
void add_election(CommandBuilder& command, const keyspace::View& view, const std::string& name,
                  const Candidate& candidate);

}  // namespace conclave::layers
