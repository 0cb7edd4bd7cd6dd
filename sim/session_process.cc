#include "sim/session_process.h"

#include <algorithm>

#include "sim/node_cluster.h"
#include "sim/session_call.h"

namespace conclave::sim {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr Duration kPauseMean = milliseconds(400);
// A keep-alive that is due so soon goes with the others.
constexpr Duration kKeptTogether = milliseconds(200);
// A deadline that stays although its time has come is looked at again after this.
constexpr Duration kLookAgain = microseconds(100);

// What is done once and never refused for the state it meets: a second one is the same, whatever became of the first.
bool may_be_sent_twice(const v1::SessionRequest& request) {
  return request.has_release() || request.has_resign() || request.has_cancel();
}

}  // namespace

SessionProcess::SessionProcess(SessionScene& scene, size_t number, Random random)
    : scene_(scene),
      number_(number),
      random_(random),
      clock_(scene.world.scheduler(), Instant(random_.between(seconds(1), Duration(seconds(1'000'000)))), draw_drift()),
      patience_(random_.between(milliseconds(300), Duration(seconds(3)))) {}

void SessionProcess::start() {
  while (owners_.size() < scene_.knobs.sessions_per_client) add_session();
  after(random_.exponential(kPauseMean), [this] { connect(); });
  plan_trouble();
}

void SessionProcess::begin_liveness() {
  is_quiet_ = true;
  unreachable_.clear();
  resume();
  for (const auto& owner : owners_) owner->begin_liveness();
  move();
}

std::string SessionProcess::describe() const {
  return fmt::format("client {} of server {}{}", number_, server_, is_up_ ? "" : ", not connected");
}

// What the product bears.
int32_t SessionProcess::draw_drift() {
  return static_cast<int32_t>(random_.below(2 * kDriftBoundPpm + 1)) - kDriftBoundPpm;
}

void SessionProcess::after(Duration pause, std::function<void()> what) {
  scene_.world.scheduler().schedule(scene_.world.now() + pause, std::move(what));
}

void SessionProcess::step(const std::function<void()>& what) {
  if (is_paused_) {
    waiting_.push_back(what);
    return;
  }
  what();
  settle();
}

// --- Its sessions.

SessionOwner* SessionProcess::find(int64_t session) {
  const auto found = std::ranges::find_if(owners_, [&](const auto& owner) { return owner->id() == session; });
  return found == owners_.end() ? nullptr : found->get();
}

void SessionProcess::add_session() {
  owners_.push_back(std::make_unique<SessionOwner>(scene_, *this, random_.fork()));
  SessionOwner& owner = *owners_.back();
  scene_.primitives.note_session(owner.id(), owner);
  ++scene_.result.counts["sessions"];
  if (is_up_) owner.core().on_connected(now());
}

void SessionProcess::replace_sessions() {
  const size_t before = owners_.size();
  std::erase_if(owners_, [&](const auto& owner) {
    if (!owner->is_done()) return false;
    scene_.primitives.note_forgotten(owner->id());
    return true;
  });
  for (size_t gone = owners_.size(); gone < before; ++gone) {
    after(random_.exponential(kPauseMean), [this] {
      if (scene_.closing || owners_.size() >= scene_.knobs.sessions_per_client) return;
      step([this] { add_session(); });
    });
  }
}

void SessionProcess::settle() {
  if (is_settling_ || is_paused_) return;
  is_settling_ = true;
  for (bool again = true; again;) {
    again = false;
    for (const auto& owner : owners_) {
      owner->follow_id();
      for (const v1::SessionRequest& request : owner->core().take_requests()) send(request);
      for (const client::SessionEvent& event : owner->core().take_events()) {
        scene_.primitives.note_told(owner->id(), event, scene_.world.now());
        owner->take(event);
        again = true;
      }
    }
  }
  for (const auto& owner : owners_) scene_.primitives.note_believes(owner->id(), scene_.world.now());
  is_settling_ = false;
  replace_sessions();
  arm();
}

// --- The stream.

void SessionProcess::connect() {
  if (link_ != nullptr) return;
  server_ = scene_.cluster.pick_server(server_);
  link_ = std::make_shared<SessionLink>(scene_.world, scene_.cluster, random_.fork(), server_, *this);
  connecting_since_ = now();
  link_->connect();
  arm();
}

void SessionProcess::reconnect() {
  after(random_.between(milliseconds(5), Duration(milliseconds(300))), [this] { connect(); });
}

void SessionProcess::move() {
  if (link_ != nullptr) link_->hang_up();
  link_.reset();
  go_down();
  reconnect();
}

void SessionProcess::go_down() {
  keep_alives_.clear();
  unanswered_.clear();
  if (!std::exchange(is_up_, false)) return;
  for (const auto& owner : owners_) owner->core().on_disconnected(now());
  settle();
}

void SessionProcess::on_link_up() {
  is_up_ = true;
  for (const auto& owner : owners_) {
    scene_.primitives.note_connected(owner->id());
    owner->core().on_connected(now());
  }
  settle();
}

