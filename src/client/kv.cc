// The public face of keys and values.
#include "conclave/kv.h"

#include <utility>

#include "client/held_state.h"
#include "client/unary.h"
#include "etcd/rpc.pb.h"

namespace conclave::client {
namespace {

constexpr std::string_view kPutPath = "/etcdserverpb.KV/Put";
constexpr std::string_view kRangePath = "/etcdserverpb.KV/Range";
constexpr std::string_view kDeletePath = "/etcdserverpb.KV/DeleteRange";
constexpr std::string_view kTxnPath = "/etcdserverpb.KV/Txn";

std::optional<KeyValue> first_of(const etcdserverpb::RangeResponse& range) {
  if (range.kvs_size() == 0) return std::nullopt;
  const auto& kv = range.kvs(0);
  return KeyValue{
      .key = kv.key(), .value = kv.value(), .create_revision = kv.create_revision(), .mod_revision = kv.mod_revision()};
}

etcdserverpb::TxnRequest request_of(const Transaction& transaction) {
  etcdserverpb::TxnRequest request;
  for (const Guard& guard : transaction.when) {
    etcdserverpb::Compare& compare = *request.add_compare();
    compare.set_target(etcdserverpb::Compare::CREATE);
    compare.set_result(etcdserverpb::Compare::EQUAL);
    compare.set_key(guard.key);
    compare.set_create_revision(guard.create_revision);
    // Where it is false, which of them was.
    request.add_failure()->mutable_request_range()->set_key(guard.key);
  }
  for (const Transaction::Put& put : transaction.puts) {
    etcdserverpb::PutRequest& made = *request.add_success()->mutable_request_put();
    made.set_key(put.key);
    made.set_value(put.value);
    made.set_lease(put.lease);
  }
  for (const std::string& key : transaction.erasures) {
    request.add_success()->mutable_request_delete_range()->set_key(key);
  }
  for (const std::string& key : transaction.reads) request.add_success()->mutable_request_range()->set_key(key);
  return request;
}

// Of a transaction that was answered: what was read, in order; `when_true`: of the guards, which still are.
struct Answered {
  Committed committed;
  std::vector<bool> when_true;
};

std::expected<Answered, Error> answer_of(Io& io, const Transaction& transaction) {
  const bool changes = !transaction.puts.empty() || !transaction.erasures.empty();
  const auto response = ask_unary<etcdserverpb::TxnResponse>(
      io, kTxnPath, request_of(transaction), changes ? Calls::Repeat::kChange : Calls::Repeat::kHarmless);
  if (!response) return std::unexpected(response.error());
  Answered answered{.committed = {.succeeded = response->succeeded(), .revision = response->header().revision()}};
  if (!response->succeeded()) {
    for (size_t i = 0; i < transaction.when.size(); ++i) {
      const auto at = static_cast<int>(i);
      const auto found =
          at < response->responses_size() ? first_of(response->responses(at).response_range()) : std::nullopt;
      answered.when_true.push_back((found ? found->create_revision : 0) == transaction.when[i].create_revision);
    }
    return answered;
  }
  for (const auto& each : response->responses()) {
    if (each.has_response_range()) answered.committed.read.push_back(first_of(each.response_range()));
  }
  return answered;
}

}  // namespace

Kv::Kv(std::shared_ptr<Io> io) : io_(std::move(io)) {}

std::expected<int64_t, Error> Kv::put(std::string key, std::string value) {
  etcdserverpb::PutRequest request;
  request.set_key(std::move(key));
  request.set_value(std::move(value));
  const auto response = ask_unary<etcdserverpb::PutResponse>(*io_, kPutPath, request, Calls::Repeat::kChange);
  if (!response) return std::unexpected(response.error());
  return response->header().revision();
}

std::expected<std::optional<KeyValue>, Error> Kv::get(std::string key) {
  etcdserverpb::RangeRequest request;
  request.set_key(std::move(key));
  const auto response = ask_unary<etcdserverpb::RangeResponse>(*io_, kRangePath, request, Calls::Repeat::kHarmless);
  if (!response) return std::unexpected(response.error());
  return first_of(*response);
}

std::expected<bool, Error> Kv::erase(std::string key) {
  etcdserverpb::DeleteRangeRequest request;
  request.set_key(std::move(key));
  const auto response =
      ask_unary<etcdserverpb::DeleteRangeResponse>(*io_, kDeletePath, request, Calls::Repeat::kChange);
  if (!response) return std::unexpected(response.error());
  return response->deleted() > 0;
}

std::expected<Committed, Error> Kv::commit(const Transaction& transaction) {
  auto answered = answer_of(*io_, transaction);
  if (!answered) return std::unexpected(std::move(answered).error());
  return std::move(answered->committed);
}

std::expected<Committed, Error> Kv::commit(const Held& held, Transaction transaction) {
  const auto patience = std::chrono::duration_cast<std::chrono::milliseconds>(io_->request_timeout());
  if (auto before = held.wait_held(patience); !before) return std::unexpected(std::move(before).error());
  const std::vector<Guard> guards = held.guards();
  transaction.when.insert(transaction.when.begin(), guards.begin(), guards.end());
  auto answered = answer_of(*io_, transaction);
  if (!answered) return std::unexpected(std::move(answered).error());
  for (size_t i = 0; i < guards.size() && !answered->committed.succeeded; ++i) {
    if (!answered->when_true[i]) {
      return std::unexpected(
          Error{ErrorKind::kLost, "DELETED", "the claim does not stand any more; nothing was changed"});
    }
  }
  // Whoever slept past the bound meanwhile does not go on from this as its holder.
  if (const auto after = held.wait_held(patience); !after) {
    if (!answered->committed.succeeded) return std::unexpected(after.error());
    const bool lost = after.error().kind == ErrorKind::kLost;
    return std::unexpected(Error{lost ? ErrorKind::kLost : ErrorKind::kOutcomeUnknown,
                                 lost ? "APPLIED_THEN_LOST" : "APPLIED_IN_JEOPARDY",
                                 "it was applied while it was held; since then: " + after.error().message});
  }
  return std::move(answered->committed);
}

}  // namespace conclave::client
