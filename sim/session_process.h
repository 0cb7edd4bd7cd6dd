// SessionProcess: a simulated program with the client library: a clock of its own, and one stream to some server, by
// which its sessions are attached, kept alive together, and ask. It goes to another server when it hears nothing; and
// it is paused, cut off from servers, moved, and begun anew with no memory of its sessions.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "sim/clock.h"
#include "sim/session_link.h"
#include "sim/session_owner.h"

namespace conclave::sim {

class SessionProcess final : public SessionLink::Client, public SessionOwner::Process {
 public:
  SessionProcess(SessionScene& scene, size_t number, Random random);

  void start();
  // Nothing disturbs it any more.
  void begin_liveness();
  // To another server.
  void move();

  // --- SessionLink::Client
  void on_link_up() override;
  void on_link_response(const v1::SessionResponse& response) override;
  void on_link_down() override;
  [[nodiscard]] bool is_paused() const override { return is_paused_; }
  [[nodiscard]] Instant unreachable_until(size_t node) const override;
  // --- SessionOwner::Process
  [[nodiscard]] Instant now() override { return clock_.now(); }
  void step(const std::function<void()>& what) override;

  // That it asks; SIZE_MAX: none yet.
  [[nodiscard]] size_t server() const { return server_; }
  [[nodiscard]] const std::vector<std::unique_ptr<SessionOwner>>& owners() const { return owners_; }
  [[nodiscard]] std::string describe() const;

 private:
  struct KeepAlive {
    Instant sent{};
    std::vector<int64_t> sessions;
  };

  [[nodiscard]] int32_t draw_drift();
  void after(Duration pause, std::function<void()> what);
  [[nodiscard]] SessionOwner* find(int64_t session);
  void add_session();
  void replace_sessions();
  // Whatever was asked goes out, and whatever was told is taken.
  void settle();
  void arm();
  void wake();

  // --- The stream.
  void connect();
  void reconnect();
  void go_down();
  void send(v1::SessionRequest request);
  void alter(v1::SessionRequest& request);
  void ask_by_call(const v1::SessionRequest& request);
  void send_again();
  void send_keep_alives();
  void take_kept(const v1::SessionResponse& response);
  [[nodiscard]] bool waits_in_vain();

  // --- What happens to it.
  void plan_trouble();
  void meet_trouble();
  void cut_off(size_t node);
  void pause(Duration time);
  void resume();
  void begin_anew();

  SessionScene& scene_;
  const size_t number_;
  Random random_;
  NodeClock clock_;
  const Duration patience_;  // for an answer
  std::vector<std::unique_ptr<SessionOwner>> owners_;
  std::shared_ptr<SessionLink> link_;
  size_t server_ = SIZE_MAX;
  bool is_up_ = false;
  Instant connecting_since_{};
  std::map<size_t, Instant> unreachable_;  // until when, true time
  std::map<uint64_t, KeepAlive> keep_alives_;
  uint64_t last_keep_alive_ = 0;
  std::map<std::pair<int64_t, uint64_t>, v1::SessionRequest> unanswered_;  // of those that may be sent again
  std::map<int64_t, uint64_t> incarnations_;                               // of sessions attached before
  EventHandle timer_;
  bool is_settling_ = false;
  bool is_paused_ = false;
  bool is_quiet_ = false;
  uint64_t pauses_ = 0;
  std::vector<std::function<void()>> waiting_;  // steps whose time came during a pause
};

}  // namespace conclave::sim
