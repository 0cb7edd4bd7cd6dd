// LiveSessions: all sessions of a client, on its loop's thread: joins their cores with the link, keeps track of which
// is due when, and hands on what the cores tell: to who waits for an operation, to what is held, to observers.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "client/held_state.h"
#include "client/link.h"
#include "client/session_core.h"
#include "client/session_view.h"
#include "conclave/session.h"

namespace conclave::client {

class Observation::State {
 public:
  State(std::shared_ptr<Io> io, int64_t session, std::string name, std::function<void(const Leader&)> seen,
        ObserveOptions options)
      : io_(std::move(io)), session_(session), name_(std::move(name)), seen_(std::move(seen)), options_(options) {}
  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] int64_t session() const { return session_; }
  [[nodiscard]] Io& io() const { return *io_; }
  [[nodiscard]] bool wants_candidates() const { return options_.candidates; }
  // The client's thread. While it runs, end() waits.
  void tell(const Leader& leader);
  void end();
  [[nodiscard]] bool is_live();

 private:
  const std::shared_ptr<Io> io_;
  const int64_t session_;
  const std::string name_;
  const std::function<void(const Leader&)> seen_;
  const ObserveOptions options_;
  std::recursive_mutex mutex_;
  bool live_ = true;  // under the mutex
};

class LiveSessions final : public LinkEvents {
 public:
  using Opened = std::move_only_function<void(std::expected<void, Error>)>;
  using Ended = std::move_only_function<void(OperationEnded&&)>;

  LiveSessions(net::Loop& loop, std::vector<net::Endpoint> endpoints, uint64_t seed);
  LiveSessions(const LiveSessions&) = delete;
  LiveSessions& operator=(const LiveSessions&) = delete;
  ~LiveSessions() override;

  // `opened` once, when it stands or cannot; not within `timeout`: it is given up. Never from within what is told here.
  void open(SessionCoreOptions core, const SessionOptions& options, std::shared_ptr<SessionView> view, Duration timeout,
            Opened opened);
  // `closed`: whether a server said so, at the latest after `timeout`.
  void close(int64_t session, Duration timeout, std::move_only_function<void(bool confirmed)> closed);

  // Operations; the session may be gone, or its own queue full: `ended` says so then, before it returns.
  OperationId acquire(int64_t session, AcquireOptions options, Ended ended);
  OperationId campaign(int64_t session, std::string name, std::string value, int32_t priority, Ended ended);
  void cancel(int64_t session, OperationId operation);
  void release(int64_t session, HeldState::Kind kind, const HeldClaim& claim, Ended ended);
  void proclaim(int64_t session, const HeldClaim& claim, std::string value, Ended ended);
  void transfer(int64_t session, const HeldClaim& claim, int64_t to, Ended ended);
  void observe(int64_t session, std::weak_ptr<Observation::State> observation);
  void stop_observing(int64_t session, const std::string& name);

  // What was granted, from then on told of its loss. False: it is lost already.
  [[nodiscard]] bool hold(const std::shared_ptr<HeldState>& held);
  [[nodiscard]] bool holds(int64_t session, const HeldClaim& claim);
  // What the session holds of that name, if anything.
  [[nodiscard]] std::shared_ptr<HeldState> held(int64_t session, const std::string& name);

  // Everything ends, without a word to any server.
  void shut();

  void tick(Instant now);
  [[nodiscard]] Instant next_deadline() const;

  void on_connected(Instant now) override;
  void on_disconnected(Instant now) override;
  void on_response(Instant now, const v1::SessionResponse& response) override;
  void on_kept(Instant now, int64_t session, Instant sent, SessionCore::Kept kept) override;

 private:
  struct Live;
  [[nodiscard]] Live* find(int64_t session);
  [[nodiscard]] Live* find_known_as(int64_t id);
  template <class Ask>
  OperationId operate(int64_t session, Ended ended, Ask ask);
  // After each use of a core: what it asks is sent, what it tells is handed on, and when it is due is noted.
  void settle(Live& live);
  void send_requests(Live& live);
  void hand_on(Live& live, std::vector<SessionEvent> events);
  void on_lost(Live& live, const ClaimLost& lost);
  void on_leader(Live& live, const LeaderSeen& seen);
  void on_state(Live& live, const StateChanged& changed);
  void end_all(Live& live, HeldState::Over how, const std::string& reason, const std::string& message);
  void publish(Live& live);
  void finish_closing(Live& live, bool confirmed);
  void keep_closing(Live& live);
  void remove(int64_t session);
  void erase_over();
  void send_keep_alives(Instant now);
  void set_patience();

  net::Loop& loop_;
  Link link_;
  std::unordered_map<int64_t, std::unique_ptr<Live>> live_;  // by the number they were made with
  std::unordered_map<int64_t, int64_t> made_as_;             // by the one that servers know (SessionCore::id)
  std::set<std::pair<Instant, int64_t>> due_;
  std::multiset<Duration> ttls_;
  std::vector<int64_t> over_;     // to be erased at the turn's end
  std::vector<int64_t> backlog_;  // have something to send, which the link took no more
};

}  // namespace conclave::client
