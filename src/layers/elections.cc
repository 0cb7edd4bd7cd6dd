#include "layers/elections.h"

#include "base/mark.h"
#include "layers/claim_record.h"
#include "layers/command_builder.h"
#include "layers/listing.h"
#include "layers/recipe.h"

namespace conclave::layers {
namespace {

// Claims of sessions on one name that are looked at to tell others' from them. There are two: who leads, and who waits
// bound to its claim; more only where locks with notes have the same name.
constexpr size_t kClaimRecordsLookedAt = 64;
// Keys of a name, deeper ones too, that are looked at one by one.
constexpr int64_t kClaimsLookedAt = 256;
// Candidates passed over since a key of theirs stands where their claim would.
constexpr size_t kCandidatesPassedMax = 64;

// Appends what makes a candidate again of the one that is bound: while it waits, and nobody came since the look.
// False: one that an older build bound, of which nobody knows any more what it was. It stays bound.
bool add_return(CommandBuilder& command, const keyspace::View& view, const std::string& name, const Line& line) {
  const std::string prefix = claim_prefix(name);
  const std::string key(line.bound->key);
  const LeaseId lease = line.bound->lease;
  const std::string record_key = claim_record_key(key);
  ClaimRecord was;
  const keyspace::Record* record = view.record(record_key);
  if (record == nullptr || !decode(record->value, was) || was.since == LogIndex()) return false;
  command.if_created(line.owner->key, line.owner->create)
      .if_created(key, line.bound->create)
      .if_none_created_after(prefix, claim_prefix_end(prefix), view.revision())
      .erase(key)
      .erase_record(record_key)
      .put_record(candidate_record_key(name, session_of(lease)),
                  encode(CandidateRecord{
                      .priority = was.priority, .value = std::string(line.bound->value), .since = was.since}),
                  lease);
  return true;
}

}  // namespace

Line line_of(const keyspace::View& view, ByteView name) {
  Line line;
  const std::string prefix = claim_prefix(name);
  const std::string prefix_end = claim_prefix_end(prefix);
  line.owner = oldest_child(view, prefix, prefix_end);
  const keyspace::KeyRange range = keyspace::KeyRange::of(prefix, prefix_end);
  line.claims = view.count(range);
  // Keys of deeper names are others' elections. Where there are very many they count as somebody's, which only brings a
  // candidate into line early.
  if (line.claims <= kClaimsLookedAt) {
    line.claims = 0;
    for (const keyspace::KeyValue& each : view.oldest_of(range, kClaimsLookedAt)) {
      if (!is_child(prefix, each.key)) continue;
      if (++line.claims == 2) line.next = each;
    }
  }
  int64_t of_sessions = 0;
  const std::string records = claim_record_key(prefix);
  view.scan_records(records, {}, kClaimRecordsLookedAt, [&](ByteView key, const keyspace::Record& record) {
    ClaimRecord claim;
    if (!decode(record.value, claim) || claim.kind != ClaimKind::kElection) return true;
    const ByteView claim_key = key.substr(kClaimRecords.size());
    if (!is_child(prefix, claim_key)) return true;
    const std::optional<keyspace::KeyValue> value = view.get(claim_key);
    if (!value || !is_on_its_lease(*value)) return true;
    ++of_sessions;
    if (line.owner && line.owner->key != claim_key) line.bound = value;
    return true;
  });
  line.foreign = line.claims > of_sessions;
  return line;
}

std::optional<Candidate> candidate_of(SessionId session, const keyspace::Record& record) {
  CandidateRecord decoded;
  if (!decode(record.value, decoded)) return std::nullopt;
  return Candidate{.priority = decoded.priority,
                   .since = decoded.since == LogIndex() ? record.written_at : decoded.since,
                   .session = session,
                   .record_at = record.written_at};
}

void add_election(CommandBuilder& command, const keyspace::View& view, const std::string& name,
                  const Candidate& candidate) {
  const std::string record_key = candidate_record_key(name, candidate.session);
  const LeaseId lease = lease_of(candidate.session);
  const std::string key = claim_key(name, lease);
  CandidateRecord record;
  const keyspace::Record* found = view.record(record_key);
  // A record that cannot be read elects with an empty value; its guard stands all the same.
  if (found == nullptr || !decode(found->value, record)) record = {};
  command.if_record_at(record_key, candidate.record_at)
      .if_created(key, Revision())
      .put(key, record.value, lease)
      .put_record(
          claim_record_key(key),
          encode(ClaimRecord{.kind = ClaimKind::kElection, .priority = candidate.priority, .since = candidate.since}),
          lease)
      .erase_record(record_key);
}

void Elections::begin_rebuild() {
  for (auto at = names_.begin(); at != names_.end();) {
    at->second.candidates.clear();
    at = at->second.under_way ? std::next(at) : names_.erase(at);
  }
  known_.clear();
  changed_.clear();
  rebuilding_ = true;
  rebuild_from_.clear();
}

bool Elections::rebuild(const keyspace::View& view, size_t records_max) {
  if (!rebuilding_) return true;
  std::vector<std::string> keys;
  view.scan_records(kCandidateRecords, rebuild_from_, records_max, [&](ByteView key, const keyspace::Record&) {
    keys.emplace_back(key);
    return true;
  });
  for (const std::string& key : keys) on_record(view, key);
  if (keys.size() < records_max) {
    rebuilding_ = false;
    return true;
  }
  rebuild_from_ = keys.back() + '\0';
  return false;
}

void Elections::on_record(const keyspace::View& view, ByteView key) {
  std::string name;
  SessionId session;
  if (!decode_candidate_key(key, name, session)) return;
  remove(name, session);
  const keyspace::Record* found = view.record(key);
  if (const auto candidate = found == nullptr ? std::nullopt : candidate_of(session, *found)) {
    names_[name].candidates.insert(*candidate);
    known_[{name, session}] = *candidate;
  }
  on_claims_changed(name);
}

void Elections::remove(const std::string& name, SessionId session) {
  const auto known = known_.find({name, session});
  if (known == known_.end()) return;
  const auto at = names_.find(name);
  at->second.candidates.erase(known->second);
  known_.erase(known);
  if (at->second.candidates.empty() && !at->second.under_way) {
    changed_.erase(name);
    names_.erase(at);
  }
}

std::vector<Candidate> Elections::candidates(const std::string& name, size_t count) const {
  std::vector<Candidate> out;
  const auto found = names_.find(name);
  if (found == names_.end()) return out;
  for (const Candidate& candidate : found->second.candidates) {
    if (out.size() == count) break;
    out.push_back(candidate);
  }
  return out;
}

size_t Elections::count(const std::string& name) const {
  const auto found = names_.find(name);
  return found == names_.end() ? 0 : found->second.candidates.size();
}

std::optional<Candidate> Elections::best(const keyspace::View& view, const std::string& name, SessionId except) const {
  const auto found = names_.find(name);
  if (found == names_.end()) return std::nullopt;
  size_t looked_at = 0;
  for (const Candidate& candidate : found->second.candidates) {
    if (candidate.session == except) continue;
    // It follows the recipe beside: its key stands already.
    if (!view.get(claim_key(name, lease_of(candidate.session)))) return candidate;
    REACHED(candidate_has_a_key);
    if (++looked_at == kCandidatesPassedMax) break;
  }
  return std::nullopt;
}

void Elections::lead(Term term) {
  if (term_ == term) return;
  term_ = term;
  on_all_changed();
}

void Elections::on_claims_changed(const std::string& name) {
  if (names_.contains(name)) changed_.insert(name);
}

void Elections::on_all_changed() {
  for (const auto& [name, state] : names_) changed_.insert(name);
}

std::optional<Elections::Decision> Elections::decide(const keyspace::View& view) {
  while (has_decisions()) {
    const std::string name = *changed_.begin();
    changed_.erase(changed_.begin());
    const auto at = names_.find(name);
    if (at == names_.end()) continue;
    // What comes of that one is another change.
    if (at->second.under_way) continue;
    std::optional<std::string> command = command_for(view, name);
    if (!command) continue;
    at->second.under_way = true;
    return Decision{.name = name, .command = std::move(*command)};
  }
  return std::nullopt;
}

std::optional<std::string> Elections::command_for(const keyspace::View& view, const std::string& name) const {
  const std::optional<Candidate> candidate = best(view, name);
  if (!candidate) return std::nullopt;
  const Line line = line_of(view, name);
  CommandBuilder command;
  if (!line.owner) {
    const std::string prefix = claim_prefix(name);
    command.if_none_created_after(prefix, claim_prefix_end(prefix), view.revision());
    add_election(command, view, name, *candidate);
  } else if (line.foreign && !line.bound) {
    REACHED(candidate_bound_behind_others);
    add_election(command, view, name, *candidate);
  } else if (!line.foreign && line.bound) {
    if (!add_return(command, view, name, line)) return std::nullopt;
    REACHED(candidate_is_bound_no_more);
  } else {
    return std::nullopt;
  }
  return command.build();
}

void Elections::on_decided(const std::string& name) {
  const auto at = names_.find(name);
  if (at == names_.end()) return;
  at->second.under_way = false;
  if (at->second.candidates.empty()) {
    names_.erase(at);
    changed_.erase(name);
    return;
  }
  // What changed while it was under way was passed over.
  changed_.insert(name);
}

}  // namespace conclave::layers
