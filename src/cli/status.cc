// `conclave status`: asks each server how it stands, and says whether the cluster can do its work.
#include <algorithm>
#include <future>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "cli/common.h"
#include "cli/json.h"
#include "cli/table.h"
#include "cli/verbs.h"
#include "etcd/rpc.pb.h"

namespace conclave::cli {
namespace {

struct Arguments {
  Common common{.timeout = std::chrono::seconds(2)};
  bool json = false;
};

// One server's answer, or why there is none.
struct ServerStatus {
  std::string endpoint;
  std::string name;
  std::string failure;
  etcdserverpb::StatusResponse status;
  [[nodiscard]] bool reachable() const { return failure.empty(); }
  [[nodiscard]] uint64_t id() const { return status.header().member_id(); }
  [[nodiscard]] bool leads() const { return reachable() && status.leader() != 0 && status.leader() == id(); }
  [[nodiscard]] const char* role() const {
    return !reachable() ? "" : leads() ? "leader" : status.islearner() ? "learner" : "follower";
  }
};

// The cluster as far as it was asked.
struct Overview {
  std::vector<ServerStatus> servers;
  size_t voters = 0;  // zero: nobody could say
  size_t reachable_voters = 0;
  [[nodiscard]] size_t quorum() const { return voters / 2 + 1; }
  [[nodiscard]] bool has_leader() const {
    return std::ranges::any_of(servers, [](const ServerStatus& server) { return server.leads(); });
  }
};

Overview look(Endpoints& endpoints, Duration timeout) {
  Overview overview;
  overview.servers.resize(endpoints.size());
  // All at once: one that is away must not make the others wait.
  std::vector<std::future<Answer>> answers;
  answers.reserve(endpoints.size());
  for (size_t i = 0; i < endpoints.size(); ++i) {
    answers.push_back(std::async(std::launch::async, [&endpoints, i, timeout] {
      return endpoints.call_at(i, "/etcdserverpb.Maintenance/Status", {}, timeout);
    }));
  }
  for (size_t i = 0; i < endpoints.size(); ++i) {
    ServerStatus& server = overview.servers[i];
    server.endpoint = endpoints.at(i).text();
    const Answer answer = answers[i].get();
    if (!answer.status.ok()) {
      server.failure = answer.status.message.empty() ? "unreachable" : answer.status.message;
    } else if (!server.status.ParseFromString(answer.message)) {
      server.failure = "its answer could not be read";
    }
  }
  std::optional<etcdserverpb::MemberListResponse> members;
  for (size_t i = 0; i < endpoints.size() && !members; ++i) {
    if (!overview.servers[i].reachable()) continue;
    const Answer answer = endpoints.call_at(i, "/etcdserverpb.Cluster/MemberList", {}, timeout);
    etcdserverpb::MemberListResponse list;
    if (answer.status.ok() && list.ParseFromString(answer.message)) members = std::move(list);
  }
  if (!members) return overview;
  for (const etcdserverpb::Member& member : members->members()) {
    const auto server = std::ranges::find_if(overview.servers, [&](const ServerStatus& candidate) {
      return candidate.reachable() && candidate.id() == member.id();
    });
    if (!member.islearner()) ++overview.voters;
    if (server == overview.servers.end()) continue;
    server->name = member.name();
    if (!member.islearner()) ++overview.reachable_voters;
  }
  return overview;
}

std::string quorum_line(const Overview& overview) {
  const auto reachable = static_cast<size_t>(
      std::ranges::count_if(overview.servers, [](const ServerStatus& server) { return server.reachable(); }));
  if (reachable == 0) return "no server can be reached";
  const std::string leader = overview.has_leader() ? "" : "; no leader among the servers asked";
  if (overview.voters == 0) return fmt::format("{} of {} servers answer{}", reachable, overview.servers.size(), leader);
  const std::string count = fmt::format("{} of {} members answer", overview.reachable_voters, overview.voters);
  if (overview.reachable_voters < overview.quorum()) {
    // Members that were not asked may well be there.
    const bool all_asked = overview.servers.size() >= overview.voters;
    return fmt::format("{}, {} are needed: {}{}", count, overview.quorum(),
                       all_asked ? "no quorum" : "not all were asked", leader);
  }
  const size_t spare = overview.reachable_voters - overview.quorum();
  return fmt::format("quorum: {}; tolerates {} more failure{}{}", count, spare, spare == 1 ? "" : "s", leader);
}

void print_table(const Overview& overview) {
  Table table({"ENDPOINT", "NAME", "ID", "ROLE", ">TERM", ">INDEX", ">APPLIED", ">DB KIB", "VERSION"});
  for (const ServerStatus& server : overview.servers) {
    if (!server.reachable()) {
      table.add({server.endpoint, "-", "-", "away", "", "", "", "", server.failure});
      continue;
    }
    const auto& status = server.status;
    table.add({server.endpoint, server.name.empty() ? "-" : server.name, fmt::format("{:x}", server.id()),
               server.role(), fmt::format("{}", status.raftterm()), fmt::format("{}", status.raftindex()),
               fmt::format("{}", status.raftappliedindex()), fmt::format("{}", (status.dbsize() + 1023) / 1024),
               status.version()});
  }
  fmt::print("{}{}\n", table.text(), quorum_line(overview));
}

void print_json(const Overview& overview) {
  JsonList servers;
  for (const ServerStatus& server : overview.servers) {
    JsonList fields;
    fields.field("endpoint", json_text(server.endpoint));
    fields.field("reachable", server.reachable() ? "true" : "false");
    if (!server.reachable()) {
      fields.field("error", json_text(server.failure));
    } else {
      fields.field("name", json_text(server.name));
      fields.field("id", json_text(fmt::format("{:x}", server.id())));
      fields.field("role", json_text(server.role()));
      fields.field("leader", json_text(fmt::format("{:x}", server.status.leader())));
      fields.field("term", json_number(server.status.raftterm()));
      fields.field("index", json_number(server.status.raftindex()));
      fields.field("applied", json_number(server.status.raftappliedindex()));
      fields.field("db_bytes", json_number(server.status.dbsize()));
      fields.field("revision", json_number(server.status.header().revision()));
      fields.field("version", json_text(server.status.version()));
    }
    servers.add(fields.object());
  }
  fmt::print("{{\"servers\":{},\"members\":{},\"reachable_members\":{},\"quorum\":{},\"has_leader\":{}}}\n",
             servers.array(), overview.voters, overview.reachable_voters,
             overview.voters > 0 && overview.reachable_voters >= overview.quorum(), overview.has_leader());
}

int run(const Arguments& arguments) {
  auto parsed = load_endpoints(arguments.common);
  if (!parsed) return report(usage_failure(parsed.error()));
  Endpoints endpoints(std::move(*parsed));
  const Overview overview = look(endpoints, arguments.common.timeout);
  if (arguments.json) {
    print_json(overview);
  } else {
    print_table(overview);
  }
  const bool any = std::ranges::any_of(overview.servers, [](const ServerStatus& server) { return server.reachable(); });
  if (!any) return kUnavailable;
  return overview.has_leader() || overview.reachable_voters < overview.voters ? kOk : kFalse;
}

}  // namespace

void add_status(CLI::App& app, int& exit_code) {
  CLI::App* verb =
      app.add_subcommand("status", "each server, and whether there is a quorum; exit code 69: none answers");
  const auto arguments = std::make_shared<Arguments>();
  add_common(*verb, arguments->common);
  add_output(*verb, arguments->json);
  verb->callback([arguments, &exit_code] { exit_code = run(*arguments); });
}

}  // namespace conclave::cli
