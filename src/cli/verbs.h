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
  kUnavailable = 69,  // no server could do it, and it was not done
  kInternal = 70,
  kLocalIo = 74,
  kNotAcquired = 75,  // somebody else held it for as long as we were to wait
  kLost = 76,         // held, and lost while the command ran
  kPermission = 77,
  kOutcomeUnknown = 79,  // it may have been done
};

// `conclave inspect wal|snapshot PATH [-o table|json]`: what stands in the files, offline.
void add_inspect(CLI::App& app, int& exit_code);
// `conclave recover plan|apply`: a new cluster from what is left of one that lost its quorum, offline.
void add_recover(CLI::App& app, int& exit_code);
// `conclave kv put|get|del|ls|watch`: keys and values.
void add_kv(CLI::App& app, int& exit_code);
// `conclave lock NAME [-- CMD ...]`: a command, or this process, runs while it holds the lock.
void add_lock(CLI::App& app, int& exit_code);
// `conclave status`: each server, and whether there is a quorum.
void add_status(CLI::App& app, int& exit_code);
// `conclave start`: a server of a cluster, in this process; `conclave config show`: with what.
void add_start(CLI::App& app, int& exit_code);
// `conclave init`: begins a new cluster of running, empty servers.
void add_init(CLI::App& app, int& exit_code);
// `conclave member ls|add|rm|promote|replace`: who is in the cluster.
void add_member(CLI::App& app, int& exit_code);
// `conclave leader transfer`: who leads it.
void add_leader(CLI::App& app, int& exit_code);
// `conclave settings`, `conclave setting clock-lease-reads on|off`: how the cluster is set.
void add_setting(CLI::App& app, int& exit_code);
// `conclave cert init|issue`: a CA and certificates, as files.
void add_cert(CLI::App& app, int& exit_code);
// `conclave bench kv|lock|locks|watch|failover`: loads that measure a cluster.
void add_bench(CLI::App& app, int& exit_code);

}  // namespace conclave::cli
