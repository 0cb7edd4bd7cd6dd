// `conclave start`: a server of a cluster, in this process, until it is told to end; `conclave config show`: with what.
#include <pthread.h>
#include <csignal>
#include <cstdio>
#include <thread>

#include <CLI/CLI.hpp>

#include "cli/common.h"
#include "cli/config.h"
#include "cli/durations.h"
#include "cli/json.h"
#include "cli/table.h"
#include "cli/verbs.h"
#include "server/client_urls.h"
#include "server/identity.h"
#include "server/log.h"
#include "server/server.h"

namespace conclave::cli {
namespace {

struct StartOptions {
  server::ServerOptions server;
  std::string client_listen = "127.0.0.1:2379";
  std::string peer_listen = "127.0.0.1:2380";
  std::string log_format = "text";
  std::string log_level = "info";
  uint64_t snapshot_log_mib = 64;
  uint64_t history_mib = server.history.bytes_max >> 20;
};

int code_of(const Error& error) {
  return error.code == ErrorCode::kInvalidArgument ? kUsage : kLocalIo;
}

int report(const Error& error) {
  std::fputs(fmt::format("conclave: cannot start: {}\n", error.message).c_str(), stderr);
  return code_of(error);
}

server::LogLevel level_of(const StartOptions& options) {
  return options.log_level == "info"      ? server::LogLevel::kInfo
         : options.log_level == "warning" ? server::LogLevel::kWarning
                                          : server::LogLevel::kError;
}

// What the server is started with. kInvalidArgument for what no flag's own check sees.
Result<server::ServerOptions> server_options(const StartOptions& options) {
  server::ServerOptions server = options.server;
  ASSIGN_OR_RETURN(server.client_listen, server::parse_address(options.client_listen));
  ASSIGN_OR_RETURN(server.peer_listen, server::parse_address(options.peer_listen));
  RETURN_IF_ERROR(server::parse_client_urls(server.client_advertise));
  RETURN_IF_ERROR(server::parse_join(server.join));
  server.snapshot_log_bytes = options.snapshot_log_mib << 20;
  server.history.bytes_max = options.history_mib == 0 ? UINT64_MAX : options.history_mib << 20;
  if (server.history.age_max == Duration::zero()) server.history.age_max = Duration::max();
  return server;
}

void add_options(CLI::App& verb, StartOptions& options);

// The command line as it was, with the environment and the file of now.
class Configuration {
 public:
  Configuration(std::vector<Given> given, std::vector<Setting> settings)
      : given_(std::move(given)), settings_(std::move(settings)) {}

  // All or nothing: a file of which one line is wrong changes nothing.
  void reload(server::Server& server) const {
    StartOptions options;
    CLI::App again;
    add_options(again, options);
    std::vector<Setting> settings;
    try {
      give(again, given_);
      settings = settle(again, own_environment);
    } catch (const CLI::ParseError& error) {
      return refuse(error.what());
    }
    if (const auto checked = server_options(options); !checked) return refuse(checked.error().message);
    server::Reload reload{.log_level = level_of(options)};
    // What is set is compared with the start, not with the last time: that is what the process still has.
    for (size_t i = 0; i < settings.size(); ++i) {
      const bool is_taken = settings[i].name == "log_level";
      if (!is_taken && settings[i].value != settings_[i].value) reload.for_next_start.push_back(settings[i].name);
    }
    server.reload(reload);
  }

 private:
  static void refuse(const std::string& why) {
    server::log_error("reload_refused", "reload refused, what was loaded stays", {{"error", why}});
  }

