#include "sim/leader_check.h"

#include <fmt/format.h>

#include <algorithm>

namespace conclave::sim {

void LeaderCheck::note_gone(int64_t session) {
  std::erase_if(places_, [&](const auto& place) { return place.first.first == session; });
}

void LeaderCheck::note_renamed(int64_t session, int64_t renamed) {
  std::map<std::pair<int64_t, std::string>, Place> places;
  for (const auto& [observer, place] : places_) {
    const auto& [id, name] = observer;
    places[{id == session ? renamed : id, name}] = place;
  }
  places_ = std::move(places);
}

void LeaderCheck::note_seen(int64_t session, const client::LeaderSeen& seen) {
  const auto found = places_.find({session, seen.name});
  const std::string who = fmt::format("session {:x} was shown that {}", session, seen.name);
  const std::string what = seen.token == 0 ? fmt::format("{} has no leader at revision {}", who, seen.revision)
                                           : fmt::format("{} is led with token {} and '{}' of revision {}", who,
                                                         seen.token, seen.value, seen.revision);
  if (found == places_.end()) {
    check_.violate(what + ", and does not observe it");
    return;
  }
  Place& place = found->second;
  const std::vector<ClaimHistory::Owner>& owners = claims_.owners(seen.name);
  size_t at = kNothing;
  if (seen.token == 0) {
    // Seen at some moment of the vacancy.
    const auto after = std::ranges::upper_bound(owners, seen.revision, {}, &ClaimHistory::Owner::since);
    const auto vacancy = std::prev(after);
    if (vacancy->token == 0) at = static_cast<size_t>(vacancy - owners.begin());
    ++vacancies_;
  } else {
    const auto owner = std::ranges::find_if(owners, [&](const ClaimHistory::Owner& one) {
      return one.token == seen.token && one.mod == seen.revision && one.value == seen.value;
    });
    if (owner != owners.end()) at = static_cast<size_t>(owner - owners.begin());
    ++leaders_;
  }
  if (at == kNothing) {
    check_.violate(what + ", which never was so");
    return;
  }
  if (seen.skipped) ++skips_;
  const bool goes_back = place.at != kNothing && (at < place.at || (at == place.at && !seen.skipped));
  if (goes_back) {
    check_.violate(fmt::format("{}, which was so before what it was shown last", what));
  } else if (place.at != kNothing && at > place.at + 1 && !seen.skipped) {
    check_.violate(fmt::format("{}, and {} before that were left out", what, at - place.at - 1));
  }
  place.at = at;
}

std::string LeaderCheck::who_is_behind() const {
  for (const auto& [observer, place] : places_) {
    const auto& [session, name] = observer;
    if (place.at == claims_.owners(name).size() - 1) continue;
    return fmt::format("session {:x} has not seen the last of {}", session, name);
  }
  return {};
}

}  // namespace conclave::sim
