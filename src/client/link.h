// Link: a client's stream to one server at a time, for all its sessions. Chooses the server, connects, gives up a
// server that is silent or renews nothing, and comes back after a pause that grows. Sends keep-alives of many sessions
// in one message and remembers when. Knows no session's state. On the loop's thread.
//
// A server is given up when the oldest keep-alive that it has not answered, or the opening of the stream where it has
// said nothing yet, is as old as the patience: a third of the smallest TTL. A third is spent until a keep-alive is due,
// one until it is given up; in the last the next server is asked.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "base/random.h"
#include "base/time.h"
#include "client/session_core.h"
#include "net/client.h"
#include "net/endpoint.h"
#include "net/loop.h"

namespace conclave::client {

class LinkEvents {
 public:
  virtual ~LinkEvents() = default;
  virtual void on_connected(Instant now) = 0;
  virtual void on_disconnected(Instant now) = 0;
  virtual void on_response(Instant now, const v1::SessionResponse& response) = 0;
  virtual void on_kept(Instant now, int64_t session, Instant sent, SessionCore::Kept kept) = 0;
};

class Link {
 public:
  Link(net::Loop& loop, std::vector<net::Endpoint> endpoints, uint64_t seed, LinkEvents& events);
  Link(const Link&) = delete;
  Link& operator=(const Link&) = delete;
  ~Link();

  // Whether there is anything to speak of.
  void set_wanted(bool wanted);
  void set_patience(Duration patience);

  [[nodiscard]] bool is_connected() const { return call_ != nullptr; }
  // So much is on its way already that what is not urgent waits.
  [[nodiscard]] bool is_congested() const;
  // On a stream that stands.
  void send(const v1::SessionRequest& request);
  void keep_alive(Instant now, std::vector<int64_t> sessions);
  // Nothing has been asked or heard for so long that a keep-alive should ask whether the server is there.
  [[nodiscard]] Instant probe_at() const;
  // There is nobody to ask it for.
  void put_off_probe(Instant now) { probe_from_ = now; }

  // Called at the end of each turn.
  void tick(Instant now);
  [[nodiscard]] Instant next_deadline() const;
  // Why the last stream ended, for people.
  [[nodiscard]] const std::string& last_failure() const { return last_failure_; }

 private:
  struct SentKeepAlive {
    uint64_t id = 0;
    Instant sent;
    std::vector<int64_t> sessions;
  };

  void connect(Instant now);
  void disconnect(Instant now);
  void on_message(ByteView message);
  void on_kept(Instant now, const v1::SessionsKept& kept);
  [[nodiscard]] Instant given_up_at() const;

  net::Loop& loop_;
  const std::vector<net::Endpoint> endpoints_;
  LinkEvents& events_;
  Random random_;
  Duration patience_;
  bool wanted_ = false;
  size_t endpoint_;       // of the stream, or of the next
  Instant connect_at_{};  // not before
  size_t failures_ = 0;   // streams in a row of which nothing came
  std::string last_failure_;

  // Of the stream.
  std::unique_ptr<net::Channel> channel_;
  std::unique_ptr<net::ClientCall> call_;
  bool broken_ = false;  // it ended; done in tick()
  Instant opened_at_{};
  Instant heard_at_ = kNever;  // kNever: not yet
  Instant probe_from_{};
  Instant unrenewed_since_ = kNever;  // it answers, and renews nothing
  std::deque<SentKeepAlive> sent_;    // not answered, in order of sending
  uint64_t next_keep_alive_ = 1;
};

}  // namespace conclave::client
