#include "api/cluster.h"

#include <algorithm>
#include <utility>

#include "api/members.h"
#include "base/assert.h"
#include "base/node_id.h"
#include "conclave/v1/cluster.pb.h"
#include "etcd/rpc.pb.h"
#include "keyspace/internal_command.h"
#include "keyspace/wire.h"
#include "node/settings.h"

namespace conclave::api {
namespace {

using keyspace::ErrorId;
using keyspace::GrpcCode;

// Of one member: more are of no use.
constexpr int kUrlsMax = 16;
constexpr size_t kUrlBytesMax = 1024;
constexpr size_t kNameBytesMax = 256;

class MemberListCall final : public UnaryCall {
 public:
  using UnaryCall::UnaryCall;

 protected:
  void on_request(ByteView message) override {
    etcdserverpb::MemberListRequest request;
    if (!parse(message, request)) return;
    if (request.linearizable()) {
      read();
    } else {
      ready();
    }
  }
  void ready() override {
    std::string response = context().response();
    for (const etcdserverpb::Member& member : list_members(context())) {
      keyspace::append_message_field(response, 2, member.SerializeAsString());
    }
    answer(std::move(response));
  }
};

void set_record(std::string_view key, std::string_view value, keyspace::InternalCommand& command) {
  command.operations.push_back({.kind = keyspace::InternalOperation::Kind::kRecordPut, .key = key, .value = value});
}

// Looks at them, or sets some and then looks.
class SettingsCall final : public UnaryCall {
 public:
  using UnaryCall::UnaryCall;

 protected:
  void on_request(ByteView message) override {
    if (method() == Method::kGetSettings) {
      v1::GetSettingsRequest request;
      if (parse(message, request)) read();
      return;
    }
    v1::ChangeSettingsRequest request;
    if (!parse(message, request)) return;
    keyspace::InternalCommand command;
    if (request.settings().has_clock_lease_reads()) {
      const bool on = request.settings().clock_lease_reads();
      set_record(node::kClockLeaseReadsRecord, on ? node::kSettingOn : node::kSettingOff, command);
    }
    const uint64_t quota = request.settings().quota_bytes();
    const std::string quota_text = std::to_string(quota);
    if (request.settings().has_quota_bytes()) {
      if (quota != 0 && quota < kQuotaBytesMin) {
        fail(GrpcCode::kInvalidArgument, "a quota is 1 MiB at least, or 0 for none");
        return;
      }
      set_record(kQuotaRecord, quota_text, command);
    }
    if (command.operations.empty()) {
      fail(GrpcCode::kInvalidArgument, "no setting is given that this server knows");
      return;
    }
    write(command);
  }
  void ready() override { respond(); }
  void applied(const keyspace::Reply& reply) override {
    if (reply.error == ErrorId::kNone) {
      respond();
    } else {
      fail(reply.error);
    }
  }

 private:
  void respond() {
    v1::SettingsResponse response;
    response.mutable_settings()->set_clock_lease_reads(node::clock_lease_reads(context().keyspace()));
    response.mutable_settings()->set_quota_bytes(context().alarms().quota_bytes());
    answer(response.SerializeAsString());
  }
};

// What the calls that change something have in common: they look, write a record, change the membership, look again,
// each as far as it needs to. What has been done is answered as done, even if the last look fails.
class ChangingCall : public UnaryCall {
 public:
  using UnaryCall::UnaryCall;

 protected:
  enum class Step : uint8_t {
    kLook,      // at the newest state
    kRecord,    // being written
    kChange,    // of the membership
    kForget,    // the record of a member that is gone
    kWithdraw,  // the record of one that did not become a member
    kAnswer,    // a look again
  };

