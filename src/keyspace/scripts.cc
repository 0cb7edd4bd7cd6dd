#include "keyspace/scripts.h"

#include <fmt/format.h>

namespace conclave::keyspace {
namespace {

std::string quoted(const std::string& bytes) {
  std::string out = "\"";
  for (char c : bytes) {
    if (c >= ' ' && c < 127 && c != '"' && c != '\\') {
      out.push_back(c);
    } else {
      out += fmt::format("\\x{:02x}", static_cast<uint8_t>(c));
    }
  }
  return out + "\"";
}

template <class Message>
std::string text_of(const std::string& bytes) {
  Message message;
  return message.ParseFromString(bytes) ? message.ShortDebugString() : "unreadable " + quoted(bytes);
}

std::string request_text(CommandKind kind, const std::string& bytes) {
  switch (kind) {
    case CommandKind::kPut:
      return "put " + text_of<etcdserverpb::PutRequest>(bytes);
    case CommandKind::kDeleteRange:
      return "delete " + text_of<etcdserverpb::DeleteRangeRequest>(bytes);
    case CommandKind::kTxn:
      return "txn " + text_of<etcdserverpb::TxnRequest>(bytes);
    case CommandKind::kCompact:
      return "compact " + text_of<etcdserverpb::CompactionRequest>(bytes);
    case CommandKind::kLeaseGrant:
      return "grant " + text_of<etcdserverpb::LeaseGrantRequest>(bytes);
    case CommandKind::kLeaseRevoke:
      return "revoke " + text_of<etcdserverpb::LeaseRevokeRequest>(bytes);
    case CommandKind::kLeaseExpire:
      return "expire";
    case CommandKind::kSessionOpen:
      return "open session";
    case CommandKind::kInternal:
      return "internal";
  }
  return "?";
}

}  // namespace

std::string describe(const Step& step) {
  std::string text;
  switch (step.kind) {
    case Step::Kind::kCommand:
      text = request_text(step.header.kind, step.request);
      break;
    case Step::Kind::kRange:
      return "range " + text_of<etcdserverpb::RangeRequest>(step.request);
    case Step::Kind::kLook:
      return "look";
    case Step::Kind::kWatch:
      return fmt::format("watch {} {} from {}{}{}{}", quoted(step.key), quoted(step.range_end), step.from,
                         step.with_previous ? " prev_kv" : "", step.no_put ? " no_put" : "",
                         step.no_delete ? " no_delete" : "");
    case Step::Kind::kBackground:
      return fmt::format("background {}", step.units);
    case Step::Kind::kReload:
      return "reload";
  }
  for (const model::Guard& guard : step.guards) {
    text += fmt::format(" guard({} {} {} {})", static_cast<int>(guard.kind), guard.compare.ShortDebugString(),
                        quoted(guard.record), guard.number);
  }
  for (const model::Operation& operation : step.operations) {
    text += fmt::format(" op({} {} {} value {} lease {} ms {}{})", static_cast<int>(operation.kind),
                        quoted(operation.key), quoted(operation.range_end), quoted(operation.value), operation.lease,
                        operation.milliseconds, operation.ignore_value ? " ignore_value" : "");
  }
  for (int64_t lease : step.leases) text += fmt::format(" ({})", lease);
  const CommandHeader& header = step.header;
  if (header.session.is_set()) {
    text += fmt::format(" session {} {} {}", header.session, header.incarnation, header.sequence);
  }
  if (header.term != Term()) text += fmt::format(" term {} in {}", header.term, step.entry_term);
  if (header.lease.is_set()) text += fmt::format(" lease {} ttl {}", header.lease, header.ttl_ms);
  if (step.units != 0) text += fmt::format(" units {}", step.units);
  return text;
}

std::string ScriptWriter::key() {
  static const std::string kPrefixes[] = {"a/", "ab/", "lock/", "lock/x/", "a-rather-long-prefix-of-keys/", ""};
  std::string key = kPrefixes[draw_(6)];
  uint64_t shape = draw_(20);
  if (shape == 0) return key + std::string(1, '\0');
  if (shape == 1) return key + "\xff";
  if (shape == 2 && !key.empty()) return key;
  return key + fmt::format("{:x}", draw_(12));
}

void ScriptWriter::range_of(std::string& begin, std::string& range_end) {
  begin = key();
  range_end.clear();
  switch (draw_(8)) {
    case 0:
    case 1:
      break;
    case 2:
      range_end = std::string(1, '\0');
      break;
    case 3:
      begin = std::string(1, '\0');
      range_end = begin;
      break;
    case 4:
    case 5: {  // a prefix
      static const std::string kPrefixes[] = {"a/", "ab/", "lock/", "lock/x/", "a", "l"};
      begin = kPrefixes[draw_(6)];
      range_end = begin;
      ++range_end.back();
      break;
    }
    case 6:
      range_end = key();
      if (range_end < begin) std::swap(begin, range_end);
      break;
    default:
      range_end = key();
      break;  // may be reversed
  }
}

std::string ScriptWriter::value() {
  if (chance(1, 10)) return "";
  if (chance(1, 2)) return fmt::format("v{}", draw_(5));
  // One draw a statement: the order of two in one expression is the compiler's choice.
  uint64_t size = draw_(40);
  char letter = static_cast<char>('a' + draw_(26));
  return std::string(size, letter);
}

int64_t ScriptWriter::lease() {
  return static_cast<int64_t>(draw_(9)) - 1;
}

int64_t ScriptWriter::existing_lease(const model::Model& model) {
  if (model.leases.empty() || chance(1, 20)) return lease();
  auto at = model.leases.begin();
  std::advance(at, static_cast<ptrdiff_t>(draw_(model.leases.size())));
  return at->first;
}

int64_t ScriptWriter::revision(const model::Model& model) {
  int64_t low = std::max<int64_t>(model.compacted, model.revision - 200);
  if (chance(1, 30)) low = std::max<int64_t>(0, model.compacted - 2);
  int64_t high = model.revision + (chance(1, 30) ? 2 : 0);
  low = std::max<int64_t>(low, 0);
  return low + static_cast<int64_t>(draw_(static_cast<uint64_t>(high - low) + 1));
}

std::string ScriptWriter::existing_key(const model::Model& model) {
  if (model.keys.empty() || chance(1, 20)) return key();
  auto at = model.keys.begin();
  std::advance(at, static_cast<ptrdiff_t>(draw_(model.keys.size())));
  for (size_t i = 0; i < 8 && at != model.keys.end(); ++i, ++at) {
    if (!at->second.back().deleted) return at->first;
  }
  return key();
}

void ScriptWriter::fill(etcdserverpb::RangeRequest* request, const model::Model& model) {
  std::string begin;
  std::string range_end;
  range_of(begin, range_end);
  request->set_key(begin);
  request->set_range_end(range_end);
  if (chance(1, 300)) request->clear_key();
  if (chance(1, 2)) request->set_limit(static_cast<int64_t>(draw_(8)));
  if (chance(1, 100)) request->set_limit(-1);
  if (chance(1, 20)) request->set_limit(30);
  if (chance(1, 4)) request->set_revision(revision(model));
  if (chance(1, 100)) request->set_revision(-3);
  if (chance(1, 2)) request->set_sort_order(static_cast<etcdserverpb::RangeRequest::SortOrder>(draw_(3)));
  if (chance(1, 2)) request->set_sort_target(static_cast<etcdserverpb::RangeRequest::SortTarget>(draw_(5)));
  if (chance(1, 500)) request->set_sort_order(static_cast<etcdserverpb::RangeRequest::SortOrder>(3));
  if (chance(1, 500)) request->set_sort_target(static_cast<etcdserverpb::RangeRequest::SortTarget>(7));
  if (chance(1, 6)) request->set_serializable(true);
  if (chance(1, 6)) request->set_keys_only(true);
  if (chance(1, 8)) request->set_count_only(true);
  if (chance(1, 8)) request->set_min_mod_revision(revision(model));
  if (chance(1, 8)) request->set_max_mod_revision(revision(model));
  if (chance(1, 8)) request->set_min_create_revision(revision(model));
  if (chance(1, 6)) request->set_max_create_revision(revision(model));
}

void ScriptWriter::fill(etcdserverpb::PutRequest* request, const model::Model& model) {
  request->set_key(chance(1, 3) ? existing_key(model) : key());
  request->set_value(value());
  if (chance(1, 3)) request->set_lease(existing_lease(model));
  if (chance(1, 3)) request->set_prev_kv(true);
  if (chance(1, 6)) {
    request->set_key(existing_key(model));
    request->set_ignore_value(true);
    if (!chance(1, 20)) request->clear_value();
  }
  if (chance(1, 6)) {
    request->set_key(existing_key(model));
    request->set_ignore_lease(true);
    if (!chance(1, 20)) request->clear_lease();
  }
  if (chance(1, 300)) request->clear_key();
}

void ScriptWriter::fill(etcdserverpb::DeleteRangeRequest* request) {
  std::string begin;
  std::string range_end;
  range_of(begin, range_end);
  // Ranges that empty everything are rare, or nothing would ever stand.
  if (!range_end.empty() && !chance(1, 7)) range_end.clear();
  request->set_key(begin);
  request->set_range_end(range_end);
  if (chance(1, 300)) request->clear_key();
  if (chance(1, 2)) request->set_prev_kv(true);
}

void ScriptWriter::fill(etcdserverpb::Compare* compare, const model::Model& model) {
  std::string begin;
  std::string range_end;
  if (chance(1, 4)) {
    range_of(begin, range_end);
  } else {
    begin = existing_key(model);
  }
  compare->set_key(begin);
  compare->set_range_end(range_end);
  if (chance(1, 500)) compare->clear_key();
  compare->set_result(static_cast<etcdserverpb::Compare::CompareResult>(draw_(4)));
  uint64_t target = draw_(5);
  compare->set_target(static_cast<etcdserverpb::Compare::CompareTarget>(target));
  if (chance(1, 1000)) compare->set_result(static_cast<etcdserverpb::Compare::CompareResult>(4));
  uint64_t given = chance(1, 50) ? draw_(6) : target;
  const model::Version* now = nullptr;
  auto found = model.keys.find(begin);
  if (found != model.keys.end() && !found->second.back().deleted && chance(2, 3)) now = &found->second.back();
  // What makes "greater" and "less" hold about as often as "equal".
  int64_t off = 0;
  if (compare->result() == etcdserverpb::Compare::GREATER) off = -1;
  if (compare->result() == etcdserverpb::Compare::LESS) off = 1;
  std::string beside = now != nullptr ? now->value + (off > 0 ? "z" : "") : value();
  if (off < 0 && !beside.empty()) beside.pop_back();
  switch (given) {
    case 0:
      compare->set_version(now != nullptr ? now->version + off : static_cast<int64_t>(draw_(3)));
      break;
    case 1:
      compare->set_create_revision(now != nullptr ? now->create + off : revision(model));
      break;
    case 2:
      compare->set_mod_revision(now != nullptr ? now->mod + off : revision(model));
      break;
    case 3:
      compare->set_value(beside);
      break;
    case 4:
      compare->set_lease(now != nullptr ? now->lease + off : lease());
      break;
    default:
      break;
  }
}

void ScriptWriter::fill(etcdserverpb::TxnRequest* request, const model::Model& model, int depth) {
  for (uint64_t i = draw_(3); i > 0; --i) fill(request->add_compare(), model);
  for (int branch = 0; branch < 2; ++branch) {
    for (uint64_t i = draw_(5); i > 0; --i) {
      etcdserverpb::RequestOp* operation = branch == 0 ? request->add_success() : request->add_failure();
      switch (draw_(10)) {
        case 0:
        case 1:
        case 2:
          fill(operation->mutable_request_range(), model);
          break;
        case 3:
        case 4:
        case 5:
        case 6:
          fill(operation->mutable_request_put(), model);
          break;
        case 7:
        case 8:
          fill(operation->mutable_request_delete_range());
          break;
        default:
          if (depth > 0) fill(operation->mutable_request_txn(), model, depth - 1);
          break;
      }
      if (operation->request_case() == etcdserverpb::RequestOp::REQUEST_NOT_SET && !chance(1, 20)) {
        fill(operation->mutable_request_range(), model);
      }
    }
  }
}

void ScriptWriter::fill_internal(Step& step, const model::Model& model) {
  auto record_name = [this] { return fmt::format("r{}", draw_(6)); };
  for (uint64_t i = draw_(3); i > 0; --i) {
    model::Guard& guard = step.guards.emplace_back();
    guard.kind = static_cast<model::Guard::Kind>(draw_(5));
    switch (guard.kind) {
      case model::Guard::kCompare:
        fill(&guard.compare, model);
        guard.compare.set_result(static_cast<etcdserverpb::Compare::CompareResult>(draw_(4)));
        if (guard.compare.key().empty()) guard.compare.set_key("a/1");
        break;
      case model::Guard::kRecordAt: {
        guard.record = record_name();
        auto found = model.records.find(guard.record);
        guard.number = found == model.records.end() ? 0 : static_cast<int64_t>(found->second.index);
        if (chance(1, 8)) ++guard.number;
        break;
      }
      case model::Guard::kLease:
        guard.number = existing_lease(model);
        break;
      case model::Guard::kNoLease:
        guard.number = 50 + static_cast<int64_t>(draw_(10));
        break;
      case model::Guard::kSession:
        guard.number = model.sessions.empty() ? 1 : static_cast<int64_t>(model.sessions.begin()->first);
        break;
    }
  }
  for (uint64_t i = draw_(5); i > 0; --i) {
    model::Operation& operation = step.operations.emplace_back();
    operation.kind = static_cast<model::Operation::Kind>(draw_(6));
    switch (operation.kind) {
      case model::Operation::kPut:
        operation.key = existing_key(model);
        operation.value = value();
        if (chance(1, 3)) {
          operation.ignore_value = true;
          operation.value.clear();
        }
        if (chance(1, 2)) operation.lease = existing_lease(model);
        break;
      case model::Operation::kDelete:
        range_of(operation.key, operation.range_end);
        if (!operation.range_end.empty() && !chance(1, 12)) operation.range_end.clear();
        break;
      case model::Operation::kRecordPut:
        operation.key = record_name();
        operation.value = value();
        if (chance(1, 2)) operation.lease = existing_lease(model);
        break;
      case model::Operation::kRecordDelete:
        operation.key = record_name();
        break;
      case model::Operation::kGrant:
        operation.lease = static_cast<int64_t>(20 + draw_(20));
        operation.milliseconds = static_cast<int64_t>(draw_(100000));
        break;
      case model::Operation::kRevoke:
        operation.lease = existing_lease(model);
        if (operation.lease == 0) operation.lease = 1;
        break;
    }
  }
}

Step ScriptWriter::next(const model::Model& model) {
  Step step;
  uint64_t what = draw_(200);
  if (what < 60) {
    step.kind = Step::Kind::kRange;
    etcdserverpb::RangeRequest request;
    fill(&request, model);
    step.request = request.SerializeAsString();
    return step;
  }
  if (what < 62) {
    step.kind = Step::Kind::kLook;
    return step;
  }
  if (what < 66) {
    step.kind = Step::Kind::kWatch;
    range_of(step.key, step.range_end);
    switch (draw_(3)) {
      case 0:
        step.from = std::max<int64_t>(1, revision(model));
        break;
      case 1:
        step.from = 0;
        break;
      default:
        step.from = model.revision + 1 + static_cast<int64_t>(draw_(30));
        break;
    }
    step.with_previous = chance(1, 2);
    step.no_put = chance(1, 4);
    step.no_delete = chance(1, 4);
    return step;
  }
  if (what < 72) {
    step.kind = Step::Kind::kBackground;
    step.units = static_cast<uint32_t>(1 + draw_(20));
    return step;
  }
  if (what < 73 && chance(1, 4)) {
    step.kind = Step::Kind::kReload;
    return step;
  }
  CommandHeader& header = step.header;
  if (what < 115) {
    header.kind = CommandKind::kPut;
    etcdserverpb::PutRequest request;
    fill(&request, model);
    step.request = request.SerializeAsString();
  } else if (what < 123) {
    header.kind = CommandKind::kDeleteRange;
    etcdserverpb::DeleteRangeRequest request;
    fill(&request);
    step.request = request.SerializeAsString();
  } else if (what < 165) {
    header.kind = CommandKind::kTxn;
    etcdserverpb::TxnRequest request;
    fill(&request, model, 3);
    step.request = request.SerializeAsString();
  } else if (what < 167) {
    header.kind = CommandKind::kCompact;
    etcdserverpb::CompactionRequest request;
    int64_t wanted = model.compacted + 1 + static_cast<int64_t>(draw_(10));
    if (wanted > model.revision) wanted = model.revision + static_cast<int64_t>(draw_(2));
    if (chance(1, 8)) wanted = model.compacted - static_cast<int64_t>(draw_(2));
    if (chance(1, 40)) wanted = model.revision;
    request.set_revision(wanted);
    request.set_physical(chance(1, 2));
    step.request = request.SerializeAsString();
  } else if (what < 176) {
    header.kind = CommandKind::kLeaseGrant;
    etcdserverpb::LeaseGrantRequest request;
    request.set_ttl(static_cast<int64_t>(draw_(1000)));
    if (chance(1, 100)) request.set_ttl(9'000'000'001);
    int64_t id = 1 + static_cast<int64_t>(draw_(8));
    // Mostly ids that are free: refusals are tested enough by the rest.
    for (int tries = 0; tries < 6 && model.leases.contains(id); ++tries) id = 1 + static_cast<int64_t>(draw_(16));
    request.set_id(id);
    header.lease = LeaseId(id);
    header.ttl_ms = request.ttl() * 1000;
    step.request = request.SerializeAsString();
  } else if (what < 179) {
    header.kind = CommandKind::kLeaseRevoke;
    etcdserverpb::LeaseRevokeRequest request;
    request.set_id(existing_lease(model));
    step.request = request.SerializeAsString();
    if (chance(1, 3)) header.term = Term(chance(1, 2) ? 1 : 2);
  } else if (what < 182) {
    header.kind = CommandKind::kLeaseExpire;
    for (uint64_t i = 1 + draw_(3); i > 0; --i) {
      int64_t id = existing_lease(model);
      if (id != 0) step.leases.push_back(id);
    }
    if (chance(1, 2)) header.term = Term(chance(2, 3) ? 1 : 2);
  } else if (what < 184) {
    header.kind = CommandKind::kSessionOpen;
    uint64_t id = 1 + draw_(4);
    step.secret = std::string(32, static_cast<char>('A' + draw_(8) / 7));
    step.operations.push_back({});
    step.operations.back().lease = static_cast<int64_t>(100 + id);
    step.operations.back().milliseconds = 5000;
    step.operations.back().value = fmt::format("{}", id);
  } else {
    header.kind = CommandKind::kInternal;
    fill_internal(step, model);
  }
  if (header.kind != CommandKind::kSessionOpen && !model.sessions.empty() && chance(1, 5)) {
    auto at = model.sessions.begin();
    std::advance(at, static_cast<ptrdiff_t>(draw_(model.sessions.size())));
    header.session = SessionId(chance(1, 20) ? 77 : at->first);
    header.incarnation = at->second.incarnation;
    if (chance(1, 12)) ++header.incarnation;
    if (chance(1, 12) && header.incarnation > 0) --header.incarnation;
    header.sequence = at->second.highest + 1;
    if (chance(1, 6)) header.sequence += draw_(70);
    if (chance(1, 6)) header.sequence -= std::min<uint64_t>(header.sequence - 1, draw_(70));
  }
  if (chance(1, 24)) step.units = static_cast<uint32_t>(1 + draw_(4));
  return step;
}

}  // namespace conclave::keyspace
