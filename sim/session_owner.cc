#include "sim/session_owner.h"

#include <algorithm>
#include <cstdio>

#include "sim/node_cluster.h"

namespace conclave::sim {
namespace {

using client::AcquireOptions;
using client::Outcome;
using client::SessionState;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr Duration kThinkMean = milliseconds(200);
constexpr Duration kHoldMean = milliseconds(250);
constexpr size_t kOperationsMax = 5;
constexpr size_t kBurst = 70;
// A closed session says so to some server; for so long, if there is none.
constexpr Duration kLinger = seconds(3);

}  // namespace

std::string SessionScene::draw_lock() {
  const uint64_t draw = random.below(16);
  if (draw == 0) return draw_election();
  if (draw < 3) return "lock0/1";
  if (draw < 8) return fmt::format("mutex{}", random.below(knobs.locks));
  return fmt::format("lock{}", random.below(knobs.locks));
}

std::string SessionScene::draw_election() {
  return fmt::format("election{}", random.below(knobs.elections));
}

void SessionScene::say(const std::string& what) const {
  if (!NodeServer::is_verbose()) return;
  const int64_t at = (world.now() - Scheduler::kStart).count() / 1000;
  std::fputs(fmt::format("{:>12} {}\n", at, what).c_str(), stderr);
}

SessionOwner::SessionOwner(SessionScene& scene, Process& process, Random random)
    : scene_(scene),
      process_(process),
      random_(random),
      core_({.id = static_cast<int64_t>(random_.below(INT64_MAX - 1) + 1),
             .secret = fmt::format("{:016x}", random_.next()),
             .ttl = random_.between(seconds(1), scene_.knobs.session_ttl_max),
             .description = "simulated",
             .jeopardy_max = random_.between(seconds(1), Duration(seconds(10)))},
            process.now()),
      id_(core_.id()) {
  plan(random_.exponential(kThinkMean), [this] { act(); });
}

SessionOwner::~SessionOwner() {
  *lives_ = false;
  for (const auto& [number, wish] : operations_) scene_.candidates.erase({wish.names.front(), core_.options().id});
}

void SessionOwner::follow_id() {
  if (core_.id() == id_) return;
  scene_.primitives.note_renamed(id_, core_.id());
  id_ = core_.id();
}

bool SessionOwner::is_over() const {
  return core_.state() == SessionState::kExpired || core_.state() == SessionState::kClosed;
}

bool SessionOwner::is_done() const {
  return over_at_ && (!core_.wants_stream() || scene_.world.now() >= *over_at_ + kLinger);
}

std::string SessionOwner::describe() const {
  return fmt::format("session {:x} is {}, has {} operations under way, holds {}", id(),
                     client::to_string(core_.state()), operations_.size(), held_.size());
}

std::optional<client::HeldClaim> SessionOwner::draw_held() {
  if (held_.empty()) return std::nullopt;
  auto one = held_.begin();
  std::advance(one, random_.below(held_.size()));
  return client::HeldClaim{.name = one->first, .token = one->second.token};
}

void SessionOwner::plan(Duration after, std::function<void()> step) {
  scene_.world.scheduler().schedule(scene_.world.now() + after, [this, lives = lives_, step = std::move(step)] {
    if (!*lives) return;
    process_.step([lives, step] {
      if (*lives) step();
    });
  });
}

void SessionOwner::note(uint64_t operation, Wish wish) {
  static constexpr std::string_view kKinds[] = {"acquire", "campaign", "release", "transfer", "proclaim"};
  scene_.say(fmt::format("{:x} begins {}: {} {}", id(), operation, kKinds[static_cast<size_t>(wish.kind)],
                         fmt::join(wish.names, " ")));
  scene_.primitives.note_asked(id(), operation, wish);
  if (wish.kind == Wish::Kind::kCampaign) scene_.candidates[{wish.names.front(), core_.options().id}] = this;
  operations_[operation] = std::move(wish);
}

// --- What it does.

void SessionOwner::act() {
  if (is_over()) return;
  if (!scene_.closing) {
    begin_something();
  } else if (!had_last_ && operations_.empty() && held_.empty()) {
    acquire_last();
  }
  plan(random_.exponential(kThinkMean), [this] { act(); });
}

void SessionOwner::begin_something() {
  const uint64_t draw = random_.below(64);
  const bool able = operations_.size() < kOperationsMax;
  if (draw < 24) {
    if (able) acquire();
  } else if (draw < 36) {
    if (able) campaign();
  } else if (draw < 42) {
    cancel_one();
  } else if (draw < 48) {
    proclaim_one();
  } else if (draw < 52) {
    observe_one();
  } else if (draw == 52) {
    core_.close(process_.now());
  } else if (draw == 53 && random_.chance(1, 8) && scene_.knobs.replica.writes_pending_max > kBurst) {
    acquire_many();
  }
}

void SessionOwner::acquire() {
  AcquireOptions options;
  const size_t count = random_.chance(1, 6) ? 2 + random_.below(2) : 1;
  std::set<std::string> names;
  for (size_t i = 0; i < count; ++i) names.insert(scene_.draw_lock());
  options.names.assign(names.begin(), names.end());
  options.while_holding = random_.chance(3, 4);
  const uint64_t waits = random_.below(4);
  options.try_once = waits == 0;
  if (waits == 1) options.timeout = random_.exponential(milliseconds(500)) + milliseconds(1);
  if (random_.chance(1, 3)) options.lock_delay = random_.between(milliseconds(1), Duration(seconds(3)));
  if (random_.coin()) options.note = "for a test";
  // Both sides count whole milliseconds.
  options.lock_delay = milliseconds(to_milliseconds(options.lock_delay));
  Wish wish{.names = options.names, .try_once = options.try_once, .lock_delay = options.lock_delay};
  note(core_.acquire(process_.now(), std::move(options)), std::move(wish));
}

// More than may be under way at once.
void SessionOwner::acquire_many() {
  for (size_t i = 0; i < kBurst; ++i) {
    const std::string name = fmt::format("many{}", i);
    note(core_.acquire(process_.now(), {.names = {name}, .try_once = true}), {.names = {name}, .try_once = true});
  }
}

void SessionOwner::acquire_last() {
  had_last_ = true;
  const std::string name = scene_.draw_lock();
  note(core_.acquire(process_.now(), {.names = {name}}), {.names = {name}});
}

void SessionOwner::campaign() {
  const std::string name = scene_.draw_election();
  const std::string value = NodeCheck::kWrittenAgain + scene_.cluster.next_value();
  // Many alike, so that age decides too; below zero is a priority as well.
  const int32_t priority = random_.coin() ? 0 : static_cast<int32_t>(random_.below(5)) - 1;
  note(core_.campaign(process_.now(), name, value, priority),
       {.kind = Wish::Kind::kCampaign, .names = {name}, .value = value, .priority = priority});
}

void SessionOwner::cancel_one() {
  std::vector<uint64_t> able;
  for (const auto& [number, wish] : operations_) {
    if (wish.asks()) able.push_back(number);
  }
  if (able.empty()) return;
  ++scene_.result.counts["cancellations"];
  core_.cancel(process_.now(), able[random_.below(able.size())]);
}

void SessionOwner::observe_one() {
  const std::string name = random_.chance(3, 4) ? scene_.draw_election() : scene_.draw_lock();
  if (observed_.erase(name) == 1) {
    scene_.primitives.note_stopped(id(), name);
    core_.stop_observing(process_.now(), name);
  } else {
    observed_.insert(name);
    scene_.primitives.note_observing(id(), name);
    core_.observe(process_.now(), name);
  }
}

void SessionOwner::proclaim_one() {
  for (const auto& [name, held] : held_) {
    if (!held.leads || random_.coin()) continue;
    const std::string value = NodeCheck::kWrittenAgain + scene_.cluster.next_value();
    note(core_.proclaim(process_.now(), name, held.token, value),
         {.kind = Wish::Kind::kProclaim, .names = {name}, .value = value});
    return;
  }
}

void SessionOwner::hold(const std::string& name, const Held& held) {
  held_[name] = held;
  plan(random_.exponential(kHoldMean), [this, name, token = held.token] { let_go(name, token); });
}

void SessionOwner::let_go(const std::string& name, int64_t token) {
  const auto held = held_.find(name);
  if (is_over() || held == held_.end() || held->second.token != token) return;
  const bool leads = held->second.leads;
  held_.erase(held);
  if (leads && random_.chance(1, 3)) {
    hand_over(name, token);
  } else if (leads) {
    note(core_.resign(process_.now(), name, token), {.kind = Wish::Kind::kRelease, .names = {name}, .token = token});
  } else {
    note(core_.release(process_.now(), name, token), {.kind = Wish::Kind::kRelease, .names = {name}, .token = token});
  }
}

// Or not: that is its own affair.
void SessionOwner::heed(const client::ReleaseWanted& wanted) {
  ++scene_.result.counts["owners asked to release"];
  if (random_.coin()) return;
  plan(random_.exponential(kThinkMean), [this, name = wanted.name, token = wanted.token] { let_go(name, token); });
}

// To somebody who waits, as far as is known; or to nobody.
void SessionOwner::hand_over(const std::string& name, int64_t token) {
  int64_t to = static_cast<int64_t>(random_.below(1000) + 1);
  for (const auto& [candidacy, candidate] : scene_.candidates) {
    if (candidacy.first == name && candidate != this && random_.coin()) to = candidate->id();
  }
  ++scene_.result.counts["transfers asked of leaders"];
  note(core_.transfer(process_.now(), name, token, to),
       {.kind = Wish::Kind::kTransfer, .names = {name}, .token = token});
}

// --- What it is told.

void SessionOwner::take(const client::SessionEvent& event) {
  if (const auto* state = std::get_if<client::StateChanged>(&event)) {
    scene_.say(fmt::format("{:x} is {} {}", id(), client::to_string(state->state), state->reason));
    if (state->state == SessionState::kJeopardy) ++scene_.result.counts["sessions in jeopardy"];
    if (state->state == SessionState::kExpired) ++scene_.result.counts["sessions expired"];
    if (!is_over() || over_at_) return;
    over_at_ = scene_.world.now();
    plan(kLinger, [] {});
  } else if (const auto* ended = std::get_if<client::OperationEnded>(&event)) {
    on_ended(*ended);
  } else if (const auto* lost = std::get_if<client::ClaimLost>(&event)) {
    ++scene_.result.counts["claims lost"];
    held_.erase(lost->name);
  } else if (const auto* wanted = std::get_if<client::ReleaseWanted>(&event)) {
    heed(*wanted);
  }
}

void SessionOwner::on_ended(const client::OperationEnded& ended) {
  const auto found = operations_.find(ended.operation);
  if (found == operations_.end()) return;  // the check has said so
  const Wish wish = std::move(found->second);
  operations_.erase(found);
  scene_.say(
      fmt::format("{:x} has ended {}: {} {}", id(), ended.operation, client::to_string(ended.outcome), ended.reason));
  ++scene_.result.operations_acknowledged;
  ++scene_.result.counts[fmt::format("session operations {}", client::to_string(ended.outcome))];
  if (wish.kind == Wish::Kind::kCampaign) scene_.candidates.erase({wish.names.front(), core_.options().id});
  if (wish.asks() && ended.outcome == Outcome::kDone) {
    for (const client::HeldClaim& claim : ended.claims) {
      hold(claim.name, {.token = claim.token, .leads = wish.kind == Wish::Kind::kCampaign});
    }
  } else if (wish.kind == Wish::Kind::kTransfer && ended.outcome != Outcome::kDone && !is_over()) {
    // To nobody who waits: it leads still.
    hold(wish.names.front(), {.token = wish.token, .leads = true});
  } else if (wish.asks() && scene_.closing && operations_.empty()) {
    had_last_ = false;  // by a deletion of before
  }
}

// --- The end.

void SessionOwner::begin_liveness() {
  const std::map<std::string, Held> held = held_;
  for (const auto& [name, one] : held) hold(name, one);
}

void SessionOwner::close() {
  if (!is_over()) core_.close(process_.now());
}

}  // namespace conclave::sim
