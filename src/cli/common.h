// What every verb that asks a server understands: --endpoints, --timeout, --cacert, --cert, --key; what most verbs
// have, -o; and durations as flags.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "cli/endpoints.h"
#include "cli/failure.h"

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace conclave::cli {

struct Common {
  std::string endpoints = "127.0.0.1:2379";
  Duration timeout = std::chrono::seconds(5);
  net::TlsFiles tls{};
};

void add_common(CLI::App& verb, Common& common);
[[nodiscard]] inline Result<std::vector<Endpoint>> load_endpoints(const Common& common) {
  return load_endpoints(common.endpoints, common.tls);
}
// -o, --output: a table for people or JSON for programs.
void add_output(CLI::App& verb, bool& json);
// A flag that takes a duration; the target's value is the default.
CLI::Option* add_duration(CLI::App& verb, const std::string& name, Duration& target, const std::string& text);

}  // namespace conclave::cli
