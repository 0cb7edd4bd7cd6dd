// `conclave member`: who is in the cluster, and changes of that; `conclave leader transfer`: who leads it.
#include <algorithm>
#include <charconv>
#include <memory>
#include <optional>
#include <string>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <CLI/CLI.hpp>

#include "cli/common.h"
#include "cli/json.h"
#include "cli/table.h"
#include "cli/verbs.h"
#include "conclave/v1/cluster.pb.h"
#include "etcd/rpc.pb.h"
#include "server/identity.h"

namespace conclave::cli {
namespace {

using etcdserverpb::Member;
using etcdserverpb::MemberListResponse;

struct Arguments {
  // A change waits for the one before it, and for a leader: longer than a server waits.
  Common common{.timeout = std::chrono::seconds(15)};
  std::string member;  // a name or an id
  std::string added;   // NAME=HOST:PORT
  bool learner = false;
  bool json = false;
};

std::string json_of(const Member& member) {
  JsonList fields;
  fields.field("id", json_text(fmt::format("{:x}", member.id())));
  fields.field("name", json_text(member.name()));
  fields.field("role", json_text(member.islearner() ? "learner" : "voter"));
  JsonList peers;
  for (const std::string& url : member.peerurls()) peers.add(json_text(url));
  fields.field("peer_urls", peers.array());
  JsonList clients;
  for (const std::string& url : member.clienturls()) clients.add(json_text(url));
  fields.field("client_urls", clients.array());
  return fields.object();
}

template <class Members>
std::string json_members(const Members& members) {
  JsonList list;
  for (const Member& member : members) list.add(json_of(member));
  return list.array();
}

std::expected<MemberListResponse, Failure> list(Endpoints& endpoints, Duration timeout) {
  etcdserverpb::MemberListRequest request;
  request.set_linearizable(true);
  return endpoints.ask<MemberListResponse>("/etcdserverpb.Cluster/MemberList", request, Repeat::kHarmless, timeout);
}

// By name, or by id in hex.
std::expected<Member, Failure> find(const MemberListResponse& members, const std::string& text) {
  uint64_t id = 0;
  const char* const end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data(), end, id, 16);
  const bool is_id = parsed.ec == std::errc() && parsed.ptr == end;
  for (const Member& member : members.members()) {
    if (member.name() == text) return member;
  }
  for (const Member& member : members.members()) {
    if (is_id && member.id() == id) return member;
  }
  return std::unexpected(
      Failure{kFalse, fmt::format("no member has the name or the id '{}'", text), "conclave member ls shows them."});
}

std::string name_of(const Member& member) {
  return member.name().empty() ? fmt::format("{:x}", member.id()) : member.name();
}

int list_members(Endpoints& endpoints, const Arguments& arguments) {
  const auto members = list(endpoints, arguments.common.timeout);
  if (!members) return report(members.error());
  if (arguments.json) {
    fmt::print("{{\"cluster\":{},\"members\":{}}}\n", json_text(fmt::format("{:x}", members->header().cluster_id())),
               json_members(members->members()));
    return kOk;
  }
  Table table({"ID", "NAME", "ROLE", "PEERS", "CLIENTS"});
  for (const Member& member : members->members()) {
    table.add({fmt::format("{:x}", member.id()), member.name().empty() ? "-" : member.name(),
               member.islearner() ? "learner" : "voter", fmt::format("{}", fmt::join(member.peerurls(), ",")),
               member.clienturls().empty() ? "-" : fmt::format("{}", fmt::join(member.clienturls(), ","))});
  }
  fmt::print("{}", table.text());
  return kOk;
}

// What starts the new server: every server of the cluster, it among them.
std::string start_line(const MemberListResponse& members, const server::JoinEntry& added, uint64_t cluster) {
  std::string join;
  bool secure = false;
  for (const Member& member : members.members()) {
    if (member.name().empty() || member.peerurls().empty() || member.name() == added.name) continue;
    const std::string& url = member.peerurls(0);
    secure |= url.starts_with("https://");
    join += fmt::format("{}={},", member.name(), url.substr(url.find("//") + 2));
  }
  std::string line = fmt::format("conclave start --name {} --join {}{}={}:{} --cluster {:016x} --data {}", added.name,
                                 join, added.name, added.host, added.port, cluster, added.name);
  if (secure) line += fmt::format(" --peer-cert peer-{0}.pem --peer-key peer-{0}.key --peer-ca ca.pem", added.name);
  return line;
}

// Adds, or replaces `arguments.member`.
int add(Endpoints& endpoints, const Arguments& arguments, bool replaces) {
  const auto parsed = server::parse_join(arguments.added);
  if (!parsed) return report(usage_failure(parsed.error()));
  if (parsed->size() != 1) return report({kUsage, "one server at a time: NAME=HOST:PORT", ""});
  const server::JoinEntry& added = parsed->front();
  const std::string address = fmt::format("{}:{}", added.host, added.port);
  const Duration timeout = arguments.common.timeout;
  std::expected<v1::AddMemberResponse, Failure> answer;
  std::string gone;
  if (replaces) {
    const auto before = list(endpoints, timeout);
    if (!before) return report(before.error());
    const auto old = find(*before, arguments.member);
    if (!old) return report(old.error());
    gone = name_of(*old);
    v1::ReplaceMemberRequest request;
    request.set_old_id(old->id());
    request.set_name(added.name);
    request.set_address(address);
    answer =
        endpoints.ask<v1::AddMemberResponse>("/conclave.v1.Cluster/ReplaceMember", request, Repeat::kChange, timeout);
  } else {
    v1::AddMemberRequest request;
    request.set_name(added.name);
    request.set_address(address);
    request.set_learner(arguments.learner);
    answer = endpoints.ask<v1::AddMemberResponse>("/conclave.v1.Cluster/AddMember", request, Repeat::kChange, timeout);
  }
  if (!answer) return report(answer.error());
  const auto members = list(endpoints, timeout);
  if (!members) return report(members.error());
  const std::string line = start_line(*members, added, answer->cluster_id());
  if (arguments.json) {
    JsonList fields;
    fields.field("cluster", json_text(fmt::format("{:x}", answer->cluster_id())));
    fields.field("id", json_text(fmt::format("{:x}", answer->id())));
    fields.field("start", json_text(line));
    fields.field("members", json_members(members->members()));
    fmt::print("{}\n", fields.object());
    return kOk;
  }
  narrate(replaces ? fmt::format("{} is out, {} is a member ({:x}) and votes once it has caught up; start it:", gone,
                                 added.name, answer->id())
                   : fmt::format("{} is a member ({:x}){}; start it:", added.name, answer->id(),
                                 arguments.learner ? " that does not vote" : " and votes once it has caught up"));
  fmt::print("{}\n", line);
  return kOk;
}

template <class Request, class Response>
int change(Endpoints& endpoints, const Arguments& arguments, const char* path, const char* what) {
  const auto members = list(endpoints, arguments.common.timeout);
  if (!members) return report(members.error());
  const auto member = find(*members, arguments.member);
  if (!member) return report(member.error());
  Request request;
  request.set_id(member->id());
  const auto answer = endpoints.ask<Response>(path, request, Repeat::kChange, arguments.common.timeout);
  if (!answer) return report(answer.error());
  if (arguments.json) {
    fmt::print("{{\"id\":{},\"members\":{}}}\n", json_text(fmt::format("{:x}", member->id())),
               json_members(answer->members()));
  } else {
    fmt::print("{} ({:x}) {}\n", name_of(*member), member->id(), what);
  }
  return kOk;
}

// ---- The leader ----

// The leader's id, and the endpoint that is it, if one is.
struct Leader {
  uint64_t id = 0;
  std::optional<size_t> endpoint;
};

Leader find_leader(Endpoints& endpoints, Duration timeout) {
  Leader leader;
  uint64_t term = 0;
  for (size_t i = 0; i < endpoints.size(); ++i) {
    const Answer answer = endpoints.call_at(i, "/etcdserverpb.Maintenance/Status", {}, timeout);
    etcdserverpb::StatusResponse status;
    if (!answer.status.ok() || !status.ParseFromString(answer.message) || status.leader() == 0) continue;
    if (status.raftterm() < term) continue;
    if (status.raftterm() > term || status.leader() != leader.id) leader = {.id = status.leader()};
    term = status.raftterm();
    if (status.header().member_id() == leader.id) leader.endpoint = i;
  }
  return leader;
}

// One voter after the other, until one takes it: where none is named, whichever can.
int move_to(Endpoints& endpoints, size_t endpoint, const std::vector<Member>& targets, const Arguments& arguments) {
  Answer answer;
  for (const Member& target : targets) {
    etcdserverpb::MoveLeaderRequest request;
    request.set_targetid(target.id());
    answer = endpoints.call_at(endpoint, "/etcdserverpb.Maintenance/MoveLeader", request.SerializeAsString(),
                               arguments.common.timeout);
    if (!answer.status.ok()) continue;
    if (arguments.json) {
      fmt::print("{{\"leader\":{},\"name\":{}}}\n", json_text(fmt::format("{:x}", target.id())),
                 json_text(target.name()));
    } else {
      fmt::print("{} ({:x}) leads\n", name_of(target), target.id());
    }
    return kOk;
  }
  return report(endpoints.failure_of(answer));
}

int transfer(Endpoints& endpoints, const Arguments& arguments) {
  const Duration timeout = arguments.common.timeout;
  const auto members = list(endpoints, timeout);
  if (!members) return report(members.error());
  const Leader leader = find_leader(endpoints, timeout);
  if (leader.id == 0) return report({kUnavailable, "no server that was asked knows a leader", ""});
  std::vector<Member> targets;
  if (!arguments.member.empty()) {
    const auto target = find(*members, arguments.member);
    if (!target) return report(target.error());
    targets.push_back(*target);
  } else {
    for (const Member& member : members->members()) {
      if (member.id() != leader.id && !member.islearner()) targets.push_back(member);
    }
  }
  if (targets.empty()) return report({kFalse, "there is no other voter", ""});
  if (leader.endpoint) return move_to(endpoints, *leader.endpoint, targets, arguments);
  // It is none of the endpoints: where it says it is.
  for (const Member& member : members->members()) {
    if (member.id() != leader.id || member.clienturls().empty()) continue;
    auto found = load_endpoints(member.clienturls(0), arguments.common.tls);
    if (!found) return report(usage_failure(found.error()));
    Endpoints at_leader(std::move(*found));
    return move_to(at_leader, 0, targets, arguments);
  }
  return report({kUnavailable, "the leader is none of the servers to ask, and its address is not known", ""});
}

using Run = int (*)(Endpoints&, const Arguments&);

CLI::App* add_verb(CLI::App& parent, const char* name, const char* text, const std::shared_ptr<Arguments>& arguments,
                   int& exit_code, Run run) {
  CLI::App* verb = parent.add_subcommand(name, text);
  add_common(*verb, arguments->common);
  add_output(*verb, arguments->json);
  verb->callback([arguments, &exit_code, run] {
    auto parsed = load_endpoints(arguments->common);
    if (!parsed) {
      exit_code = report(usage_failure(parsed.error()));
      return;
    }
    Endpoints endpoints(std::move(*parsed));
    exit_code = run(endpoints, *arguments);
  });
  return verb;
}

}  // namespace

