#include "sim/lock_check.h"

#include <fmt/format.h>

#include <algorithm>

namespace conclave::sim {

std::string LockCheck::key_of(const std::string& lock, LeaseId lease) {
  return fmt::format("{}{:x}", prefix_of(lock), lease.value());
}

// --- The history.

void LockCheck::on_event(int64_t revision, const NodeCheck::Event& event) {
  const size_t slash = event.key.find('/');
  if (slash == std::string::npos) return;
  Lock& lock = locks_[event.key.substr(0, slash)];
  const auto known = lives_.find(event.key);
  const bool stands = known != lives_.end() && known->second.back().deleted == INT64_MAX;
  if (event.is_put && !stands) {
    lives_[event.key].push_back({.created = revision, .lease = event.lease});
    lock.claims.emplace(revision, event.key);
  } else if (event.is_put) {
    known->second.back().lease = event.lease;
  } else if (stands) {
    known->second.back().deleted = revision;
    lock.claims.erase({known->second.back().created, event.key});
  }
  Claim oldest;
  if (!lock.claims.empty()) oldest = {.token = lock.claims.begin()->first, .key = lock.claims.begin()->second};
  lock.oldest[revision] = oldest;
}

void LockCheck::on_lease_ended(LeaseId lease, bool expired) {
  for (auto& [name, lock] : locks_) {
    const auto lives = lives_.find(key_of(name, lease));
    if (lives == lives_.end()) continue;
    const Life& life = lives->second.back();
    if (life.deleted == INT64_MAX && life.lease == lease) {
      check_.violate(fmt::format("lease {} ended and left its claim on {} behind", lease, name));
    }
    if (expired && lock.holder == lease) lock.expired = true;
  }
}

std::vector<LeaseId> LockCheck::who_trusts(const std::string& name, Instant now) const {
  std::vector<LeaseId> leases;
  const auto lock = locks_.find(name);
  if (lock == locks_.end()) return leases;
  for (const Holder& holder : lock->second.holders) {
    if (holder.trusts_until > now) leases.push_back(holder.lease);
  }
  return leases;
}

int64_t LockCheck::deleted_after(const std::string& key, int64_t from_revision) const {
  const auto lives = lives_.find(key);
  if (lives == lives_.end()) return INT64_MAX;
  for (const Life& life : lives->second) {
    if (life.deleted >= from_revision) return life.deleted;
  }
  return INT64_MAX;
}

// --- What clients were told.

// The holder's clock may be slow by one per cent: it trusts the lease for a hundredth longer.
Instant LockCheck::end_of(const Trust& trust) {
  return trust.sent + trust.ttl + trust.ttl / 100;
}

void LockCheck::check_alone(const std::string& name, const Lock& lock, LeaseId lease, Instant now) {
  if (options_.clocks_lie) return;
  const auto own = std::ranges::find(lock.holders, lease, &Holder::lease);
  if (own->trusts_until <= now) return;
  if (listener_ != nullptr) listener_->on_trusted(name, lease, own->token);
  for (const Holder& other : lock.holders) {
    if (other.lease == lease || other.trusts_until <= now) continue;
    check_.violate(fmt::format("{} is held under lease {} and lease {} at once", name, other.lease, lease));
  }
}

void LockCheck::note_held(const std::string& name, LeaseId lease, int64_t token, int64_t revision, Instant now,
                          const Trust& trust) {
  Lock& lock = locks_[name];
  const std::string key = key_of(name, lease);
  const auto after = lock.oldest.upper_bound(revision);
  const Claim oldest = after == lock.oldest.begin() ? Claim() : std::prev(after)->second;
  if (oldest.token != token || oldest.key != key) {
    check_.violate(fmt::format("{} with token {} was told at revision {} that it holds, and the oldest was '{}' of {}",
                               key, token, revision, oldest.key, oldest.token));
  }
  if (!options_.clocks_lie && token <= lock.token) {
    check_.violate(fmt::format("{} was given with token {} after token {}", name, token, lock.token));
  }
  ++held_;
  if (lock.expired) ++handed_over_by_expiry_;
  lock.holder = lease;
  lock.token = token;
  lock.expired = false;
  std::erase_if(lock.holders, [&](const Holder& holder) { return holder.lease == lease; });
  lock.holders.push_back({.lease = lease, .token = token, .trusts_until = end_of(trust)});
  check_alone(name, lock, lease, now);
}

void LockCheck::note_renewed(LeaseId lease, Instant now, const Trust& trust) {
  for (auto& [name, lock] : locks_) {
    const auto own = std::ranges::find(lock.holders, lease, &Holder::lease);
    if (own == lock.holders.end()) continue;
    own->trusts_until = std::max(own->trusts_until, end_of(trust));
    check_alone(name, lock, lease, now);
  }
}

void LockCheck::note_let_go(LeaseId lease) {
  for (auto& [name, lock] : locks_) {
    std::erase_if(lock.holders, [&](const Holder& holder) { return holder.lease == lease; });
  }
}

void LockCheck::note_missed(const std::string& key, int64_t revision) {
  const auto lives = lives_.find(key);
  if (lives == lives_.end()) return;
  for (const Life& life : lives->second) {
    if (life.created <= revision && revision < life.deleted) {
      check_.violate(fmt::format("{} was not found at revision {}, and stood since {}", key, revision, life.created));
    }
  }
}

void LockCheck::note_waiting(LeaseId waiter, const std::string& key, int64_t from_revision) {
  waiting_[waiter] = {.key = key, .from_revision = from_revision};
}

void LockCheck::note_deletion(LeaseId waiter, int64_t revision) {
  const auto wait = waiting_.find(waiter);
  if (wait == waiting_.end()) return;
  const int64_t deleted = deleted_after(wait->second.key, wait->second.from_revision);
  if (deleted != revision) {
    check_.violate(fmt::format("who waits for {} from revision {} was told that it was deleted at {}, and it was at {}",
                               wait->second.key, wait->second.from_revision, revision,
                               deleted == INT64_MAX ? 0 : deleted));
  }
}

std::string LockCheck::who_waits_in_vain() const {
  for (const auto& [waiter, wait] : waiting_) {
    const int64_t deleted = deleted_after(wait.key, wait.from_revision);
    if (deleted == INT64_MAX) continue;
    return fmt::format("lease {} waits for {}, which is gone since revision {}", waiter, wait.key, deleted);
  }
  return {};
}

}  // namespace conclave::sim