void SessionProcess::on_link_down() {
  link_.reset();
  go_down();
  reconnect();
}

Instant SessionProcess::unreachable_until(size_t node) const {
  const auto found = unreachable_.find(node);
  return found == unreachable_.end() ? Instant() : found->second;
}

void SessionProcess::on_link_response(const v1::SessionResponse& response) {
  if (response.has_kept()) {
    take_kept(response);
  } else if (SessionOwner* owner = find(response.session())) {
    scene_.say(fmt::format("{:x} < server {}: {}", owner->id(), server_, response.ShortDebugString()));
    unanswered_.erase({response.session(), response.sequence()});
    scene_.primitives.note_response(owner->id(), response);
    owner->core().on_response(now(), response);
  }
  settle();
  if (client::asks_to_move(response)) {
    ++scene_.result.counts["clients asked to move"];
    move();
  }
}

// Into what other clients may ask.
void SessionProcess::alter(v1::SessionRequest& request) {
  if (is_quiet_ || scene_.knobs.trouble_mean == Duration()) return;
  if (request.has_acquire() && !request.acquire().try_() && random_.chance(1, 20)) {
    request.mutable_acquire()->set_up_to_ms(1 + random_.below(500));
  }
  // One that has seen more than there is now: the cluster was restored from something older.
  if (request.has_attach() && random_.chance(1, 100)) request.mutable_attach()->mutable_place()->set_index(UINT32_MAX);
}

void SessionProcess::send(v1::SessionRequest request) {
  if (!is_up_) return;
  alter(request);
  scene_.say(fmt::format("{:x} > server {}: {}", request.session(), server_, request.ShortDebugString()));
  ++scene_.result.operations_attempted;
  scene_.primitives.note_request(request.session(), request);
  if (request.has_attach()) incarnations_[request.session()] = request.attach().incarnation();
  const bool claims = request.has_acquire() || request.has_campaign();
  if (claims && !request.again() && !is_quiet_ && scene_.knobs.trouble_mean != Duration() && random_.chance(1, 30)) {
    ask_by_call(request);
    return;
  }
  link_->send(request);
  if (!may_be_sent_twice(request)) return;
  if (request.sequence() != 0) unanswered_[{request.session(), request.sequence()}] = request;
  if (random_.chance(1, 20)) link_->send(request);
}

// By a call of its own that ends without an answer, as one that is cancelled or whose connection breaks: what became of
// it is not known, and it is asked again on the stream.
void SessionProcess::ask_by_call(const v1::SessionRequest& request) {
  SessionOwner* owner = find(request.session());
  const size_t node = random_.coin() ? server_ : scene_.cluster.pick_server(server_);
  if (owner == nullptr || unreachable_until(node) > scene_.world.now() || !scene_.world.is_running(node)) {
    link_->send(request);
    return;
  }
  ++scene_.result.counts["calls ended without an answer"];
  const auto known = incarnations_.find(request.session());
  v1::SessionIdentity identity;
  identity.set_session(request.session());
  identity.set_secret(owner->core().options().secret);
  identity.set_incarnation(known == incarnations_.end() ? 1 : known->second);
  auto call = std::make_shared<SessionCall>(scene_.world, scene_.cluster, random_.fork(), node);
  call->begin(identity, request);
  after(random_.exponential(milliseconds(100)),
        [this, call, session = request.session(), sequence = request.sequence()] {
          call->end();
          step([this, session, sequence] {
            SessionOwner* asked = find(session);
            if (asked == nullptr) return;
            v1::SessionResponse unknown;
            unknown.set_session(session);
            unknown.set_sequence(sequence);
            unknown.mutable_error()->set_reason("UNKNOWN_OUTCOME");
            asked->core().on_response(now(), unknown);
          });
        });
}

void SessionProcess::send_again() {
  if (!is_up_ || unanswered_.empty()) return;
  auto one = unanswered_.begin();
  std::advance(one, random_.below(unanswered_.size()));
  link_->send(one->second);
  ++scene_.result.counts["requests sent again"];
}

void SessionProcess::send_keep_alives() {
  const auto is_due = [](Instant by) {
    return [by](const auto& owner) { return owner->core().keep_alive_at() <= by; };
  };
  if (!is_up_ || std::ranges::none_of(owners_, is_due(now()))) return;
  v1::SessionRequest request;
  v1::KeepSessions& keep = *request.mutable_keep_alive();
  keep.set_id(++last_keep_alive_);
  KeepAlive& sent = keep_alives_[last_keep_alive_];
  sent.sent = now();
  for (const auto& owner : owners_) {
    if (!is_due(now() + kKeptTogether)(owner)) continue;
    keep.add_sessions(owner->id());
    sent.sessions.push_back(owner->id());
    owner->core().on_keep_alive_sent(now());
  }
  link_->send(request);
}

