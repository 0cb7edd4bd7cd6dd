// `conclave lock`: takes a place in the queue, waits for its turn, then runs the command, or just holds. The lock is
// given back only when nothing of the command runs any more, and the command is ended before the lease can end.
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "cli/child.h"
#include "cli/claim.h"
#include "cli/common.h"
#include "cli/durations.h"
#include "cli/guardian.h"
#include "cli/session.h"
#include "cli/verbs.h"
#include "cli/wakeups.h"
#include "cli/watch_feed.h"

namespace conclave::cli {
namespace {

using namespace std::chrono_literals;

struct Arguments {
  Common common;
  std::string name;
  Duration ttl = 15s;
  Duration wait{-1};   // negative: for ever
  Duration grace{-1};  // negative: the default
  bool try_once = false;
  int not_acquired_code = kNotAcquired;
  std::vector<std::string> command;
};

// While it waits, a place in the queue is looked at this often even if no event says that it changed: a watch on a
// server that was cut off is silent.
constexpr Duration kLookAgain = 5s;
// How long what a command left running has to end before it is killed.
constexpr Duration kLeftoversGrace = 1s;
constexpr Duration kTtlMin = 2s;
constexpr Duration kTtlMax = 24h;

// The times that follow from the lease's end.
struct Times {
  Duration grace;   // SIGTERM so long before the end
  Duration margin;  // SIGKILL so long before the end: what two clocks may differ in one TTL, and a scheduler's delay
  Duration interval;
};

class Lock {
 public:
  Lock(const Arguments& arguments, const Times& times, std::vector<Endpoint> endpoints, const Wakeups& wakeups,
       const Guardian* guardian)
      : arguments_(arguments),
        times_(times),
        wakeups_(wakeups),
        guardian_(guardian),
        endpoints_(std::move(endpoints)),
        limit_(limit()) {}
  Lock(const Lock&) = delete;
  Lock& operator=(const Lock&) = delete;
  ~Lock() {
    endpoints_.on_loop([this] { feed_.reset(); });
  }

  int run() {
    auto opened = Session::open(endpoints_, {.ttl = arguments_.ttl, .interval = times_.interval, .timeout = timeout()},
                                [this] { wakeups_.notify(); });
    if (!opened) return report(opened.error());
    session_ = std::move(*opened);
    claim_.emplace(endpoints_, arguments_.name, session_->lease(), timeout());
    int code = kOk;
    if (const auto acquired = acquire(); !acquired) {
      code = acquired.error().code;
      if (!acquired.error().message.empty()) report(acquired.error());
    } else {
      guard_claim();
      code = arguments_.command.empty() ? hold() : run_command();
    }
    release();
    return code;
  }

 private:
  [[nodiscard]] Instant now() { return endpoints_.clock().now(); }
  [[nodiscard]] Duration timeout() const { return arguments_.common.timeout; }
  [[nodiscard]] Instant limit() {
    if (arguments_.try_once) return now();
    return arguments_.wait < Duration::zero() ? kNever : now() + arguments_.wait;
  }

  std::expected<void, Failure> acquire();
  [[nodiscard]] std::optional<Failure> wait_for(const ClaimState& state);
  std::expected<void, Failure> freshen();
  void watch(const std::string& key, int64_t from, const std::function<void()>& gone);
  void guard_claim();
  int hold();
  int run_command();
  void end_leftovers(Child& child);
  void release();

