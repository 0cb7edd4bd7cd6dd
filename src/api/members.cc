#include "api/members.h"

#include <charconv>
#include <utility>

#include <fmt/format.h>

#include "keyspace/internal_command.h"

namespace conclave::api {
namespace {

// Before a leader is known nothing is sent by looking again, and clients of a new cluster wait for the addresses.
constexpr Duration kLeaderRetry = std::chrono::milliseconds(20);

etcdserverpb::Member to_member(const MemberAttributes& attributes) {
  etcdserverpb::Member member;
  member.set_id(attributes.id.value());
  member.set_name(attributes.name);
  for (const std::string& url : attributes.peer_urls) member.add_peerurls(url);
  for (const std::string& url : attributes.client_urls) member.add_clienturls(url);
  return member;
}

MemberAttributes own_attributes(const ServiceOptions& options) {
  return {.id = options.self, .name = options.name, .peer_urls = options.peer_urls, .client_urls = options.client_urls};
}

}  // namespace

std::string member_record_key(NodeId id) {
  return fmt::format("{}{:016x}", kMemberRecords, id.value());
}

std::optional<etcdserverpb::Member> member_record(const keyspace::Keyspace& keyspace, NodeId id) {
  const keyspace::Record* record = keyspace.record(member_record_key(id));
  etcdserverpb::Member member;
  if (record == nullptr || !member.ParseFromString(record->value)) return std::nullopt;
  return member;
}

std::optional<std::string> address_of_url(std::string_view url) {
  for (const std::string_view scheme : {"http://", "https://"}) {
    if (!url.starts_with(scheme)) continue;
    const std::string_view address = url.substr(scheme.size());
    const size_t colon = address.rfind(':');
    if (colon == std::string_view::npos || colon == 0) return std::nullopt;
    if (address.find_first_of("/?#@, =") != std::string_view::npos) return std::nullopt;
    const std::string_view digits = address.substr(colon + 1);
    uint16_t port = 0;
    const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), port);
    if (parsed.ec != std::errc() || parsed.ptr != digits.data() + digits.size() || port == 0) return std::nullopt;
    // A port has many spellings, and a member's id is made of one.
    return fmt::format("{}:{}", address.substr(0, colon), port);
  }
  return std::nullopt;
}

std::vector<etcdserverpb::Member> list_members(Context& context) {
  std::vector<etcdserverpb::Member> members;
  for (const Member& entry : context.replica().raft().membership().members()) {
    if (entry.role == MemberRole::kNone) continue;
    etcdserverpb::Member member;
    if (auto record = member_record(context.keyspace(), entry.id)) {
      member = std::move(*record);
    } else {
      if (entry.id == context.options().self) member = to_member(own_attributes(context.options()));
      for (const MemberAttributes& peer : context.options().peers) {
        if (peer.id == entry.id) member = to_member(peer);
      }
    }
    member.set_id(entry.id.value());
    member.set_islearner(entry.role != MemberRole::kVoter);
    members.push_back(std::move(member));
  }
  return members;
}

Publisher::Publisher(Context& context)
    : context_(context), record_(to_member(own_attributes(context.options())).SerializeAsString()) {
  context_.set_timer(*this, context_.now());
}

Publisher::~Publisher() {
  context_.forget(ticket_);
  context_.stop_timer(*this);
}

void Publisher::again() {
  ticket_ = 0;
  context_.set_timer(*this, context_.now() + kOwnRetry);
}

void Publisher::on_time(Instant) {
  if (!context_.has_leader() || !context_.replica().raft().membership().contains(context_.options().self)) {
    context_.set_timer(*this, context_.now() + kLeaderRetry);
    return;
  }
  // Compared with the newest state, not with what this server had when it started.
  ticket_ = context_.issue(*this);
  context_.read(ticket_);
}

void Publisher::on_ready(node::Ticket) {
  ticket_ = 0;
  const std::string key = member_record_key(context_.options().self);
  const keyspace::Record* record = context_.keyspace().record(key);
  if (record != nullptr && record->value == record_) return;
  keyspace::InternalCommand command;
  command.operations.push_back({.kind = keyspace::InternalOperation::Kind::kRecordPut, .key = key, .value = record_});
  ticket_ = context_.issue(*this);
  context_.write(ticket_, command);
}

void Publisher::on_applied(node::Ticket, const keyspace::Reply& reply) {
  ticket_ = 0;
  if (reply.error != keyspace::ErrorId::kNone) again();
}

void Publisher::on_refused(node::Ticket, keyspace::ErrorId) {
  again();
}

}  // namespace conclave::api
