// What an idle connection costs a real server in memory: each speaks TLS (with a certificate of its own, without one,
// or not at all, to tell the parts apart), holds one watch of a key that nobody writes, and stays. Resident memory of
// the server's process, grown from one such connection to all of them.
#include <poll.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <array>
#include <charconv>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "base/assert.h"
#include "bench/loopback.h"
#include "etcd/rpc.pb.h"
#include "net/certificates.h"

namespace conclave::bench {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;

constexpr std::string_view kWatchPath = "/etcdserverpb.Watch/Watch";
constexpr std::string_view kPutPath = "/etcdserverpb.KV/Put";
// Handshakes under way: a server closes the oldest beyond a thousand.
constexpr size_t kOpeningMax = 100;
constexpr Duration kPatience = 300s;
// For what the server frees a little later.
constexpr Duration kSettling = 2s;

[[noreturn]] void give_up(const std::string& what) {
  fmt::print(stderr, "bench_connections: {}\n", what);
  std::_Exit(1);
}

// Goes with its contents.
class Directory {
 public:
  Directory() {
    std::string name = (fs::temp_directory_path() / "conclave_connections_XXXXXX").string();
    ASSERT(::mkdtemp(name.data()) != nullptr);
    path_ = name;
  }
  Directory(const Directory&) = delete;
  Directory& operator=(const Directory&) = delete;
  ~Directory() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  std::string write(const std::string& name, const std::string& text) {
    const std::string path = (path_ / name).string();
    std::ofstream(path) << text;
    ASSERT(::chmod(path.c_str(), 0600) == 0);
    return path;
  }
  [[nodiscard]] std::string path(const std::string& name) const { return (path_ / name).string(); }

 private:
  fs::path path_;
};

struct Certificates {
  net::TlsFiles server;
  net::TlsFiles client;
};

Certificates issue(Directory& directory) {
  const int64_t now = std::time(nullptr);
  const net::Validity validity{.from = now - 3600, .until = now + 3600};
  const auto authority = net::make_authority("bench", validity);
  ASSERT(authority.has_value());
  const auto server = net::issue_certificate(
      *authority,
      {.name = "server", .use = net::CertificateUse::kServer, .hosts = {"127.0.0.1"}, .validity = validity});
  const auto client = net::issue_certificate(
      *authority, {.name = "client", .use = net::CertificateUse::kClient, .hosts = {}, .validity = validity});
  ASSERT(server.has_value() && client.has_value());
  const std::string ca = directory.write("ca.pem", authority->certificate);
  return {.server = {.certificate = directory.write("server.pem", server->certificate),
                     .key = directory.write("server.key", server->key),
                     .ca = ca},
          .client = {.certificate = directory.write("client.pem", client->certificate),
                     .key = directory.write("client.key", client->key),
                     .ca = ca}};
}

// `conclave start`, alone, with a directory of its own. Ends with this.
class Conclave {
 public:
  Conclave(const std::string& binary, const Directory& directory, const net::TlsFiles* tls)
      : process_([&](int to_parent) { execute(binary, directory, tls, to_parent); }) {
    read_port(process_.from());
  }
  [[nodiscard]] uint16_t port() const { return port_; }
  [[nodiscard]] double resident_kib() const {
    std::ifstream status(fmt::format("/proc/{}/status", process_.pid()));
    for (std::string line; std::getline(status, line);) {
      if (line.starts_with("VmRSS:")) return std::strtod(line.c_str() + 6, nullptr);
    }
    give_up("the server has ended");
  }

