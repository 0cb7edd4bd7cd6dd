#include "api/maintenance.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <utility>

#include <fmt/format.h>

#include "api/snapshot.h"
#include "base/assert.h"
#include "etcd/rpc.pb.h"
#include "keyspace/digest.h"
#include "keyspace/wire.h"

namespace conclave::api {
namespace {

using keyspace::ErrorId;
using keyspace::GrpcCode;

// A transfer takes a round or two; raft itself gives up after an election timeout.
constexpr int kTransferElectionTimeouts = 3;

// Of this server alone, as it is now: no leader is needed.
class StatusCall final : public UnaryCall {
 public:
  using UnaryCall::UnaryCall;

 protected:
  void on_request(ByteView) override {
    const raft::Status status = context().replica().raft().status();
    const keyspace::Store& store = context().keyspace().store();
    etcdserverpb::StatusResponse response;
    response.set_version(context().options().version);
    response.set_dbsize(static_cast<int64_t>(store.used_bytes()));
    // Without what is kept for the past only.
    response.set_dbsizeinuse(static_cast<int64_t>(live_bytes(context().keyspace())));
    response.set_dbsizequota(static_cast<int64_t>(context().alarms().quota_bytes()));
    response.set_leader(status.leader.value());
    response.set_raftindex(status.commit.value());
    response.set_raftterm(status.term.value());
    response.set_raftappliedindex(context().replica().applied().value());
    response.set_islearner(!status.voter);
    response.set_storageversion(context().options().cluster_version());
    if (!status.leader.is_set()) response.add_errors(std::string(error_text(ErrorId::kNoLeader)));
    // As etcd prints an AlarmMember.
    for (const Alarm& alarm : context().alarms().standing()) {
      response.add_errors(fmt::format("memberID:{} alarm:{} ", alarm.member.value(), to_string(alarm.kind)));
    }
    answer(context().response() + response.SerializeAsString());
  }
};

// Looks; where an alarm is to be raised or taken back, writes its record and answers with that one.
class AlarmCall final : public UnaryCall {
 public:
  using UnaryCall::UnaryCall;

 protected:
  void on_request(ByteView message) override {
    if (!parse(message, request_)) return;
    if (!etcdserverpb::AlarmRequest::AlarmAction_IsValid(request_.action()) ||
        !etcdserverpb::AlarmType_IsValid(request_.alarm())) {
      fail(GrpcCode::kInvalidArgument, "there is no such alarm, or nothing that is done with it");
      return;
    }
    read();
  }
  void ready() override {
    const bool some = request_.alarm() != etcdserverpb::NONE;
    if (request_.action() == etcdserverpb::AlarmRequest::GET) {
      respond([&](const Alarm& alarm) { return !some || alarm.kind == kind(); });
      return;
    }
    // Records of members that never were would pile up.
    const NodeId member(request_.memberid());
    const bool raises = request_.action() == etcdserverpb::AlarmRequest::ACTIVATE;
    if (raises && member.is_set() && !context().replica().raft().membership().contains(member)) {
      fail(ErrorId::kMemberNotFound);
      return;
    }
    if (!some || (!raises && !stands())) {
      answer(context().response());
      return;
    }
    if (raises && stands()) {
      respond([this](const Alarm& alarm) { return is_asked_for(alarm); });
      return;
    }
    key_ = alarm_record_key(kind(), member);
    keyspace::InternalCommand command;
    if (raises) {
      command.operations.push_back(
          {.kind = keyspace::InternalOperation::Kind::kRecordPut, .key = key_, .value = kRaisedByClient});
    } else {
      command.operations.push_back({.kind = keyspace::InternalOperation::Kind::kRecordDelete, .key = key_});
    }
    write(command);
  }
  void applied(const keyspace::Reply& reply) override {
    if (reply.error != ErrorId::kNone) {
      fail(reply.error);
      return;
    }
    etcdserverpb::AlarmResponse response;
    etcdserverpb::AlarmMember& changed = *response.add_alarms();
    changed.set_memberid(request_.memberid());
    changed.set_alarm(request_.alarm());
    answer(context().response() + response.SerializeAsString());
  }

 private:
  // Of a request that names one.
  [[nodiscard]] AlarmKind kind() const {
    return request_.alarm() == etcdserverpb::CORRUPT ? AlarmKind::kCorrupt : AlarmKind::kNoSpace;
  }
  [[nodiscard]] bool is_asked_for(const Alarm& alarm) const {
    return alarm.kind == kind() && alarm.member.value() == request_.memberid();
  }
  [[nodiscard]] bool stands() {
    return std::ranges::any_of(context().alarms().standing(),
                               [this](const Alarm& alarm) { return is_asked_for(alarm); });
  }
  template <class Wanted>
  void respond(Wanted wanted) {
    etcdserverpb::AlarmResponse response;
    for (const Alarm& alarm : context().alarms().standing()) {
      if (!wanted(alarm)) continue;
      etcdserverpb::AlarmMember& member = *response.add_alarms();
      member.set_memberid(alarm.member.value());
      member.set_alarm(alarm.kind == AlarmKind::kCorrupt ? etcdserverpb::CORRUPT : etcdserverpb::NOSPACE);
    }
    answer(context().response() + response.SerializeAsString());
  }

