// What clients ask of their sessions: each operation from its request to its one answer. Which of its stages may refuse
// without an entry of the log, and what that needs: an operation that was sent before may be under way elsewhere, so
// that a refusal from a look alone would be no promise. Its sequence is marked first; only then it is told.
#include <algorithm>

#include "base/assert.h"
#include "base/mark.h"
#include "keyspace/errors.h"
#include "layers/listing.h"
#include "layers/recipe.h"
#include "layers/sessions_impl.h"

namespace conclave::layers {
namespace {

using keyspace::CommandKind;
using keyspace::ErrorId;
using enum keyspace::GrpcCode;

constexpr int kNamesMax = 128;
// Guards that failed since somebody came between the look and the entry: so often it is looked again.
constexpr int kAttemptsMax = 8;

// The claim, and the records that say something of it.
void erase_claim(CommandBuilder& command, const keyspace::View& view, const std::string& key) {
  command.erase(key);
  for (const std::string& record : {claim_record_key(key), request_record_key(key)}) {
    if (view.record(record) != nullptr) command.erase_record(record);
  }
}

}  // namespace

// ---- From the request on ----

bool Sessions::Impl::validate(const v1::SessionRequest& request, std::vector<std::string>& names, std::string& why,
                              std::string_view& reason) const {
  using What = v1::SessionRequest::WhatCase;
  reason = "INVALID_REQUEST";
  if (request.sequence() == 0 || request.sequence() > kProtocolNumberMax) {
    why = "an operation has a sequence, counted from 1";
    return false;
  }
  switch (request.what_case()) {
    case What::kAcquire: {
      const v1::Acquire& acquire = request.acquire();
      names.assign(acquire.names().begin(), acquire.names().end());
      if (acquire.lock_delay_ms() > kLockDelayMsMax) {
        why = "a lock's delay is at most 60,000 ms";
        return false;
      }
      if (acquire.note().size() > kNoteBytesMax) {
        why = "a note has at most 256 bytes";
        return false;
      }
      break;
    }
    case What::kCancel:
      names.assign(request.cancel().names().begin(), request.cancel().names().end());
      if (request.cancel().operation() == 0 || request.cancel().operation() > kProtocolNumberMax ||
          request.cancel().operation() == request.sequence()) {
        why = "what is cancelled is another operation's sequence";
        return false;
      }
      break;
    case What::kRelease:
      names = {request.release().name()};
      break;
    case What::kCampaign:
      names = {request.campaign().name()};
      if (request.campaign().value().size() > kElectionValueBytesMax) {
        why = "a candidate's value has at most 64 KiB";
        return false;
      }
      break;
    case What::kProclaim:
      names = {request.proclaim().name()};
      if (request.proclaim().value().size() > kElectionValueBytesMax) {
        why = "a leader's value has at most 64 KiB";
        return false;
      }
      break;
    case What::kResign:
      names = {request.resign().name()};
      break;
    case What::kTransfer:
      names = {request.transfer().name()};
      if (request.transfer().to() <= 0 || request.transfer().to() == request.session()) {
        why = "a term is transferred to another session";
        return false;
      }
      break;
    default:
      why = "that is no operation of a session";
      return false;
  }
  if (names.empty() || names.size() > kNamesMax) {
    why = "1 to 128 names";
    return false;
  }
  for (const std::string& name : names) {
    if (const std::optional<std::string_view> not_a_name = why_no_name(name)) {
      why = *not_a_name;
      reason = "INVALID_NAME";
      return false;
    }
  }
  std::vector<std::string> sorted = names;
  std::sort(sorted.begin(), sorted.end());
  if (std::adjacent_find(sorted.begin(), sorted.end()) != sorted.end()) {
    why = "a name is given twice";
    return false;
  }
  return true;
}

void Sessions::Impl::operate(Instant now, StreamId stream, const v1::SessionRequest& request) {
  const SessionId id(static_cast<uint64_t>(request.session()));
  const uint64_t sequence = request.sequence();
  std::vector<std::string> names;
  std::string why;
  std::string_view reason;
  if (!validate(request, names, why, reason)) {
    send_error(stream, id, sequence, kInvalidArgument, reason, why);
    return;
  }
  Session& session = sessions_.at(id);
  const auto known = session.operations.find(sequence);
  if (known != session.operations.end()) {
    Operation& operation = known->second;
    operation.stream = stream;
    operation.withdrawn = false;
    if (operation.request && request.again()) operation.request->set_again(true);
    if (operation.stage != Operation::Stage::kAnswered) return;  // its answer comes
    v1::SessionResponse out = response(id, sequence);
    for (const std::string& name : operation.names) {
      v1::ClaimState& state = *out.mutable_claimed()->add_claims();
      state.set_name(name);
      const auto claim = session.claims.find(name);
      if (claim == session.claims.end()) continue;
      state.set_token(claim->second.token.value());
      state.set_granted(claim->second.granted);
    }
    send(stream, std::move(out));
    return;
  }
  size_t under_way = 0;
  for (const auto& [number, operation] : session.operations) {
    under_way += operation.stage == Operation::Stage::kAnswered ? 0 : 1;
  }
  // What gives something back is never refused for what there is.
  const bool claims = request.has_acquire() || request.has_campaign();
  if (under_way >= options_.operations_per_session_max ||
      (claims && session.claims.size() + names.size() > options_.claims_per_session_max)) {
    send_error(stream, id, sequence, kResourceExhausted, "OVERLOADED",
               "the session has too many operations under way, or too many claims");
    return;
  }
  Operation& operation = session.operations[sequence];
  operation.request = std::make_unique<v1::SessionRequest>(request);
  operation.stream = stream;
  operation.names = std::move(names);
  if (request.has_acquire() && request.acquire().up_to_ms() > 0) {
    constexpr uint64_t kLongest = uint64_t{365} * 24 * 3600 * 1000;
    operation.deadline =
        now + std::chrono::milliseconds(static_cast<int64_t>(std::min(request.acquire().up_to_ms(), kLongest)));
  }
  run(now, id, sequence);
}

// One step on, from a state that may be looked at where the operation needs that.
void Sessions::Impl::run(Instant now, SessionId id, uint64_t sequence) {
  const auto found = sessions_.find(id);
  if (found == sessions_.end()) return;
  const auto at = found->second.operations.find(sequence);
  if (at == found->second.operations.end()) return;
  Operation& operation = at->second;
  using What = v1::SessionRequest::WhatCase;
  const v1::SessionRequest& request = *operation.request;
  const What what = request.what_case();
  const bool looks =
      what == What::kTransfer || what == What::kResign || (what == What::kAcquire && request.acquire().try_());
  if (looks && !world_.is_settled()) {
    operation.stage = Operation::Stage::kSettle;
    unsettled_.emplace_back(id, sequence);
    return;
  }
  switch (what) {
    case What::kAcquire:
      run_acquire(now, id, found->second, sequence, operation);
      return;
    case What::kCancel:
      run_cancel(now, id, found->second, sequence, operation);
      return;
    case What::kCampaign:
      run_campaign(id, sequence, operation);
      return;
    case What::kProclaim:
      run_proclaim(id, sequence, operation);
      return;
    case What::kResign:
    case What::kTransfer:
      run_resign(now, id, sequence, operation);
      return;
    case What::kRelease: {
      const std::string key = claim_key(operation.names[0], lease_of(id));
      CommandBuilder command;
      command.if_created(key, Revision(request.release().token()));
      erase_claim(command, world_.view(), key);
      write(id, sequence, operation, Operation::Stage::kWrite, command);
      return;
    }
    default:
      break;
  }
  UNREACHABLE();
}

void Sessions::Impl::write(SessionId id, uint64_t sequence, Operation& operation, Operation::Stage stage,
                           const CommandBuilder& command, uint64_t as_sequence) {
  operation.stage = stage;
  const uint64_t incarnation = sessions_.at(id).incarnation;
  operation.incarnation = incarnation;
  operation.ticket =
      issue({.kind = Pending::Kind::kOperation, .stream = operation.stream, .session = id, .number = sequence});
  world_.write(operation.ticket,
               {.kind = CommandKind::kInternal,
                .session = id,
                .incarnation = incarnation,
                .sequence = as_sequence == 0 ? sequence : as_sequence},
               command.build());
}

void Sessions::Impl::look_first(SessionId id, uint64_t sequence, Operation& operation) {
  operation.stage = Operation::Stage::kLook;
  operation.ticket =
      issue({.kind = Pending::Kind::kOperation, .stream = operation.stream, .session = id, .number = sequence});
  world_.read(operation.ticket);
}

// A refusal that no entry of the log says: told at once, or, of what may be under way elsewhere, once it cannot happen.
void Sessions::Impl::refuse_by_look(Instant now, SessionId id, uint64_t sequence, Operation& operation,
                                    Refusal refusal) {
  if (!operation.request->again()) {
    fail(now, id, sequence, refusal.code, refusal.reason, refusal.message);
    return;
  }
  REACHED(session_refusal_marked);
  operation.refusal = refusal;
  write(id, sequence, operation, Operation::Stage::kRefuse, CommandBuilder());
}

// ---- Acquire ----

// Whether the session has anything besides what this operation is about. What another one has under way here counts: it
// may be done first; what is being taken back may have been granted. (What an earlier incarnation asked for elsewhere
// is asked for again here, or was cancelled.)
bool Sessions::Impl::holds_others(SessionId id, const Session& session, uint64_t sequence) const {
  using Stage = Operation::Stage;
  for (const auto& [number, other] : session.operations) {
    if (number == sequence || other.stage == Stage::kAnswered) continue;  // answered: among the claims
    if (other.request->has_acquire() || other.request->has_campaign()) {
      REACHED(session_asks_for_several_at_once);
      return true;
    }
  }
  const auto is_its = [&](const auto& withdrawal) { return withdrawal.second.session == id; };
  if (!session.claims.empty() || std::any_of(withdrawals_.begin(), withdrawals_.end(), is_its)) return true;
  return !session.listed && !claims_of(id, 1).empty();
}

void Sessions::Impl::run_acquire(Instant now, SessionId id, Session& session, uint64_t sequence, Operation& operation) {
  const v1::Acquire& acquire = operation.request->acquire();
  const keyspace::View& view = world_.view();
  const LeaseId lease = lease_of(id);
  if (operation.names.size() > 1 && !acquire.while_holding() && holds_others(id, session, sequence)) {
    refuse_by_look(now, id, sequence, operation,
                   {kFailedPrecondition, "HOLDS_OTHERS",
                    "the session has claims, and could deadlock with another: release them or say while_holding"});
    return;
  }
  if (acquire.try_()) {
    for (const std::string& name : operation.names) {
      const std::string prefix = claim_prefix(name);
      if (!oldest_child(view, prefix, claim_prefix_end(prefix))) continue;
      if (!operation.proven) {
        look_first(id, sequence, operation);
      } else if (const auto own = session.claims.find(name); own != session.claims.end()) {
        refuse_by_look(now, id, sequence, operation,
                       {kAlreadyExists, "ALREADY_HELD", "the session has a claim on that name"});
      } else {
        refuse_by_look(now, id, sequence, operation, {kAborted, "WOULD_BLOCK", "the lock is held or wanted"});
      }
      return;
    }
  }
  CommandBuilder command;
  for (const std::string& name : operation.names) command.if_created(claim_key(name, lease), Revision());
  if (acquire.try_()) {
    for (const std::string& name : operation.names) {
      const std::string prefix = claim_prefix(name);
      command.if_none_created_after(prefix, claim_prefix_end(prefix), view.revision());
    }
  }
  const bool remembers = acquire.lock_delay_ms() > 0 || !acquire.note().empty();
  for (const std::string& name : operation.names) {
    const std::string key = claim_key(name, lease);
    command.put(key, {}, lease);
    const std::string record = claim_record_key(key);
    if (remembers) {
      command.put_record(record, encode(ClaimRecord{.lock_delay_ms = acquire.lock_delay_ms(), .note = acquire.note()}),
                         lease);
    } else if (view.record(record) != nullptr) {
      command.erase_record(record);
    }
  }
  write(id, sequence, operation, Operation::Stage::kWrite, command);
}

// Its entry was applied, now or before: what stands of it is in the state.
void Sessions::Impl::on_acquired(Instant now, SessionId id, Session& session, uint64_t sequence, Operation& operation) {
  const keyspace::View& view = world_.view();
  const bool campaigns = operation.request->has_campaign();
  v1::SessionResponse out = response(id, sequence);
  bool waits = false;
  bool stands = false;
  for (const std::string& name : operation.names) {
    v1::ClaimState& state = *out.mutable_claimed()->add_claims();
    state.set_name(name);
    const std::string key = claim_key(name, lease_of(id));
    const std::optional<keyspace::KeyValue> own = view.get(key);
    const bool has_claim = own && own->lease == lease_of(id);
    const bool has_candidate = campaigns && view.record(candidate_record_key(name, id)) != nullptr;
    if (!has_claim && !has_candidate) continue;  // lost since
    stands = true;
    track(id, session, name, campaigns ? ClaimKind::kElection : ClaimKind::kLock, has_claim ? own->create : Revision(),
          sequence);
    const Claim& claim = session.claims.at(name);
    state.set_token(claim.token.value());
    state.set_granted(claim.granted);
    waits = waits || !claim.granted;
  }
  if (!stands) {
    REACHED(session_claim_lost_before_answer);
    fail(now, id, sequence, kNotFound, "CLAIM_LOST", "it was decided before, and nothing of it stands");
    return;
  }
  // A cancel waits for it, and takes back whatever it finds; also what nobody waits for any more.
  if (operation.cancelled) {
    fail_cancelled(now, id, sequence);
    return;
  }
  if (operation.withdrawn) {
    withdraw_claims(now, id, sequence, 0);
    return;
  }
  if (!waits) {
    finish(now, id, sequence, std::move(out));
    return;
  }
  operation.stage = Operation::Stage::kAnswered;
  operation.request.reset();
  if (operation.deadline != kNever) waits_.insert({operation.deadline, {id, sequence}});
  send(operation.stream, std::move(out));
}

void Sessions::Impl::track(SessionId id, Session& session, const std::string& name, ClaimKind kind, Revision token,
                           uint64_t operation) {
  forget_claim(session, name);
  Claim claim{.kind = kind, .key = claim_key(name, lease_of(id)), .token = token, .operation = operation};
  if (token == Revision()) {
    candidacies_[claim.key] = {id, name};
  } else {
    claim.waiter = ++last_waiter_;
    const ClaimQueue::Outcome outcome =
        queue_.wait(world_.view(), claim.waiter, claim_prefix(name), claim.key, token, ClaimQueue::Until::kLost);
    ASSERT(outcome != ClaimQueue::Outcome::kLost);  // it was looked at just now
    claim.granted = outcome == ClaimQueue::Outcome::kGranted;
    waiters_[claim.waiter] = {id, name};
  }
  session.claims[name] = std::move(claim);
}

// ---- Cancel ----

void Sessions::Impl::run_cancel(Instant now, SessionId id, Session& session, uint64_t sequence, Operation& operation) {
  const uint64_t target = operation.request->cancel().operation();
  const auto found = session.operations.find(target);
  if (found != session.operations.end()) {
    Operation& cancelled = found->second;
    switch (cancelled.stage) {
      case Operation::Stage::kWrite:
      case Operation::Stage::kRefuse:
        cancelled.cancelled = true;
        operation.stage = Operation::Stage::kTarget;
        return;
      case Operation::Stage::kAnswered:
        fail_cancelled(now, id, target);
        delete_claims(id, sequence, operation);
        return;
      default:
        fail_cancelled(now, id, target);
        break;
    }
  } else {
    bool all_stand = true;
    for (const std::string& name : operation.names) all_stand = all_stand && session.claims.contains(name);
    if (all_stand) {
      delete_claims(id, sequence, operation);
      return;
    }
  }
  // Whether it was done is not known here: after this mark it was, or never will be.
  REACHED(session_cancel_marks);
  write(id, sequence, operation, Operation::Stage::kMark, CommandBuilder(), target);
}

void Sessions::Impl::delete_claims(SessionId id, uint64_t sequence, Operation& operation) {
  CommandBuilder command;
  for (const std::string& name : operation.names) {
    const std::string key = claim_key(name, lease_of(id));
    erase_claim(command, world_.view(), key);
    // A candidate may be bound or elected while this is under way, or become one again: either goes.
    command.erase_record(candidate_record_key(name, id));
  }
  write(id, sequence, operation, Operation::Stage::kCancel, command);
}

// ---- Elections ----

void Sessions::Impl::run_campaign(SessionId id, uint64_t sequence, Operation& operation) {
  const std::string& name = operation.names[0];
  const std::string record = candidate_record_key(name, id);
  const v1::Campaign& campaign = operation.request->campaign();
  CommandBuilder command;
  command.if_created(claim_key(name, lease_of(id)), Revision())
      .if_record_at(record, LogIndex())
      .put_record(record, encode(CandidateRecord{.priority = campaign.priority(), .value = campaign.value()}),
                  lease_of(id));
  write(id, sequence, operation, Operation::Stage::kWrite, command);
}

// Whoever has the token knows it from its grant: that it leads needs no look.
void Sessions::Impl::run_proclaim(SessionId id, uint64_t sequence, Operation& operation) {
  const v1::Proclaim& proclaim = operation.request->proclaim();
  const std::string key = claim_key(operation.names[0], lease_of(id));
  CommandBuilder command;
  command.if_created(key, Revision(proclaim.token())).put(key, proclaim.value(), lease_of(id));
  write(id, sequence, operation, Operation::Stage::kWrite, command);
}

// Of a resign and a transfer. Where nobody else stands in line the best candidate, or the one named, is elected by the
// same entry. The one named may also be bound, and the next in line: then it leads once the term has ended.
void Sessions::Impl::run_resign(Instant now, SessionId id, uint64_t sequence, Operation& operation) {
  const keyspace::View& view = world_.view();
  const std::string& name = operation.names[0];
  const std::string key = claim_key(name, lease_of(id));
  const bool transfers = operation.request->has_transfer();
  const Revision token(transfers ? operation.request->transfer().token() : operation.request->resign().token());
  CommandBuilder command;
  command.if_created(key, token);
  erase_claim(command, view, key);
  const keyspace::Session* known = view.session(id);
  const bool was_done = known != nullptr && known->was_applied(sequence);
  const Line line = line_of(view, name);
  const bool leads = line.owner && line.owner->key == key && line.owner->create == token;
  bool hands_over = false;
  const SessionId to(transfers ? static_cast<uint64_t>(operation.request->transfer().to()) : 0);
  if (leads && !was_done && transfers && line.next && line.next->key == claim_key(name, lease_of(to))) {
    REACHED(term_transferred_to_the_bound);
    // It stays the next while it stands: whoever comes stands behind it.
    command.if_created(line.next->key, line.next->create);
    hands_over = true;
  } else if (leads && !was_done && line.claims == 1) {
    std::optional<Candidate> next;
    if (transfers) {
      const keyspace::Record* candidate = view.record(candidate_record_key(name, to));
      if (candidate != nullptr) next = candidate_of(to, *candidate);
    } else if (operation.attempts < kAttemptsMax && !elections_.is_rebuilding()) {
      next = elections_.best(view, name, id);
    }
    if (next) {
      const std::string prefix = claim_prefix(name);
      command.if_none_created_after(prefix, claim_prefix_end(prefix), view.revision());
      add_election(command, view, name, *next);
      hands_over = true;
    }
  }
  if (transfers && !hands_over && !was_done) {
    if (!operation.proven) {
      look_first(id, sequence, operation);
    } else if (!leads) {
      refuse_by_look(now, id, sequence, operation, {kFailedPrecondition, "NOT_OWNER", "the token does not lead"});
    } else if (line.claims > 1) {
      refuse_by_look(now, id, sequence, operation,
                     {kFailedPrecondition, "FOREIGN_WAITERS", "others stand in line who cannot be passed over"});
    } else {
      refuse_by_look(now, id, sequence, operation,
                     {kNotFound, "NO_CANDIDATE", "that session is no candidate of the election"});
    }
    return;
  }
  write(id, sequence, operation, Operation::Stage::kWrite, command);
}

// ---- What came of them ----

void Sessions::Impl::on_operation_written(Instant now, Ticket ticket, const Pending& pending, const Reply& reply) {
  const SessionId id = pending.session;
  const uint64_t sequence = pending.number;
  const auto found = sessions_.find(id);
  if (found == sessions_.end()) return;
  Session& session = found->second;
  const auto at = session.operations.find(sequence);
  if (at == session.operations.end() || at->second.ticket != ticket) return;
  Operation& operation = at->second;
  operation.ticket = 0;
  const bool applied = reply.error == ErrorId::kNone || reply.error == ErrorId::kRepeated;
  if (!applied && reply.error != ErrorId::kGuardFailed) {
    if (operation.cancelled) {
      fail_cancelled(now, id, sequence);
    } else if (operation.withdrawn) {
      withdraw_claims(now, id, sequence, sequence);
    } else if (reply.error == ErrorId::kStaleIncarnation && session.incarnation > operation.incarnation) {
      // Another stream took over here while it was under way, and asked for it again.
      REACHED(session_operation_again);
      run(now, id, sequence);
    } else {
      fail(now, id, sequence, reply);
    }
    return;
  }
  if (operation.stage == Operation::Stage::kRefuse) {
    if (operation.cancelled) {
      fail_cancelled(now, id, sequence);
    } else if (reply.error == ErrorId::kNone) {
      fail(now, id, sequence, operation.refusal.code, operation.refusal.reason, operation.refusal.message);
    } else {
      // It had been done after all.
      REACHED(session_refusal_was_done);
      on_done(now, id, session, sequence, operation, true);
    }
    return;
  }
  if (operation.stage == Operation::Stage::kMark) {
    if (reply.error == ErrorId::kNone) {
      on_cancelled(now, id, session, sequence, operation);
    } else {
      delete_claims(id, sequence, operation);
    }
    return;
  }
  if (operation.stage == Operation::Stage::kCancel) {
    on_cancelled(now, id, session, sequence, operation);
    return;
  }
  if (reply.error == ErrorId::kGuardFailed) {
    on_guard_failed(now, id, session, sequence, operation, reply);
    return;
  }
  on_done(now, id, session, sequence, operation, reply.error == ErrorId::kRepeated);
}

void Sessions::Impl::on_done(Instant now, SessionId id, Session& session, uint64_t sequence, Operation& operation,
                             bool repeated) {
  const v1::SessionRequest& request = *operation.request;
  v1::SessionResponse out = response(id, sequence);
  if (repeated) REACHED(session_operation_repeated);
  switch (request.what_case()) {
    case v1::SessionRequest::kAcquire:
    case v1::SessionRequest::kCampaign:
      on_acquired(now, id, session, sequence, operation);
      return;
    case v1::SessionRequest::kProclaim: {
      const std::optional<keyspace::KeyValue> own = world_.view().get(claim_key(operation.names[0], lease_of(id)));
      out.mutable_proclaimed()->set_revision(own ? own->mod.value() : 0);
      finish(now, id, sequence, std::move(out));
      return;
    }
    case v1::SessionRequest::kTransfer:
      if (repeated && !was_transferred(now, id, sequence, operation)) return;
      [[fallthrough]];
    default: {
      const auto claim = session.claims.find(operation.names[0]);
      const int64_t token = request.has_release()    ? request.release().token()
                            : request.has_transfer() ? request.transfer().token()
                                                     : request.resign().token();
      if (claim != session.claims.end() && claim->second.token.value() == token) {
        forget_claim(session, operation.names[0]);
      }
      out.mutable_released()->set_held(true);
      finish(now, id, sequence, std::move(out));
    }
  }
}

// Its sequence was used before: by the transfer, or by the mark before its refusal. False: the latter, or not to be
// told apart, which was said.
bool Sessions::Impl::was_transferred(Instant now, SessionId id, uint64_t sequence, const Operation& operation) {
  const v1::Transfer& transfer = operation.request->transfer();
  const std::string prefix = claim_prefix(transfer.name());
  const std::optional<keyspace::KeyValue> own = world_.view().get(claim_key(transfer.name(), lease_of(id)));
  if (own && own->create.value() == transfer.token()) {
    REACHED(session_refused_before);
    fail(now, id, sequence, kNotFound, "NO_CANDIDATE", "it was refused before: that session was no candidate");
    return false;
  }
  const std::optional<keyspace::KeyValue> owner = oldest_child(world_.view(), prefix, claim_prefix_end(prefix));
  if (owner && owner->lease.value() == transfer.to()) return true;
  fail(now, id, sequence, kNotFound, "CLAIM_LOST", "it was decided before, and the term is over");
  return false;
}

void Sessions::Impl::on_cancelled(Instant now, SessionId id, Session& session, uint64_t sequence,
                                  Operation& operation) {
  for (const std::string& name : operation.names) {
    // Of another operation, where this one never happened.
    const auto claim = session.claims.find(name);
    if (claim == session.claims.end()) continue;
    const std::optional<keyspace::KeyValue> own = world_.view().get(claim->second.key);
    if (own && own->create == claim->second.token) continue;
    if (claim->second.token == Revision() && world_.view().record(candidate_record_key(name, id)) != nullptr) continue;
    forget_claim(session, name);
  }
  v1::SessionResponse out = response(id, sequence);
  out.mutable_cancelled();
  finish(now, id, sequence, std::move(out));
}

void Sessions::Impl::on_guard_failed(Instant now, SessionId id, Session& session, uint64_t sequence,
                                     Operation& operation, const Reply& reply) {
  const v1::SessionRequest& request = *operation.request;
  switch (request.what_case()) {
    case v1::SessionRequest::kAcquire:
    case v1::SessionRequest::kCampaign: {
      if (operation.cancelled) {
        fail_cancelled(now, id, sequence);
        return;
      }
      if (operation.withdrawn) {
        session.operations.erase(sequence);
        drop_if_idle(id);
        return;
      }
      const size_t own = request.has_campaign() ? 2 : operation.names.size();
      if (reply.failed_guard < own) {
        fail(now, id, sequence, kAlreadyExists, "ALREADY_HELD", "the session has a claim on that name");
      } else if (++operation.attempts < kAttemptsMax) {
        REACHED(session_try_looks_again);
        run(now, id, sequence);
      } else {
        fail(now, id, sequence, kAborted, "WOULD_BLOCK", "the lock is held or wanted");
      }
      return;
    }
    case v1::SessionRequest::kProclaim:
      fail(now, id, sequence, kFailedPrecondition, "NOT_OWNER", "the token does not lead");
      return;
    default: {
      if (reply.failed_guard > 0) {
        // Somebody came, or the candidate went, between the look and the entry.
        REACHED(session_hand_over_again);
        ++operation.attempts;
        run(now, id, sequence);
        return;
      }
      if (request.has_transfer()) {
        fail(now, id, sequence, kFailedPrecondition, "NOT_OWNER", "the token does not lead");
        return;
      }
      v1::SessionResponse out = response(id, sequence);
      out.mutable_released()->set_held(false);
      finish(now, id, sequence, std::move(out));
    }
  }
}

void Sessions::Impl::on_operation_not_written(Instant now, Ticket ticket, const Pending& pending,
                                              std::optional<NotDone> reason) {
  const auto found = sessions_.find(pending.session);
  if (found == sessions_.end()) return;
  const auto at = found->second.operations.find(pending.number);
  if (at == found->second.operations.end() || at->second.ticket != ticket) return;
  Operation& operation = at->second;
  operation.ticket = 0;
  const SessionId id = pending.session;
  if (operation.cancelled) {
    fail_cancelled(now, id, pending.number);
    return;
  }
  if (operation.withdrawn) {
    // Of a look: it never was on its way.
    withdraw_claims(now, id, pending.number, operation.stage == Operation::Stage::kLook ? 0 : pending.number);
    return;
  }
  const Refusal refusal = refusal_of(reason);
  fail(now, id, pending.number, refusal.code, refusal.reason, refusal.message);
}

void Sessions::Impl::finish(Instant now, SessionId id, uint64_t sequence, v1::SessionResponse&& response) {
  Session& session = sessions_.at(id);
  const auto found = session.operations.find(sequence);
  const StreamId stream = found->second.stream;
  const bool cancelled = found->second.cancelled;
  waits_.erase({found->second.deadline, {id, sequence}});
  session.operations.erase(found);
  send(stream, std::move(response));
  if (cancelled) run_cancels_of(now, id, sequence);
  drop_if_idle(id);
}

// What cancels waited for has been decided, whatever it was: it stands, or what became of it a mark will say.
void Sessions::Impl::run_cancels_of(Instant now, SessionId id, uint64_t target) {
  std::vector<uint64_t> cancels;
  for (const auto& [sequence, operation] : sessions_.at(id).operations) {
    if (operation.stage == Operation::Stage::kTarget && operation.request->cancel().operation() == target) {
      cancels.push_back(sequence);
    }
  }
  for (const uint64_t cancel : cancels) run(now, id, cancel);
}

void Sessions::Impl::fail(Instant now, SessionId id, uint64_t sequence, keyspace::GrpcCode code,
                          std::string_view reason, std::string_view message) {
  v1::SessionResponse out = response(id, sequence);
  out.mutable_error()->set_code(static_cast<uint32_t>(code));
  out.mutable_error()->set_reason(std::string(reason));
  out.mutable_error()->set_message(std::string(message));
  finish(now, id, sequence, std::move(out));
}

void Sessions::Impl::fail_cancelled(Instant now, SessionId id, uint64_t sequence) {
  fail(now, id, sequence, kCanceled, "CANCELLED", "by its client");
}

void Sessions::Impl::fail(Instant now, SessionId id, uint64_t sequence, const Reply& reply) {
  switch (reply.error) {
    case ErrorId::kSessionExpired:
    case ErrorId::kLeaseNotFound:
      fail(now, id, sequence, kNotFound, "SESSION_EXPIRED", "the session has ended");
      return;
    case ErrorId::kStaleIncarnation:
      fail(now, id, sequence, kFailedPrecondition, "TAKEN_OVER", "a later incarnation speaks for the session");
      return;
    default:
      fail(now, id, sequence, kInvalidArgument, "INVALID_REQUEST", keyspace::error_text(reply.error));
  }
}

// ---- Waits that are over, and callers that are gone ----

void Sessions::Impl::end_waits(Instant now) {
  while (!waits_.empty() && waits_.begin()->first <= now) {
    const auto [id, sequence] = waits_.begin()->second;
    waits_.erase(waits_.begin());
    REACHED(session_wait_over);
    withdraw_claims(now, id, sequence, 0);
  }
}

void Sessions::Impl::withdraw(Instant now, StreamId stream, SessionId id, uint64_t sequence) {
  const auto found = sessions_.find(id);
  if (found == sessions_.end()) return;
  const auto at = found->second.operations.find(sequence);
  if (at == found->second.operations.end() || at->second.stream != stream) return;
  Operation& operation = at->second;
  operation.withdrawn = true;
  using Stage = Operation::Stage;
  if (operation.stage == Stage::kAnswered) {
    withdraw_claims(now, id, sequence, 0);
  } else if (operation.stage == Stage::kSettle || operation.stage == Stage::kLook) {
    const bool cancelled = operation.cancelled;
    found->second.operations.erase(at);
    if (cancelled) run_cancels_of(now, id, sequence);
    drop_if_idle(id);
  }
  // Otherwise its entry is under way, and decides what is left to do.
}

// All that an operation has in line is taken back. `unknown`: its sequence, where it may happen yet.
void Sessions::Impl::withdraw_claims(Instant now, SessionId id, uint64_t sequence, uint64_t unknown) {
  Session& session = sessions_.at(id);
  const auto at = session.operations.find(sequence);
  Withdrawal withdrawal{.session = id,
                        .unknown_sequence = unknown,
                        .incarnation = at->second.incarnation,
                        .tells = !at->second.withdrawn,
                        .sequence = sequence};
  for (const std::string& name : at->second.names) {
    const auto claim = session.claims.find(name);
    const bool tracked = claim != session.claims.end();
    // Another operation's, or known from an attachment: whoever waits for that hears what becomes of it.
    const bool is_its = tracked && claim->second.operation == sequence;
    if (!is_its && unknown == 0) {
      withdrawal.is_void = true;
      continue;
    }
    if (tracked) {
      withdrawal.names.push_back(
          {.name = name, .token = claim->second.token, .may_be_candidate = claim->second.kind == ClaimKind::kElection});
    } else {
      withdrawal.names.push_back({.name = name});
    }
    if (is_its) forget_claim(session, name);
  }
  waits_.erase({at->second.deadline, {id, sequence}});
  session.operations.erase(at);
  withdrawals_.emplace(++last_withdrawal_, std::move(withdrawal));
  run_withdrawal(now, last_withdrawal_);
  drop_if_idle(id);
}

// One command at a time, until nothing stands. What was granted stays, as a whole: whoever speaks for the session now,
// here or elsewhere, may have been told. That it still waits is a guard of the command, since that says it of the
// moment of its entry: whom it waits behind stands.
void Sessions::Impl::run_withdrawal(Instant now, uint64_t number) {
  Withdrawal& withdrawal = withdrawals_.at(number);
  ASSERT(withdrawal.ticket == 0);
  const SessionId id = withdrawal.session;
  if (!world_.is_settled()) {
    withdrawals_again_.emplace(now + std::chrono::milliseconds(1), number);
    return;
  }
  const keyspace::View& view = world_.view();
  const auto write = [&](const CommandBuilder& command, const keyspace::CommandHeader& header) {
    const Ticket ticket = issue({.kind = Pending::Kind::kWithdrawal, .session = id, .number = number});
    withdrawal.ticket = ticket;
    world_.write(ticket, header, command.build());
  };
  if (withdrawal.unknown_sequence != 0) {
    write(CommandBuilder(), {.kind = CommandKind::kInternal,
                             .session = id,
                             .incarnation = withdrawal.incarnation,
                             .sequence = withdrawal.unknown_sequence});
    return;
  }
  std::vector<std::pair<std::string, keyspace::KeyValue>> standing;  // by name
  std::optional<keyspace::KeyValue> before;
  for (const auto& [name, token, may_be_candidate] : withdrawal.names) {
    const std::string key = claim_key(name, lease_of(id));
    const std::optional<keyspace::KeyValue> own = view.get(key);
    const bool is_it = token == Revision() || may_be_candidate || (own && own->create == token);
    if (own && own->lease == lease_of(id) && is_it) {
      const std::optional<keyspace::KeyValue> owner = owner_of(view, name);
      if (!before && owner && owner->key != key) before = owner;
      standing.emplace_back(name, *own);
      continue;
    }
    const std::string candidate = candidate_record_key(name, id);
    const keyspace::Record* record = view.record(candidate);
    if (record == nullptr || !may_be_candidate) continue;
    // One that never was bound is not that which was.
    CandidateRecord decoded;
    if (token != Revision() && (!decode(record->value, decoded) || decoded.since == LogIndex())) continue;
    write(CommandBuilder().if_record_at(candidate, record->written_at).erase_record(candidate),
          {.kind = CommandKind::kInternal});
    return;
  }
  if (!standing.empty() && (before || withdrawal.is_void)) {
    CommandBuilder command;
    if (!withdrawal.is_void) command.if_created(before->key, before->create);
    for (const auto& [name, own] : standing) command.if_created(own.key, own.create);
    for (const auto& [name, own] : standing) erase_claim(command, view, std::string(own.key));
    write(command, {.kind = CommandKind::kInternal});
    return;
  }
  const auto session = sessions_.find(id);
  if (!standing.empty() && session != sessions_.end() && !session->second.streams.empty()) {
    REACHED(session_withdrawn_too_late);
    for (const auto& [name, own] : standing) {
      track(id, session->second, name, claim_record_of(view, own.key).kind, own.create, 0);
      if (session->second.claims.at(name).granted) tell_granted(id, session->second, name);
    }
  }
  // Whoever speaks for the session now: it may have been attached anew since it asked.
  if (withdrawal.tells && standing.empty()) {
    v1::SessionResponse out = response(id, withdrawal.sequence);
    out.mutable_error()->set_code(static_cast<uint32_t>(kAborted));
    out.mutable_error()->set_reason("WOULD_BLOCK");
    out.mutable_error()->set_message("not granted in time; nothing of it is left");
    push(id, out);
  }
  withdrawals_.erase(number);
}

}  // namespace conclave::layers
