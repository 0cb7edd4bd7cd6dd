// The verbs of the command line, a file each. Each adds itself to the application; what it does runs in its callback,
// and what it found out is the process's exit code.
#pragma once

namespace CLI {
class App;
}

namespace conclave::cli {

// Of docs/design: what a script can tell apart.
enum ExitCode : int {
  kOk = 0,
  kFalse = 1,  // not found, or damaged
  kUsage = 64,
  kInternal = 70,
  kLocalIo = 74,
};

// `conclave inspect wal|snapshot PATH [-o table|json]`: what stands in the files, offline.
void add_inspect(CLI::App& app, int& exit_code);

}  // namespace conclave::cli
