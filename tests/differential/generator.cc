#include "tests/differential/generator.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "etcd/election.pb.h"
#include "etcd/lock.pb.h"
#include "tests/differential/differences.h"

namespace conclave::differential {
namespace {

const std::string kFrom(1, '\0');  // as the end of a range
constexpr size_t kLargeValueBytes = 700'000;
constexpr uint64_t kLargeEvery = 5000;

}  // namespace

template <class Request, class Response>
Ask Generator::ask(const std::string& path, const Request& request) {
  Ask ask;
  ask.path = path;
  ask.requests.push_back(std::make_unique<Request>(request));
  ask.response = &Response::default_instance();
  ask.in_camel_case = one_in(4);
  ask.enums_as_numbers = one_in(4);
  ask.with_defaults = one_in(4);
  return ask;
}

Ask Generator::next() {
  if (next_.empty()) {
    if (++asked_ % kLargeEvery == kLargeEvery / 2) {
      large();
    } else {
      Ask drawn = draw();
      next_.push_front(std::move(drawn));
    }
  }
  Ask ask = std::move(next_.front());
  next_.pop_front();
  return ask;
}

Ask Generator::draw() {
  const uint64_t kind = random_.below(1000);
  if (kind < 280) return ask<etcdserverpb::PutRequest, etcdserverpb::PutResponse>("/etcdserverpb.KV/Put", put());
  if (kind < 510) {
    return ask<etcdserverpb::RangeRequest, etcdserverpb::RangeResponse>("/etcdserverpb.KV/Range", range());
  }
  if (kind < 590) {
    return ask<etcdserverpb::DeleteRangeRequest, etcdserverpb::DeleteRangeResponse>("/etcdserverpb.KV/DeleteRange",
                                                                                    remove());
  }
  if (kind < 830) return ask<etcdserverpb::TxnRequest, etcdserverpb::TxnResponse>("/etcdserverpb.KV/Txn", txn(0));
  if (kind < 865) {
    etcdserverpb::LeaseGrantRequest request;
    request.set_id(lease());
    request.set_ttl(one_in(20) ? 9'000'000'001 : 100'000 + static_cast<int64_t>(random_.below(1000)));
    if (request.id() == 0 || request.id() >= kChosenLease) {
      if (one_in(2)) {
        short_lease();
      } else {
        chosen_lease();
      }
      Ask first = std::move(next_.front());
      next_.pop_front();
      return first;
    }
    return ask<etcdserverpb::LeaseGrantRequest, etcdserverpb::LeaseGrantResponse>("/etcdserverpb.Lease/LeaseGrant",
                                                                                  request);
  }
  if (kind < 885) {
    etcdserverpb::LeaseRevokeRequest request;
    request.set_id(lease());
    return ask<etcdserverpb::LeaseRevokeRequest, etcdserverpb::LeaseRevokeResponse>("/etcdserverpb.Lease/LeaseRevoke",
                                                                                    request);
  }
  if (kind < 910) {
    etcdserverpb::LeaseTimeToLiveRequest request;
    request.set_id(lease());
    request.set_keys(one_in(2));
    return ask<etcdserverpb::LeaseTimeToLiveRequest, etcdserverpb::LeaseTimeToLiveResponse>(
        "/etcdserverpb.Lease/LeaseTimeToLive", request);
  }
  if (kind < 930) {
    etcdserverpb::LeaseKeepAliveRequest request;
    request.set_id(lease());
    Ask stream = ask<etcdserverpb::LeaseKeepAliveRequest, etcdserverpb::LeaseKeepAliveResponse>(
        "/etcdserverpb.Lease/LeaseKeepAlive", request);
    stream.shape = Ask::Shape::kStream;
    for (uint64_t more = random_.below(3); more > 0; --more) {
      request.set_id(lease());
      stream.requests.push_back(std::make_unique<etcdserverpb::LeaseKeepAliveRequest>(request));
    }
    return stream;
  }
  if (kind < 938) {
    return ask<etcdserverpb::LeaseLeasesRequest, etcdserverpb::LeaseLeasesResponse>("/etcdserverpb.Lease/LeaseLeases",
                                                                                    {});
  }
  if (kind < 968) {
    etcdserverpb::CompactionRequest request;
    request.set_revision(revision_ + static_cast<int64_t>(random_.below(60)) - 55);
    request.set_physical(one_in(2));
    return ask<etcdserverpb::CompactionRequest, etcdserverpb::CompactionResponse>("/etcdserverpb.KV/Compact", request);
  }
  return kind < 976 ? watch() : odd();
}

std::string Generator::key() {
  if (one_in(100)) return {};
  if (one_in(100)) return one_in(2) ? kFrom : "\xff\xfe";
  std::string key = fmt::format("k{}", random_.below(20));
  if (one_in(5)) key += fmt::format("/{}", random_.below(5));
  return key;
}

std::string Generator::range_end() {
  switch (random_.below(6)) {
    case 0:
      return key();
    case 1:
      return kFrom;
    case 2:
      return "k1~";
    default:
      return {};
  }
}

int64_t Generator::lease() {
  const auto lease = static_cast<int64_t>(random_.below(13));
  return lease == 12 && leases_chosen_ > 0 ? kChosenLease + leases_chosen_ : lease % 12;
}

int64_t Generator::near_revision() {
  return std::max<int64_t>(0, revision_ + static_cast<int64_t>(random_.below(44)) - 40);
}

etcdserverpb::PutRequest Generator::put() {
  etcdserverpb::PutRequest request;
  request.set_key(key());
  if (!one_in(8)) request.set_value(fmt::format("v{}", random_.below(50)));
  if (one_in(6)) request.set_lease(lease());
  request.set_prev_kv(one_in(2));
  if (one_in(20)) {
    request.set_ignore_value(true);
    if (!one_in(4)) request.clear_value();
  }
  if (one_in(20)) {
    request.set_ignore_lease(true);
    if (!one_in(4)) request.clear_lease();
  }
  return request;
}

etcdserverpb::RangeRequest Generator::range() {
  etcdserverpb::RangeRequest request;
  request.set_key(key());
  request.set_range_end(range_end());
  if (one_in(3)) request.set_limit(static_cast<int64_t>(random_.below(5)));
  if (one_in(3)) request.set_revision(near_revision());
  if (one_in(2)) {
    request.set_sort_order(static_cast<etcdserverpb::RangeRequest::SortOrder>(random_.below(3)));
    request.set_sort_target(static_cast<etcdserverpb::RangeRequest::SortTarget>(random_.below(5)));
  }
  request.set_serializable(one_in(4));
  request.set_keys_only(one_in(6));
  request.set_count_only(one_in(10));
  if (one_in(8)) request.set_min_mod_revision(near_revision());
  if (one_in(8)) request.set_max_mod_revision(near_revision());
  if (one_in(8)) request.set_min_create_revision(near_revision());
  if (one_in(8)) request.set_max_create_revision(near_revision());
  return request;
}

// What a transaction saw cannot be asked again: Differs::kTiesLeft. Without the values nobody sees which are equal.
etcdserverpb::RangeRequest Generator::range_within() {
  etcdserverpb::RangeRequest request = range();
  if (request.keys_only() && request.sort_target() == etcdserverpb::RangeRequest::VALUE) request.clear_limit();
  return request;
}

etcdserverpb::DeleteRangeRequest Generator::remove() {
  etcdserverpb::DeleteRangeRequest request;
  request.set_key(key());
  if (one_in(2)) request.set_range_end(range_end());
  request.set_prev_kv(one_in(2));
  return request;
}

etcdserverpb::Compare Generator::compare() {
  etcdserverpb::Compare compare;
  compare.set_key(key());
  if (one_in(5)) compare.set_range_end(range_end());
  compare.set_result(static_cast<etcdserverpb::Compare::CompareResult>(random_.below(4)));
  switch (random_.below(5)) {
    case 0:
      compare.set_target(etcdserverpb::Compare::VERSION);
      compare.set_version(static_cast<int64_t>(random_.below(4)));
      break;
    case 1:
      compare.set_target(etcdserverpb::Compare::CREATE);
      compare.set_create_revision(one_in(2) ? 0 : near_revision());
      break;
    case 2:
      compare.set_target(etcdserverpb::Compare::MOD);
      compare.set_mod_revision(one_in(2) ? 0 : near_revision());
      break;
    case 3:
      compare.set_target(etcdserverpb::Compare::VALUE);
      compare.set_value(fmt::format("v{}", random_.below(50)));
      break;
    default:
      compare.set_target(etcdserverpb::Compare::LEASE);
      compare.set_lease(lease());
      break;
  }
  // What it compares with left out is zero, or the empty value.
  if (one_in(20)) compare.clear_target_union();
  return compare;
}

void Generator::add_operations(google::protobuf::RepeatedPtrField<etcdserverpb::RequestOp>* operations, int depth) {
  for (uint64_t count = random_.below(4); count > 0; --count) {
    etcdserverpb::RequestOp& operation = *operations->Add();
    switch (random_.below(depth < 2 ? 10 : 8)) {
      case 0:
      case 1:
      case 2:
        *operation.mutable_request_range() = range_within();
        break;
      case 3:
      case 4:
        *operation.mutable_request_delete_range() = remove();
        if (operation.request_delete_range().range_end() == kFrom) {
          hit(Differs::kDeleteFrom);
          operation.mutable_request_delete_range()->set_range_end("k~");
        }
        break;
      case 5:
      case 6:
      case 7:
        *operation.mutable_request_put() = put();
        break;
      default:
        *operation.mutable_request_txn() = txn(depth + 1);
    }
  }
}

etcdserverpb::TxnRequest Generator::txn(int depth) {
  etcdserverpb::TxnRequest request;
  for (uint64_t count = random_.below(3); count > 0; --count) *request.add_compare() = compare();
  add_operations(request.mutable_success(), depth);
  add_operations(request.mutable_failure(), depth);
  return request;
}

// Around the bound of 128, which nested ones share.
etcdserverpb::TxnRequest Generator::large_txn() {
  etcdserverpb::TxnRequest request;
  const uint64_t all = 127 + random_.below(3);
  const uint64_t nested = one_in(2) ? random_.below(128) : 0;
  for (uint64_t i = nested; i < all; ++i) {
    if (one_in(2)) *request.add_compare() = compare();
    *request.add_success()->mutable_request_range() = range_within();
  }
  if (nested > 0 && request.success_size() > 0) {
    auto& inner = *request.mutable_success(0)->mutable_request_txn();
    for (uint64_t i = 0; i < nested; ++i) inner.add_failure()->mutable_request_put()->set_key(fmt::format("k{}", i));
  }
  return request;
}

// A lease with the least time there is, which is soon over: revoked at once.
void Generator::short_lease() {
  constexpr int64_t kId = 50;
  etcdserverpb::LeaseGrantRequest grant;
  grant.set_id(kId);
  grant.set_ttl(static_cast<int64_t>(random_.below(4)) - 2);
  etcdserverpb::LeaseRevokeRequest revoke;
  revoke.set_id(kId);
  next_.push_back(
      ask<etcdserverpb::LeaseGrantRequest, etcdserverpb::LeaseGrantResponse>("/etcdserverpb.Lease/LeaseGrant", grant));
  next_.push_back(ask<etcdserverpb::LeaseRevokeRequest, etcdserverpb::LeaseRevokeResponse>(
      "/etcdserverpb.Lease/LeaseRevoke", revoke));
  next_.back().is_of_short_lease = true;
}

// The servers choose its id. The one before ends, so that there are not ever more of them.
void Generator::chosen_lease() {
  etcdserverpb::LeaseGrantRequest grant;
  grant.set_ttl(100'000);
  next_.push_back(
      ask<etcdserverpb::LeaseGrantRequest, etcdserverpb::LeaseGrantResponse>("/etcdserverpb.Lease/LeaseGrant", grant));
  if (leases_chosen_ > 0) {
    etcdserverpb::LeaseRevokeRequest revoke;
    revoke.set_id(kChosenLease + leases_chosen_);
    next_.push_back(ask<etcdserverpb::LeaseRevokeRequest, etcdserverpb::LeaseRevokeResponse>(
        "/etcdserverpb.Lease/LeaseRevoke", revoke));
  }
  next_.front().chosen_lease = kChosenLease + ++leases_chosen_;
}

etcdserverpb::WatchRequest Generator::create() {
  etcdserverpb::WatchRequest request;
  etcdserverpb::WatchCreateRequest& create = *request.mutable_create_request();
  create.set_key(key());
  if (!one_in(4)) create.set_range_end(one_in(2) ? kFrom : range_end());
  if (one_in(2)) create.set_start_revision(near_revision());
  if (one_in(4)) create.add_filters(static_cast<etcdserverpb::WatchCreateRequest::FilterType>(random_.below(2)));
  create.set_prev_kv(one_in(2));
  create.set_fragment(one_in(3));
  create.set_progress_notify(one_in(4));
  if (one_in(3)) create.set_watch_id(static_cast<int64_t>(random_.below(6)));
  return request;
}

// Over HTTP/1.1 all requests of a stream come first; there each is a new one.
Ask Generator::watch() {
  Ask watch = ask<etcdserverpb::WatchRequest, etcdserverpb::WatchResponse>("/etcdserverpb.Watch/Watch", create());
  watch.shape = Ask::Shape::kWatch;
  watch.stream = random_.below(kWatchStreams);
  watch.begins_stream = one_in(3);
  for (uint64_t more = random_.below(4); more > 0; --more) {
    etcdserverpb::WatchRequest request;
    switch (random_.below(4)) {
      case 0:
        request.mutable_cancel_request()->set_watch_id(static_cast<int64_t>(random_.below(6)));
        break;
      case 1:
        request.mutable_progress_request();
        break;
      default:
        request = create();
    }
    // Cancels first: a watcher that is behind may or may not have said something before it is canceled.
    const auto at = request.has_cancel_request() ? watch.requests.begin() : watch.requests.end();
    watch.requests.insert(at, std::make_unique<etcdserverpb::WatchRequest>(request));
  }
  return watch;
}

// Three keys whose deletion is one revision of more than a response should hold, watched by one who takes it in parts.
void Generator::large() {
  const int64_t begin = revision_ + 1;
  for (const std::string key : {"L0", "L1", "L2"}) {
    etcdserverpb::PutRequest request;
    request.set_key(key);
    request.set_value(std::string(kLargeValueBytes, key[1]));
    next_.push_back(ask<etcdserverpb::PutRequest, etcdserverpb::PutResponse>("/etcdserverpb.KV/Put", request));
  }
  for (const int64_t start : {int64_t{0}, begin}) {
    etcdserverpb::WatchRequest request;
    request.mutable_create_request()->set_key("L");
    request.mutable_create_request()->set_range_end("M");
    request.mutable_create_request()->set_start_revision(start);
    request.mutable_create_request()->set_prev_kv(true);
    request.mutable_create_request()->set_fragment(!one_in(3));
    next_.push_back(ask<etcdserverpb::WatchRequest, etcdserverpb::WatchResponse>("/etcdserverpb.Watch/Watch", request));
    next_.back().shape = Ask::Shape::kWatch;
    next_.back().begins_stream = true;
    next_.back().stream = start == 0 ? 0 : 1;
    if (start != 0) break;
    etcdserverpb::DeleteRangeRequest remove;
    remove.set_key("L");
    remove.set_range_end("M");
    next_.push_back(ask<etcdserverpb::DeleteRangeRequest, etcdserverpb::DeleteRangeResponse>(
        "/etcdserverpb.KV/DeleteRange", remove));
  }
}

// What is refused whatever the state; and what else there is to ask of a server alone.
Ask Generator::odd() {
  switch (random_.below(23)) {
    case 0: {
      etcdserverpb::PutRequest request;
      request.set_key("k");
      request.set_value(std::string(1'600'000, 'v'));
      if (!one_in(10)) request.mutable_value()->resize(1000);
      return ask<etcdserverpb::PutRequest, etcdserverpb::PutResponse>("/etcdserverpb.KV/Put", request);
    }
    case 1:
    case 2:
      return ask<etcdserverpb::TxnRequest, etcdserverpb::TxnResponse>("/etcdserverpb.KV/Txn", large_txn());
    case 3: {
      etcdserverpb::TxnRequest request = txn(0);
      request.add_success();
      return ask<etcdserverpb::TxnRequest, etcdserverpb::TxnResponse>("/etcdserverpb.KV/Txn", request);
    }
    case 4: {
      etcdserverpb::MemberRemoveRequest request;
      request.set_id(random_.below(2) * 99);
      return ask<etcdserverpb::MemberRemoveRequest, etcdserverpb::MemberRemoveResponse>(
          "/etcdserverpb.Cluster/MemberRemove", request);
    }
    case 5: {
      etcdserverpb::MemberPromoteRequest request;
      request.set_id(99);
      return ask<etcdserverpb::MemberPromoteRequest, etcdserverpb::MemberPromoteResponse>(
          "/etcdserverpb.Cluster/MemberPromote", request);
    }
    case 6: {
      etcdserverpb::MemberUpdateRequest request;
      request.set_id(99);
      if (one_in(2)) request.add_peerurls("http://127.0.0.1:9");
      return ask<etcdserverpb::MemberUpdateRequest, etcdserverpb::MemberUpdateResponse>(
          "/etcdserverpb.Cluster/MemberUpdate", request);
    }
    case 7: {
      etcdserverpb::MemberAddRequest request;
      if (one_in(2)) request.add_peerurls("nowhere");
      return ask<etcdserverpb::MemberAddRequest, etcdserverpb::MemberAddResponse>("/etcdserverpb.Cluster/MemberAdd",
                                                                                  request);
    }
    case 8: {
      etcdserverpb::MoveLeaderRequest request;
      request.set_targetid(99);
      return ask<etcdserverpb::MoveLeaderRequest, etcdserverpb::MoveLeaderResponse>(
          "/etcdserverpb.Maintenance/MoveLeader", request);
    }
    case 9: {
      etcdserverpb::HashKVRequest request;
      request.set_revision(one_in(2) ? revision_ + 10 : std::max<int64_t>(compacted_ - 1, 1));
      if (request.revision() >= compacted_ && request.revision() <= revision_) request.set_revision(revision_ + 10);
      return ask<etcdserverpb::HashKVRequest, etcdserverpb::HashKVResponse>("/etcdserverpb.Maintenance/HashKV",
                                                                            request);
    }
    case 10: {
      etcdserverpb::AuthenticateRequest request;
      request.set_name("u");
      return ask<etcdserverpb::AuthenticateRequest, etcdserverpb::AuthenticateResponse>(
          "/etcdserverpb.Auth/Authenticate", request);
    }
    case 11:
      return ask<etcdserverpb::AuthEnableRequest, etcdserverpb::AuthEnableResponse>("/etcdserverpb.Auth/AuthEnable",
                                                                                    {});
    case 12:
      return ask<etcdserverpb::AuthUserAddRequest, etcdserverpb::AuthUserAddResponse>("/etcdserverpb.Auth/UserAdd", {});
    case 13: {
      etcdserverpb::AuthUserGetRequest request;
      request.set_name("u");
      return ask<etcdserverpb::AuthUserGetRequest, etcdserverpb::AuthUserGetResponse>("/etcdserverpb.Auth/UserGet",
                                                                                      request);
    }
    case 14: {
      etcdserverpb::AuthUserGrantRoleRequest request;
      request.set_user("u");
      request.set_role("r");
      return ask<etcdserverpb::AuthUserGrantRoleRequest, etcdserverpb::AuthUserGrantRoleResponse>(
          "/etcdserverpb.Auth/UserGrantRole", request);
    }
    case 15: {
      etcdserverpb::AuthRoleGetRequest request;
      request.set_role("r");
      return ask<etcdserverpb::AuthRoleGetRequest, etcdserverpb::AuthRoleGetResponse>("/etcdserverpb.Auth/RoleGet",
                                                                                      request);
    }
    case 16:
      return ask<etcdserverpb::AuthRoleAddRequest, etcdserverpb::AuthRoleAddResponse>("/etcdserverpb.Auth/RoleAdd", {});
    case 17:
      return one_in(2) ? ask<etcdserverpb::AuthUserListRequest, etcdserverpb::AuthUserListResponse>(
                             "/etcdserverpb.Auth/UserList", {})
                       : ask<etcdserverpb::AuthRoleListRequest, etcdserverpb::AuthRoleListResponse>(
                             "/etcdserverpb.Auth/RoleList", {});
    case 18: {
      v3lockpb::UnlockRequest request;
      // Not without a key: etcd's code is then 2, since its lock service asks as a client would and passes on what it
      // got.
      request.set_key("k" + key());
      return ask<v3lockpb::UnlockRequest, v3lockpb::UnlockResponse>("/v3lockpb.Lock/Unlock", request);
    }
    case 19: {
      v3electionpb::LeaderRequest request;
      request.set_name("nobody");
      return ask<v3electionpb::LeaderRequest, v3electionpb::LeaderResponse>("/v3electionpb.Election/Leader", request);
    }
    case 20: {
      v3electionpb::ProclaimRequest request;
      if (one_in(2)) {
        request.mutable_leader()->set_name("e");
        request.mutable_leader()->set_key("e/1");
        request.mutable_leader()->set_rev(1);
        request.mutable_leader()->set_lease(1);
      }
      return ask<v3electionpb::ProclaimRequest, v3electionpb::ProclaimResponse>("/v3electionpb.Election/Proclaim",
                                                                                request);
    }
    case 21:
      return ask<v3electionpb::ResignRequest, v3electionpb::ResignResponse>("/v3electionpb.Election/Resign", {});
    default: {
      etcdserverpb::AuthUserDeleteRequest request;
      request.set_name("u");
      return ask<etcdserverpb::AuthUserDeleteRequest, etcdserverpb::AuthUserDeleteResponse>(
          "/etcdserverpb.Auth/UserDelete", request);
    }
  }
}

}  // namespace conclave::differential