  std::vector<Given> given_;
  std::vector<Setting> settings_;  // of the start
};

// TERM, INT and HUP are taken by a thread of their own: a handler could do almost nothing. It ends with the process.
void take_signals(server::Server& server, const Configuration& configuration, const sigset_t& signals) {
  std::thread([&server, configuration, signals]() noexcept {
    while (true) {
      int signal = 0;
      if (sigwait(&signals, &signal) != 0) continue;
      if (signal == SIGHUP) {
        configuration.reload(server);
      } else {
        server.stop();
      }
    }
  }).detach();
}

int run(const StartOptions& options, const Configuration& configuration) {
  const auto wanted = server_options(options);
  if (!wanted) return report(wanted.error());

  // Before any thread is made: all inherit the mask.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGHUP);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::signal(SIGPIPE, SIG_IGN);

  server::set_log(options.log_format == "json" ? server::LogFormat::kJson : server::LogFormat::kText,
                  level_of(options));

  auto server = server::Server::start(*wanted);
  if (!server) return report(server.error());
  const server::ReadyInfo info = (*server)->info();
  if (info.alone) {
    std::fputs("conclave: a single-node cluster: it tolerates no failure. For several servers see --join.\n", stderr);
  }
  fmt::print("ready client={}:{} peer={}:{} name={} cluster={:016x}\n", info.client.host, info.client.port,
             info.peer.host, info.peer.port, info.name, info.cluster.value());
  std::fflush(stdout);
  take_signals(**server, configuration, signals);
  (*server)->run();
  // The thread that waits for signals still refers to it.
  [[maybe_unused]] const server::Server* kept = server->release();
  return kOk;
}

// Each under the same name in the environment and in a file: cli/config.h.
void add_options(CLI::App& verb, StartOptions& options) {
  server::ServerOptions& server = options.server;
  const auto text = [&verb](const std::string& flag, std::string& value, const char* meaning,
                            const char* type = "TEXT") {
    CLI::Option* option = verb.add_option(flag, value, meaning)->type_name(type);
    if (!value.empty()) option->capture_default_str();
    return option;
  };
  const auto duration = [&verb](const std::string& flag, Duration& value, const char* meaning) {
    add_duration(verb, flag, value, meaning)->default_str(flag_text(value));
  };
  text("--name", server.name, "this server's name in --join");
  text("--join", server.join, "every server of the cluster: NAME=HOST:PORT,...; the same line on each", "LIST");
  text("--cluster", server.cluster,
       "an empty directory joins this running cluster, to which the server was added (conclave member add)");
  text("--data", server.data, "directory", "DIR");
  text("--client-listen", options.client_listen, "port 0 takes a free one", "HOST:PORT");
  text("--client-advertise", server.client_advertise,
       "where clients are told to reach this server, if not at --client-listen: http://HOST:PORT,...", "URL,...");
  text("--peer-listen", options.peer_listen, "with --join, what that says of --name", "HOST:PORT");
  verb.add_option("--snapshot-log-mib", options.snapshot_log_mib, "log behind a snapshot before the next is taken")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  duration("--history-age", server.history.age_max, "replaced and deleted values are kept no longer; 0s: for ever");
  verb.add_option("--history-mib", options.history_mib, "nor more of them than this many MiB; 0: no bound")
      ->check(CLI::Range(0, 1 << 20))
      ->capture_default_str();
  text("--client-cert", server.client_tls.certificate,
       "TLS for clients: certificate and chain, PEM; SIGHUP reads it and all these files again", "FILE");
  text("--client-key", server.client_tls.key, "its key", "FILE");
  text("--client-ca", server.client_tls.ca, "clients must show a certificate of this CA", "FILE");
  text("--peer-cert", server.peer_tls.certificate,
       "TLS between servers, both ways: a certificate that names this member (conclave cert issue --peer)", "FILE");
  text("--peer-key", server.peer_tls.key, "its key", "FILE");
  text("--peer-ca", server.peer_tls.ca, "the CA of all servers", "FILE");
  text("--etcd-version", server.etcd_version, "what clients of etcd are told they talk to");
  text("--log-format", options.log_format, "of the lines on stderr: text or json")
      ->check(CLI::IsMember({"text", "json"}));
  text("--log-level", options.log_level, "the least that is told: info, warning or error; SIGHUP reads it again")
      ->check(CLI::IsMember({"info", "warning", "error"}));
  // Under etcd's names, with its defaults.
  duration("--grpc-keepalive-min-time", server.keep_alive.min_time, "clients that ping more often are sent away");
  duration("--grpc-keepalive-interval", server.keep_alive.interval,
           "a client that was silent for so long with calls open is pinged; 0s: never");
  duration("--grpc-keepalive-timeout", server.keep_alive.timeout,
           "and its connection closed, with no answer for so long");
  verb.add_flag("--insecure-plaintext", server.insecure_plaintext,
                "listen beyond loopback without TLS: anybody who reaches the port may read and write everything");
  add_config(verb);
}

struct ShowOptions {
  StartOptions start;
  bool effective = false;
  bool json = false;
};

std::string_view to_string(Source source) {
  switch (source) {
    case Source::kDefault:
      return "default";
    case Source::kFile:
      return "file";
    case Source::kEnvironment:
      return "environment";
    case Source::kFlag:
      return "flag";
  }
  return "unknown";
}

void print(const std::vector<Setting>& settings, const ShowOptions& options) {
  Table table({"NAME", "VALUE", "FROM"});
  JsonList list;
  for (const Setting& setting : settings) {
    if (setting.source == Source::kDefault && !options.effective) continue;
    table.add({setting.name, setting.value, setting.where});
    JsonList fields;
    fields.field("name", json_text(setting.name));
    fields.field("value", json_text(setting.value));
    fields.field("from", json_text(to_string(setting.source)));
    fields.field("where", json_text(setting.where));
    list.add(fields.object());
  }
  fmt::print("{}", options.json ? list.array() + "\n" : table.text());
}

}  // namespace

void add_start(CLI::App& app, int& exit_code) {
  const auto options = std::make_shared<StartOptions>();
  CLI::App* start = app.add_subcommand("start", "a server of a cluster; without --join, a cluster of its own");
  add_options(*start, *options);
  start->callback([start, options, &exit_code] {
    std::vector<Given> said = given(*start);
    const Configuration configuration(std::move(said), settle(*start, own_environment));
    exit_code = run(*options, configuration);
  });

  CLI::App* config = app.add_subcommand("config", "how a server would be set");
  config->require_subcommand(1);
  const auto shown = std::make_shared<ShowOptions>();
  CLI::App* show = config->add_subcommand("show", "what `conclave start` with the same flags would take");
  add_options(*show, shown->start);
  show->add_flag("--effective", shown->effective, "values left at their default too");
  add_output(*show, shown->json);
  show->callback([show, shown, &exit_code] {
    print(settle(*show, own_environment), *shown);
    exit_code = kOk;
  });
}

}  // namespace conclave::cli
