#include "cli/common.h"

#include <CLI/CLI.hpp>

#include "cli/durations.h"

namespace conclave::cli {

CLI::Option* add_duration(CLI::App& verb, const std::string& name, Duration& target, const std::string& text) {
  return verb
      .add_option_function<std::string>(
          name,
          [name, &target](const std::string& value) {
            const auto parsed = parse_duration(value);
            if (!parsed) throw CLI::ValidationError(name, parsed.error().message);
            target = *parsed;
          },
          text)
      ->type_name("DURATION");
}

void add_common(CLI::App& verb, Common& common) {
  verb.add_option_function<std::string>(
          "--endpoints",
          [&common](const std::string& value) {
            const auto parsed = parse_endpoints(value);
            if (!parsed) throw CLI::ValidationError("--endpoints", parsed.error().message);
            common.endpoints = value;
          },
          "servers to ask, HOST:PORT,https://HOST:PORT (default 127.0.0.1:2379)")
      ->envname("CONCLAVE_ENDPOINTS")
      ->type_name("LIST");
  add_duration(verb, "--timeout", common.timeout, "how long one request may take (default 5s)");
  verb.add_option("--cacert", common.tls.ca, "TLS: the CA of the servers (default the system's)")
      ->envname("CONCLAVE_CACERT")
      ->type_name("FILE");
  verb.add_option("--cert", common.tls.certificate, "TLS: the certificate to show")
      ->envname("CONCLAVE_CERT")
      ->type_name("FILE");
  verb.add_option("--key", common.tls.key, "TLS: its key")->envname("CONCLAVE_KEY")->type_name("FILE");
}

void add_output(CLI::App& verb, bool& json) {
  verb.add_option_function<std::string>(
          "-o,--output", [&json](const std::string& output) { json = output == "json"; }, "table or json")
      ->check(CLI::IsMember({"table", "json"}));
}

}  // namespace conclave::cli