void add_member(CLI::App& app, int& exit_code) {
  CLI::App* member = app.add_subcommand("member", "who is in the cluster: look, add, remove, replace, promote");
  member->require_subcommand(1);
  const auto arguments = std::make_shared<Arguments>();
  add_verb(*member, "ls", "the members, as the newest state has them", arguments, exit_code, list_members);
  CLI::App* verb = add_verb(*member, "add", "a new server joins; prints the line that starts it", arguments, exit_code,
                            [](Endpoints& endpoints, const Arguments& given) { return add(endpoints, given, false); });
  verb->add_option("SERVER", arguments->added, "NAME=HOST:PORT, where the other servers reach it")->required();
  verb->add_flag("--learner", arguments->learner, "it gets the log and does not vote until it is promoted");
  verb = add_verb(*member, "rm", "a server leaves, and ends", arguments, exit_code,
                  [](Endpoints& endpoints, const Arguments& given) {
                    return change<etcdserverpb::MemberRemoveRequest, etcdserverpb::MemberRemoveResponse>(
                        endpoints, given, "/etcdserverpb.Cluster/MemberRemove", "is out");
                  });
  verb->add_option("MEMBER", arguments->member, "its name, or its id")->required();
  verb = add_verb(*member, "promote", "a learner becomes a voter", arguments, exit_code,
                  [](Endpoints& endpoints, const Arguments& given) {
                    return change<etcdserverpb::MemberPromoteRequest, etcdserverpb::MemberPromoteResponse>(
                        endpoints, given, "/etcdserverpb.Cluster/MemberPromote", "is a voter");
                  });
  verb->add_option("MEMBER", arguments->member, "its name, or its id")->required();
  verb = add_verb(*member, "replace", "one leaves and a new one joins, in one change", arguments, exit_code,
                  [](Endpoints& endpoints, const Arguments& given) { return add(endpoints, given, true); });
  verb->add_option("OLD", arguments->member, "name or id of the one that leaves")->required();
  verb->add_option("SERVER", arguments->added, "NAME=HOST:PORT of the new one")->required();
}

void add_leader(CLI::App& app, int& exit_code) {
  CLI::App* leader = app.add_subcommand("leader", "who leads the cluster");
  leader->require_subcommand(1);
  const auto arguments = std::make_shared<Arguments>();
  CLI::App* verb =
      add_verb(*leader, "transfer", "another voter leads, by name or whichever can", arguments, exit_code, transfer);
  verb->add_option("MEMBER", arguments->member, "its name, or its id");
}

}  // namespace conclave::cli
