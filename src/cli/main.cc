// The `conclave` binary: parses the command line and hands over to the verb.
#include <CLI/CLI.hpp>

#include "cli/verbs.h"

int main(int argc, char** argv) {
  CLI::App app("Conclave: locks, elections, groups and work distribution over a replicated log.", "conclave");
  app.require_subcommand(1);
  int exit_code = conclave::cli::kOk;
  conclave::cli::add_start(app, exit_code);
  conclave::cli::add_init(app, exit_code);
  conclave::cli::add_status(app, exit_code);
  conclave::cli::add_member(app, exit_code);
  conclave::cli::add_leader(app, exit_code);
  conclave::cli::add_setting(app, exit_code);
  conclave::cli::add_lock(app, exit_code);
  conclave::cli::add_kv(app, exit_code);
  conclave::cli::add_bench(app, exit_code);
  conclave::cli::add_cert(app, exit_code);
  conclave::cli::add_inspect(app, exit_code);
  conclave::cli::add_recover(app, exit_code);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    const int code = app.exit(error);
    return code == 0 ? 0 : conclave::cli::kUsage;
  }
  return exit_code;
}
