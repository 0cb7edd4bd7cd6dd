// The public face for operators: what there is, and ends by decision.
#include <utility>

#include "client/session_view.h"
#include "client/unary.h"
#include "conclave/client.h"
#include "conclave/v1/election.pb.h"
#include "conclave/v1/lock.pb.h"
#include "conclave/v1/session.pb.h"

namespace conclave::client {
namespace {

using namespace std::chrono_literals;
using std::chrono::milliseconds;

// What an owner that is asked first has by default; sessions mostly have less.
constexpr milliseconds kOwnerPatience = 60s;

LockClaim claim_of(const v1::LockClaim& claim) {
  return {.key = claim.key(),
          .token = claim.token(),
          .lease = claim.lease(),
          .is_session = claim.is_session(),
          .note = claim.note(),
          .description = claim.description(),
          .lock_delay = milliseconds(claim.lock_delay_ms())};
}

LockDescription lock_of(const v1::LockDescription& lock) {
  LockDescription out{.name = lock.name(), .waiting = lock.waiting(), .revision = lock.revision()};
  if (lock.has_owner()) out.owner = claim_of(lock.owner());
  for (const v1::LockClaim& waiter : lock.waiters()) out.waiters.push_back(claim_of(waiter));
  return out;
}

ElectionDescription election_of(const v1::ElectionDescription& election) {
  const v1::Leadership& leader = election.leader();
  ElectionDescription out{.name = election.name(),
                          .leader = {.name = election.name(),
                                     .token = leader.token(),
                                     .value = leader.value(),
                                     .lease = leader.lease(),
                                     .revision = leader.mod_revision()},
                          .waiting = election.waiting(),
                          .claims_waiting = election.claims_waiting()};
  for (const v1::Candidate& candidate : election.candidates()) {
    out.candidates.push_back({.session = candidate.session(),
                              .description = candidate.description(),
                              .priority = candidate.priority(),
                              .value = candidate.value()});
  }
  return out;
}

SessionDescription session_of(const v1::SessionDescription& session) {
  SessionDescription out{.session = session.session(),
                         .description = session.description(),
                         .ttl = milliseconds(session.ttl_ms()),
                         .incarnation = session.incarnation()};
  for (const v1::Claim& claim : session.claims()) {
    out.claims.push_back(
        {.name = claim.name(),
         .kind = claim.kind() == v1::ELECTION ? SessionClaim::Kind::kElection : SessionClaim::Kind::kLock,
         .token = claim.token(),
         .granted = claim.granted()});
  }
  return out;
}

// The last one told, where there are more: from there the next page goes on. A page that says so and does not come
// further is none: who asks for page after page would never end.
template <class After>
std::expected<std::optional<After>, Error> next_of(bool more, const After& after, const After* last) {
  if (!more) return std::nullopt;
  if (last == nullptr || *last <= after) {
    return std::unexpected(
        Error{ErrorKind::kNotApplied, "UNREADABLE", "a page that says there are more, and has none"});
  }
  return *last;
}

template <class Request>
Request request_of(const ListOptions& options) {
  Request request;
  request.set_prefix(options.prefix);
  request.set_after(options.after);
  request.set_count(options.count);
  return request;
}

}  // namespace

// ---- Locks ----

std::expected<LockDescription, Error> Client::describe_lock(const std::string& name) {
  v1::DescribeLock request;
  request.set_name(name);
  const auto lock =
      ask_unary<v1::LockDescription>(*io_, "/conclave.v1.Locks/Describe", request, Calls::Repeat::kHarmless);
  if (!lock) return std::unexpected(lock.error());
  return lock_of(*lock);
}

std::expected<LockPage, Error> Client::list_locks(const ListOptions& options) {
  const auto list = ask_unary<v1::LockList>(*io_, "/conclave.v1.Locks/List", request_of<v1::ListLocks>(options),
                                            Calls::Repeat::kHarmless);
  if (!list) return std::unexpected(list.error());
  LockPage page;
  for (const v1::LockDescription& lock : list->locks()) page.locks.push_back(lock_of(lock));
  auto next = next_of(list->more(), options.after, page.locks.empty() ? nullptr : &page.locks.back().name);
  if (!next) return std::unexpected(std::move(next).error());
  page.next = std::move(*next);
  return page;
}

std::expected<bool, Error> Client::force_release(const std::string& name, int64_t token,
                                                 const ForceReleaseOptions& options) {
  if (options.timeout < 0ms) {
    return std::unexpected(Error{ErrorKind::kRejected, "INVALID_OPTIONS", "timeout must not be less than nothing"});
  }
  v1::ForceReleaseLock request;
  request.set_name(name);
  request.set_token(token);
  request.set_reason(options.reason);
  request.set_now(options.now);
  const Duration timeout = options.timeout > 0ms ? Duration(bounded(options.timeout))
                                                 : io_->request_timeout() + (options.now ? 0ms : kOwnerPatience);
  const auto released =
      ask_unary<v1::Released>(*io_, "/conclave.v1.Locks/ForceRelease", request, Calls::Repeat::kChange, timeout);
  if (!released) return std::unexpected(released.error());
  return released->held();
}

std::expected<int64_t, Error> Client::request_release(const std::string& name, const std::string& note) {
  v1::RequestReleaseOfLock request;
  request.set_name(name);
  request.set_note(note);
  const auto requested =
      ask_unary<v1::ReleaseWasRequested>(*io_, "/conclave.v1.Locks/RequestRelease", request, Calls::Repeat::kChange);
  if (!requested) return std::unexpected(requested.error());
  return requested->token();
}

// ---- Elections ----

std::expected<ElectionDescription, Error> Client::describe_election(const std::string& name) {
  v1::DescribeElection request;
  request.set_name(name);
  const auto election =
      ask_unary<v1::ElectionDescription>(*io_, "/conclave.v1.Elections/Describe", request, Calls::Repeat::kHarmless);
  if (!election) return std::unexpected(election.error());
  return election_of(*election);
}

std::expected<ElectionPage, Error> Client::list_elections(const ListOptions& options) {
  const auto list = ask_unary<v1::ElectionList>(*io_, "/conclave.v1.Elections/List",
                                                request_of<v1::ListElections>(options), Calls::Repeat::kHarmless);
  if (!list) return std::unexpected(list.error());
  ElectionPage page;
  for (const v1::ElectionDescription& election : list->elections()) page.elections.push_back(election_of(election));
  auto next = next_of(list->more(), options.after, page.elections.empty() ? nullptr : &page.elections.back().name);
  if (!next) return std::unexpected(std::move(next).error());
  page.next = std::move(*next);
  return page;
}

// ---- Sessions ----

std::expected<SessionDescription, Error> Client::describe_session(int64_t session) {
  v1::DescribeSession request;
  request.set_session(session);
  const auto described =
      ask_unary<v1::SessionDescription>(*io_, "/conclave.v1.Sessions/Describe", request, Calls::Repeat::kHarmless);
  if (!described) return std::unexpected(described.error());
  SessionDescription out = session_of(*described);
  out.remaining = milliseconds(described->remaining_ms());
  return out;
}

std::expected<SessionPage, Error> Client::list_sessions(const SessionListOptions& options) {
  v1::ListSessions request;
  request.set_after(options.after);
  request.set_count(options.count);
  const auto list = ask_unary<v1::SessionList>(*io_, "/conclave.v1.Sessions/List", request, Calls::Repeat::kHarmless);
  if (!list) return std::unexpected(list.error());
  SessionPage page;
  for (const v1::SessionDescription& session : list->sessions()) page.sessions.push_back(session_of(session));
  auto next = next_of(list->more(), options.after, page.sessions.empty() ? nullptr : &page.sessions.back().session);
  if (!next) return std::unexpected(std::move(next).error());
  page.next = *next;
  return page;
}

std::expected<void, Error> Client::kill_session(int64_t session) {
  v1::KillSession request;
  request.set_session(session);
  const auto killed = ask_unary<v1::SessionKilled>(*io_, "/conclave.v1.Sessions/Kill", request, Calls::Repeat::kChange);
  if (!killed) return std::unexpected(killed.error());
  return {};
}

}  // namespace conclave::client