  const Arguments& arguments_;
  const Times times_;
  const Wakeups& wakeups_;
  const Guardian* guardian_;
  Endpoints endpoints_;
  const Instant limit_;
  std::unique_ptr<Session> session_;
  std::optional<Claim> claim_;
  std::atomic<bool> moved_{false};   // the predecessor is gone
  std::string watched_;              // the key that feed_ watches
  std::unique_ptr<WatchFeed> feed_;  // the loop's thread
};

void Lock::watch(const std::string& key, int64_t from, const std::function<void()>& gone) {
  etcdserverpb::WatchCreateRequest request;
  request.set_key(key);
  request.set_start_revision(from);
  request.add_filters(etcdserverpb::WatchCreateRequest::NOPUT);
  WatchFeedEvents events{.on_events = [gone](const etcdserverpb::WatchResponse&) { gone(); },
                         // Compacted meanwhile or refused: looking tells what it would have told.
                         .on_failed = [gone](const Failure&) { gone(); }};
  endpoints_.on_loop([&] { feed_ = std::make_unique<WatchFeed>(endpoints_, std::move(request), std::move(events)); });
  watched_ = key;
}

std::expected<void, Failure> Lock::acquire() {
  if (const auto entered = claim_->enter(); !entered) return entered;
  bool told = false;
  while (true) {
    const auto state = claim_->look();
    if (!state) return std::unexpected(state.error());
    if (!state->stands) {
      return std::unexpected(Failure{kUnavailable, "the session ended while it waited for the lock", ""});
    }
    if (state->holds()) return freshen();
    if (now() >= limit_) {
      return std::unexpected(Failure{static_cast<ExitCode>(arguments_.not_acquired_code),
                                     fmt::format("'{}' is held by somebody else", arguments_.name), ""});
    }
    if (!std::exchange(told, true)) narrate(fmt::format("waiting for '{}'", arguments_.name));
    if (auto given_up = wait_for(*state)) return std::unexpected(std::move(*given_up));
  }
}

// Until looking again is worth it; a failure if a signal ended the wait.
std::optional<Failure> Lock::wait_for(const ClaimState& state) {
  if (watched_ != state.predecessor) {
    moved_ = false;
    watch(state.predecessor, state.revision + 1, [this] {
      moved_ = true;
      wakeups_.notify();
    });
  }
  const Instant again = std::min(limit_, now() + kLookAgain);
  while (!moved_ && !session_->is_lost() && now() < again) {
    const Wakeup wakeup = wakeups_.wait(again);
    if (is_ending_signal(wakeup.signal)) return Failure{static_cast<ExitCode>(128 + wakeup.signal), "", ""};
  }
  if (moved_) watched_.clear();
  return {};
}

// A command is not started on a lease of which less than half is left: waits for the next keep-alive.
std::expected<void, Failure> Lock::freshen() {
  while (session_->deadline() - now() < session_->ttl() / 2) {
    if (session_->is_lost() || now() >= session_->deadline()) {
      return std::unexpected(Failure{kUnavailable, "the session ended before the lock could be used", ""});
    }
    const Wakeup wakeup = wakeups_.wait(session_->deadline());
    if (is_ending_signal(wakeup.signal)) {
      return std::unexpected(Failure{static_cast<ExitCode>(128 + wakeup.signal), "", ""});
    }
  }
  return {};
}

// Somebody may delete the claim while its lease goes on.
void Lock::guard_claim() {
  watch(claim_->key(), claim_->token() + 1, [this] { session_->lose(); });
}

int Lock::hold() {
  fmt::print("{}\n", claim_->token());
  std::fflush(stdout);
  while (!session_->is_lost() && now() < session_->deadline() - times_.margin) {
    const Wakeup wakeup = wakeups_.wait(session_->deadline() - times_.margin, true);
    if (is_ending_signal(wakeup.signal) || wakeup.input_ended) return kOk;
  }
  return report({kLost, fmt::format("'{}' is lost", arguments_.name), ""});
}

int Lock::run_command() {
  const auto started = Child::start(
      {.command = arguments_.command,
       .environment = {fmt::format("CONCLAVE_TOKEN={}", claim_->token()),
                       fmt::format("CONCLAVE_RESOURCE={}", arguments_.name),
                       fmt::format("CONCLAVE_SESSION={}", session_->lease_hex()),
                       fmt::format("CONCLAVE_DEADLINE_MS={}", to_nanoseconds(session_->deadline()) / 1'000'000)}});
  if (!started) return report({kLocalIo, started.error().message, ""});
  Child child = *started;
  bool lost = false;
  bool terminated = false;
  bool killed = false;
  Instant kill_at = kNever;
  GuardianOrder order;
  std::optional<int> code;
  while (!(code = child.ended())) {
    const Instant end = session_->deadline();
    if (session_->is_lost() && !lost) {
      lost = true;
      kill_at = std::min(end - times_.margin, now() + times_.grace);
    }
    if (!lost) kill_at = end - times_.margin;
    const Instant terminate_at = lost ? now() : end - times_.grace;
    // A little later than this process would: it is for when this one does not.
    order = {.group = child.pid(),
             .terminate_at = terminated ? kNever : terminate_at + times_.margin / 4,
             .kill_at = kill_at + times_.margin / 4};
    if (guardian_ != nullptr) guardian_->order(order);
    if (!terminated && now() >= terminate_at) {
      narrate(fmt::format("'{}' {}: the command is asked to end", arguments_.name,
                          lost ? "is lost" : "could not be renewed in time"));
      lost = terminated = true;
      child.signal(SIGTERM);
    }
    if (!killed && now() >= kill_at) {
      killed = true;
      child.signal(SIGKILL);
    }
    const Wakeup wakeup = wakeups_.wait(killed ? kNever : terminated ? kill_at : terminate_at);
    if (wakeup.signal != 0 && wakeup.signal != SIGCHLD) child.signal(wakeup.signal);
  }
  // This process was stopped, and the guardian has acted, whatever was renewed meanwhile.
  if (now() >= order.terminate_at) lost = true;
  end_leftovers(child);
  child.take_terminal_back();
  if (lost) return report({kLost, fmt::format("'{}' was lost", arguments_.name), ""});
  return *code;
}

// What the command started and left: the lock is not given back while it runs.
void Lock::end_leftovers(Child& child) {
  if (child.group_lives()) {
    child.signal(SIGTERM);
    const Instant end = std::min(now() + kLeftoversGrace, session_->deadline() - times_.margin);
    while (child.group_lives() && now() < end) {
      (void)wakeups_.wait(std::min(end, now() + 10ms));
      (void)child.ended();
    }
    child.signal(SIGKILL);
    while (child.group_lives() && now() < end + kLeftoversGrace) {
      (void)wakeups_.wait(now() + 10ms);
      (void)child.ended();
    }
  }
  if (guardian_ != nullptr) guardian_->order({});
}

void Lock::release() {
  endpoints_.on_loop([this] { feed_.reset(); });
  if (session_->is_lost()) return;
  const auto closed = session_->close();
  if (!closed) {
    narrate(fmt::format("'{}' could not be released ({}); it ends by itself in {}", arguments_.name,
                        closed.error().message, describe(std::max(Duration::zero(), session_->deadline() - now()))));
  }
}

int run(const Arguments& arguments) {
  Times times{};
  times.grace = arguments.grace < Duration::zero() ? std::min<Duration>(5s, arguments.ttl / 4) : arguments.grace;
  times.margin = std::max<Duration>(arguments.ttl / 50, 100ms);
  times.interval = (arguments.ttl - times.grace) / 3;
  if (arguments.name.empty()) return report({kUsage, "the lock's name is empty", ""});
  if (arguments.ttl < kTtlMin || arguments.ttl > kTtlMax) {
    return report({kUsage, fmt::format("--ttl must lie between {} and {}", describe(kTtlMin), describe(kTtlMax)), ""});
  }
  if (arguments.ttl <= 2 * times.grace) return report({kUsage, "--ttl must be more than twice --grace", ""});
  if (times.grace < 2 * times.margin) {
    return report({kUsage, fmt::format("--grace must be at least {}", describe(2 * times.margin)), ""});
  }
  auto endpoints = load_endpoints(arguments.common);
  if (!endpoints) return report(usage_failure(endpoints.error()));
  const Wakeups wakeups;
  std::optional<Guardian> guardian;
  if (!arguments.command.empty()) {
    auto started = Guardian::start();
    if (!started) return report({kLocalIo, started.error().message, ""});
    guardian.emplace(std::move(*started));
  }
  Lock lock(arguments, times, std::move(*endpoints), wakeups, guardian ? &*guardian : nullptr);
  return lock.run();
}

}  // namespace

void add_lock(CLI::App& app, int& exit_code) {
  CLI::App* verb = app.add_subcommand("lock", "run a command, or wait, while holding a lock");
  const auto arguments = std::make_shared<Arguments>();
  add_common(*verb, arguments->common);
  verb->add_option("NAME", arguments->name, "the lock; etcd's own clients exclude each other with the same name")
      ->required();
  add_duration(*verb, "--ttl", arguments->ttl, "how long the lock outlives a holder that is gone (default 15s)");
  CLI::Option* wait = add_duration(*verb, "--wait", arguments->wait, "give up after so long (default: never)");
  verb->add_flag("--try", arguments->try_once, "give up at once if somebody holds it")->excludes(wait);
  add_duration(*verb, "--grace", arguments->grace,
               "how long before the lease's end the command gets SIGTERM (default 5s, at most a quarter of --ttl)");
  verb->add_option("-E", arguments->not_acquired_code, "the exit code for 'not acquired' instead of 75")
      ->check(CLI::Range(0, 255));
  verb->add_option("CMD", arguments->command,
                   "after --: the command, with CONCLAVE_TOKEN, CONCLAVE_RESOURCE, CONCLAVE_SESSION and "
                   "CONCLAVE_DEADLINE_MS (CLOCK_BOOTTIME) in its environment; without one, the token is printed and "
                   "the lock held until a signal or the end of standard input");
  verb->callback([arguments, &exit_code] { exit_code = run(*arguments); });
}

}  // namespace conclave::cli