  etcdserverpb::AlarmRequest request_;
  std::string key_;
};

// There is no file that would shrink: freed memory is used again.
class DefragmentCall final : public UnaryCall {
 public:
  using UnaryCall::UnaryCall;

 protected:
  void on_request(ByteView) override { answer(context().response()); }
};

uint32_t fold(uint64_t digest) {
  return static_cast<uint32_t>(digest ^ (digest >> 32));
}

// Equal on all replicas at equal applied index; not etcd's numbers. Waits while a large command is under way.
class HashCall final : public UnaryCall, public Job {
 public:
  using UnaryCall::UnaryCall;
  bool run(uint32_t&) override {
    keyspace::Keyspace& keyspace = context().keyspace();
    if (keyspace.is_busy()) return false;
    etcdserverpb::HashResponse response;
    response.set_hash(fold(keyspace.digest()));
    answer(context().response() + response.SerializeAsString());
    return true;
  }
  [[nodiscard]] bool may_wait() const override { return false; }

 protected:
  void on_request(ByteView) override {
    uint32_t units = 0;
    if (!run(units)) context().start_job(*this);
  }
  void on_closed() override {
    context().stop_job(*this);
    UnaryCall::on_closed();
  }
};

// What a reader at one revision sees, and nothing else: equal on all replicas, and not changed by compaction. Walked in
// slices at a pinned revision.
class HashKvCall final : public UnaryCall, public Job, public StateUser {
 public:
  using UnaryCall::UnaryCall;
  bool run(uint32_t& units) override {
    keyspace::Keyspace& keyspace = context().keyspace();
    if (!pinned_) {
      if (keyspace.is_busy()) return false;
      const int64_t current = keyspace.revision().value();
      if (revision_ > current) {
        fail(ErrorId::kFutureRevision);
        return true;
      }
      if (revision_ > 0 && revision_ < keyspace.compacted()) {
        fail(ErrorId::kCompacted);
        return true;
      }
      if (revision_ <= 0) revision_ = current;
      compacted_ = keyspace.compacted();
      keyspace.store().pin(revision_);
      pinned_ = true;
      context().state_users().add(*this);
    }
    const keyspace::KeyTree& tree = keyspace.store().tree();
    keyspace::KeyTree::Position at = tree.lower_bound(next_);
    for (; !at.is_end() && units > 0; keyspace::KeyTree::advance(at)) {
      const keyspace::Key* key = keyspace::KeyTree::key_at(at);
      const keyspace::Version* version = keyspace::Store::at_revision(key, revision_);
      if (version != nullptr) add(*key, *version);
      units -= std::min<uint32_t>(units, 1 + (version != nullptr ? version->value_size / 4096 : 0));
    }
    if (!at.is_end()) {
      next_.assign(keyspace::KeyTree::key_at(at)->bytes());
      return false;
    }
    etcdserverpb::HashKVResponse response;
    response.set_hash(fold(hash_));
    response.set_compact_revision(compacted_);
    response.set_hash_revision(revision_);
    answer(context().response() + response.SerializeAsString());
    return true;
  }
  void on_state_replaced() override { fail(ErrorId::kLeaderChanged); }

 protected:
  void on_request(ByteView message) override {
    etcdserverpb::HashKVRequest request;
    if (!parse(message, request)) return;
    revision_ = request.revision();
    if (!run(context().read_units())) context().start_job(*this);
  }
  void on_closed() override {
    if (std::exchange(pinned_, false)) {
      context().keyspace().store().unpin(revision_);
      context().state_users().remove(*this);
    }
    context().stop_job(*this);
    UnaryCall::on_closed();
  }

 private:
  void add(const keyspace::Key& key, const keyspace::Version& version) {
    for (const int64_t number : {version.create, version.mod, version.version, version.lease()}) {
      hash_ = keyspace::mix(hash_, static_cast<uint64_t>(number));
    }
    hash_ = keyspace::hash_bytes(version.value(), keyspace::hash_bytes(key.bytes(), hash_));
  }

  int64_t revision_ = 0;
  int64_t compacted_ = 0;
  std::string next_;
  uint64_t hash_ = 0;
  bool pinned_ = false;
};

// Answered when the target leads. Asked of raft at the end of the turn: its time must not run ahead of the loop's.
class MoveLeaderCall final : public UnaryCall, public Timed, public RoleListener {
 public:
  using UnaryCall::UnaryCall;

