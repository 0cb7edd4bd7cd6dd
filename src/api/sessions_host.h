// What layers::Sessions stands on here: the replica's answers, the keyspace, time, and the calls whose streams speak
// for sessions. Owns Sessions, and nothing of what it decides; knows each stream's far end and which operations it
// waits for. What Sessions says is given to the calls when it is done with what it was asked: a call may end within
// that, or ask for more.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>

#include "api/context.h"
#include "conclave/v1/session.pb.h"
#include "keyspace/interface.h"
#include "layers/sessions.h"

namespace conclave::api {

// Operations of sessions, for metrics.
enum class SessionOperation : uint8_t {
  kOpen,
  kAttach,
  kClose,
  kAcquire,
  kCancel,
  kRelease,
  kCampaign,
  kProclaim,
  kResign,
  kTransfer,
};
inline constexpr size_t kSessionOperationCount = 10;
[[nodiscard]] std::string_view to_string(SessionOperation operation);

class SessionsHost final : public layers::SessionsWorld, public Waiter, public RoleListener {
 public:
  using StreamId = layers::StreamId;
  // The call at the end of a stream.
  class Listener {
   public:
    virtual ~Listener() = default;
    // In order. May close the stream or ask for more.
    virtual void on_response(v1::SessionResponse&& response) = 0;
  };

  explicit SessionsHost(Context& context);
  SessionsHost(const SessionsHost&) = delete;
  SessionsHost& operator=(const SessionsHost&) = delete;
  ~SessionsHost() override;

  // ---- Streams: layers/sessions.h. Answers may come before these return; to a listener that is being told, after ----
  // Nothing if there are too many.
  [[nodiscard]] std::optional<StreamId> open(Listener& listener);
  void close(StreamId stream);
  void request(StreamId stream, const v1::SessionRequest& request);
  void introduce(StreamId stream, const v1::SessionIdentity& identity);
  void withdraw(StreamId stream, SessionId session, uint64_t sequence);
  // Requests of this stream that will have an answer and have none, but for keep-alives.
  [[nodiscard]] size_t unanswered(StreamId stream) const;
  // Of these, sessions being opened or attached.
  [[nodiscard]] size_t attaching(StreamId stream) const;
  // What all streams hold for clients that do not read (limits.h).
  [[nodiscard]] size_t& held_bytes() { return held_bytes_; }
  [[nodiscard]] size_t held_bytes() const { return held_bytes_; }

  // ---- The state and time, told by Service ----
  void on_entry();  // after each, after its answer
  void on_state_replaced() { replaced_ = true; }
  void on_role_changed() override { follow_role(); }
  void turn_end(Instant now);
  [[nodiscard]] Instant next_deadline() const { return sessions_.next_deadline(); }
  [[nodiscard]] bool has_work() const { return replaced_ || sessions_.has_work(); }

  // ---- Answers ----
  void on_applied(node::Ticket ticket, const keyspace::Reply& reply) override;
  void on_ready(node::Ticket ticket) override;
  void on_kept_alive(node::Ticket ticket, int64_t ttl_ms) override;
  void on_refused(node::Ticket ticket, keyspace::ErrorId error) override;

  // ---- layers::SessionsWorld ----
  [[nodiscard]] const keyspace::View& view() const override;
  [[nodiscard]] bool is_settled() const override { return !context_.keyspace().is_busy(); }
  void write(layers::Ticket ticket, const keyspace::CommandHeader& header, ByteView body) override;
  void read(layers::Ticket ticket) override;
  void keep_alive(layers::Ticket ticket, LeaseId lease) override;
  [[nodiscard]] std::string hash_of(ByteView secret) const override;
  void send(StreamId stream, v1::SessionResponse&& response) override;

  // ---- For metrics ----
  [[nodiscard]] const layers::Sessions& sessions() const { return sessions_; }
  // How operations ended: "OK", the reason, or "UNANSWERED".
  using Outcomes = std::map<std::string, uint64_t, std::less<>>;
  [[nodiscard]] const std::array<Outcomes, kSessionOperationCount>& outcomes() const { return outcomes_; }

 private:
  struct Asked {
    layers::Ticket ticket = 0;
    enum class What : uint8_t { kWrite, kRead, kKeepAlive } what = What::kWrite;
  };
  struct Stream {
    Listener* listener = nullptr;
    // By session and sequence; sequence zero: opened, attached or closed, one after the other.
    std::multimap<std::pair<int64_t, uint64_t>, SessionOperation> waiting;
    size_t attaching = 0;
  };

  template <class Step>
  void enter(Step step);
  void deliver();
  void follow_role();
  node::Ticket issue(layers::Ticket ticket, Asked::What what);
  [[nodiscard]] layers::Ticket redeem(node::Ticket ticket);
  [[nodiscard]] bool note_request(Stream& stream, const v1::SessionRequest& request);
  void note_response(Stream& stream, const v1::SessionResponse& response);
  void give_up(Stream& stream, int64_t session);

  Context& context_;
  layers::Sessions sessions_;
  mutable std::optional<keyspace::KeyspaceView> view_;  // of the keyspace as it stands, made anew each time
  std::unordered_map<node::Ticket, Asked> asked_;       // never walked but to end
  std::map<StreamId, Stream> streams_;
  std::deque<std::pair<StreamId, v1::SessionResponse>> outbox_;
  uint32_t depth_ = 0;  // of calls into sessions_
  bool delivering_ = false;
  bool replaced_ = false;  // another state took the place, and sessions_ was not told
  Term leading_;
  size_t held_bytes_ = 0;
  std::array<Outcomes, kSessionOperationCount> outcomes_;
};

}  // namespace conclave::api
