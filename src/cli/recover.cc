// `conclave recover plan DIR...` and `conclave recover apply`: when the servers that are left are no quorum and the
// others will not come back. Offline; the old directories are only read.
#include <memory>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "cli/common.h"
#include "cli/failure.h"
#include "cli/json.h"
#include "cli/table.h"
#include "cli/verbs.h"
#include "server/recover.h"

namespace conclave::cli {
namespace {

struct PlanArguments {
  std::vector<std::string> directories;
  bool json = false;
};

int fail_with(const Error& error) {
  ExitCode code = kLocalIo;
  if (error.code == ErrorCode::kInvalidArgument) code = kUsage;
  if (error.code == ErrorCode::kNotFound || error.code == ErrorCode::kMalformed ||
      error.code == ErrorCode::kUnreadable) {
    code = kFalse;
  }
  return report(Failure{.code = code, .message = error.message});
}

// How far what it holds is to be believed.
std::string worth_of(const server::Survivor& survivor) {
  return survivor.has_diverged() ? "diverged" : std::string(to_string(survivor.certainty));
}

std::string verdict(const server::RecoverPlan& plan) {
  const server::Survivor& best = plan.survivors.front();
  if (plan.complete) {
    return fmt::format(
        "{} of {} voters are here, a quorum: nothing that was acknowledged is missing in {}. If these servers can run, "
        "start them instead: they need no recovery",
        plan.here, plan.members, best.directory);
  }
  return fmt::format(
      "{} of {} voters are here, no quorum: what the others acknowledged without these, after entry {}, is lost. The "
      "most advanced is {}",
      plan.here, plan.members, best.readable, best.directory);
}

void print_table(const server::RecoverPlan& plan) {
  Table table({"DIRECTORY", "NAME", "CLUSTER", "CERTAINTY", ">TERM", ">LAST", ">OF TERM", ">READABLE", ">COMMITTED"});
  for (const server::Survivor& each : plan.survivors) {
    table.add({each.directory, each.identity.name, fmt::format("{:x}", each.identity.cluster.value()), worth_of(each),
               fmt::format("{}", each.term), fmt::format("{}", each.last.index), fmt::format("{}", each.last.term),
               fmt::format("{}", each.readable), fmt::format("{}", each.commit)});
  }
  fmt::print("{}\n{}\n", table.text(), verdict(plan));
  fmt::print(
      "\nto go on, on each server of the new cluster, with a copy of that directory:\n"
      "  conclave recover apply --from {} --data NEW-DIRECTORY --name NAME --join NAME=HOST:PORT,...\n",
      plan.survivors.front().directory);
}

void print_json(const server::RecoverPlan& plan) {
  JsonList survivors;
  for (const server::Survivor& each : plan.survivors) {
    JsonList fields;
    fields.field("directory", json_text(each.directory));
    fields.field("name", json_text(each.identity.name));
    fields.field("cluster", json_text(fmt::format("{:x}", each.identity.cluster.value())));
    fields.field("certainty", json_text(worth_of(each)));
    fields.field("term", json_number(each.term));
    fields.field("last", json_number(each.last.index));
    fields.field("last_term", json_number(each.last.term));
    fields.field("readable", json_number(each.readable));
    fields.field("committed", json_number(each.commit));
    survivors.add(fields.object());
  }
  JsonList fields;
  fields.field("survivors", survivors.array());
  fields.field("voters", fmt::format("{}", plan.members));
  fields.field("here", fmt::format("{}", plan.here));
  fields.field("complete", plan.complete ? "true" : "false");
  fmt::print("{}\n", fields.object());
}

int run_plan(const PlanArguments& arguments) {
  std::vector<server::Survivor> survivors;
  for (const std::string& directory : arguments.directories) {
    auto survivor = server::look_at(directory);
    if (!survivor) return fail_with(survivor.error());
    survivors.push_back(std::move(*survivor));
  }
  const auto plan = server::plan_recovery(std::move(survivors));
  if (!plan) return fail_with(plan.error());
  if (arguments.json) {
    print_json(*plan);
  } else {
    print_table(*plan);
  }
  return kOk;
}

int run_apply(const server::RecoverOptions& options) {
  const auto outcome = server::recover(options);
  if (!outcome) return fail_with(outcome.error());
  fmt::print(
      "{}: server '{}' of the new cluster {:x}, with the state after entry {}; revisions went up to {} and go on after "
      "{}, what was before is compacted\n",
      options.data, options.name, outcome->cluster.value(), outcome->index, outcome->revision_before,
      outcome->revision);
  narrate("make the other servers' directories from the same one, then start them all with the same --join");
  return kOk;
}

}  // namespace

void add_recover(CLI::App& app, int& exit_code) {
  CLI::App* recover = app.add_subcommand("recover", "a new cluster from what is left of one that lost its quorum");
  recover->require_subcommand(1);

  CLI::App* plan = recover->add_subcommand("plan", "say which data directory is the most advanced, and what is lost");
  const auto plan_arguments = std::make_shared<PlanArguments>();
  plan->add_option("directories", plan_arguments->directories, "data directories that survived")->required();
  add_output(*plan, plan_arguments->json);
  plan->callback([plan_arguments, &exit_code] { exit_code = run_plan(*plan_arguments); });

  CLI::App* apply = recover->add_subcommand("apply", "make the data directory of one server of a new cluster");
  const auto options = std::make_shared<server::RecoverOptions>();
  apply->add_option("--from", options->from, "the directory that `recover plan` named; only read")->required();
  apply->add_option("--data", options->data, "the new directory; must not exist, or be empty")->required();
  apply->add_option("--name", options->name, "of the server that it will be")->required();
  apply->add_option("--join", options->join, "the new cluster's servers, NAME=HOST:PORT,...: the same for all of them")
      ->required();
  apply->callback([options, &exit_code] { exit_code = run_apply(*options); });
}

}  // namespace conclave::cli
