// The public face of a client, and the loop of an election.
#include "conclave/client.h"

#include <algorithm>
#include <condition_variable>
#include <utility>

#include <fmt/format.h>

#include "base/bytes.h"
#include "client/io.h"
#include "client/session_handle.h"
#include "client/unary.h"
#include "conclave/v1/election.pb.h"
#include "conclave/v1/lock.pb.h"
#include "env/posix/clock.h"
#include "env/posix/random.h"
#include "net/endpoint.h"

namespace conclave::client {
namespace {

using namespace std::chrono_literals;

constexpr size_t kSecretBytes = 32;
constexpr std::chrono::milliseconds kTtlMin = 1s;
constexpr std::chrono::milliseconds kTtlMax = 24h * 30;
// After a campaign that could not be made: the cluster is away or busy.
constexpr std::chrono::milliseconds kElectPauseFirst = 100ms;
constexpr std::chrono::milliseconds kElectPauseMax = 5s;

std::string random_secret(env::Random& random) {
  std::string secret(kSecretBytes, '\0');
  for (size_t at = 0; at < secret.size(); at += sizeof(uint64_t)) store_le(&secret[at], random.next());
  return secret;
}

// False: stopped first.
bool pause(const std::stop_token& stop, std::chrono::milliseconds length) {
  std::mutex mutex;
  std::condition_variable_any over;
  std::unique_lock lock(mutex);
  (void)over.wait_for(lock, stop, length, [] { return false; });
  return !stop.stop_requested();
}

}  // namespace

BootClock::time_point BootClock::now() noexcept {
  static env::PosixClock clock;
  return time_point(clock.now().time_since_epoch());
}

std::expected<Client, Error> Client::open(const ClientOptions& options) {
  const auto endpoints = net::load_endpoints(
      options.endpoints, {.certificate = options.certificate, .key = options.key, .ca = options.ca});
  if (!endpoints) return std::unexpected(Error{ErrorKind::kRejected, "INVALID_OPTIONS", endpoints.error().message});
  if (options.request_timeout <= 0ms) {
    return std::unexpected(Error{ErrorKind::kRejected, "INVALID_OPTIONS", "request_timeout must be more than nothing"});
  }
  return Client(Io::start(*endpoints, bounded(options.request_timeout)));
}

Client::Client(std::shared_ptr<Io> io) : io_(std::move(io)) {}

Client::Client(Client&& other) noexcept = default;

Client::~Client() {
  if (io_) io_->close();
}

std::expected<Session, Error> Client::open_session(SessionOptions options) {
  if (options.ttl < kTtlMin || options.ttl > kTtlMax || options.jeopardy_max < 0ms) {
    return std::unexpected(
        Error{ErrorKind::kRejected, "INVALID_TTL", "a TTL is a second at least and 30 days at most"});
  }
  env::PosixRandom random;
  SessionCoreOptions core{.id = static_cast<int64_t>(random.next() >> 1 | 1),
                          .secret = random_secret(random),
                          .ttl = options.ttl,
                          .description = options.description,
                          .jeopardy_max = bounded(options.jeopardy_max)};
  const auto handle =
      std::make_shared<SessionHandle>(SessionHandle{.io = io_, .id = core.id, .view = std::make_shared<SessionView>()});
  auto opened = io_->ask<void>([core = std::move(core), options = std::move(options), view = handle->view](
                                   Io& io, Promise<void> promise) mutable {
    io.sessions().open(
        std::move(core), options, std::move(view), io.request_timeout(),
        [promise = std::move(promise)](std::expected<void, Error> became) mutable { promise.give(std::move(became)); });
  });
  if (!opened) return std::unexpected(std::move(opened).error());
  return Session(handle);
}

Kv Client::kv() {
  return Kv(io_);
}

std::expected<void, Error> Client::elect(const std::string& name, const std::string& value, const ElectOptions& options,
                                         const std::function<Next(Term& term)>& body) {
  const auto stopped = [] {
    return std::unexpected(Error{ErrorKind::kCancelled, "CANCELLED", "the election was left by its caller"});
  };
  std::optional<Session> session;
  std::chrono::milliseconds length = kElectPauseFirst;
  while (!options.stop.stop_requested()) {
    std::optional<Error> failure;
    if (!session) {
      auto opened = open_session(options.session);
      if (opened) {
        session.emplace(std::move(*opened));
      } else {
        failure = std::move(opened).error();
      }
    }
    if (session) {
      auto term = session->campaign(name, value, {.priority = options.priority, .cancel = options.stop});
      if (term) {
        length = kElectPauseFirst;
        const Next next = body(*term);
        (void)term->resign();
        if (next == Next::kEnd) return {};
        continue;
      }
      failure = std::move(term).error();
      if (failure->kind == ErrorKind::kLost || failure->kind == ErrorKind::kOutcomeUnknown) session.reset();
    }
    if (failure->kind == ErrorKind::kRejected || failure->reason == "CLIENT_CLOSED") {
      return std::unexpected(std::move(*failure));
    }
    if (failure->kind == ErrorKind::kCancelled) break;
    if (options.on_error) options.on_error(*failure);
    if (!pause(options.stop, length)) break;
    length = std::min(2 * length, kElectPauseMax);
  }
  return stopped();
}

std::expected<Leader, Error> Client::leader(const std::string& name) {
  v1::GetLeader request;
  request.set_name(name);
  auto leadership = ask_unary<v1::Leadership>(*io_, "/conclave.v1.Elections/Leader", request, Calls::Repeat::kHarmless);
  if (!leadership) return std::unexpected(std::move(leadership).error());
  return Leader{.name = name,
                .token = leadership->token(),
                .value = leadership->value(),
                .lease = leadership->lease(),
                .revision = leadership->mod_revision()};
}

std::expected<bool, Error> Client::owns(const std::string& name, int64_t token) {
  v1::ValidateLock request;
  request.set_name(name);
  request.set_token(token);
  const auto validity =
      ask_unary<v1::LockValidity>(*io_, "/conclave.v1.Locks/Validate", request, Calls::Repeat::kHarmless);
  if (!validity) return std::unexpected(validity.error());
  return validity->valid();
}

}  // namespace conclave::client
