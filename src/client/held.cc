// The public face of what is held.
#include "conclave/held.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "client/io.h"
#include "conclave/election.h"
#include "conclave/lock.h"
#include "etcd/rpc.pb.h"

namespace conclave::client {

std::string Guard::compare() const {
  etcdserverpb::Compare compare;
  compare.set_target(etcdserverpb::Compare::CREATE);
  compare.set_result(etcdserverpb::Compare::EQUAL);
  compare.set_key(key);
  compare.set_create_revision(create_revision);
  return compare.SerializeAsString();
}

Held::Held(std::shared_ptr<HeldState> state) : state_(std::move(state)) {}

Held::Held(Held&& other) noexcept : state_(std::move(other.state_)), end_(other.end_), let_go_(other.let_go_.load()) {}

Held::~Held() {
  if (!state_ || end_) return;
  const HeldEnd became = end();
  if (state_->options().on_end) state_->options().on_end(became);
}

HeldEnd Held::end() {
  let_go_ = true;
  if (!end_) end_ = state_->end();
  return *end_;
}

const std::string& Held::name() const {
  return state_->claims().front().name;
}

std::vector<std::string> Held::names() const {
  std::vector<std::string> names;
  for (const HeldClaim& claim : state_->claims()) names.push_back(claim.name);
  return names;
}

int64_t Held::token() const {
  return state_->claims().front().token;
}

int64_t Held::token(std::string_view name) const {
  const auto found = std::ranges::find(state_->claims(), name, &HeldClaim::name);
  return found == state_->claims().end() ? 0 : found->token;
}

bool Held::is_held() const {
  return state_->is_held() && !let_go_;
}

BootClock::time_point Held::deadline() const {
  return state_->view().deadline();
}

std::expected<void, Error> Held::wait_held(std::chrono::milliseconds at_most) const {
  return state_->wait_held(at_most);
}

std::stop_token Held::stop_token() const {
  return state_->stop_token();
}

std::vector<Guard> Held::guards() const {
  std::vector<Guard> guards;
  for (const HeldClaim& claim : state_->claims()) {
    guards.push_back({.key = fmt::format("{}/{:x}", claim.name, static_cast<uint64_t>(state_->view().id.load())),
                      .create_revision = claim.token});
  }
  return guards;
}

Guard Held::guard() const {
  return guards().front();
}

void Held::run(std::move_only_function<void(std::stop_token)> body) {
  state_->run(std::move(body));
}

}  // namespace conclave::client
