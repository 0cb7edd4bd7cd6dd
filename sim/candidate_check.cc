#include "sim/candidate_check.h"

#include <fmt/format.h>

#include <optional>

#include "layers/claim_record.h"
#include "layers/recipe.h"
#include "sim/claim_history.h"

namespace conclave::sim {
namespace {

// Of a command that elects: the revision up to which nobody else came to stand in line for the name. Nothing: it does
// not elect this session, or binds it behind others.
std::optional<int64_t> elects(const NodeCheck::Commanded& command, const std::string& name, int64_t session) {
  keyspace::InternalCommand body;
  if (command.header.kind != keyspace::CommandKind::kInternal ||
      keyspace::decode(command.body, body) != keyspace::ErrorId::kNone) {
    return std::nullopt;
  }
  const std::string key = ClaimHistory::key_of(name, session);
  const std::string prefix = layers::claim_prefix(name);
  bool puts = false;
  for (const keyspace::InternalOperation& operation : body.operations) {
    puts = puts || (operation.kind == keyspace::InternalOperation::Kind::kPut && operation.key == key);
  }
  std::optional<int64_t> looked_at;
  for (const keyspace::Guard& guard : body.guards) {
    const bool is_of_line = guard.kind == keyspace::Guard::Kind::kCompare && guard.compare.key == prefix &&
                            guard.compare.result == keyspace::CompareResult::kLess;
    if (is_of_line) looked_at = guard.compare.expected_number() - 1;
  }
  return puts ? looked_at : std::nullopt;
}

}  // namespace

void CandidateCheck::on_command(const NodeCheck::Commanded& command, int64_t revision, bool is_transfer) {
  ++commands_;
  for (const NodeCheck::RecordChange& change : command.records) {
    std::string name;
    SessionId id;
    if (!layers::decode_candidate_key(change.key, name, id)) continue;
    const auto session = static_cast<int64_t>(id.value());
    layers::CandidateRecord record;
    if (!change.is_put) {
      const std::optional<int64_t> looked_at = elects(command, name, session);
      if (looked_at && !is_transfer) check_elected(name, session, *looked_at);
      const auto was = candidates_[name].extract(session);
      if (!was.empty()) was_[{name, session}] = was.mapped();
    } else if (layers::decode(change.value, record)) {
      // Whoever looks at this revision may not see it: a campaign changes no keys, a return from the line does.
      Candidate candidate{.priority = record.priority, .since = commands_, .revision = revision};
      if (record.since != LogIndex()) {
        // It was bound, and comes back as what it was.
        const Candidate& was = was_[{name, session}];
        ++returned_;
        candidate.since = was.since;
        if (was.priority != record.priority) {
          check_.violate(fmt::format("candidate {:x} of {} comes back from the line with priority {}, and had {}",
                                     session, name, record.priority, was.priority));
        }
      }
      candidates_[name][session] = candidate;
    } else {
      check_.violate(fmt::format("the record of candidate {:x} of {} cannot be read", session, name));
    }
  }
}

void CandidateCheck::check_elected(const std::string& name, int64_t session, int64_t looked_at) {
  ++elections_;
  const std::map<int64_t, Candidate>& all = candidates_[name];
  const auto elected = all.find(session);
  if (elected == all.end()) {
    check_.violate(fmt::format("session {:x} was elected for {}, and was no candidate", session, name));
    return;
  }
  const Candidate& best = elected->second;
  for (const auto& [other, candidate] : all) {
    if (other == session || candidate.revision >= looked_at) continue;
    const bool is_better =
        candidate.priority != best.priority ? candidate.priority > best.priority : candidate.since < best.since;
    if (!is_better) {
      ++passed_over_;
      continue;
    }
    check_.violate(fmt::format(
        "session {:x} with priority {} was elected for {}, and session {:x} with {} was a "
        "candidate {}",
        session, best.priority, name, other, candidate.priority, candidate.since < best.since ? "before it" : "too"));
  }
}

}  // namespace conclave::sim
