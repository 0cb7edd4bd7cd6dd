#include "keyspace/execution.h"

#include <algorithm>

#include "base/assert.h"
#include "base/mark.h"
#include "keyspace/validate.h"
#include "keyspace/wire.h"

namespace conclave::keyspace {
namespace {

// A lease looked up and taken apart in cold memory, measured against one key.
constexpr uint32_t kLeaseUnits = 3;

}  // namespace

void Execution::begin(LogIndex index, Term term, const SharedBytes& command) {
  ASSERT(stage_ == Stage::kDone);
  bytes_ = command;
  reply_.index = index;
  reply_.error = ErrorId::kNone;
  reply_.body.clear();
  if (reply_.body.capacity() > kAnswerBytesKept) std::string().swap(reply_.body);
  reply_.failed_guard = 0;
  effects_.revision_before = Revision(store_.visible());
  effects_.records.clear();
  effects_.leases_started.clear();
  effects_.leases_ended.clear();
  Command decoded;
  header_ = {};
  reply_.header = {};
  if (!decode_command(bytes_.view(), decoded)) {
    REACHED(keyspace_command_unknown);
    finish(ErrorId::kUnknownCommand);
    return;
  }
  header_ = decoded.header;
  reply_.header = decoded.header;
  answers_ = !answer_options_.origin.is_set() ||
             (header_.origin == answer_options_.origin && header_.boot == answer_options_.boot);
  answer_too_large_ = false;
  request_ = decoded.body;
  revision_ = store_.visible() + 1;
  first_event_ = store_.events_end();
  guard_at_ = 0;
  compare_at_ = 0;
  compare_found_ = false;
  operation_at_ = 0;
  operation_open_ = false;
  deleted_ = 0;
  resumed_ = false;
  frames_.clear();
  undecided_.clear();
  leases_after_.clear();
  record_operations_.clear();
  tables_.begin_command();
  stage_ = Stage::kGuard;
  ErrorId error = prepare(term);
  if (error != ErrorId::kNone) finish(error);
}

ErrorId Execution::prepare(Term term) {
  // Decided on the state of another term: without effect, and not even remembered (architecture rule 6).
  if (header_.term != Term() && header_.term != term) {
    REACHED(keyspace_past_term);
    return ErrorId::kPastTerm;
  }
  if (header_.session.is_set()) {
    const Session* session = nullptr;
    ErrorId error = prepare_session(session);
    if (error != ErrorId::kNone) return error;
  }
  return prepare_body();
}

ErrorId Execution::prepare_session(const Session*& session) const {
  session = tables_.session(header_.session);
  if (session == nullptr) return ErrorId::kSessionExpired;
  if (header_.incarnation < session->incarnation) {
    REACHED(keyspace_stale_incarnation);
    return ErrorId::kStaleIncarnation;
  }
  return session->was_applied(header_.sequence) ? ErrorId::kRepeated : ErrorId::kNone;
}

ErrorId Execution::prepare_body() {
  body_ = Body::kSingle;
  program_.clear();
  internal_.clear();
  ErrorId error = ErrorId::kNone;
  auto single = [this](OperationKind kind) { program_.operations.push_back({kind, 0}); };
  auto internal = [this](InternalOperation operation) {
    body_ = Body::kInternal;
    internal_.operations.push_back(operation);
  };
  switch (header_.kind) {
    case CommandKind::kPut:
      single(OperationKind::kPut);
      return parse_and_validate(request_, program_.puts.emplace_back());
    case CommandKind::kDeleteRange:
      single(OperationKind::kDelete);
      return parse_and_validate(request_, program_.deletes.emplace_back());
    case CommandKind::kTxn:
      body_ = Body::kTxn;
      error = parse_and_validate(request_, program_);
      if (error == ErrorId::kNone) {
        undecided_.push_back(0);
        succeeded_.assign(program_.txns.size(), 0);
      }
      return error;
    case CommandKind::kCompact: {
      CompactionRequest request;
      error = parse(request_, request);
      if (error != ErrorId::kNone) return error;
      if (request.revision <= store_.floor()) return ErrorId::kCompacted;
      if (request.revision > store_.visible()) return ErrorId::kFutureRevision;
      store_.set_floor(request.revision);
      return ErrorId::kNone;
    }
    case CommandKind::kLeaseGrant: {
      LeaseGrantRequest request;
      error = parse(request_, request);
      if (error != ErrorId::kNone) return error;
      if (!header_.lease.is_set()) return ErrorId::kMalformed;
      internal({.kind = InternalOperation::Kind::kLeaseGrant, .lease = header_.lease, .milliseconds = header_.ttl_ms});
      if (answers_) {
        append_int64_field(reply_.body, 2, header_.lease.value());
        append_int64_field(reply_.body, 3, header_.ttl_ms / 1000);
      }
      return ErrorId::kNone;
    }
    case CommandKind::kLeaseRevoke: {
      LeaseRevokeRequest request;
      error = parse(request_, request);
      if (error != ErrorId::kNone) return error;
      if (request.id == 0) return ErrorId::kLeaseNotFound;
      internal({.kind = InternalOperation::Kind::kLeaseRevoke, .lease = LeaseId(request.id)});
      return ErrorId::kNone;
    }
    case CommandKind::kLeaseExpire: {
      std::vector<LeaseId> leases;
      if (!decode_expire(request_, leases)) return ErrorId::kMalformed;
      body_ = Body::kExpire;
      for (LeaseId lease : leases) {
        internal_.operations.push_back({.kind = InternalOperation::Kind::kLeaseRevoke, .lease = lease});
      }
      return ErrorId::kNone;
    }
    case CommandKind::kSessionOpen: {
      SessionOpen open;
      if (!decode(request_, open)) return ErrorId::kMalformed;
      const Session* known = tables_.session(open.session);
      if (known != nullptr) {
        // A repeated open is the same open; anything else is somebody else's session.
        bool same =
            ByteView(known->secret_hash.data(), kSecretHashBytes) == open.secret_hash && known->lease == open.lease;
        return same ? ErrorId::kNone : ErrorId::kSessionExists;
      }
      if (tables_.lease(open.lease) != nullptr) return ErrorId::kLeaseExists;
      tables_.grant(open.lease, open.ttl_ms);
      effects_.leases_started.push_back(open.lease);
      Session session;
      session.id = open.session;
      session.lease = open.lease;
      std::copy(open.secret_hash.begin(), open.secret_hash.end(), session.secret_hash.begin());
      session.description = std::string(open.description);
      tables_.open_session(std::move(session));
      return ErrorId::kNone;
    }
    case CommandKind::kInternal:
      body_ = Body::kInternal;
      return decode(request_, internal_);
  }
  return ErrorId::kUnknownCommand;
}

bool Execution::run(uint32_t& units) {
  while (stage_ != Stage::kDone) {
    switch (stage_) {
      case Stage::kGuard:
        if (!guard(units)) return false;
        break;
      case Stage::kCheck: {
        ErrorId error = ErrorId::kNone;
        if (!check(units, error)) return false;
        if (error != ErrorId::kNone) {
          finish(error);
          break;
        }
        operation_at_ = 0;
        frames_.clear();
        if (body_ == Body::kTxn) open_frame(0);
        stage_ = Stage::kOperate;
        break;
      }
      case Stage::kOperate:
        if (!operate(units)) return false;
        publish();
        break;
      case Stage::kCleanKeys:
        if (!clean_keys(units)) return false;
        clean_lease_at_ = 0;
        stage_ = Stage::kCleanLeases;
        break;
      case Stage::kCleanLeases:
        if (!clean_leases(units)) return false;
        finish(ErrorId::kNone);
        if (answer_too_large_) reply_.error = ErrorId::kAnswerTooLarge;
        break;
      case Stage::kDone:
        break;
    }
  }
  return true;
}

// The end, with or without effect. An error changed nothing but, at most, the session's incarnation.
void Execution::finish(ErrorId error) {
  stage_ = Stage::kDone;
  tables_.commit();
  reply_.error = error;
  reply_.revision = Revision(store_.visible());
  if (error != ErrorId::kNone) {
    reply_.body.clear();
    if (header_.session.is_set() && error != ErrorId::kPastTerm) {
      // Refusals are not remembered, but a newer incarnation was seen.
      Session* session = tables_.session(header_.session);
      if (session != nullptr && header_.incarnation > session->incarnation) {
        tables_.update_session(*session, header_.incarnation, std::nullopt);
      }
    }
  }
  bytes_ = {};
}

// The command takes effect: everything it did is visible from here on.
void Execution::publish() {
  for (size_t at : record_operations_) {
    const InternalOperation& operation = internal_.operations[at];
    std::string key(operation.key);
    bool deleted = operation.kind == InternalOperation::Kind::kRecordDelete;
    if (deleted) {
      tables_.erase_record(operation.key);
    } else {
      tables_.put_record(operation.key, operation.value, operation.lease, reply_.index);
    }
    effects_.records.push_back({std::move(key), deleted});
  }
  if (header_.session.is_set()) {
    Session* session = tables_.session(header_.session);
    // It may have ended its own session.
    if (session != nullptr) tables_.update_session(*session, header_.incarnation, header_.sequence);
  }
  store_.publish(store_.written());
  tables_.commit();
  clean_at_ = first_event_;
  stage_ = Stage::kCleanKeys;
}

// ---- Guards and compares: all are decided on the state before the command.

bool Execution::guard(uint32_t& units) {
  bool done = body_ == Body::kTxn ? guard_txns(units) : guard_internal(units);
  if (done && stage_ == Stage::kGuard) {
    if (body_ == Body::kTxn) {
      frames_.clear();
      const TxnNode& root = program_.txns[0];
      const Slice& chosen = succeeded_[0] != 0 ? root.success : root.failure;
      frames_.push_back({.txn = 0, .next = chosen.begin, .end = chosen.end});
    }
    stage_ = Stage::kCheck;
  }
  return done;
}

bool Execution::guard_txns(uint32_t& units) {
  while (guard_at_ < undecided_.size()) {
    uint32_t txn = undecided_[guard_at_];
    const TxnNode& node = program_.txns[txn];
    bool holds = true;
    while (holds && compare_at_ < node.compares.size()) {
      if (!compare(program_.compares[node.compares.begin + compare_at_], units, holds)) return false;
      ++compare_at_;
    }
    succeeded_[txn] = holds ? 1 : 0;
    compare_at_ = 0;
    ++guard_at_;
    const Slice& chosen = holds ? node.success : node.failure;
    for (uint32_t i = chosen.begin; i < chosen.end; ++i) {
      const Operation& operation = program_.operations[i];
      if (operation.kind == OperationKind::kTxn) undecided_.push_back(operation.at);
    }
  }
  return true;
}

bool Execution::guard_internal(uint32_t& units) {
  while (guard_at_ < internal_.guards.size()) {
    // Paid for when done: a slice of one unit must get on too.
    const Guard& guard = internal_.guards[guard_at_];
    if (units == 0) return false;
    bool holds = false;
    switch (guard.kind) {
      case Guard::Kind::kCompare:
        if (!compare(guard.compare, units, holds)) return false;
        break;
      case Guard::Kind::kRecordAt: {
        auto record = tables_.records().find(guard.key);
        uint64_t written = record == tables_.records().end() ? 0 : record->second.written_at.value();
        holds = written == guard.number;
        break;
      }
      case Guard::Kind::kLease:
        holds = tables_.lease(LeaseId(static_cast<int64_t>(guard.number))) != nullptr;
        break;
      case Guard::Kind::kNoLease:
        holds = tables_.lease(LeaseId(static_cast<int64_t>(guard.number))) == nullptr;
        break;
      case Guard::Kind::kSession:
        holds = tables_.session(SessionId(guard.number)) != nullptr;
        break;
    }
    if (!holds) {
      reply_.failed_guard = static_cast<uint32_t>(guard_at_);
      finish(ErrorId::kGuardFailed);
      return true;
    }
    units -= std::min<uint32_t>(units, 1);
    ++guard_at_;
  }
  return true;
}

bool Execution::compare(const Compare& compare, uint32_t& units, bool& holds) {
  KeyRange range = KeyRange::of(compare.key, compare.range_end);
  if (range.is_point()) {
    if (units == 0) return false;
    --units;
    holds = holds_for(compare, store_.live_head(compare.key));
    return true;
  }
  if (!resumed_) compare_found_ = false;
  KeyTree::Position at = store_.tree().lower_bound(resumed_ ? ByteView(resume_key_) : range.begin);
  holds = true;
  for (; holds && !at.is_end(); KeyTree::advance(at)) {
    const Key* key = KeyTree::key_at(at);
    if (range.is_before(key->bytes())) break;
    if (units == 0) {
      resumed_ = true;
      resume_key_.assign(key->bytes());
      return false;
    }
    --units;
    if (key->head->is_tombstone()) continue;
    compare_found_ = true;
    holds = holds_for(compare, key->head);
  }
  if (!compare_found_) holds = holds_for(compare, nullptr);
  resumed_ = false;
  return true;
}

// `version` is null for a key that is not there: its value compares to nothing, its numbers are zero.
bool Execution::holds_for(const Compare& compare, const Version* version) {
  int order = 0;
  if (compare.target == CompareTarget::kValue) {
    if (version == nullptr) return false;
    order = version->value().compare(compare.expected_value());
  } else {
    int64_t actual = 0;
    if (version != nullptr) {
      switch (compare.target) {
        case CompareTarget::kVersion:
          actual = version->version;
          break;
        case CompareTarget::kCreate:
          actual = version->create;
          break;
        case CompareTarget::kMod:
          actual = version->mod;
          break;
        case CompareTarget::kLease:
          actual = version->lease();
          break;
        case CompareTarget::kValue:
          break;
      }
    }
    int64_t expected = compare.expected_number();
    order = actual < expected ? -1 : (actual > expected ? 1 : 0);
  }
  switch (compare.result) {
    case CompareResult::kEqual:
      return order == 0;
    case CompareResult::kNotEqual:
      return order != 0;
    case CompareResult::kGreater:
      return order > 0;
    case CompareResult::kLess:
      return order < 0;
  }
  return false;
}

// ---- Checks: what could refuse the command, along the chosen path, before anything is written.

bool Execution::check(uint32_t& units, ErrorId& error) {
  error = ErrorId::kNone;
  if (body_ == Body::kSingle) {
    if (!program_.operations.empty()) error = check_operation(program_.operations[0]);
    return true;
  }
  if (body_ != Body::kTxn) {
    for (; operation_at_ < internal_.operations.size() && error == ErrorId::kNone; ++operation_at_) {
      if (units == 0) return false;
      --units;
      if (body_ == Body::kInternal) error = check_internal(internal_.operations[operation_at_]);
    }
    return true;
  }
  while (!frames_.empty() && error == ErrorId::kNone) {
    Frame& frame = frames_.back();
    if (frame.next == frame.end) {
      frames_.pop_back();
      continue;
    }
    if (units == 0) return false;
    --units;
    const Operation& operation = program_.operations[frame.next++];
    if (operation.kind == OperationKind::kTxn) {
      const TxnNode& node = program_.txns[operation.at];
      const Slice& chosen = succeeded_[operation.at] != 0 ? node.success : node.failure;
      frames_.push_back({.txn = operation.at, .next = chosen.begin, .end = chosen.end});
    } else if (operation.kind != OperationKind::kRange) {
      error = check_operation(operation);
    } else if (range_error_ == ErrorId::kNone) {
      range_error_ = check_operation(operation);
    }
  }
  // etcd checks all puts of the path before its ranges.
  if (error == ErrorId::kNone) error = range_error_;
  range_error_ = ErrorId::kNone;
  return true;
}

ErrorId Execution::check_operation(const Operation& operation) const {
  switch (operation.kind) {
    case OperationKind::kPut:
      return check_put(program_.puts[operation.at]);
    case OperationKind::kRange:
      return check_range(program_.ranges[operation.at]);
    case OperationKind::kNone:
    case OperationKind::kDelete:
    case OperationKind::kTxn:
      break;
  }
  return ErrorId::kNone;
}

ErrorId Execution::check_put(const PutRequest& put) const {
  const bool no_lease = put.lease != 0 && tables_.lease(LeaseId(put.lease)) == nullptr;
  const bool no_key = (put.ignore_value || put.ignore_lease) && store_.live_head(put.key) == nullptr;
  // etcd looks for the key first in a transaction, for the lease first in a put by itself.
  if (no_key && (body_ == Body::kTxn || !no_lease)) return ErrorId::kKeyNotFound;
  return no_lease ? ErrorId::kLeaseNotFound : ErrorId::kNone;
}

ErrorId Execution::check_range(const RangeRequest& range) const {
  if (range.revision > store_.visible()) return ErrorId::kFutureRevision;
  if (range.revision > 0 && range.revision < store_.floor()) return ErrorId::kCompacted;
  return ErrorId::kNone;
}

bool Execution::lease_stands(LeaseId id) const {
  auto changed = leases_after_.find(id);
  return changed != leases_after_.end() ? changed->second : tables_.lease(id) != nullptr;
}

ErrorId Execution::check_internal(const InternalOperation& operation) {
  switch (operation.kind) {
    case InternalOperation::Kind::kPut:
      if (operation.lease.is_set() && !lease_stands(operation.lease)) return ErrorId::kLeaseNotFound;
      if (operation.ignore_value && store_.live_head(operation.key) == nullptr) return ErrorId::kKeyNotFound;
      return ErrorId::kNone;
    case InternalOperation::Kind::kRecordPut:
      return !operation.lease.is_set() || lease_stands(operation.lease) ? ErrorId::kNone : ErrorId::kLeaseNotFound;
    case InternalOperation::Kind::kDelete:
    case InternalOperation::Kind::kRecordDelete:
      return ErrorId::kNone;
    case InternalOperation::Kind::kLeaseGrant:
      // An id that ended in this very command is not free yet either.
      if (leases_after_.contains(operation.lease) || tables_.lease(operation.lease) != nullptr) {
        return ErrorId::kLeaseExists;
      }
      leases_after_[operation.lease] = true;
      return ErrorId::kNone;
    case InternalOperation::Kind::kLeaseRevoke:
      if (!lease_stands(operation.lease)) return ErrorId::kLeaseNotFound;
      leases_after_[operation.lease] = false;
      return ErrorId::kNone;
  }
  return ErrorId::kUnknownCommand;
}

// ---- Operations.

bool Execution::operate(uint32_t& units) {
  if (body_ == Body::kSingle) {
    return program_.operations.empty() || run_operation(program_.operations[0], units);
  }
  return body_ == Body::kTxn ? operate_requests(units) : operate_internal(units);
}

void Execution::open_frame(uint32_t txn) {
  const TxnNode& node = program_.txns[txn];
  const Slice& chosen = succeeded_[txn] != 0 ? node.success : node.failure;
  frames_.push_back(
      {.txn = txn, .next = chosen.begin, .end = chosen.end, .open_response = open_response_, .open_body = open_body_});
  if (answers_) append_bool_field(reply_.body, 2, succeeded_[txn] != 0);
}

void Execution::close_frame() {
  Frame frame = frames_.back();
  frames_.pop_back();
  if (frames_.empty() || !answers_) return;
  // Of a nested transaction it is empty: etcd fills in the outermost alone.
  close_message(reply_.body, open_message(reply_.body, 1));
  close_message(reply_.body, frame.open_body);
  close_message(reply_.body, frame.open_response);
}

// The header inside a transaction's response carries the revision as it stands at that operation, and nothing else.
void Execution::append_inner_header() {
  if (!answers_) return;
  size_t header = open_message(reply_.body, 1);
  append_int64_field(reply_.body, 3, store_.written());
  close_message(reply_.body, header);
}

// What grew too long is not built to its end, since that end may be anywhere. The command goes on: it has begun to
// write, and others apply it too.
void Execution::bound_answer() {
  if (reply_.body.size() <= answer_options_.bytes_max) return;
  REACHED(keyspace_answer_too_large);
  std::string().swap(reply_.body);  // an assignment would keep the memory
  answers_ = false;
  answer_too_large_ = true;
}

bool Execution::operate_requests(uint32_t& units) {
  while (!frames_.empty()) {
    Frame& frame = frames_.back();
    if (frame.next == frame.end) {
      close_frame();
      continue;
    }
    const Operation& operation = program_.operations[frame.next];
    if (!operation_open_) {
      if (units == 0) return false;
      --units;
      if (answers_) {
        open_response_ = open_message(reply_.body, 3);
        open_body_ = open_message(reply_.body, static_cast<uint32_t>(operation.kind));
      }
      if (operation.kind == OperationKind::kTxn) {
        ++frame.next;
        open_frame(operation.at);
        continue;
      }
      operation_open_ = true;
      deleted_ = 0;
      resumed_ = false;
      if (operation.kind == OperationKind::kRange) range_.begin_inside(store_, program_.ranges[operation.at]);
    }
    bool done = run_operation(operation, units);
    bound_answer();
    if (!done) return false;
    append_inner_header();
    if (answers_) {
      close_message(reply_.body, open_body_);
      close_message(reply_.body, open_response_);
    }
    operation_open_ = false;
    ++frame.next;
  }
  return true;
}

bool Execution::run_operation(const Operation& operation, uint32_t& units) {
  switch (operation.kind) {
    case OperationKind::kRange:
      // It changes nothing: without an answer to go into it need not be read.
      return !answers_ || range_.step(units, reply_.body);
    case OperationKind::kPut:
      put(program_.puts[operation.at]);
      return true;
    case OperationKind::kDelete: {
      const DeleteRangeRequest& request = program_.deletes[operation.at];
      if (!delete_range(KeyRange::of(request.key, request.range_end), request.prev_kv, units)) return false;
      if (answers_) append_int64_field(reply_.body, 2, deleted_);
      return true;
    }
    case OperationKind::kNone:
    case OperationKind::kTxn:
      break;
  }
  UNREACHABLE();
}

void Execution::put(const PutRequest& put) {
  const Version* version = nullptr;
  if (!put.ignore_value && !put.ignore_lease) {
    version = store_.put(put.key, put.value, put.lease, revision_);
  } else {
    const Version* before = store_.live_head(put.key);
    int64_t lease = put.ignore_lease && before != nullptr ? before->lease() : put.lease;
    version = put.ignore_value ? store_.put_keeping_value(put.key, lease, revision_)
                               : store_.put(put.key, put.value, lease, revision_);
  }
  attach(version);
  if (answers_ && put.prev_kv && version->previous != nullptr && !version->previous->is_tombstone()) {
    append_key_value(reply_.body, 2, version->previous, false);
  }
}

// Leases gain keys at once and lose them once the command is published: until then both may be asked for.
void Execution::attach(const Version* version) {
  int64_t lease = version->lease();
  if (lease == 0) return;
  if (version->previous != nullptr && version->previous->lease() == lease) return;  // hangs there already
  Lease* holder = tables_.lease(LeaseId(lease));
  ASSERT(holder != nullptr);
  holder->keys.insert(version->key);
}

bool Execution::delete_range(const KeyRange& range, bool prev_kv, uint32_t& units) {
  KeyTree::Path path;
  bool more = store_.tree().seek(resumed_ ? ByteView(resume_key_) : range.begin, path);
  while (more) {
    const Key* key = path.key();
    if (range.is_before(key->bytes())) break;
    if (units == 0) {
      resumed_ = true;
      resume_key_.assign(key->bytes());
      return false;
    }
    --units;
    if (!key->head->is_tombstone()) {
      if (prev_kv && answers_) {
        append_key_value(reply_.body, 3, key->head, false);
        units -= std::min(units, key->head->value_size / 1024);
        bound_answer();
      }
      (void)store_.end_key(path, revision_);
      ++deleted_;
    }
    if (range.is_point()) break;
    more = store_.tree().advance(path);
  }
  resumed_ = false;
  return true;
}

bool Execution::operate_internal(uint32_t& units) {
  for (; operation_at_ < internal_.operations.size(); ++operation_at_) {
    if (units == 0) return false;
    const InternalOperation& operation = internal_.operations[operation_at_];
    switch (operation.kind) {
      case InternalOperation::Kind::kPut: {
        int64_t lease = operation.lease.value();
        attach(operation.ignore_value ? store_.put_keeping_value(operation.key, lease, revision_)
                                      : store_.put(operation.key, operation.value, lease, revision_));
        break;
      }
      case InternalOperation::Kind::kDelete:
        if (!delete_range(KeyRange::of(operation.key, operation.range_end), false, units)) return false;
        break;
      case InternalOperation::Kind::kRecordPut:
      case InternalOperation::Kind::kRecordDelete:
        record_operations_.push_back(operation_at_);
        break;
      case InternalOperation::Kind::kLeaseGrant:
        (void)tables_.grant(operation.lease, operation.milliseconds);
        effects_.leases_started.push_back(operation.lease);
        break;
      case InternalOperation::Kind::kLeaseRevoke:
        if (!revoke(operation.lease, units)) return false;
        break;
    }
    units -= std::min<uint32_t>(units, 1);
  }
  return true;
}

bool Execution::revoke(LeaseId id, uint32_t& units) {
  Lease* lease = tables_.lease(id);
  if (lease == nullptr) return true;
  KeyTree::Path path;
  bool all = lease->keys.each_from(resumed_ ? ByteView(resume_key_) : ByteView(), [&](Key* key) {
    if (units == 0) {
      resumed_ = true;
      resume_key_.assign(key->bytes());
      return false;
    }
    --units;
    // The set may hold keys this command has moved to another lease or ended.
    if (key->head->is_tombstone() || key->head->lease() != id.value()) return true;
    store_.tree().find(key->bytes(), path);
    (void)store_.end_key(path, revision_);
    return true;
  });
  if (!all) return false;
  resumed_ = false;
  units -= std::min(units, kLeaseUnits);
  tables_.end(*lease);
  effects_.leases_ended.push_back(id);
  // Leases that merely ran out together end in revisions of their own, as separate revokes would.
  if (body_ == Body::kExpire) revision_ = store_.written() + 1;
  return true;
}

// ---- Cleaning up, once the command is visible.

bool Execution::clean_keys(uint32_t& units) {
  uint64_t end = store_.events_end();
  while (clean_at_ < end) {
    const Version* event = store_.event(clean_at_);
    if (!hub_.is_dispatching()) hub_.begin_revision(event->mod, clean_at_);
    if (units == 0) return false;
    --units;
    // A lease loses the key unless the key hangs on it still, or again.
    const Version* before = event->previous;
    if (before != nullptr && before->lease() != 0 && event->key->head->lease() != before->lease()) {
      Lease* lease = tables_.lease(LeaseId(before->lease()));
      if (lease != nullptr) lease->keys.erase(event->key);
    }
    hub_.dispatch(event, units);
    ++clean_at_;
    if (clean_at_ == end || store_.event(clean_at_)->mod != event->mod) hub_.end_revision();
  }
  return true;
}

bool Execution::clean_leases(uint32_t& units) {
  for (; clean_lease_at_ < effects_.leases_ended.size(); ++clean_lease_at_) {
    if (units == 0) return false;
    if (!tables_.take_apart(effects_.leases_ended[clean_lease_at_], units, effects_.records)) return false;
    units -= std::min(units, kLeaseUnits);
  }
  for (LeaseId lease : effects_.leases_started) tables_.started(lease);
  return true;
}

}  // namespace conclave::keyspace
