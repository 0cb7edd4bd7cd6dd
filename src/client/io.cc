#include "client/io.h"

#include <csignal>
#include <utility>

#include "base/assert.h"
#include "env/posix/random.h"

namespace conclave::client {

Io::Io(const std::vector<net::Endpoint>& endpoints, Duration request_timeout, uint64_t seed)
    : request_timeout_(request_timeout),
      sessions_(loop_, endpoints, seed),
      calls_(loop_, endpoints),
      // A turn is all that is wanted: what is due is looked at, at its end.
      alarm_(loop_, [] {}) {
  loop_.add_turn_end([this](Instant now) { turn_end(now); });
  loop_.set_deadline([this] { return sessions_.next_deadline(); });
}

Io::~Io() = default;

std::shared_ptr<Io> Io::start(const std::vector<net::Endpoint>& endpoints, Duration request_timeout) {
  env::PosixRandom random;
  std::shared_ptr<Io> io(new Io(endpoints, request_timeout, random.next()));
  // Signals are for the program's own threads.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, &before);
  io->thread_ = std::thread([io]() noexcept { io->loop_.run(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  io->thread_id_ = io->thread_.get_id();
  return io;
}

void Io::turn_end(Instant now) {
  sessions_.tick(now);
  const Instant next = sessions_.next_deadline();
  // What is due at once needs no waking.
  if (next > now) alarm_.set(next);
}

void Io::post(std::move_only_function<void(Io&)> work) {
  const std::lock_guard lock(mutex_);
  if (closed_) return;
  loop_.post([this, work = std::move(work)]() mutable { work(*this); });
}

Error Io::on_client_thread() {
  return {ErrorKind::kRejected, "ON_CLIENT_THREAD", "a call that waits was made on the client's own thread"};
}

void Io::close() {
  {
    const std::lock_guard lock(mutex_);
    if (std::exchange(closed_, true)) return;
    loop_.post([this] {
      sessions_.shut();
      calls_.shut();
      loop_.stop();
    });
  }
  if (is_own_thread()) {
    thread_.detach();
  } else {
    thread_.join();
  }
}

}  // namespace conclave::client
