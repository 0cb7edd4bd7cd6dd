#include "api/election.h"

#include <optional>
#include <utility>

#include "api/kv.h"
#include "api/reserved.h"
#include "api/stream_call.h"
#include "base/assert.h"
#include "base/mark.h"
#include "etcd/election.pb.h"
#include "etcd/rpc.pb.h"
#include "keyspace/validate.h"
#include "keyspace/wire.h"
#include "layers/recipe.h"

namespace conclave::api {
namespace {

using keyspace::CommandKind;
using keyspace::ErrorId;
using keyspace::GrpcCode;

// The one key of a RangeResponse of oldest_claim(), as field 2 of what follows a header; nothing if there is none.
std::optional<std::string> only_key(const std::vector<std::string>& pieces) {
  std::string message;
  for (const std::string& piece : pieces) message.append(piece);
  etcdserverpb::RangeResponse range;
  if (!range.ParseFromString(message) || range.kvs().empty()) return std::nullopt;
  return range.kvs(0).SerializeAsString();
}

class CampaignCall final : public UnaryCall, public Claims::Owner {
 public:
  CampaignCall(Context& context, Claims& claims, net::ServerCall& wire)
      : UnaryCall(context, wire, Method::kCampaign), claims_(claims) {}

  void on_claim_granted(const Claims::Grant& grant) override {
    v3electionpb::CampaignResponse response;
    v3electionpb::LeaderKey& leader = *response.mutable_leader();
    leader.set_name(name_);
    leader.set_key(std::string(grant.key));
    leader.set_rev(grant.create.value());
    leader.set_lease(grant.lease.value());
    answer(context().response(grant.revision) + response.SerializeAsString());
  }
  void on_claim_lost(bool lease_stands) override {
    if (lease_stands) {
      fail(GrpcCode::kUnknown, kNotElectionLeader);
    } else {
      fail(ErrorId::kLeaseNotFound);
    }
  }
  void on_claim_refused(ErrorId error) override { fail(error); }

 protected:
  void on_request(ByteView message) override {
    v3electionpb::CampaignRequest request;
    if (!parse(message, request) || !admits_growth(request.name().size() + request.value().size())) return;
    name_ = request.name();
    if (is_reserved(layers::claim_prefix(name_))) {
      fail(GrpcCode::kPermissionDenied, kReservedKeysRefusal);
      return;
    }
    claim_ = claims_.make({.name = name_,
                           .lease = LeaseId(request.lease()),
                           .value = std::move(*request.mutable_value()),
                           .replaces_value = true},
                          *this);
  }
  void on_cancelled() override { claims_.cancel(std::exchange(claim_, 0)); }

 private:
  Claims& claims_;
  Claims::Id claim_ = 0;
  std::string name_;
};

// Proclaim and Resign: a transaction that happens only while the leader's claim stands.
class LeaderTxnCall : public UnaryCall {
 public:
  using UnaryCall::UnaryCall;

 protected:
  void write_txn(const std::string& body) {
    std::string storage;
    ByteView canonical;
    const ErrorId error = keyspace::normalise(CommandKind::kTxn, body, storage, canonical);
    if (error != ErrorId::kNone) {
      fail(error);
    } else if (canonical.size() > kRequestBytesMax) {
      fail(ErrorId::kRequestTooLarge);
    } else if (writes_reserved(context().keyspace(), CommandKind::kTxn, canonical)) {
      fail(GrpcCode::kPermissionDenied, kReservedKeysRefusal);
    } else {
      write({.kind = CommandKind::kTxn}, canonical);
    }
  }
};

class ProclaimCall final : public LeaderTxnCall {
 public:
  using LeaderTxnCall::LeaderTxnCall;