  void look() {
    step_ = Step::kLook;
    read();
  }
  // `version`: the log index of the record that is replaced, or zero.
  void write_record(const etcdserverpb::Member& member, LogIndex version) {
    step_ = Step::kRecord;
    const std::string key = member_record_key(NodeId(member.id()));
    const std::string value = member.SerializeAsString();
    keyspace::InternalCommand command;
    command.guards.push_back({.kind = keyspace::Guard::Kind::kRecordAt, .key = key, .number = version.value()});
    command.operations.push_back({.kind = keyspace::InternalOperation::Kind::kRecordPut, .key = key, .value = value});
    write(command);
  }
  void erase_record(NodeId id, Step step) {
    step_ = step;
    const std::string key = member_record_key(id);
    keyspace::InternalCommand command;
    command.operations.push_back({.kind = keyspace::InternalOperation::Kind::kRecordDelete, .key = key});
    write(command);
  }
  void begin_change(const node::MemberChange& change_wanted) {
    step_ = Step::kChange;
    change(change_wanted);
  }
  void look_again() {
    step_ = Step::kAnswer;
    read();
  }
  [[nodiscard]] Step step() const { return step_; }

  // The state is as it was when the call came, or later.
  virtual void looked() { UNREACHABLE(); }
  virtual void recorded() { UNREACHABLE(); }
  virtual void change_refused(ErrorId error) { fail(error); }
  // The last answer, from what is known here.
  virtual void respond() = 0;

  void ready() final {
    if (step_ == Step::kLook) {
      looked();
    } else {
      respond();
    }
  }
  void applied(const keyspace::Reply& reply) final {
    if (step_ == Step::kRecord) {
      if (reply.error == ErrorId::kNone) {
        recorded();
      } else {
        // Somebody else wrote it meanwhile.
        fail(reply.error == ErrorId::kGuardFailed ? ErrorId::kMemberExists : reply.error);
      }
    } else if (step_ == Step::kWithdraw) {
      fail(error_);
    } else {
      look_again();
    }
  }
  void refused(ErrorId error) final {
    switch (step_) {
      case Step::kLook:
      case Step::kRecord:
        fail(error);
        return;
      case Step::kChange:
        change_refused(error);
        return;
      case Step::kWithdraw:
        fail(error_);
        return;
      case Step::kForget:
      case Step::kAnswer:
        respond();
        return;
    }
  }
  void withdraw(NodeId id, ErrorId error) {
    error_ = error;
    erase_record(id, Step::kWithdraw);
  }

  void respond_with_members(int field, std::string response) {
    for (const etcdserverpb::Member& member : list_members(context())) {
      keyspace::append_message_field(response, field, member.SerializeAsString());
    }
    answer(std::move(response));
  }
  [[nodiscard]] LogIndex version_of(NodeId id) {
    const keyspace::Record* record = context().keyspace().record(member_record_key(id));
    return record == nullptr ? LogIndex() : record->written_at;
  }

 private:
  Step step_ = Step::kLook;
  ErrorId error_ = ErrorId::kNone;
};

template <class Urls>
bool are_valid(const Urls& urls) {
  return !urls.empty() && urls.size() <= kUrlsMax && std::ranges::all_of(urls, [](const std::string& url) {
    return url.size() <= kUrlBytesMax && address_of_url(url).has_value();
  });
}

// Whether one of the URLs is another member's; `except` may have it.
template <class Urls>
bool is_taken(const std::vector<etcdserverpb::Member>& members, const Urls& urls, NodeId except) {
  return std::ranges::any_of(members, [&](const etcdserverpb::Member& member) {
    return NodeId(member.id()) != except && std::ranges::any_of(member.peerurls(), [&](const std::string& url) {
             return std::ranges::find(urls, url) != urls.end();
           });
  });
}

// A member comes. Its record is written before the change is asked for: whoever hears of the member knows where it is.
class AdditionCall : public ChangingCall {
 public:
  using ChangingCall::ChangingCall;

 protected:
  // Fails if the URLs are none. `replaced`: who leaves in the same change, if set.
  void add(etcdserverpb::Member member, node::MemberChangeKind kind, NodeId replaced = NodeId()) {
    if (!are_valid(member.peerurls())) {
      fail(ErrorId::kInvalidMemberUrls);
      return;
    }
    member_ = std::move(member);
    const NodeId id = node_id_of(*address_of_url(member_.peerurls(0)));
    member_.set_id(id.value());
    change_ = {.kind = kind, .id = id, .replaced = replaced};
    look();
  }
  [[nodiscard]] NodeId id() const { return change_.id; }

