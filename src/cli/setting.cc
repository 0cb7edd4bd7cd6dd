// `conclave settings`: how the cluster is set; `conclave setting NAME VALUE`: sets it, in the log, for all servers.
#include <memory>
#include <string>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "cli/common.h"
#include "cli/json.h"
#include "cli/table.h"
#include "cli/verbs.h"
#include "conclave/v1/cluster.pb.h"

namespace conclave::cli {
namespace {

struct Arguments {
  Common common;
  std::string value;  // to be set
  uint64_t bytes = 0;
  bool json = false;
};

// In the largest unit it is a whole number of.
std::string size_text(uint64_t bytes) {
  constexpr std::string_view kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  size_t unit = 0;
  while (unit + 1 < std::size(kUnits) && bytes % 1024 == 0 && bytes > 0) {
    bytes /= 1024;
    ++unit;
  }
  return fmt::format("{}{}", bytes, kUnits[unit]);
}

void print(const v1::Settings& settings, bool json) {
  const bool on = settings.clock_lease_reads();
  if (json) {
    JsonList fields;
    fields.field("clock_lease_reads", on ? "true" : "false");
    fields.field("quota_bytes", json_number(settings.quota_bytes()));
    fmt::print("{}\n", fields.object());
    return;
  }
  Table table({"SETTING", "VALUE", "MEANING"});
  table.add({"clock-lease-reads", on ? "on" : "off",
             on ? "reads rest on the leader's clock lease" : "each read is proven by a round of heartbeats"});
  table.add({"quota", settings.quota_bytes() == 0 ? "off" : size_text(settings.quota_bytes()),
             "of what lives; a put beyond it is refused"});
  fmt::print("{}", table.text());
}

template <class Request>
int ask(const Arguments& arguments, const char* path, const Request& request) {
  auto parsed = load_endpoints(arguments.common);
  if (!parsed) return report(usage_failure(parsed.error()));
  Endpoints endpoints(std::move(*parsed));
  // Set twice it is the same.
  const auto answer = endpoints.ask<v1::SettingsResponse>(path, request, Repeat::kHarmless, arguments.common.timeout);
  if (!answer) return report(answer.error());
  print(answer->settings(), arguments.json);
  return kOk;
}

void add_shared(CLI::App& verb, const std::shared_ptr<Arguments>& arguments) {
  add_common(verb, arguments->common);
  add_output(verb, arguments->json);
}

}  // namespace

void add_setting(CLI::App& app, int& exit_code) {
  const auto arguments = std::make_shared<Arguments>();
  CLI::App* look = app.add_subcommand("settings", "how the cluster is set");
  add_shared(*look, arguments);
  look->callback([arguments, &exit_code] {
    exit_code = ask(*arguments, "/conclave.v1.Cluster/GetSettings", v1::GetSettingsRequest());
  });
  CLI::App* setting = app.add_subcommand("setting", "set something for the whole cluster");
  setting->require_subcommand(1);
  CLI::App* verb = setting->add_subcommand(
      "clock-lease-reads",
      "reads without a round to the other servers; rests on clocks that are within 1 % of true rate");
  add_shared(*verb, arguments);
  verb->add_option("VALUE", arguments->value, "on or off")->required()->check(CLI::IsMember({"on", "off"}));
  verb->callback([arguments, &exit_code] {
    v1::ChangeSettingsRequest request;
    request.mutable_settings()->set_clock_lease_reads(arguments->value == "on");
    exit_code = ask(*arguments, "/conclave.v1.Cluster/ChangeSettings", request);
  });
  CLI::App* quota = setting->add_subcommand("quota", "memory on a server for the keys and values that live");
  add_shared(*quota, arguments);
  quota->add_option("SIZE", arguments->bytes, "such as 4GiB; 0 for none")
      ->required()
      ->transform(CLI::AsSizeValue(false));
  quota->callback([arguments, &exit_code] {
    v1::ChangeSettingsRequest request;
    request.mutable_settings()->set_quota_bytes(arguments->bytes);
    exit_code = ask(*arguments, "/conclave.v1.Cluster/ChangeSettings", request);
  });
}

}  // namespace conclave::cli