 private:
  [[noreturn]] static void execute(const std::string& binary, const Directory& directory, const net::TlsFiles* tls,
                                   int to_parent) {
    std::vector<std::string> words = {
        binary,        "start",         "--data",     directory.path("data"), "--client-listen",
        "127.0.0.1:0", "--peer-listen", "127.0.0.1:0"};
    if (tls != nullptr) {
      words.insert(words.end(), {"--client-cert", tls->certificate, "--client-key", tls->key});
      if (!tls->ca.empty()) words.insert(words.end(), {"--client-ca", tls->ca});
    }
    ::dup2(to_parent, STDOUT_FILENO);
    const int log = ::open(directory.path("log").c_str(), O_WRONLY | O_CREAT, 0600);
    ::dup2(log, STDERR_FILENO);
    std::vector<char*> arguments;
    arguments.reserve(words.size() + 1);
    for (std::string& word : words) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    ::execv(binary.c_str(), arguments.data());
    std::_Exit(127);
  }
  // "ready client=HOST:PORT ...", its first line.
  void read_port(int from) {
    std::string line;
    while (line.find('\n') == std::string::npos) {
      pollfd waiting{.fd = from, .events = POLLIN, .revents = 0};
      std::array<char, 256> piece;
      if (::poll(&waiting, 1, 30'000) != 1) give_up("the server does not become ready");
      const ssize_t got = ::read(from, piece.data(), piece.size());
      if (got <= 0) give_up("the server does not start");
      line.append(piece.data(), static_cast<size_t>(got));
    }
    const size_t at = line.find("client=127.0.0.1:");
    ASSERT(at != std::string::npos);
    const char* const digits = line.data() + at + std::string_view("client=127.0.0.1:").size();
    std::from_chars(digits, line.data() + line.size(), port_);
    ASSERT(port_ != 0);
  }

  ServerProcess process_;
  uint16_t port_ = 0;
};

class Watchers {
 public:
  Watchers(net::Loop& loop, uint16_t port, std::shared_ptr<const net::TlsContext> tls)
      : loop_(loop), port_(port), tls_(std::move(tls)) {}

  // A server that has just begun refuses calls for some milliseconds.
  void await_server() {
    const std::unique_ptr<net::Channel> channel = net::Channel::make(loop_, "127.0.0.1", port_, tls_);
    const net::TimerId limit = loop_.call_at(loop_.now() + 30s, [] { give_up("the server does not serve"); });
    std::function<void()> ask = [&] {
      etcdserverpb::PutRequest request;
      request.set_key("first");
      channel->call(kPutPath, request.SerializeAsString(), 5s, [&](const net::GrpcStatus& status, ByteView) {
        if (status.ok()) return loop_.stop();
        loop_.call_at(loop_.now() + 20ms, [&] { ask(); });
      });
    };
    loop_.post([&] { ask(); });
    loop_.run();
    loop_.cancel(limit);
  }

  // Until so many stand; then for a little while more.
  void grow(size_t count) {
    goal_ = count;
    const net::TimerId limit = loop_.call_at(
        loop_.now() + kPatience, [this] { give_up(fmt::format("{} of {} connections stand", standing_, goal_)); });
    loop_.post([this] { open_more(); });
    loop_.run();
    loop_.cancel(limit);
    loop_.call_at(loop_.now() + kSettling, [this] { loop_.stop(); });
    loop_.run();
  }

  // A put to the last one's key: it must hear of it, or nothing was measured.
  void check() {
    etcdserverpb::PutRequest request;
    request.set_key(key(all_.size() - 1));
    checking_ = true;
    const net::TimerId limit = loop_.call_at(loop_.now() + 30s, [] { give_up("a watcher does not hear of a put"); });
    all_.front()->channel->call(kPutPath, request.SerializeAsString(), 30s,
                                [](const net::GrpcStatus& status, ByteView) {
                                  if (!status.ok()) give_up("put: " + status.message);
                                });
    loop_.run();
    loop_.cancel(limit);
  }

 private:
  struct Watcher {
    std::unique_ptr<net::Channel> channel;
    std::unique_ptr<net::ClientCall> watch;
  };

  static std::string key(size_t number) { return fmt::format("idle/{:06}", number); }

  void open_more() {
    while (all_.size() < goal_ && all_.size() - standing_ < kOpeningMax) open();
  }

  void open() {
    const size_t number = all_.size();
    Watcher& watcher = *all_.emplace_back(std::make_unique<Watcher>());
    watcher.channel = net::Channel::make(loop_, "127.0.0.1", port_, tls_);
    etcdserverpb::WatchRequest request;
    request.mutable_create_request()->set_key(key(number));
    watcher.watch = watcher.channel->open(
        kWatchPath,
        {.on_message = [this, number](ByteView message) { on_message(number, message); },
         .on_finished = [](const net::GrpcStatus& status) { give_up("a watch has ended: " + status.message); }});
    watcher.watch->send(request.SerializeAsString());
  }

  void on_message(size_t number, ByteView message) {
    etcdserverpb::WatchResponse response;
    ASSERT(response.ParseFromString(std::string(message)));
    if (response.created()) {
      ++standing_;
      open_more();
      if (standing_ == goal_) loop_.stop();
    } else if (checking_ && number + 1 == all_.size() && response.events_size() == 1) {
      loop_.stop();
    }
  }

  net::Loop& loop_;
  const uint16_t port_;
  const std::shared_ptr<const net::TlsContext> tls_;
  std::vector<std::unique_ptr<Watcher>> all_;
  size_t standing_ = 0;
  size_t goal_ = 0;
  bool checking_ = false;
};

enum class Security : uint8_t { kPlain, kTls, kMutual };

double measure(const std::string& binary, size_t connections, Security security) {
  Directory directory;
  Certificates certificates = issue(directory);
  if (security == Security::kTls) {
    certificates.server.ca.clear();
    certificates.client.certificate.clear();
    certificates.client.key.clear();
  }
  const bool with_tls = security != Security::kPlain;
  const Conclave server(binary, directory, with_tls ? &certificates.server : nullptr);
  std::shared_ptr<const net::TlsContext> tls;
  if (with_tls) {
    auto loaded =
        net::TlsContext::load(net::TlsRole::kClient, certificates.client, {std::string(net::kChannelProtocol)});
    ASSERT(loaded.has_value());
    tls = *loaded;
  }
  env::PosixClock clock;
  net::Loop loop(clock);
  Watchers watchers(loop, server.port(), tls);
  watchers.await_server();
  watchers.grow(1);
  const double before = server.resident_kib();
  watchers.grow(connections);
  const double each = (server.resident_kib() - before) / static_cast<double>(connections - 1);
  watchers.check();
  fmt::print("{:>12} {:>12} {:>14.0f} {:>14.0f} {:>16.1f}\n", connections,
             with_tls ? (security == Security::kMutual ? "mutual TLS" : "TLS") : "plain", before / 1024,
             server.resident_kib() / 1024, each);
  return each;
}

int run(int argc, char** argv) {
  CLI::App app("Memory of idle connections with a watch each at a real server.");
  bool json = false;
  size_t connections = 10'000;
  std::string binary = (fs::read_symlink("/proc/self/exe").parent_path() / "conclave").string();
  app.add_flag("--json", json, "figures as one line of JSON at the end");
  app.add_option("--connections", connections)->check(CLI::Range(100, 90'000))->capture_default_str();
  app.add_option("--conclave", binary, "the binary of the server");
  CLI11_PARSE(app, argc, argv);

  // Inherited by the server.
  rlimit limit{};
  ASSERT(::getrlimit(RLIMIT_NOFILE, &limit) == 0);
  limit.rlim_cur = limit.rlim_max;
  ASSERT(::setrlimit(RLIMIT_NOFILE, &limit) == 0);
  // What the server keeps back beside connections.
  if (limit.rlim_cur < connections + 512) {
    give_up(fmt::format("{} descriptors are too few for {} connections", limit.rlim_cur, connections));
  }

  fmt::print("{:>12} {:>12} {:>14} {:>14} {:>16}\n", "connections", "", "MiB before", "MiB after", "KiB each");
  const double tls = measure(binary, connections, Security::kTls);
  const double mutual = measure(binary, connections, Security::kMutual);
  const double plain = measure(binary, connections, Security::kPlain);
  if (json) {
    fmt::print(
        "{{\"connections\":{},\"kib_each_tls\":{:.1f},\"kib_each_mutual_tls\":{:.1f},\"kib_each_plain\":{:.1f}}}\n",
        connections, tls, mutual, plain);
  }
  return 0;
}

}  // namespace
}  // namespace conclave::bench

int main(int argc, char** argv) {
  return conclave::bench::run(argc, argv);
}
