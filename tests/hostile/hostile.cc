// One side of hostile.py: who attacks a server, what stands in for the server where only the attacker's CPU time is
// wanted, and the client that has to be served meanwhile.
//
//   hostile attack KIND PORT SECONDS [--burn CPU_SECONDS]   prints what it did, in one line of JSON
//   hostile sink                                   takes connections and all they bring; prints its port
//   hostile fill PORT MIB                          keys to be ranged over
//   hostile probe PORT SECONDS [TLS FILES]         gets and a put in ten, one at a time; p50 and p99, in JSON
//
// An attack is frames by hand over many sockets: each connection sends how it begins and then the same piece over and
// over, at a rate for all together that does not depend on who is at the other end.
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <ctime>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "base/assert.h"
#include "env/posix/clock.h"
#include "etcd/rpc.pb.h"
#include "net/client.h"
#include "net/testing/http2_frames.h"
#include "tests/hostile/answers.h"

namespace conclave::hostile {
namespace {

using namespace std::chrono_literals;
using namespace net;  // frames

constexpr std::string_view kPutPath = "/etcdserverpb.KV/Put";
constexpr std::string_view kRangePath = "/etcdserverpb.KV/Range";
constexpr std::string_view kTxnPath = "/etcdserverpb.KV/Txn";
constexpr std::string_view kWatchPath = "/etcdserverpb.Watch/Watch";
constexpr size_t kFrameBytes = 16'000;
// Over and above the rate: connections that the server ended are made again no faster.
constexpr double kReconnectsPerSecond = 200;
// Sent and not taken: more would only measure this side's memory.
constexpr size_t kUnsentBytesMax = size_t{256} << 10;
// Looks at the clock of the process before the sockets are looked at again: about a millisecond.
constexpr int kBurnSteps = 3000;
// Of a client that is not let in.
constexpr Duration kPatience = 10s;
constexpr uint32_t kResourceExhausted = 8;  // of gRPC
constexpr Duration kPause = 20ms;

struct Attack {
  std::string_view name;
  size_t connections;
  double pieces_per_second;  // of all connections together
  bool reads;
  std::function<std::string(size_t connection)> begin;
  std::function<std::string(size_t connection, uint32_t piece)> piece;
  bool is_answered = false;  // each piece is a call: with which status they ended is told
};

std::string hello(std::string_view settings = {}) {
  return std::string(kPreface) + frame(kSettings, 0, 0, settings);
}
// SETTINGS_INITIAL_WINDOW_SIZE of zero: nothing that is answered may be sent.
constexpr std::string_view kShutWindow("\0\4\0\0\0\0", 6);

std::string data(uint32_t stream, std::string_view body, bool ends) {
  std::string out;
  for (size_t at = 0; at < body.size(); at += kFrameBytes) {
    const bool is_last = at + kFrameBytes >= body.size();
    out += frame(kData, ends && is_last ? kEndStream : uint8_t{0}, stream, body.substr(at, kFrameBytes));
  }
  return out;
}
std::string call(uint32_t piece, std::string_view path, std::string_view request, bool ends = true) {
  const uint32_t stream = 2 * piece + 1;
  return frame(kHeaders, kEndHeaders, stream, request_headers(path)) + data(stream, message(request), ends);
}

std::string range_of_everything() {
  etcdserverpb::RangeRequest request;
  request.set_key(std::string(1, '\0'));
  request.set_range_end(std::string(1, '\0'));
  return request.SerializeAsString();
}
std::string watch_of_everything() {
  etcdserverpb::WatchRequest request;
  request.mutable_create_request()->set_key(std::string(1, '\0'));
  request.mutable_create_request()->set_range_end(std::string(1, '\0'));
  return request.SerializeAsString();
}
std::string put(size_t key, size_t bytes) {
  etcdserverpb::PutRequest request;
  request.set_key(fmt::format("hostile/{:06}", key));
  request.set_value(std::string(bytes, 'v'));
  return request.SerializeAsString();
}

// A field of protobuf that is bytes.
std::string field(uint32_t number, std::string_view bytes) {
  std::string out(1, static_cast<char>(number << 3 | 2));
  size_t size = bytes.size();
  for (; size >= 128; size >>= 7) out.push_back(static_cast<char>(size | 128));
  out.push_back(static_cast<char>(size));
  return out.append(bytes);
}
// TxnRequest.success, RequestOp.request_txn and so on.
std::string nested_transaction(size_t depth) {
  std::string inner;
  for (size_t i = 0; i < depth; ++i) inner = field(2, field(4, inner));
  return inner;
}

std::vector<Attack> attacks() {
  const auto plainly = [](size_t) { return hello(); };
  // Settings that change each time, so that there is something to do.
  const auto settings = [](size_t, uint32_t piece) {
    std::string entry("\0\4\0\1\0\0", 6);
    entry.back() = static_cast<char>(piece);
    return frame(kSettings, 0, 0, entry);
  };
  const std::string continued = hpack({{"x", std::string(1000, 'y')}});
  return {
      {"rapid_reset", 8, 20'000, true, plainly,
       [](size_t, uint32_t piece) {
         return frame(kHeaders, kEndHeaders, 2 * piece + 1, request_headers(kPutPath)) +
                frame(kReset, 0, 2 * piece + 1, be32(8));
       }},
      {"continuation", 8, 20'000, true,
       [](size_t) { return hello() + frame(kHeaders, 0, 1, request_headers(kPutPath)); },
       [continued](size_t, uint32_t) { return frame(kContinuation, 0, 1, continued); }},
      {"settings", 8, 50'000, true, plainly, settings},
      {"ping", 8, 50'000, true, plainly, [](size_t, uint32_t) { return frame(kPing, 0, 0, "12345678"); }},
      {"window_update", 8, 50'000, true, plainly, [](size_t, uint32_t) { return frame(kWindowUpdate, 0, 0, be32(1)); }},
      {"unknown_frames", 8, 50'000, true, plainly,
       [](size_t, uint32_t) { return frame(static_cast<FrameType>(0xfa), 0, 0, "none"); }},
      // A byte of one header a second.
      {"slow_headers", 1000, 1000, true,
       [](size_t) {
         return hello() + frame(kHeaders, 0, 1, request_headers(kPutPath)) +
                frame(kContinuation, 0, 1, std::string("\0\1x\x7f\xff\x07", 6));
       },
       [](size_t, uint32_t) { return frame(kContinuation, 0, 1, "y"); }},
      // The beginning of a ClientHello of 512 bytes, and never its end.
      {"handshakes", 10'000, 1, true,
       [](size_t) { return std::string("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11) + std::string(100, 'r'); },
       [](size_t, uint32_t) { return std::string(); }},
      // A message of 4 GiB is announced, and comes.
      {"lengths", 8, 1000, true, plainly,
       [](size_t, uint32_t piece) {
         const uint32_t stream = 2 * piece + 1;
         return frame(kHeaders, kEndHeaders, stream, request_headers(kPutPath)) +
                frame(kData, 0, stream, std::string("\0\xff\xff\xff\xff", 5) + std::string(4000, 'l'));
       },
       true},
      {"ranges", 8, 40, false, [](size_t) { return hello(kShutWindow); },
       [](size_t, uint32_t piece) { return call(piece, kRangePath, range_of_everything()); }},
      // As deep as protobuf takes them, and far beyond.
      {"transactions", 8, 500, true, plainly,
       [](size_t, uint32_t piece) { return call(piece, kTxnPath, nested_transaction(piece % 2 == 0 ? 40 : 2000)); },
       true},
      // The first connection writes, all others watch what it writes and take nothing.
      {"watchers", 200, 40'000, false,
       [](size_t connection) {
         if (connection == 0) return hello() + frame(kWindowUpdate, 0, 0, be32(0x7fff0000));
         return hello(kShutWindow) + call(0, kWatchPath, watch_of_everything(), false);
       },
       [](size_t connection, uint32_t piece) {
         return connection == 0 ? call(piece, kPutPath, put(piece % 16, 4000)) : std::string();
       }},
  };
}

double cpu_seconds() {
  timespec time{};
  ASSERT(::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time) == 0);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) / 1e9;
}

sockaddr_in loopback(uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

void raise_descriptors() {
  rlimit limit{};
  ASSERT(::getrlimit(RLIMIT_NOFILE, &limit) == 0);
  limit.rlim_cur = limit.rlim_max;
  ASSERT(::setrlimit(RLIMIT_NOFILE, &limit) == 0);
}

class Attacker {
 public:
  Attacker(const Attack& attack, uint16_t port) : attack_(attack), port_(port), links_(attack.connections) {
    ASSERT(poll_ >= 0);
  }
  Attacker(const Attacker&) = delete;
  Attacker& operator=(const Attacker&) = delete;
  ~Attacker() {
    for (Link& link : links_) close(link);
    ::close(poll_);
  }

  // `burn`: CPU time to be used, with nothing if there is nothing to do, evenly over the run.
  void run(double seconds, double burn) {
    const Instant begin = clock_.now();
    double connects = 0;  // as many as are due
    double pieces = 0;
    Instant last = begin;
    // Everybody is there within a second.
    const double first_rate = static_cast<double>(links_.size());
    for (Instant now = begin;
         now < begin + std::chrono::duration_cast<Duration>(std::chrono::duration<double>(seconds));
         now = clock_.now()) {
      const double passed = std::chrono::duration<double>(now - last).count();
      last = now;
      connects += passed * (connects_ < links_.size() ? std::max(first_rate, 50.0) : kReconnectsPerSecond);
      pieces += passed * attack_.pieces_per_second;
      connects = std::min(connects, 200.0);
      pieces = std::min(pieces, attack_.pieces_per_second / 10 + 1);
      for (size_t tries = 0; connects >= 1 && tries < links_.size(); ++tries) {
        Link& link = links_[connect_next_++ % links_.size()];
        if (link.socket >= 0) continue;
        open(link, static_cast<size_t>(&link - links_.data()));
        connects -= 1;
      }
      for (; pieces >= 1; pieces -= 1) {
        const size_t which = piece_next_++ % links_.size();
        Link& link = links_[which];
        if (link.socket < 0 || link.unsent.size() > kUnsentBytesMax) continue;
        link.unsent += attack_.piece(which, link.pieces++);
        if (link.unsent.size() > 8000) write(link);
      }
      for (Link& link : links_) {
        if (!link.unsent.empty()) write(link);
      }
      poll();
      const double done = std::chrono::duration<double>(clock_.now() - begin).count() / seconds;
      for (int i = 0; i < kBurnSteps && cpu_seconds() < burn * std::min(done, 1.0); ++i) {
      }
    }
    std::string statuses;
    for (const auto& [status, count] : statuses_) {
      statuses += fmt::format("{}\"{}\":{}", statuses.empty() ? "" : ",", status, count);
    }
    fmt::print(
        "{{\"connects\":{},\"ended_by_server\":{},\"sent\":{},\"received\":{},\"statuses\":{{{}}},\"cpu_s\":{:.3f}}}\n",
        connects_, ended_, sent_, received_, statuses, cpu_seconds());
  }

 private:
  struct Link {
    int socket = -1;
    uint32_t pieces = 0;
    std::string unsent;
    std::unique_ptr<Answers> answers;
  };

  void open(Link& link, size_t which) {
    link.socket = ::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (link.socket < 0) return;
    const sockaddr_in address = loopback(port_);
    const int failed = ::connect(link.socket, reinterpret_cast<const sockaddr*>(&address), sizeof(address));
    if (failed != 0 && errno != EINPROGRESS) return close(link);
    epoll_event event{.events = (attack_.reads ? EPOLLIN : 0U) | EPOLLRDHUP, .data = {.u64 = which}};
    ASSERT(::epoll_ctl(poll_, EPOLL_CTL_ADD, link.socket, &event) == 0);
    ++connects_;
    link.pieces = 1;
    link.unsent = attack_.begin(which);
    if (attack_.is_answered) link.answers = std::make_unique<Answers>();
  }
  static void close(Link& link) {
    if (link.socket >= 0) ::close(link.socket);
    link.socket = -1;
    link.unsent.clear();
  }
  void end(Link& link) {
    ++ended_;
    close(link);
  }
  void write(Link& link) {
    const ssize_t taken = ::send(link.socket, link.unsent.data(), link.unsent.size(), MSG_NOSIGNAL);
    if (taken < 0) {
      if (errno != EAGAIN && errno != EINTR && errno != ENOTCONN) end(link);
      return;
    }
    sent_ += static_cast<size_t>(taken);
    link.unsent.erase(0, static_cast<size_t>(taken));
  }
  void poll() {
    std::array<epoll_event, 256> events;
    const int count = ::epoll_wait(poll_, events.data(), static_cast<int>(events.size()), 5);
    for (int i = 0; i < count; ++i) {
      Link& link = links_[events[static_cast<size_t>(i)].data.u64];
      if (link.socket < 0) continue;
      std::array<char, 16'384> bytes;
      const ssize_t got = attack_.reads ? ::recv(link.socket, bytes.data(), bytes.size(), 0) : 0;
      if (got > 0) {
        received_ += static_cast<size_t>(got);
        if (link.answers != nullptr) link.answers->hear({bytes.data(), static_cast<size_t>(got)}, statuses_);
      } else if (got == 0 || (errno != EAGAIN && errno != EINTR)) {
        end(link);
      }
    }
  }

  const Attack& attack_;
  const uint16_t port_;
  env::PosixClock clock_;
  std::vector<Link> links_;
  const int poll_ = ::epoll_create1(EPOLL_CLOEXEC);
  size_t connect_next_ = 0;
  size_t piece_next_ = 0;
  size_t connects_ = 0;
  size_t ended_ = 0;
  size_t sent_ = 0;
  size_t received_ = 0;
  Statuses statuses_;
};

// Until it is killed.
[[noreturn]] void sink() {
  const int listener = ::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  sockaddr_in address = loopback(0);
  socklen_t size = sizeof(address);
  ASSERT(::bind(listener, reinterpret_cast<const sockaddr*>(&address), size) == 0 && ::listen(listener, 4096) == 0);
  ASSERT(::getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size) == 0);
  fmt::print("{}\n", ntohs(address.sin_port));
  std::fflush(stdout);
  const int poll = ::epoll_create1(EPOLL_CLOEXEC);
  epoll_event event{.events = EPOLLIN, .data = {.fd = listener}};
  ASSERT(::epoll_ctl(poll, EPOLL_CTL_ADD, listener, &event) == 0);
  std::vector<char> bytes(size_t{64} << 10);
  for (;;) {
    std::array<epoll_event, 256> events;
    const int count = ::epoll_wait(poll, events.data(), static_cast<int>(events.size()), -1);
    for (int i = 0; i < count; ++i) {
      const int which = events[static_cast<size_t>(i)].data.fd;
      if (which == listener) {
        const int taken = ::accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (taken < 0) continue;
        event = {.events = EPOLLIN, .data = {.fd = taken}};
        ASSERT(::epoll_ctl(poll, EPOLL_CTL_ADD, taken, &event) == 0);
        continue;
      }
      const ssize_t got = ::recv(which, bytes.data(), bytes.size(), 0);
      if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) ::close(which);
    }
  }
}

// Calls one after the other; each begins from its answer.
class Client {
 public:
  explicit Client(uint16_t port, const TlsFiles& files) {
    std::shared_ptr<const TlsContext> tls;
    if (!files.ca.empty()) {
      auto loaded = TlsContext::load(TlsRole::kClient, files, {std::string(kChannelProtocol)});
      ASSERT(loaded.has_value());
      tls = *loaded;
    }
    channel_ = Channel::make(loop_, "127.0.0.1", port, tls);
  }

  // The n-th call's path and request; an empty path: that was all.
  using Next = std::function<std::pair<std::string_view, std::string>(size_t number)>;
  // False: a call failed.
  bool run(const Next& next) {
    next_ = next;
    loop_.post([this] { ask(); });
    loop_.run();
    return failure_.empty();
  }
  [[nodiscard]] const std::string& failure() const { return failure_; }
  [[nodiscard]] double percentile(double part) {
    ASSERT(!microseconds_.empty());
    std::sort(microseconds_.begin(), microseconds_.end());
    return microseconds_[static_cast<size_t>(part * static_cast<double>(microseconds_.size() - 1))];
  }
  // The calls so far; the time of the last.
  double forget() {
    const double last = microseconds_.back();
    microseconds_.clear();
    return last;
  }
  [[nodiscard]] size_t calls() const { return microseconds_.size(); }
  [[nodiscard]] size_t refused() const { return refused_; }
  [[nodiscard]] Instant now() { return clock_.now(); }

 private:
  void ask() {
    auto [path, request] = next_(microseconds_.size());
    if (path.empty()) return loop_.stop();
    call(path, request, clock_.now());
  }
  void call(std::string_view path, const std::string& request, Instant begin) {
    channel_->call(path, request, 10s, [this, path, request, begin](const GrpcStatus& status, ByteView) {
      // Not let in yet, or told that the server is overloaded: as any client would, it comes again, and the time
      // counts.
      const bool overloaded = status.code == kResourceExhausted;
      if (!status.ok() && (microseconds_.empty() || overloaded) && clock_.now() < begin + kPatience) {
        refused_ += overloaded ? 1 : 0;
        loop_.call_at(loop_.now() + kPause, [this, path, request, begin] { call(path, request, begin); });
        return;
      }
      microseconds_.push_back(std::chrono::duration<double, std::micro>(clock_.now() - begin).count());
      if (!status.ok()) {
        failure_ = fmt::format("{} {}", status.code, status.message);
        return loop_.stop();
      }
      ask();
    });
  }

  env::PosixClock clock_;
  Loop loop_{clock_};
  std::unique_ptr<Channel> channel_;
  Next next_;
  std::vector<double> microseconds_;
  size_t refused_ = 0;
  std::string failure_;
};

int fill(uint16_t port, size_t mebibytes) {
  constexpr size_t kValueBytes = size_t{64} << 10;
  Client client(port, {});
  const bool done = client.run([&](size_t number) -> std::pair<std::string_view, std::string> {
    if (number == mebibytes * (size_t{1} << 20) / kValueBytes) return {};
    return {kPutPath, put(number, kValueBytes)};
  });
  if (!done) fmt::print(stderr, "fill: {}\n", client.failure());
  return done ? 0 : 1;
}

int probe(uint16_t port, double seconds, const TlsFiles& files) {
  Client client(port, files);
  etcdserverpb::RangeRequest get;
  get.set_key("probe");
  const std::string get_request = get.SerializeAsString();
  etcdserverpb::PutRequest written;
  written.set_key("probe");
  written.set_value(std::string(100, 'p'));
  const std::string put_request = written.SerializeAsString();
  // The first call is the making of the connection, with what it takes to be let in: told apart.
  const Duration measured = std::chrono::duration_cast<Duration>(std::chrono::duration<double>(seconds));
  Instant end = kNever;
  double connect_us = 0;
  const bool done = client.run([&](size_t number) -> std::pair<std::string_view, std::string> {
    if (number == 1 && end == kNever) {
      connect_us = client.forget();
      end = client.now() + measured;
    }
    if (client.now() >= end) return {};
    if (number % 10 == 0) return {kPutPath, put_request};
    return {kRangePath, get_request};
  });
  if (!done) {
    fmt::print(stderr, "probe: {}\n", client.failure());
    return 1;
  }
  fmt::print("{{\"calls\":{},\"refused\":{},\"connect_us\":{:.1f},\"p50_us\":{:.1f},\"p99_us\":{:.1f}}}\n",
             client.calls(), client.refused(), connect_us, client.percentile(0.5), client.percentile(0.99));
  return 0;
}

int run(int argc, char** argv) {
  CLI::App app("Attackers and who has to be served meanwhile: see hostile.py.");
  app.require_subcommand(1);
  std::string kind;
  uint16_t port = 0;
  double seconds = 1;
  double burn = 0;
  size_t mebibytes = 1;
  TlsFiles files;
  CLI::App* const attacking = app.add_subcommand("attack");
  attacking->add_option("kind", kind)->required();
  attacking->add_option("port", port)->required();
  attacking->add_option("seconds", seconds)->required();
  attacking->add_option("--burn", burn);
  CLI::App* const sinking = app.add_subcommand("sink");
  CLI::App* const filling = app.add_subcommand("fill");
  filling->add_option("port", port)->required();
  filling->add_option("mebibytes", mebibytes)->required();
  CLI::App* const probing = app.add_subcommand("probe");
  probing->add_option("port", port)->required();
  probing->add_option("seconds", seconds)->required();
  probing->add_option("--cacert", files.ca);
  probing->add_option("--cert", files.certificate);
  probing->add_option("--key", files.key);
  CLI11_PARSE(app, argc, argv);

  raise_descriptors();
  if (sinking->parsed()) sink();
  if (filling->parsed()) return fill(port, mebibytes);
  if (probing->parsed()) return probe(port, seconds, files);
  const std::vector<Attack> known = attacks();
  const auto found =
      std::find_if(known.begin(), known.end(), [&](const Attack& attack) { return attack.name == kind; });
  if (found == known.end()) {
    fmt::print(stderr, "no attack of the name {}\n", kind);
    return 2;
  }
  Attacker(*found, port).run(seconds, burn);
  return 0;
}

}  // namespace
}  // namespace conclave::hostile

int main(int argc, char** argv) {
  return conclave::hostile::run(argc, argv);
}