  void looked() override {
    const std::vector<etcdserverpb::Member> members = list_members(context());
    const auto is_same = [this](const etcdserverpb::Member& member) {
      const bool has_name = !member_.name().empty() && member.name() == member_.name();
      return NodeId(member.id()) == id() || (has_name && NodeId(member.id()) != change_.replaced);
    };
    const bool replaces = change_.replaced.is_set();
    if (replaces && !context().replica().raft().membership().contains(change_.replaced)) {
      fail(ErrorId::kMemberNotFound);
    } else if (is_taken(members, member_.peerurls(), change_.replaced)) {
      fail(ErrorId::kPeerUrlExists);
    } else if (std::ranges::any_of(members, is_same)) {
      fail(ErrorId::kMemberExists);
    } else {
      write_record(member_, version_of(id()));
    }
  }
  void recorded() override { begin_change(change_); }
  void changed() override {
    if (change_.replaced.is_set() && change_.replaced != context().options().self) {
      erase_record(change_.replaced, Step::kForget);
    } else {
      look_again();
    }
  }
  void change_refused(ErrorId error) override {
    // If it may be a member, now or soon, its record must stand.
    if (error == ErrorId::kTimeout || error == ErrorId::kMemberExists) {
      fail(error);
    } else {
      withdraw(id(), error);
    }
  }

 private:
  etcdserverpb::Member member_;
  node::MemberChange change_;
};

class MemberAddCall final : public AdditionCall {
 public:
  using AdditionCall::AdditionCall;

 protected:
  void on_request(ByteView message) override {
    etcdserverpb::MemberAddRequest request;
    if (!parse(message, request)) return;
    etcdserverpb::Member member;
    *member.mutable_peerurls() = std::move(*request.mutable_peerurls());
    add(std::move(member),
        request.islearner() ? node::MemberChangeKind::kAddLearner : node::MemberChangeKind::kAddPromotable);
  }
  void respond() override {
    std::string response = context().response();
    for (const etcdserverpb::Member& member : list_members(context())) {
      if (NodeId(member.id()) == id()) keyspace::append_message_field(response, 2, member.SerializeAsString());
    }
    respond_with_members(3, std::move(response));
  }
};

// With a name. Of conclave.v1.
class NamedAdditionCall final : public AdditionCall {
 public:
  using AdditionCall::AdditionCall;

 protected:
  void on_request(ByteView message) override {
    if (method() == Method::kReplaceMember) {
      v1::ReplaceMemberRequest request;
      if (!parse(message, request)) return;
      const NodeId old_id(request.old_id());
      if (!old_id.is_set()) {
        fail(ErrorId::kMemberNotFound);
        return;
      }
      add_named(request.name(), request.address(), node::MemberChangeKind::kReplace, old_id);
    } else {
      v1::AddMemberRequest request;
      if (!parse(message, request)) return;
      add_named(request.name(), request.address(),
                request.learner() ? node::MemberChangeKind::kAddLearner : node::MemberChangeKind::kAddPromotable);
    }
  }
  void respond() override {
    v1::AddMemberResponse response;
    response.set_cluster_id(context().options().cluster.value());
    response.set_id(id().value());
    answer(response.SerializeAsString());
  }

 private:
  void add_named(const std::string& name, const std::string& address, node::MemberChangeKind kind,
                 NodeId replaced = NodeId()) {
    if (name.empty() || name.size() > kNameBytesMax || name.find_first_of(" \n,=") != std::string::npos) {
      fail(GrpcCode::kInvalidArgument, "not a name that a server can have");
      return;
    }
    const std::vector<std::string>& own = context().options().peer_urls;
    const bool is_secure = !own.empty() && own.front().starts_with("https://");
    etcdserverpb::Member member;
    member.set_name(name);
    member.add_peerurls((is_secure ? "https://" : "http://") + address);
    const NodeId id = node_id_of(address_of_url(member.peerurls(0)).value_or(""));
    if (id == replaced) {
      // A server that lost its disk is taken back as the member it is.
      fail(ErrorId::kMemberExists);
      return;
    }
    add(std::move(member), kind, replaced);
  }
};

// Removed, or made a voter.
class MemberChangeCall final : public ChangingCall {
 public:
  using ChangingCall::ChangingCall;

