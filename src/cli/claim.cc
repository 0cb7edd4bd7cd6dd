#include "cli/claim.h"

#include <fmt/format.h>

#include "etcd/rpc.pb.h"

namespace conclave::cli {
namespace {

constexpr std::string_view kTxnPath = "/etcdserverpb.KV/Txn";

}  // namespace

std::string end_of_prefix(std::string_view prefix) {
  std::string end(prefix);
  while (!end.empty() && static_cast<unsigned char>(end.back()) == 0xff) end.pop_back();
  if (end.empty()) return std::string(1, '\0');  // everything from the prefix on
  end.back() = static_cast<char>(static_cast<unsigned char>(end.back()) + 1);
  return end;
}

Claim::Claim(Endpoints& endpoints, std::string_view name, int64_t lease, Duration timeout)
    : endpoints_(endpoints),
      prefix_(fmt::format("{}/", name)),
      key_(fmt::format("{}{:x}", prefix_, static_cast<uint64_t>(lease))),
      lease_(lease),
      timeout_(timeout) {}

std::expected<void, Failure> Claim::enter() {
  etcdserverpb::TxnRequest request;
  etcdserverpb::Compare& absent = *request.add_compare();
  absent.set_target(etcdserverpb::Compare::CREATE);
  absent.set_key(key_);
  absent.set_create_revision(0);
  etcdserverpb::PutRequest& put = *request.add_success()->mutable_request_put();
  put.set_key(key_);
  put.set_lease(lease_);
  request.add_failure()->mutable_request_range()->set_key(key_);
  const auto answer = endpoints_.ask<etcdserverpb::TxnResponse>(kTxnPath, request, Repeat::kHarmless, timeout_);
  if (!answer) return std::unexpected(answer.error());
  if (answer->succeeded()) {
    token_ = answer->header().revision();
  } else if (answer->responses_size() == 1 && answer->responses(0).response_range().kvs_size() == 1) {
    token_ = answer->responses(0).response_range().kvs(0).create_revision();
  } else {
    return std::unexpected(Failure{kInternal, "the answer to a claim makes no sense", ""});
  }
  return {};
}

std::expected<ClaimState, Failure> Claim::look() {
  etcdserverpb::TxnRequest request;
  etcdserverpb::Compare& mine = *request.add_compare();
  mine.set_target(etcdserverpb::Compare::CREATE);
  mine.set_key(key_);
  mine.set_create_revision(token_);
  etcdserverpb::RangeRequest& before = *request.add_success()->mutable_request_range();
  before.set_key(prefix_);
  before.set_range_end(end_of_prefix(prefix_));
  before.set_max_create_revision(token_ - 1);
  before.set_sort_target(etcdserverpb::RangeRequest::CREATE);
  before.set_sort_order(etcdserverpb::RangeRequest::DESCEND);
  before.set_limit(1);
  before.set_keys_only(true);
  // A branch that reads, too: a transaction of compares alone may be answered from a server that lags behind.
  request.add_failure()->mutable_request_range()->set_key(key_);
  const auto answer = endpoints_.ask<etcdserverpb::TxnResponse>(kTxnPath, request, Repeat::kHarmless, timeout_);
  if (!answer) return std::unexpected(answer.error());
  ClaimState state{.stands = answer->succeeded(), .predecessor = {}, .revision = answer->header().revision()};
  if (state.stands && answer->responses_size() == 1 && answer->responses(0).response_range().kvs_size() == 1) {
    state.predecessor = answer->responses(0).response_range().kvs(0).key();
  }
  return state;
}

}  // namespace conclave::cli
