#include "layers/claim_queue.h"

#include <algorithm>
#include <functional>

#include "base/assert.h"
#include "base/mark.h"
#include "layers/recipe.h"

namespace conclave::layers {

// Of keys created by one transaction the first in key order comes first: two claims are never granted at once.
ClaimQueue::Outcome ClaimQueue::look(const keyspace::View& view, const Name& name, const std::string& key,
                                     Revision create, std::string& owner) const {
  const std::optional<keyspace::KeyValue> own = view.get(key);
  if (!own || own->create != create) return Outcome::kLost;
  const std::optional<keyspace::KeyValue> oldest =
      line_ == Line::kAllBelow ? view.oldest(keyspace::KeyRange::of(name.prefix, name.prefix_end), Revision())
                               : oldest_child(view, name.prefix, name.prefix_end);
  ASSERT(oldest);  // its own claim stands there
  owner = std::string(oldest->key);
  return oldest->key == key ? Outcome::kGranted : Outcome::kWaiting;
}

ClaimQueue::Outcome ClaimQueue::wait(const keyspace::View& view, WaiterId waiter, const std::string& prefix,
                                     const std::string& key, Revision create, Until until) {
  ASSERT(!waiters_.contains(waiter));
  ASSERT(key.starts_with(prefix));
  std::unique_ptr<Name>& name = names_[prefix];
  if (!name) {
    name = std::make_unique<Name>();
    name->prefix = prefix;
    name->prefix_end = claim_prefix_end(prefix);
  }
  std::string owner;
  const Outcome outcome = look(view, *name, key, create, owner);
  const bool waits = outcome == Outcome::kWaiting;
  if (waits) {
    set_owner(*name, std::move(owner));
    name->waiters.emplace(create, waiter);
    ++waiting_;
  }
  if (waits || (outcome == Outcome::kGranted && until == Until::kLost)) {
    waiters_.emplace(waiter,
                     Waiter{.name = waits ? name.get() : nullptr, .key = key, .create = create, .until = until});
    interests_[key].claimants.push_back(waiter);
  }
  if (name->waiters.empty()) names_.erase(prefix);
  return outcome;
}

void ClaimQueue::forget(WaiterId waiter) {
  if (waiters_.contains(waiter)) remove(waiter);
}

void ClaimQueue::set_owner(Name& name, std::string owner) {
  if (name.owner == owner) return;
  if (!name.owner.empty()) {
    const auto before = interests_.find(name.owner);
    std::erase(before->second.owned, &name);
    if (before->second.owned.empty() && before->second.claimants.empty()) interests_.erase(before);
  }
  name.owner = std::move(owner);
  if (!name.owner.empty()) interests_[name.owner].owned.push_back(&name);
}

void ClaimQueue::remove(WaiterId waiter) {
  const auto found = waiters_.find(waiter);
  const auto interest = interests_.find(found->second.key);
  std::erase(interest->second.claimants, waiter);
  if (interest->second.owned.empty() && interest->second.claimants.empty()) interests_.erase(interest);
  leave_line(waiter, found->second);
  waiters_.erase(found);
}

void ClaimQueue::leave_line(WaiterId waiter, Waiter& state) {
  if (state.name == nullptr) return;
  Name& name = *std::exchange(state.name, nullptr);
  name.waiters.erase({state.create, waiter});
  --waiting_;
  if (!name.waiters.empty()) return;
  set_owner(name, {});
  names_.erase(name.prefix);
}

void ClaimQueue::decide(WaiterId waiter, Outcome outcome) {
  Waiter& state = waiters_.at(waiter);
  if (outcome == Outcome::kGranted && state.until == Until::kLost) {
    leave_line(waiter, state);
  } else {
    remove(waiter);
  }
  decisions_.push_back({.waiter = waiter, .outcome = outcome});
}

void ClaimQueue::on_applied(const keyspace::View& view, const keyspace::Applied& applied) {
  if (waiters_.empty()) return;
  // Gathered first: deciding changes what is looked up here.
  std::vector<WaiterId> claimants;
  std::vector<std::string> names;
  applied.events([&](const keyspace::Version& event) {
    if (!event.is_tombstone()) return;
    const auto interest = interests_.find(event.key->bytes());
    if (interest == interests_.end()) return;
    claimants.insert(claimants.end(), interest->second.claimants.begin(), interest->second.claimants.end());
    for (const Name* name : interest->second.owned) names.push_back(name->prefix);
  });
  for (const WaiterId waiter : claimants) check_waiter(view, waiter);
  for (const std::string& prefix : names) check_name(view, prefix);
}

void ClaimQueue::check_waiter(const keyspace::View& view, WaiterId waiter) {
  const auto found = waiters_.find(waiter);
  if (found == waiters_.end()) return;
  const Waiter& state = found->second;
  if (state.name == nullptr) {
    const std::optional<keyspace::KeyValue> own = view.get(state.key);
    if (!own || own->create != state.create) decide(waiter, Outcome::kLost);
    return;
  }
  std::string owner;
  const Outcome outcome = look(view, *state.name, state.key, state.create, owner);
  if (outcome != Outcome::kWaiting) {
    decide(waiter, outcome);
  } else {
    set_owner(*state.name, std::move(owner));
  }
}

// The owner of the name is gone. Whose claim follows is granted, the others wait for that one.
void ClaimQueue::check_name(const keyspace::View& view, const std::string& prefix) {
  while (true) {
    const auto found = names_.find(prefix);
    if (found == names_.end()) return;
    // The oldest that wait: several if one transaction made several claims, or several wait with one claim.
    std::vector<WaiterId> first;
    const Revision create = found->second->waiters.begin()->first;
    for (const auto& [created, waiter] : found->second->waiters) {
      if (created != create) break;
      first.push_back(waiter);
    }
    const size_t decided = decisions_.size();
    for (const WaiterId waiter : first) check_waiter(view, waiter);
    if (decisions_.size() - decided < first.size()) return;
    REACHED(claim_decided_at_release);
  }
}

// Who comes later is looked at then.
void ClaimQueue::begin_recheck() {
  to_recheck_.clear();
  to_recheck_.reserve(waiters_.size());
  for (const auto& [waiter, state] : waiters_) to_recheck_.push_back(waiter);
  std::sort(to_recheck_.begin(), to_recheck_.end(), std::greater<>());
}

bool ClaimQueue::recheck(const keyspace::View& view, size_t waiters_max) {
  while (!to_recheck_.empty()) {
    if (waiters_max-- == 0) return false;
    const WaiterId waiter = to_recheck_.back();
    to_recheck_.pop_back();
    check_waiter(view, waiter);
  }
  return true;
}

}  // namespace conclave::layers
