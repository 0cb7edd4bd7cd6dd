#include "sim/operator_check.h"

#include <fmt/format.h>

#include "keyspace/internal_command.h"
#include "layers/claim_record.h"
#include "sim/claim_history.h"

namespace conclave::sim {

void OperatorCheck::on_command(const NodeCheck::Commanded& command) {
  // An end that the leader's clock decided carries its term.
  is_kill_ = command.header.kind == keyspace::CommandKind::kLeaseExpire && command.header.term == Term();
  std::vector<LeaseId> leases;
  if (is_kill_ && !keyspace::decode_expire(command.body, leases)) check_.violate("the end of leases cannot be read");
  for (const LeaseId lease : leases) {
    ++killed_;
    if (!kills_.contains(lease.value())) check_.violate(fmt::format("{} was killed, and nobody asked for that", lease));
  }
  for (const NodeCheck::RecordChange& change : command.records) {
    layers::RequestRecord record;
    if (!change.is_put || !change.key.starts_with(layers::kRequestRecords)) continue;
    const std::string key = change.key.substr(layers::kRequestRecords.size());
    const std::string name = ClaimHistory::name_of(key);
    if (!layers::decode(change.value, record)) {
      check_.violate(fmt::format("the record of a request of {} cannot be read", key));
      continue;
    }
    const Claim claim{name, record.token};
    const auto forces = forces_.find(claim);
    const bool is_force_asked = forces != forces_.end() && forces->second.contains(record.note);
    // Whoever is forced after some time is asked first.
    const bool is_asked = record.forced ? is_force_asked : is_force_asked || requests_.contains({name, record.note});
    if (!is_asked) {
      check_.violate(fmt::format("{} with token {} was {} as '{}', and nobody asked for that", key, record.token,
                                 record.forced ? "forced" : "requested", record.note));
    }
    if (record.forced) {
      forced_.emplace(claim, record.note);
    } else {
      requested_.emplace(claim, record.note);
    }
  }
}

void OperatorCheck::check_lost(int64_t session, const client::ClaimLost& lost) {
  const auto forced = forced_.find({lost.name, lost.token});
  const bool is_told = lost.reason == v1::Lost::FORCED;
  if (is_told) ++told_forced_;
  if (is_told != (forced != forced_.end()) || (is_told && forced->second != lost.note)) {
    check_.violate(fmt::format("session {:x} was told that it lost {} with token {} as {} '{}', and it was {}", session,
                               lost.name, lost.token, v1::Lost::Reason_Name(lost.reason), lost.note,
                               forced == forced_.end() ? "not forced" : "forced as '" + forced->second + "'"));
  }
}

void OperatorCheck::check_wanted(int64_t session, const client::ReleaseWanted& wanted) {
  if (requested_.contains({{wanted.name, wanted.token}, wanted.note})) return;
  check_.violate(fmt::format("session {:x} was asked to release {} with token {} as '{}', and nobody asked for that",
                             session, wanted.name, wanted.token, wanted.note));
}

}  // namespace conclave::sim
