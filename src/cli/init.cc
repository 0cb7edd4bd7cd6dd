// `conclave init`: begins a new cluster of the servers that were started with --join. Once; asked again it says so.
#include <memory>
#include <string>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "cli/common.h"
#include "cli/json.h"
#include "cli/verbs.h"
#include "conclave/v1/cluster.pb.h"

namespace conclave::cli {
namespace {

struct Arguments {
  Common common{.timeout = std::chrono::seconds(30)};
  bool json = false;
};

int run(const Arguments& arguments) {
  auto parsed = load_endpoints(arguments.common);
  if (!parsed) return report(usage_failure(parsed.error()));
  Endpoints endpoints(std::move(*parsed));
  // Asked again of a cluster that has begun it answers the same.
  const auto answer = endpoints.ask<conclave::v1::InitResponse>(
      "/conclave.v1.Cluster/Init", conclave::v1::InitRequest(), Repeat::kHarmless, arguments.common.timeout);
  if (!answer) return report(answer.error());
  if (arguments.json) {
    fmt::print("{{\"cluster\":\"{:x}\",\"already\":{}}}\n", answer->cluster_id(), answer->already());
  } else {
    fmt::print("cluster {:x} {}\n", answer->cluster_id(), answer->already() ? "had begun already" : "has begun");
  }
  return kOk;
}

}  // namespace

void add_init(CLI::App& app, int& exit_code) {
  CLI::App* verb = app.add_subcommand("init", "begin a new cluster of running, empty servers; once");
  const auto arguments = std::make_shared<Arguments>();
  add_common(*verb, arguments->common);
  add_output(*verb, arguments->json);
  verb->callback([arguments, &exit_code] { exit_code = run(*arguments); });
}

}  // namespace conclave::cli
