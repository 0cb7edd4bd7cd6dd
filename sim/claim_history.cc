#include "sim/claim_history.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

namespace conclave::sim {

std::string ClaimHistory::name_of(const std::string& key) {
  const size_t slash = key.rfind('/');
  return slash == std::string::npos ? std::string() : key.substr(0, slash);
}

std::string ClaimHistory::key_of(const std::string& name, int64_t session) {
  return fmt::format("{}/{:x}", name, session);
}

int64_t ClaimHistory::session_of(const std::string& key) {
  int64_t session = 0;
  const char* begin = key.data() + (key.rfind('/') + 1);  // without a slash, all of it
  const char* end = key.data() + key.size();
  const auto parsed = std::from_chars(begin, end, session, 16);
  return parsed.ec == std::errc() && parsed.ptr == end ? session : 0;
}

void ClaimHistory::on_event(int64_t revision, const NodeCheck::Event& event) {
  revision_ = revision;
  const std::string of = name_of(event.key);
  if (of.empty()) return;
  Name& name = names_[of];
  std::vector<Life>& lives = lives_[event.key];
  const bool stands = !lives.empty() && lives.back().deleted == INT64_MAX;
  if (event.is_put) {
    if (!stands) {
      lives.push_back({.created = revision});
      name.claims.emplace(revision, event.key);
      keys_[session_of(event.key)].insert(event.key);
    }
    lives.back().mod = revision;
    lives.back().value = event.value;
    lives.back().lease = event.lease;
  } else if (stands) {
    lives.back().deleted = revision;
    name.claims.erase({lives.back().created, event.key});
  }
  Owner owner{.since = revision};
  if (!name.claims.empty()) {
    const auto& [token, key] = *name.claims.begin();
    const Life& life = lives_[key].back();
    owner = {.since = revision, .token = token, .key = key, .mod = life.mod, .value = life.value};
  }
  // A revision changes a name once, whatever its events were.
  if (name.owners.back().since == revision) name.owners.pop_back();
  const Owner& before = name.owners.back();
  if (before.token != owner.token || before.key != owner.key || before.mod != owner.mod) {
    name.owners.push_back(std::move(owner));
  }
}

const std::vector<ClaimHistory::Owner>& ClaimHistory::owners(const std::string& name) const {
  static const std::vector<Owner> none = {{}};
  const auto found = names_.find(name);
  return found == names_.end() ? none : found->second.owners;
}

ClaimHistory::Owner ClaimHistory::owner_at(const std::string& name, int64_t revision) const {
  const std::vector<Owner>& all = owners(name);
  return *std::prev(std::ranges::upper_bound(all, std::max<int64_t>(revision, 0), {}, &Owner::since));
}

int64_t ClaimHistory::token_at(const std::string& key, int64_t revision) const {
  const auto lives = lives_.find(key);
  if (lives == lives_.end()) return 0;
  for (const Life& life : lives->second) {
    if (life.created <= revision && revision < life.deleted) return life.created;
  }
  return 0;
}

LeaseId ClaimHistory::lease_of(const std::string& key) const {
  const auto lives = lives_.find(key);
  return lives == lives_.end() ? LeaseId() : lives->second.back().lease;
}

std::vector<std::string> ClaimHistory::keys_at(int64_t session, int64_t revision) const {
  std::vector<std::string> standing;
  const auto keys = keys_.find(session);
  if (keys == keys_.end()) return standing;
  for (const std::string& key : keys->second) {
    if (token_at(key, revision) != 0) standing.push_back(key);
  }
  return standing;
}

}  // namespace conclave::sim