 protected:
  void on_request(ByteView message) override {
    v3electionpb::ProclaimRequest request;
    if (!parse(message, request)) return;
    if (!request.has_leader()) {
      fail(GrpcCode::kUnknown, kMissingLeaderKey);
      return;
    }
    const v3electionpb::LeaderKey& leader = request.leader();
    if (!admits_growth(leader.key().size() + request.value().size())) return;
    write_txn(layers::encode_proclaim(leader.key(), Revision(leader.rev()), request.value(), LeaseId(leader.lease())));
  }
  void applied(const keyspace::Reply& reply) override {
    etcdserverpb::TxnResponse response;
    if (reply.error != ErrorId::kNone) {
      fail(reply.error);
    } else if (!response.ParseFromString(reply.body) || !response.succeeded()) {
      fail(GrpcCode::kUnknown, kNotElectionLeader);
    } else {
      answer(context().response(reply.revision));
    }
  }
};

class ResignCall final : public LeaderTxnCall {
 public:
  using LeaderTxnCall::LeaderTxnCall;

 protected:
  void on_request(ByteView message) override {
    v3electionpb::ResignRequest request;
    if (!parse(message, request)) return;
    if (!request.has_leader()) {
      fail(GrpcCode::kUnknown, kMissingLeaderKey);
      return;
    }
    write_txn(layers::encode_release(request.leader().key(), Revision(request.leader().rev())));
  }
  // Who leads no more has nothing to resign: as good.
  void applied(const keyspace::Reply& reply) override {
    if (reply.error != ErrorId::kNone) {
      fail(reply.error);
    } else {
      answer(context().response(reply.revision));
    }
  }
};

class LeaderCall final : public UnaryCall, public RangeWork::Owner {
 public:
  LeaderCall(Context& context, net::ServerCall& wire)
      : UnaryCall(context, wire, Method::kLeader), work_(context, *this) {}

  void on_range(std::vector<std::string> pieces, Revision revision) override {
    const std::optional<std::string> key = only_key(pieces);
    if (!key) {
      fail(GrpcCode::kUnknown, kNoElectionLeader);
      return;
    }
    std::string response = context().response(revision);
    keyspace::append_message_field(response, 2, *key);
    answer(std::move(response));
  }
  void on_range_refused(ErrorId error) override { fail(error); }

 protected:
  void on_request(ByteView message) override {
    v3electionpb::LeaderRequest request;
    if (!parse(message, request)) return;
    prefix_ = layers::claim_prefix(request.name());
    prefix_end_ = layers::claim_prefix_end(prefix_);
    read();
  }
  void ready() override { work_.start(layers::oldest_claim(prefix_, prefix_end_)); }
  void on_closed() override {
    work_.stop();
    UnaryCall::on_closed();
  }

 private:
  std::string prefix_;
  std::string prefix_end_;
  RangeWork work_;
};

// Every leader this server sees, and every value it proclaims. Looks for the oldest claim, watches that key alone until
// it is deleted, and looks again; while there is none it watches for the first claim. Leaders that came and went while
// the client did not read are left out, as in etcd.
class ObserveCall final : public StreamCall, public StreamOwner, public StateUser, public RangeWork::Owner {
 public:
  ObserveCall(Context& context, net::ServerCall& wire)
      : StreamCall(context, wire, Method::kObserve), work_(context, *this) {
    context.state_users().add(*this);
  }

  void on_message(ByteView message) override {
    if (!is_open() || !prefix_.empty()) return;
    v3electionpb::LeaderRequest request;
    if (!request.ParseFromArray(message.data(), static_cast<int>(message.size()))) {
      fail(ErrorId::kMalformed);
      return;
    }
    prefix_ = layers::claim_prefix(request.name());
    prefix_end_ = layers::claim_prefix_end(prefix_);
    ticket_ = context().issue(*this);
    context().read(ticket_);
  }
  void on_half_close() override {
    if (is_open() && prefix_.empty()) fail(GrpcCode::kUnimplemented, "the call ended without a request");
  }
  void on_drained() override {
    if (is_open() && stream_) context().streams().wake(*this);
  }
  void on_ready(node::Ticket) override {
    ticket_ = 0;
    look();
  }
  void on_refused(node::Ticket, ErrorId error) override {
    ticket_ = 0;
    fail(error);
  }
  void on_state_replaced() override {
    if (is_open()) fail(ErrorId::kLeaderChanged);
  }