  void on_time(Instant now) override {
    if (asked_) {
      fail(ErrorId::kTimeout);
      return;
    }
    asked_ = true;
    context().request_turn();
    switch (context().operated_replica().transfer(now, target_)) {
      case raft::Refusal::kNone:
      case raft::Refusal::kTransferring:  // one is under way: to this target or not, time will tell
        break;
      case raft::Refusal::kNotLeader:
        fail(ErrorId::kNotLeader);
        return;
      default:
        fail(ErrorId::kBadTransferee);
        return;
    }
    const Duration patience = kTransferElectionTimeouts * context().replica().raft().options().election_timeout;
    if (is_open()) context().set_timer(*this, now + patience);
  }
  void on_role_changed() override {
    if (context().role().leader == target_) answer(context().response());
  }

 protected:
  void on_request(ByteView message) override {
    etcdserverpb::MoveLeaderRequest request;
    if (!parse(message, request)) return;
    target_ = NodeId(request.targetid());
    const Member* member = context().replica().raft().membership().find(target_);
    if (!context().is_leader()) {
      fail(ErrorId::kNotLeader);
    } else if (member == nullptr || member->role != MemberRole::kVoter) {
      fail(ErrorId::kBadTransferee);
    } else if (target_ == context().options().self) {
      answer(context().response());
    } else {
      context().role_listeners().add(*this);
      context().set_timer(*this, context().now());
    }
  }
  void on_closed() override {
    context().role_listeners().remove(*this);
    context().stop_timer(*this);
    UnaryCall::on_closed();
  }

 private:
  NodeId target_;
  bool asked_ = false;
};

// Formats are raised with the cluster's feature level and never lowered, so what is asked is checked and no downgrade
// is ever under way.
class DowngradeCall final : public UnaryCall {
 public:
  using UnaryCall::UnaryCall;

 protected:
  void on_request(ByteView message) override {
    etcdserverpb::DowngradeRequest request;
    if (!parse(message, request)) return;
    if (request.action() == etcdserverpb::DowngradeRequest::CANCEL) {
      fail(ErrorId::kNoDowngrade);
      return;
    }
    const std::optional<Version> own = parse_version(context().options().version);
    const std::optional<Version> target = parse_version(request.version());
    if (!own) {
      fail(ErrorId::kClusterVersionNotFound);
    } else if (!target) {
      fail(ErrorId::kWrongDowngradeFormat);
    } else if (target->major != own->major || target->minor + 1 != own->minor) {
      fail(ErrorId::kInvalidDowngradeTarget);
    } else if (request.action() == etcdserverpb::DowngradeRequest::VALIDATE) {
      etcdserverpb::DowngradeResponse response;
      response.set_version(context().options().cluster_version());
      answer(context().response() + response.SerializeAsString());
    } else {
      fail(GrpcCode::kUnimplemented, "there is no version to go down to");
    }
  }

 private:
  struct Version {
    uint64_t major = 0;
    uint64_t minor = 0;
  };
  // "3.6" or "3.6.0".
  static std::optional<Version> parse_version(std::string_view text) {
    std::array<uint32_t, 3> parts{};
    size_t count = 0;
    const char* at = text.data();
    const char* const end = at + text.size();
    for (;; ++at) {
      if (count == parts.size()) return std::nullopt;
      const auto [next, error] = std::from_chars(at, end, parts[count++]);
      if (error != std::errc()) return std::nullopt;
      at = next;
      if (at == end) break;
      if (*at != '.') return std::nullopt;
    }
    if (count < 2) return std::nullopt;
    return Version{.major = parts[0], .minor = parts[1]};
  }
};

}  // namespace

std::unique_ptr<net::CallHandler> make_maintenance_call(Context& context, net::ServerCall& wire, Method method) {
  switch (method) {
    case Method::kStatus:
      return std::make_unique<StatusCall>(context, wire, method);
    case Method::kAlarm:
      return std::make_unique<AlarmCall>(context, wire, method);
    case Method::kDefragment:
      return std::make_unique<DefragmentCall>(context, wire, method);
    case Method::kHash:
      return std::make_unique<HashCall>(context, wire, method);
    case Method::kHashKv:
      return std::make_unique<HashKvCall>(context, wire, method);
    case Method::kMoveLeader:
      return std::make_unique<MoveLeaderCall>(context, wire, method);
    case Method::kSnapshot:
      return make_snapshot_call(context, wire);
    case Method::kDowngrade:
      return std::make_unique<DowngradeCall>(context, wire, method);
    default:
      UNREACHABLE();
  }
}

}  // namespace conclave::api