 protected:
  void on_request(ByteView message) override {
    if (method() == Method::kMemberRemove) {
      etcdserverpb::MemberRemoveRequest request;
      if (!parse(message, request)) return;
      change_ = {.kind = node::MemberChangeKind::kRemove, .id = NodeId(request.id())};
    } else {
      etcdserverpb::MemberPromoteRequest request;
      if (!parse(message, request)) return;
      change_ = {.kind = node::MemberChangeKind::kPromote, .id = NodeId(request.id())};
    }
    if (change_.id.is_set()) {
      begin_change(change_);
    } else {
      fail(ErrorId::kMemberNotFound);
    }
  }
  void change_refused(ErrorId error) override {
    const bool is_promotion = change_.kind == node::MemberChangeKind::kPromote;
    if (is_promotion && context().is_leader()) ++context().metrics().promotions_refused[error];
    fail(error);
  }
  void changed() override {
    const bool removed = change_.kind == node::MemberChangeKind::kRemove;
    if (removed && change_.id == context().options().self) {
      // Nobody takes anything from this server any more. Its record names nobody, and stays.
      respond();
    } else if (removed) {
      erase_record(change_.id, Step::kForget);
    } else {
      if (context().is_leader()) ++context().metrics().promotions;
      look_again();
    }
  }
  void respond() override { respond_with_members(2, context().response()); }

 private:
  node::MemberChange change_;
};

// Of the record alone. A server that starts publishes again what it was told itself.
class MemberUpdateCall final : public ChangingCall {
 public:
  using ChangingCall::ChangingCall;

 protected:
  void on_request(ByteView message) override {
    if (parse(message, request_)) look();
  }
  void looked() override {
    const std::vector<etcdserverpb::Member> members = list_members(context());
    const auto found = std::ranges::find(members, request_.id(), &etcdserverpb::Member::id);
    // Who is not there goes before what is wrong with the addresses, as in etcd.
    if (found == members.end()) {
      fail(ErrorId::kMemberNotFound);
    } else if (!are_valid(request_.peerurls())) {
      fail(ErrorId::kInvalidMemberUrls);
    } else if (is_taken(members, request_.peerurls(), NodeId(request_.id()))) {
      fail(ErrorId::kPeerUrlExists);
    } else {
      etcdserverpb::Member member = *found;
      member.set_islearner(false);  // the configuration's word
      *member.mutable_peerurls() = request_.peerurls();
      write_record(member, version_of(NodeId(member.id())));
    }
  }
  void recorded() override { look_again(); }
  void respond() override { respond_with_members(2, context().response()); }

 private:
  etcdserverpb::MemberUpdateRequest request_;
};

}  // namespace

std::unique_ptr<net::CallHandler> make_cluster_call(Context& context, net::ServerCall& wire, Method method) {
  switch (method) {
    case Method::kMemberList:
      return std::make_unique<MemberListCall>(context, wire, method);
    case Method::kMemberAdd:
      return std::make_unique<MemberAddCall>(context, wire, method);
    case Method::kMemberRemove:
    case Method::kMemberPromote:
      return std::make_unique<MemberChangeCall>(context, wire, method);
    case Method::kMemberUpdate:
      return std::make_unique<MemberUpdateCall>(context, wire, method);
    case Method::kAddMember:
    case Method::kReplaceMember:
      return std::make_unique<NamedAdditionCall>(context, wire, method);
    case Method::kGetSettings:
    case Method::kChangeSettings:
      return std::make_unique<SettingsCall>(context, wire, method);
    default:
      UNREACHABLE();
  }
}

}  // namespace conclave::api