  void on_range(std::vector<std::string> pieces, Revision revision) override {
    const std::optional<std::string> oldest = only_key(pieces);
    if (!oldest) {
      watch({}, revision);
      return;
    }
    mvccpb::KeyValue leader;
    (void)leader.ParseFromString(*oldest);
    emit(*oldest, revision);
    watch(leader.key(), revision);
  }
  void on_range_refused(ErrorId error) override { fail(error); }

  bool pump(uint32_t& units) override {
    keyspace::WatchResponse response;
    while (wire().queued_bytes() < kStreamBytesQueuedMax) {
      if (!stream_->next(units, response)) return stream_->has_more() && units == 0;
      // Taking it may begin another watch, and so end this one.
      if (!take(response)) return false;
      if (units == 0) return stream_->has_more();
    }
    return false;  // on_drained() goes on
  }

 protected:
  void on_closed() override {
    context().forget(std::exchange(ticket_, 0));
    work_.stop();
    unwatch();
    context().state_users().remove(*this);
    StreamCall::on_closed();
  }

 private:
  // The state here includes all that was seen so far.
  void look() {
    unwatch();
    work_.start(layers::oldest_claim(prefix_, prefix_end_));
  }

  // What follows `revision`: of the leader's key, or, if it is empty, of all claims.
  void watch(const std::string& key, Revision revision) {
    unwatch();
    key_ = key;
    stream_.emplace(context().keyspace().watches());
    context().streams().add(*stream_, *this);
    stream_->create({.key = key_.empty() ? prefix_ : key_,
                     .range_end = key_.empty() ? prefix_end_ : std::string_view(),
                     .start_revision = revision.value() + 1});
  }

  void unwatch() {
    if (!stream_) return;
    context().streams().remove(*stream_);
    stream_.reset();
  }

  void emit(const std::string& key_value, Revision revision) {
    std::string response = context().response(revision);
    keyspace::append_message_field(response, 2, key_value);
    wire().send(std::move(response));
  }

  // False: the stream it came from is over.
  bool take(const keyspace::WatchResponse& response) {
    etcdserverpb::WatchResponse watched;
    ASSERT(watched.ParseFromString(response.body));
    if (watched.canceled()) {
      REACHED(observe_fell_behind_history);
      look();
      return false;
    }
    for (const mvccpb::Event& event : watched.events()) {
      if (key_.empty()) {
        if (event.type() != mvccpb::Event::PUT) continue;
        const Revision revision(event.kv().mod_revision());
        emit(event.kv().SerializeAsString(), revision);
        watch(event.kv().key(), revision);
        return false;
      }
      if (event.type() == mvccpb::Event::DELETE) {
        look();
        return false;
      }
      emit(event.kv().SerializeAsString(), response.revision);
    }
    return true;
  }

  RangeWork work_;
  node::Ticket ticket_ = 0;
  std::string prefix_;
  std::string prefix_end_;
  std::string key_;  // of the leader; empty: there is none
  std::optional<keyspace::WatchStream> stream_;
};

}  // namespace

std::unique_ptr<net::CallHandler> make_election_call(Context& context, Claims& claims, net::ServerCall& wire,
                                                     Method method) {
  switch (method) {
    case Method::kCampaign:
      return std::make_unique<CampaignCall>(context, claims, wire);
    case Method::kProclaim:
      return std::make_unique<ProclaimCall>(context, wire, method);
    case Method::kLeader:
      return std::make_unique<LeaderCall>(context, wire);
    case Method::kObserve:
      return std::make_unique<ObserveCall>(context, wire);
    case Method::kResign:
      return std::make_unique<ResignCall>(context, wire, method);
    default:
      UNREACHABLE();
  }
}

}  // namespace conclave::api
