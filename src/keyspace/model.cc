#include "keyspace/model.h"

#include <algorithm>
#include <functional>
#include <list>

namespace conclave::keyspace::model {
namespace {

using etcdserverpb::Compare;
using etcdserverpb::RangeRequest;
using etcdserverpb::RequestOp;
using etcdserverpb::TxnRequest;

const char* const kEmptyKey = "etcdserver: key is not provided";
const char* const kKeyNotFound = "etcdserver: key not found";
const char* const kTooMany = "etcdserver: too many operations in txn request";
const char* const kDuplicate = "etcdserver: duplicate key given in txn request";
const char* const kCompacted = "etcdserver: mvcc: required revision has been compacted";
const char* const kFuture = "etcdserver: mvcc: required revision is a future revision";
const char* const kLeaseNotFound = "etcdserver: requested lease not found";
const char* const kLeaseExists = "etcdserver: lease already exists";
const char* const kInvalidSort = "etcdserver: invalid sort option";

Answer refuse(const std::string& error) {
  return {error, ""};
}

template <class Message>
Answer answer(Message message) {
  message.clear_header();
  return {"", message.SerializeAsString()};
}

}  // namespace

bool Model::in_range(const std::string& candidate, const std::string& key, const std::string& range_end) const {
  if (range_end.empty()) return candidate == key;
  if (range_end == std::string(1, '\0')) return candidate >= key;
  return candidate >= key && candidate < range_end;
}

const Version* Model::at(const std::string& key, int64_t revision_wanted) const {
  auto found = keys.find(key);
  if (found == keys.end()) return nullptr;
  const std::vector<Version>& versions = found->second;
  for (auto version = versions.rbegin(); version != versions.rend(); ++version) {
    if (version->mod > revision_wanted) continue;
    return version->deleted ? nullptr : &*version;
  }
  return nullptr;
}

std::vector<std::string> Model::live_keys(const std::string& key, const std::string& range_end,
                                          int64_t revision_wanted) const {
  std::vector<std::string> live;
  for (auto entry = keys.lower_bound(key); entry != keys.end(); ++entry) {
    if (!in_range(entry->first, key, range_end)) break;
    if (at(entry->first, revision_wanted) != nullptr) live.push_back(entry->first);
  }
  return live;
}

void Model::message(const std::string& key, const Version& version, mvccpb::KeyValue* out) const {
  out->set_key(key);
  out->set_mod_revision(version.mod);
  if (version.deleted) return;
  out->set_create_revision(version.create);
  out->set_version(version.version);
  out->set_value(version.value);
  out->set_lease(version.lease);
}

void Model::write(const std::string& key, Version version) {
  written_ = true;
  version.mod = revision + 1;
  keys[key].push_back(version);
  events.push_back({revision + 1, key, version});
}

void Model::remove(const std::string& key) {
  Version version;
  version.deleted = true;
  write(key, version);
}

// Validation.

std::string Model::check(const RangeRequest& request) const {
  if (request.key().empty()) return kEmptyKey;
  if (!RangeRequest::SortOrder_IsValid(request.sort_order())) return kInvalidSort;
  if (!RangeRequest::SortTarget_IsValid(request.sort_target())) return kInvalidSort;
  return "";
}

std::string Model::check(const etcdserverpb::PutRequest& request) const {
  if (request.key().empty()) return kEmptyKey;
  if (request.ignore_value() && !request.value().empty()) return "etcdserver: value is provided";
  if (request.ignore_lease() && request.lease() != 0) return "etcdserver: lease is provided";
  return "";
}

std::string Model::check(const etcdserverpb::DeleteRangeRequest& request) const {
  return request.key().empty() ? kEmptyKey : "";
}

std::string Model::check_operation(const RequestOp& operation, int budget) const {
  if (operation.has_request_range()) return check(operation.request_range());
  if (operation.has_request_put()) return check(operation.request_put());
  if (operation.has_request_delete_range()) return check(operation.request_delete_range());
  if (operation.has_request_txn()) return check(operation.request_txn(), budget);
  return kKeyNotFound;
}

std::string Model::check(const TxnRequest& request, int budget) const {
  int largest = std::max({request.compare_size(), request.success_size(), request.failure_size()});
  if (largest > budget) return kTooMany;
  for (const Compare& compare : request.compare()) {
    if (compare.key().empty()) return kEmptyKey;
  }
  for (const RequestOp& operation : request.success()) {
    std::string error = check_operation(operation, budget - largest);
    if (!error.empty()) return error;
  }
  for (const RequestOp& operation : request.failure()) {
    std::string error = check_operation(operation, budget - largest);
    if (!error.empty()) return error;
  }
  return "";
}

bool Model::has_unknown_compare(const TxnRequest& request) const {
  for (const Compare& compare : request.compare()) {
    if (!Compare::CompareResult_IsValid(compare.result())) return true;
    if (!Compare::CompareTarget_IsValid(compare.target())) return true;
  }
  for (const auto* operations : {&request.success(), &request.failure()}) {
    for (const RequestOp& operation : *operations) {
      if (operation.has_request_txn() && has_unknown_compare(operation.request_txn())) return true;
    }
  }
  return false;
}

bool Model::has_unknown_sort(const TxnRequest& request) const {
  for (const auto* operations : {&request.success(), &request.failure()}) {
    for (const RequestOp& operation : *operations) {
      if (operation.has_request_txn() && has_unknown_sort(operation.request_txn())) return true;
      if (operation.has_request_range()) {
        const RangeRequest& range = operation.request_range();
        if (!RangeRequest::SortOrder_IsValid(range.sort_order())) return true;
        if (!RangeRequest::SortTarget_IsValid(range.sort_target())) return true;
      }
    }
  }
  return false;
}

// A nested transaction's puts are held against the deletes of this level and of the nested ones before it; this level's
// puts against everything. Its two branches exclude each other.
bool Model::conflicts(const google::protobuf::RepeatedPtrField<RequestOp>& operations, Written* written) const {
  auto deleted = [&](const std::string& key) {
    for (const auto& [begin, end] : written->deletes) {
      if (in_range(key, begin, end)) return true;
    }
    return false;
  };
  for (const RequestOp& operation : operations) {
    if (operation.has_request_delete_range()) {
      written->deletes.emplace_back(operation.request_delete_range().key(),
                                    operation.request_delete_range().range_end());
    }
  }
  for (const RequestOp& operation : operations) {
    if (!operation.has_request_txn()) continue;
    Written then;
    Written otherwise;
    if (conflicts(operation.request_txn().success(), &then)) return true;
    if (conflicts(operation.request_txn().failure(), &otherwise)) return true;
    std::set<std::string> both = then.puts;
    both.insert(otherwise.puts.begin(), otherwise.puts.end());
    for (const std::string& key : both) {
      if (deleted(key) || written->puts.contains(key)) return true;
    }
    written->puts.insert(both.begin(), both.end());
    for (const Written* branch : {&then, &otherwise}) {
      written->deletes.insert(written->deletes.end(), branch->deletes.begin(), branch->deletes.end());
    }
  }
  for (const RequestOp& operation : operations) {
    if (!operation.has_request_put()) continue;
    const std::string& key = operation.request_put().key();
    if (deleted(key) || !written->puts.insert(key).second) return true;
  }
  return false;
}

std::string Model::check_state(const etcdserverpb::PutRequest& request) const {
  if (request.lease() != 0 && !leases.contains(request.lease())) return kLeaseNotFound;
  if ((request.ignore_value() || request.ignore_lease()) && at(request.key(), revision) == nullptr) return kKeyNotFound;
  return "";
}

std::string Model::check_state(const RangeRequest& request) const {
  if (request.revision() > revision) return kFuture;
  if (request.revision() > 0 && request.revision() < compacted) return kCompacted;
  return "";
}

// Single requests.

void Model::run(const RangeRequest& request, int64_t newest, etcdserverpb::RangeResponse* response) const {
  int64_t when = request.revision() > 0 ? request.revision() : newest;
  std::vector<std::string> live = live_keys(request.key(), request.range_end(), when);
  response->set_count(static_cast<int64_t>(live.size()));
  if (request.count_only()) return;
  std::list<mvccpb::KeyValue> found;  // its sort is stable: equal ones keep the order of keys
  for (const std::string& key : live) {
    const Version* version = at(key, when);
    if (request.max_mod_revision() != 0 && version->mod > request.max_mod_revision()) continue;
    if (request.min_mod_revision() != 0 && version->mod < request.min_mod_revision()) continue;
    if (request.max_create_revision() != 0 && version->create > request.max_create_revision()) continue;
    if (request.min_create_revision() != 0 && version->create < request.min_create_revision()) continue;
    message(key, *version, &found.emplace_back());
  }
  std::function<bool(const mvccpb::KeyValue&, const mvccpb::KeyValue&)> less;
  switch (request.sort_target()) {
    case RangeRequest::VERSION:
      less = [](auto& a, auto& b) { return a.version() < b.version(); };
      break;
    case RangeRequest::CREATE:
      less = [](auto& a, auto& b) { return a.create_revision() < b.create_revision(); };
      break;
    case RangeRequest::MOD:
      less = [](auto& a, auto& b) { return a.mod_revision() < b.mod_revision(); };
      break;
    case RangeRequest::VALUE:
      less = [](auto& a, auto& b) { return a.value() < b.value(); };
      break;
    default:
      less = [](auto& a, auto& b) { return a.key() < b.key(); };
      break;
  }
  const bool filters = request.min_mod_revision() != 0 || request.max_mod_revision() != 0 ||
                       request.min_create_revision() != 0 || request.max_create_revision() != 0;
  if (request.limit() > 0 && request.sort_order() == RangeRequest::NONE && !filters &&
      found.size() > static_cast<size_t>(request.limit())) {
    found.resize(static_cast<size_t>(request.limit()) + 1);
  }
  if (request.sort_order() == RangeRequest::DESCEND) {
    found.sort([&](auto& a, auto& b) { return less(b, a); });
  } else {
    found.sort(less);
  }
  size_t limit = request.limit() > 0 ? static_cast<size_t>(request.limit()) : found.size();
  response->set_more(found.size() > limit);
  for (mvccpb::KeyValue& kv : found) {
    if (static_cast<size_t>(response->kvs_size()) == limit) break;
    if (request.keys_only()) kv.clear_value();
    *response->add_kvs() = kv;
  }
}

void Model::run(const etcdserverpb::PutRequest& request, etcdserverpb::PutResponse* response) {
  const Version* before = at(request.key(), revision + 1);
  Version version;
  version.create = before != nullptr ? before->create : revision + 1;
  version.version = before != nullptr ? before->version + 1 : 1;
  version.value = request.ignore_value() ? before->value : request.value();
  version.lease = request.ignore_lease() ? before->lease : request.lease();
  if (request.prev_kv() && before != nullptr) message(request.key(), *before, response->mutable_prev_kv());
  write(request.key(), version);
}

void Model::run(const etcdserverpb::DeleteRangeRequest& request, etcdserverpb::DeleteRangeResponse* response) {
  for (const std::string& key : live_keys(request.key(), request.range_end(), revision + 1)) {
    response->set_deleted(response->deleted() + 1);
    if (request.prev_kv()) message(key, *at(key, revision + 1), response->add_prev_kvs());
    remove(key);
  }
}

Answer Model::range(const RangeRequest& request) const {
  std::string error = check(request);
  if (error.empty()) error = check_state(request);
  if (!error.empty()) return refuse(error);
  etcdserverpb::RangeResponse response;
  run(request, revision, &response);
  return answer(response);
}

Answer Model::put(const etcdserverpb::PutRequest& request) {
  std::string error = check(request);
  if (error.empty()) error = check_state(request);
  if (!error.empty()) return refuse(error);
  etcdserverpb::PutResponse response;
  run(request, &response);
  commit();
  return answer(response);
}

Answer Model::delete_range(const etcdserverpb::DeleteRangeRequest& request) {
  std::string error = check(request);
  if (!error.empty()) return refuse(error);
  etcdserverpb::DeleteRangeResponse response;
  run(request, &response);
  commit();
  return answer(response);
}

// Transactions.

bool Model::holds(const Compare& compare) const {
  auto matches = [&](const Version* version) {
    int order = 0;
    if (compare.target() == Compare::VALUE) {
      if (version == nullptr) return false;
      order = version->value.compare(compare.has_value() ? compare.value() : "");
    } else {
      int64_t actual = 0;
      int64_t expected = 0;
      switch (compare.target()) {
        case Compare::VERSION:
          actual = version != nullptr ? version->version : 0;
          expected = compare.has_version() ? compare.version() : 0;
          break;
        case Compare::CREATE:
          actual = version != nullptr ? version->create : 0;
          expected = compare.has_create_revision() ? compare.create_revision() : 0;
          break;
        case Compare::MOD:
          actual = version != nullptr ? version->mod : 0;
          expected = compare.has_mod_revision() ? compare.mod_revision() : 0;
          break;
        default:
          actual = version != nullptr ? version->lease : 0;
          expected = compare.has_lease() ? compare.lease() : 0;
          break;
      }
      order = actual < expected ? -1 : (actual > expected ? 1 : 0);
    }
    switch (compare.result()) {
      case Compare::EQUAL:
        return order == 0;
      case Compare::GREATER:
        return order > 0;
      case Compare::LESS:
        return order < 0;
      default:
        return order != 0;
    }
  };
  std::vector<std::string> live = live_keys(compare.key(), compare.range_end(), revision);
  if (live.empty()) return matches(nullptr);
  return std::all_of(live.begin(), live.end(), [&](const std::string& key) { return matches(at(key, revision)); });
}

Model::Path Model::decide(const TxnRequest& request) const {
  Path path;
  path.succeeded = std::all_of(request.compare().begin(), request.compare().end(),
                               [this](const Compare& compare) { return holds(compare); });
  const auto& operations = path.succeeded ? request.success() : request.failure();
  for (int i = 0; i < operations.size(); ++i) {
    if (operations[i].has_request_txn()) path.nested[i] = decide(operations[i].request_txn());
  }
  return path;
}

std::string Model::check_path(const TxnRequest& request, const Path& path, Checked checked) const {
  const auto& operations = path.succeeded ? request.success() : request.failure();
  for (int i = 0; i < operations.size(); ++i) {
    std::string error;
    if (operations[i].has_request_txn()) {
      error = check_path(operations[i].request_txn(), path.nested.at(i), checked);
    }
    if (checked == Checked::kPuts && operations[i].has_request_put()) {
      // In a transaction etcd looks for the key before the lease.
      etcdserverpb::PutRequest without_lease = operations[i].request_put();
      without_lease.clear_lease();
      error = check_state(without_lease);
      if (error.empty()) error = check_state(operations[i].request_put());
    }
    if (checked == Checked::kRanges && operations[i].has_request_range())
      error = check_state(operations[i].request_range());
    if (!error.empty()) return error;
  }
  return "";
}

void Model::run_path(const TxnRequest& request, const Path& path, etcdserverpb::TxnResponse* response) {
  response->set_succeeded(path.succeeded);
  const auto& operations = path.succeeded ? request.success() : request.failure();
  for (int i = 0; i < operations.size(); ++i) {
    const RequestOp& operation = operations[i];
    etcdserverpb::ResponseOp* out = response->add_responses();
    if (operation.has_request_range()) {
      run(operation.request_range(), revision + 1, out->mutable_response_range());
      out->mutable_response_range()->mutable_header()->set_revision(inner_revision());
    } else if (operation.has_request_put()) {
      run(operation.request_put(), out->mutable_response_put());
      out->mutable_response_put()->mutable_header()->set_revision(inner_revision());
    } else if (operation.has_request_delete_range()) {
      run(operation.request_delete_range(), out->mutable_response_delete_range());
      out->mutable_response_delete_range()->mutable_header()->set_revision(inner_revision());
    } else {
      run_path(operation.request_txn(), path.nested.at(i), out->mutable_response_txn());
      (void)out->mutable_response_txn()->mutable_header();
    }
  }
}

Answer Model::txn(const TxnRequest& request) {
  if (has_unknown_compare(request)) return refuse("UNKNOWN_ENUM_VALUE");
  if (has_unknown_sort(request)) return refuse(kInvalidSort);
  std::string error = check(request, 128);
  if (!error.empty()) return refuse(error);
  Written success;
  Written failure;
  if (conflicts(request.success(), &success) || conflicts(request.failure(), &failure)) return refuse(kDuplicate);
  Path path = decide(request);
  error = check_path(request, path, Checked::kPuts);
  if (error.empty()) error = check_path(request, path, Checked::kRanges);
  if (!error.empty()) return refuse(error);
  etcdserverpb::TxnResponse response;
  run_path(request, path, &response);
  commit();
  return answer(response);
}

Answer Model::compact(const etcdserverpb::CompactionRequest& request) {
  if (request.revision() <= compacted) return refuse(kCompacted);
  if (request.revision() > revision) return refuse(kFuture);
  compacted = request.revision();
  return answer(etcdserverpb::CompactionResponse());
}

// Leases.

std::vector<std::string> Model::lease_keys(int64_t id) const {
  std::vector<std::string> attached;
  for (const auto& [key, versions] : keys) {
    const Version* version = at(key, revision + 1);
    if (version != nullptr && version->lease == id) attached.push_back(key);
  }
  return attached;
}

void Model::end_lease(int64_t id) {
  for (const std::string& key : lease_keys(id)) remove(key);
  std::erase_if(sessions, [&](const auto& entry) { return entry.second.lease == id; });
  std::erase_if(records, [&](const auto& entry) { return entry.second.lease == id; });
  leases.erase(id);
}

Answer Model::grant(int64_t id, int64_t ttl_ms) {
  if (leases.contains(id)) return refuse(kLeaseExists);
  leases[id] = ttl_ms;
  etcdserverpb::LeaseGrantResponse response;
  response.set_id(id);
  response.set_ttl(ttl_ms / 1000);
  return answer(response);
}

Answer Model::revoke(int64_t id) {
  if (!leases.contains(id)) return refuse(kLeaseNotFound);
  end_lease(id);
  commit();
  return answer(etcdserverpb::LeaseRevokeResponse());
}

Answer Model::expire(const std::vector<int64_t>& ids) {
  for (int64_t id : ids) {
    if (leases.contains(id)) (void)revoke(id);
  }
  return {"", ""};
}

// Sessions, records, internal commands.

Answer Model::open_session(uint64_t id, int64_t lease, int64_t ttl_ms, const std::string& secret_hash) {
  auto known = sessions.find(id);
  if (known != sessions.end()) {
    bool same = known->second.secret_hash == secret_hash && known->second.lease == lease;
    return same ? Answer{} : refuse("SESSION_EXISTS");
  }
  if (leases.contains(lease)) return refuse(kLeaseExists);
  leases[lease] = ttl_ms;
  sessions[id].lease = lease;
  sessions[id].secret_hash = secret_hash;
  return {};
}

std::string Model::before_session_command(const SessionHeader& header) const {
  auto session = sessions.find(header.session);
  if (session == sessions.end()) return "SESSION_EXPIRED";
  if (header.incarnation < session->second.incarnation) return "STALE_INCARNATION";
  bool old = header.sequence + 64 <= session->second.highest;
  return old || session->second.applied.contains(header.sequence) ? "ALREADY_APPLIED" : "";
}

void Model::after_session_command(const SessionHeader& header, bool succeeded) {
  auto session = sessions.find(header.session);
  if (session == sessions.end()) return;
  session->second.incarnation = std::max(session->second.incarnation, header.incarnation);
  if (!succeeded) return;
  session->second.applied.insert(header.sequence);
  session->second.highest = std::max(session->second.highest, header.sequence);
}

Answer Model::internal(const std::vector<Guard>& guards, const std::vector<Operation>& operations, uint64_t index,
                       int* failed_guard) {
  for (size_t i = 0; i < guards.size(); ++i) {
    const Guard& guard = guards[i];
    bool met = false;
    switch (guard.kind) {
      case Guard::kCompare:
        met = holds(guard.compare);
        break;
      case Guard::kRecordAt: {
        auto record = records.find(guard.record);
        met = (record == records.end() ? 0 : record->second.index) == static_cast<uint64_t>(guard.number);
        break;
      }
      case Guard::kLease:
        met = leases.contains(guard.number);
        break;
      case Guard::kNoLease:
        met = !leases.contains(guard.number);
        break;
      case Guard::kSession:
        met = sessions.contains(static_cast<uint64_t>(guard.number));
        break;
    }
    if (!met) {
      *failed_guard = static_cast<int>(i);
      return refuse("GUARD_FAILED");
    }
  }
  std::set<int64_t> standing;
  for (const auto& [id, lease] : leases) standing.insert(id);
  std::set<int64_t> used = standing;
  for (const Operation& operation : operations) {
    bool stands = standing.contains(operation.lease);
    switch (operation.kind) {
      case Operation::kPut:
        if (operation.lease != 0 && !stands) return refuse(kLeaseNotFound);
        if (operation.ignore_value && at(operation.key, revision) == nullptr) return refuse(kKeyNotFound);
        break;
      case Operation::kRecordPut:
        if (operation.lease != 0 && !stands) return refuse(kLeaseNotFound);
        break;
      case Operation::kGrant:
        if (!used.insert(operation.lease).second) return refuse(kLeaseExists);
        standing.insert(operation.lease);
        break;
      case Operation::kRevoke:
        if (!stands) return refuse(kLeaseNotFound);
        standing.erase(operation.lease);
        break;
      case Operation::kDelete:
      case Operation::kRecordDelete:
        break;
    }
  }
  for (const Operation& operation : operations) {
    switch (operation.kind) {
      case Operation::kPut: {
        const Version* before = at(operation.key, revision + 1);
        Version version;
        version.create = before != nullptr ? before->create : revision + 1;
        version.version = before != nullptr ? before->version + 1 : 1;
        version.value = !operation.ignore_value ? operation.value : (before != nullptr ? before->value : "");
        version.lease = operation.lease;
        write(operation.key, version);
        break;
      }
      case Operation::kDelete:
        for (const std::string& key : live_keys(operation.key, operation.range_end, revision + 1)) remove(key);
        break;
      case Operation::kRecordPut:
        records[operation.key] = {operation.value, operation.lease, index};
        break;
      case Operation::kRecordDelete:
        records.erase(operation.key);
        break;
      case Operation::kGrant:
        leases[operation.lease] = operation.milliseconds;
        break;
      case Operation::kRevoke:
        end_lease(operation.lease);
        break;
    }
  }
  commit();
  return {};
}

// Watch.

std::vector<mvccpb::Event> Model::watch(const std::string& key, const std::string& range_end, int64_t from,
                                        bool with_previous, bool no_put, bool no_delete) const {
  std::vector<mvccpb::Event> out;
  for (const Event& event : events) {
    if (event.revision < from || !in_range(event.key, key, range_end)) continue;
    if (event.version.deleted ? no_delete : no_put) continue;
    mvccpb::Event& sent = out.emplace_back();
    sent.set_type(event.version.deleted ? mvccpb::Event::DELETE : mvccpb::Event::PUT);
    message(event.key, event.version, sent.mutable_kv());
    bool created = !event.version.deleted && event.version.create == event.revision;
    const Version* before = at(event.key, event.revision - 1);
    if (with_previous && !created && before != nullptr && event.revision - 1 >= compacted) {
      message(event.key, *before, sent.mutable_prev_kv());
    }
  }
  return out;
}

}  // namespace conclave::keyspace::model