void SessionProcess::take_kept(const v1::SessionResponse& response) {
  const auto found = keep_alives_.find(response.kept().id());
  if (found == keep_alives_.end()) return;
  const KeepAlive sent = std::move(found->second);
  keep_alives_.erase(found);
  using Kept = client::SessionCore::Kept;
  const auto names = [](const auto& sessions, int64_t id) { return std::ranges::find(sessions, id) != sessions.end(); };
  bool failed = false;
  for (const int64_t id : sent.sessions) {
    SessionOwner* owner = find(id);
    if (owner == nullptr) continue;
    Kept kept = Kept::kRenewed;
    if (names(response.kept().failed(), id)) kept = Kept::kFailed;
    if (names(response.kept().gone(), id)) kept = Kept::kGone;
    if (kept == Kept::kGone) scene_.primitives.note_gone(id);
    failed = failed || kept == Kept::kFailed;
    owner->core().on_kept(now(), sent.sent, kept);
  }
  // Elsewhere it may go better.
  if (failed && random_.chance(1, 3)) after(Duration(), [this] { move(); });
}

// --- Its time.

bool SessionProcess::waits_in_vain() {
  if (link_ != nullptr && !is_up_ && now() >= connecting_since_ + patience_) return true;
  return !keep_alives_.empty() && now() >= keep_alives_.begin()->second.sent + patience_;
}

void SessionProcess::arm() {
  scene_.world.cancel(timer_);
  if (is_paused_) return;
  Instant next = kNever;
  for (const auto& owner : owners_) {
    next = std::min(next, owner->core().next_deadline());
    if (is_up_) next = std::min(next, owner->core().keep_alive_at());
  }
  if (link_ != nullptr && !is_up_) next = std::min(next, connecting_since_ + patience_);
  if (!keep_alives_.empty()) next = std::min(next, keep_alives_.begin()->second.sent + patience_);
  if (next == kNever) return;
  const Instant at = std::max(clock_.to_true(next), scene_.world.now() + kLookAgain);
  timer_ = scene_.world.scheduler().schedule(at, [this] { wake(); });
}

void SessionProcess::wake() {
  if (is_paused_) return;
  for (const auto& owner : owners_) {
    if (owner->core().next_deadline() <= now()) owner->core().tick(now());
  }
  send_keep_alives();
  if (waits_in_vain()) move();
  settle();
}

// --- What happens to it.

void SessionProcess::plan_trouble() {
  if (scene_.knobs.trouble_mean == Duration()) return;
  after(random_.exponential(scene_.knobs.trouble_mean), [this] {
    if (is_quiet_) return;
    meet_trouble();
    plan_trouble();
  });
}

void SessionProcess::meet_trouble() {
  switch (random_.below(12)) {
    case 0:
    case 1:
      pause(random_.exponential(milliseconds(300)));
      break;
    case 2:
      pause(random_.exponential(seconds(4)));
      break;
    case 3:
      for (size_t node = 0; node < scene_.world.size(); ++node) cut_off(node);
      break;
    case 4:
      for (size_t node = 0; node < scene_.world.size(); ++node) {
        if (random_.coin()) cut_off(node);
      }
      break;
    case 5:
    case 6:
      ++scene_.result.counts["streams broken"];
      if (link_ != nullptr) link_->break_off();
      break;
    case 7:
    case 8:
      ++scene_.result.counts["clients moved"];
      if (!is_paused_) move();
      break;
    case 9:
      begin_anew();
      break;
    case 10:
      clock_.set_drift(draw_drift());
      arm();
      break;
    default:
      send_again();
  }
}

void SessionProcess::cut_off(size_t node) {
  ++scene_.result.counts["clients cut off from a server"];
  unreachable_[node] = scene_.world.now() + random_.exponential(seconds(2));
}

void SessionProcess::pause(Duration time) {
  if (std::exchange(is_paused_, true)) return;
  ++scene_.result.counts["clients paused"];
  arm();
  after(time, [this, number = ++pauses_] {
    if (number == pauses_) resume();
  });
}

// What it sees first may be its timers or what arrived meanwhile.
void SessionProcess::resume() {
  if (!std::exchange(is_paused_, false)) return;
  ++pauses_;
  if (random_.coin()) wake();
  if (const std::shared_ptr<SessionLink> link = link_) link->pump();
  for (const std::function<void()>& what : std::exchange(waiting_, {})) what();
  wake();
}

// The process ends, and another takes its place that knows nothing.
void SessionProcess::begin_anew() {
  ++scene_.result.counts["clients begun anew"];
  is_paused_ = false;
  ++pauses_;
  waiting_.clear();
  for (const auto& owner : owners_) scene_.primitives.note_forgotten(owner->id());
  owners_.clear();
  if (link_ != nullptr) link_->hang_up();
  link_.reset();
  go_down();
  while (owners_.size() < scene_.knobs.sessions_per_client) add_session();
  reconnect();
}

}  // namespace conclave::sim
