#include "server/bootstrap.h"

#include <utility>

namespace conclave::server {
namespace {

constexpr Duration kTryAgain = std::chrono::milliseconds(200);
// Servers are started by hand or by a script: those that come up at the same time are waited for.
constexpr Duration kGiveUp = std::chrono::seconds(10);

}  // namespace

void Bootstrap::send(NodeId to, Kind kind, uint64_t nonce, BootstrapState state) {
  std::string frame(1, kBootstrapFrame);
  ByteWriter writer(frame);
  writer.fixed(static_cast<uint8_t>(kind));
  writer.fixed(nonce);
  writer.fixed(static_cast<uint8_t>(state));
  world_.send(to, std::move(frame));
}

void Bootstrap::init(Instant now, std::function<void(const Outcome&)> done) {
  if (world_.state() == BootstrapState::kLed) {
    done({.already = true});
    return;
  }
  done_.push_back(std::move(done));
  if (done_.size() > 1) return;
  ++nonce_;
  answers_.clear();
  beginning_ = false;
  give_up_ = now + kGiveUp;
  next_try_ = now + kTryAgain;
  ask();
  proceed();
}

// Those that have not answered yet.
void Bootstrap::ask() {
  for (const auto& [peer, name] : peers_) {
    const auto answer = answers_.find(peer);
    if (answer == answers_.end()) {
      send(peer, Kind::kQuery, nonce_);
    } else if (beginning_ && answer->second == BootstrapState::kEmpty) {
      send(peer, Kind::kBegin, nonce_);
    }
  }
}

void Bootstrap::proceed() {
  if (done_.empty() || answers_.size() < peers_.size()) return;
  bool all_begun = world_.state() != BootstrapState::kEmpty;
  for (const auto& [peer, state] : answers_) {
    if (state == BootstrapState::kLed && !beginning_) {
      finish({.already = true});
      return;
    }
    all_begun = all_begun && state != BootstrapState::kEmpty;
  }
  if (all_begun) {
    finish({.already = !beginning_});
    return;
  }
  if (beginning_) return;
  beginning_ = true;
  ask();
  if (world_.state() == BootstrapState::kEmpty) world_.begin();
}

void Bootstrap::begun() {
  if (told_by_) send(told_by_->first, Kind::kState, told_by_->second, world_.state());
  told_by_.reset();
  proceed();
}

void Bootstrap::on_frame(NodeId from, ByteView frame) {
  ByteReader reader(frame);
  (void)reader.fixed<uint8_t>();
  const auto kind = static_cast<Kind>(reader.fixed<uint8_t>());
  const auto nonce = reader.fixed<uint64_t>();
  const auto state = reader.fixed<uint8_t>();
  if (!reader.finished() || state > static_cast<uint8_t>(BootstrapState::kLed)) return;
  switch (kind) {
    case Kind::kQuery: {
      const BootstrapState own = world_.state();
      if (own == BootstrapState::kEmpty) answered_ = {from, nonce};
      send(from, Kind::kState, nonce, own);
      return;
    }
    case Kind::kBegin:
      if (world_.state() != BootstrapState::kEmpty) {
        send(from, Kind::kState, nonce, world_.state());
      } else if (answered_ == std::pair(from, nonce) && !told_by_) {
        told_by_ = {from, nonce};
        world_.begin();
      }
      return;
    case Kind::kState:
      if (nonce != nonce_ || done_.empty()) return;
      answers_[from] = static_cast<BootstrapState>(state);
      proceed();
      return;
  }
}

void Bootstrap::tick(Instant now) {
  if (done_.empty() || now < next_try_) return;
  next_try_ = now + kTryAgain;
  if (now < give_up_) {
    ask();
    return;
  }
  std::string silent;
  for (const auto& [peer, name] : peers_) {
    const auto answer = answers_.find(peer);
    const bool waits = answer == answers_.end() || (beginning_ && answer->second == BootstrapState::kEmpty);
    if (waits) silent += (silent.empty() ? "" : ", ") + name;
  }
  finish({.error = fmt::format("no answer from {}: every server of the cluster must be running; ask again", silent),
          .unreachable = true});
}

void Bootstrap::finish(const Outcome& outcome) {
  next_try_ = kNever;
  for (auto& done : std::exchange(done_, {})) done(outcome);
}

}  // namespace conclave::server
