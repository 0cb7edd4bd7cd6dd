// `conclave start`: a server of a cluster, in this process, until it is told to end.
#include <pthread.h>
#include <csignal>
#include <cstdio>
#include <thread>

#include <CLI/CLI.hpp>

#include "cli/verbs.h"
#include "server/server.h"

namespace conclave::cli {
namespace {

struct StartOptions {
  server::ServerOptions server;
  std::string client_listen = "127.0.0.1:2379";
  std::string peer_listen = "127.0.0.1:2380";
  uint64_t snapshot_log_mib = 64;
};

int code_of(const Error& error) {
  return error.code == ErrorCode::kInvalidArgument ? kUsage : kLocalIo;
}

int report(const Error& error) {
  std::fputs(fmt::format("conclave: cannot start: {}\n", error.message).c_str(), stderr);
  return code_of(error);
}

// TERM, INT and HUP are taken by a thread of their own: a handler could do almost nothing. It ends with the process.
void take_signals(server::Server& server, const sigset_t& signals) {
  std::thread([&server, signals]() noexcept {
    while (true) {
      int signal = 0;
      if (sigwait(&signals, &signal) != 0) continue;
      if (signal == SIGHUP) {
        server.reload();
      } else {
        server.stop();
      }
    }
  }).detach();
}

int run(StartOptions options) {
  auto client = server::parse_address(options.client_listen);
  if (!client) return report(client.error());
  auto peer = server::parse_address(options.peer_listen);
  if (!peer) return report(peer.error());
  options.server.client_listen = *client;
  options.server.peer_listen = *peer;
  options.server.snapshot_log_bytes = options.snapshot_log_mib << 20;

  // Before any thread is made: all inherit the mask.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGHUP);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::signal(SIGPIPE, SIG_IGN);

  auto server = server::Server::start(options.server);
  if (!server) return report(server.error());
  const server::ReadyInfo info = (*server)->info();
  if (info.alone) {
    std::fputs("conclave: a single-node cluster: it tolerates no failure. For several servers see --join.\n", stderr);
  }
  fmt::print("ready client={}:{} peer={}:{} name={} cluster={:016x}\n", info.client.host, info.client.port,
             info.peer.host, info.peer.port, info.name, info.cluster.value());
  std::fflush(stdout);
  take_signals(**server, signals);
  (*server)->run();
  // The thread that waits for signals still refers to it.
  [[maybe_unused]] const server::Server* kept = server->release();
  return kOk;
}

}  // namespace

void add_start(CLI::App& app, int& exit_code) {
  auto options = std::make_shared<StartOptions>();
  CLI::App* start = app.add_subcommand("start", "a server of a cluster; without --join, a cluster of its own");
  start->add_option("--name", options->server.name, "this server's name in --join")->envname("CONCLAVE_NAME");
  start
      ->add_option("--join", options->server.join,
                   "every server of the cluster: NAME=HOST:PORT,...; the same line on each")
      ->envname("CONCLAVE_JOIN");
  start
      ->add_option("--cluster", options->server.cluster,
                   "an empty directory joins this running cluster, to which the server was added (conclave member add)")
      ->envname("CONCLAVE_CLUSTER");
  start->add_option("--data", options->server.data, "directory")->envname("CONCLAVE_DATA");
  start->add_option("--client-listen", options->client_listen, "HOST:PORT; port 0 takes a free one")
      ->envname("CONCLAVE_CLIENT_LISTEN");
  start->add_option("--peer-listen", options->peer_listen, "HOST:PORT; with --join, what that says of --name")
      ->envname("CONCLAVE_PEER_LISTEN");
  start->add_option("--snapshot-log-mib", options->snapshot_log_mib, "log behind a snapshot before the next is taken")
      ->envname("CONCLAVE_SNAPSHOT_LOG_MIB")
      ->check(CLI::Range(1, 1 << 20));
  const auto file = [start](const std::string& flag, std::string& path, const char* variable, const char* text) {
    start->add_option(flag, path, text)->envname(variable)->type_name("FILE");
  };
  file("--client-cert", options->server.client_tls.certificate, "CONCLAVE_CLIENT_CERT",
       "TLS for clients: certificate and chain, PEM; SIGHUP reads it and all these files again");
  file("--client-key", options->server.client_tls.key, "CONCLAVE_CLIENT_KEY", "its key");
  file("--client-ca", options->server.client_tls.ca, "CONCLAVE_CLIENT_CA",
       "clients must show a certificate of this CA");
  file("--peer-cert", options->server.peer_tls.certificate, "CONCLAVE_PEER_CERT",
       "TLS between servers, both ways: a certificate that names this member (conclave cert issue --peer)");
  file("--peer-key", options->server.peer_tls.key, "CONCLAVE_PEER_KEY", "its key");
  file("--peer-ca", options->server.peer_tls.ca, "CONCLAVE_PEER_CA", "the CA of all servers");
  start
      ->add_option("--etcd-version", options->server.etcd_version,
                   "what clients of etcd are told they talk to (default 3.6.0)")
      ->envname("CONCLAVE_ETCD_VERSION");
  start->add_flag("--insecure-plaintext", options->server.insecure_plaintext,
                  "listen beyond loopback without TLS: anybody who reaches the port may read and write everything");
  start->callback([options, &exit_code] { exit_code = run(*options); });
}

}  // namespace conclave::cli
