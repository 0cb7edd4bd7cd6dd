// What servers say of themselves: each publishes its name and addresses as a system record (member/ and its id in 16
// hex digits; the value is an etcdserverpb.Member), so that any server can list all. Who *is* a member, and in which
// role, says the configuration of the group alone.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/context.h"
#include "etcd/rpc.pb.h"

namespace conclave::api {

inline constexpr std::string_view kMemberRecords = "member/";
[[nodiscard]] std::string member_record_key(NodeId id);
// As it stands in the state; nothing if there is none, or none that can be read.
[[nodiscard]] std::optional<etcdserverpb::Member> member_record(const keyspace::Keyspace& keyspace, NodeId id);

// "HOST:PORT" of "http://HOST:PORT" or "https://HOST:PORT"; nothing of what is no such URL.
[[nodiscard]] std::optional<std::string> address_of_url(std::string_view url);

// By the configuration as this server knows it, in order of id.
[[nodiscard]] std::vector<etcdserverpb::Member> list_members(Context& context);

// Publishes this server's record after a start, if it is missing or another; asks until it is applied.
class Publisher final : public Waiter, public Timed {
 public:
  explicit Publisher(Context& context);
  ~Publisher() override;
  Publisher(const Publisher&) = delete;
  Publisher& operator=(const Publisher&) = delete;

  void on_time(Instant now) override;
  void on_ready(node::Ticket ticket) override;
  void on_applied(node::Ticket ticket, const keyspace::Reply& reply) override;
  void on_refused(node::Ticket ticket, keyspace::ErrorId error) override;

 private:
  void again();
  Context& context_;
  std::string record_;
  node::Ticket ticket_ = 0;
};

}  // namespace conclave::api
