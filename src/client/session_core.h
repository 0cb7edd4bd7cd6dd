// SessionCore: a client's side of one session, without IO: what it asks of servers, what it may believe of its session,
// and what became of each operation. Values in, values out; time is an argument, of a clock that goes on while the
// machine sleeps (CLOCK_BOOTTIME).
//
// What it may believe: the session stands for its TTL from when the newest keep-alive that was answered was *sent*.
// Until then it is safe. After that it is in jeopardy: the session may stand or not, nobody may act on what it holds.
// It is expired, for good, when a server says so or when it was in jeopardy for as long as the options allow.
//
// An operation is known by its sequence. One that is not answered when a stream breaks is asked again on the next,
// under the same sequence, and so never done twice; what its caller is told in the end is one Outcome.
//
// Life: made; on_connected() and on_disconnected() as streams come and go; requests are taken and sent in order; every
// response that names the session comes to on_response(). Not for several threads.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/time.h"
#include "conclave/v1/session.pb.h"

namespace conclave::client {

enum class SessionState : uint8_t {
  kOpening,   // not answered yet
  kSafe,      // stands, by its own clock
  kJeopardy,  // bound over; not known
  kExpired,   // has ended, or must be taken for ended: final
  kClosed,    // by its owner: final
};
[[nodiscard]] std::string_view to_string(SessionState state);

// What became of an operation.
enum class Outcome : uint8_t {
  kDone,
  kRejected,    // the cluster said no (`reason`), and changed nothing
  kNotApplied,  // given up before it happened, and will not happen
  kUnknown,     // it may have happened
  kLost,        // what it was about is not held: the session has ended, or the claim was taken away
  kCancelled,   // by its caller; nothing of it is left
};
[[nodiscard]] std::string_view to_string(Outcome outcome);

struct SessionCoreOptions {
  int64_t id = 0;      // above zero, at random: of the first asking, see id()
  std::string secret;  // 16 to 64 bytes, at random
  Duration ttl{};      // 1 s to 30 days
  std::string description;
  // How long it may be in jeopardy before it counts as expired.
  Duration jeopardy_max = std::chrono::seconds(45);
};

// An operation, to its caller.
using OperationId = uint64_t;

struct AcquireOptions {
  std::vector<std::string> names;  // several: all or none, in one revision
  bool try_once = false;
  Duration timeout{};     // zero: none
  Duration lock_delay{};  // 0 to 60 s
  std::string note;
  bool while_holding = false;
};

struct HeldClaim {
  std::string name;
  int64_t token = 0;
};

// ---- What it tells, in order ----

struct StateChanged {
  SessionState state = SessionState::kOpening;
  std::string reason;
};
// Of an acquire: all its names are granted. Of a campaign: elected. Of a release, resign, transfer: done; `was_held`
// false: it was lost before. Of a proclaim: done. Once for each operation.
struct OperationEnded {
  OperationId operation = 0;
  Outcome outcome = Outcome::kDone;
  std::string reason;             // of kRejected, kNotApplied, kUnknown: stable (session.proto)
  std::string message;            // for people
  std::vector<HeldClaim> claims;  // granted
  bool was_held = false;
};
// Something that was granted is not held any more, though the session stands.
struct ClaimLost {
  std::string name;
  int64_t token = 0;
  v1::Lost::Reason reason = v1::Lost::DELETED;
  std::string note;
};
struct ReleaseWanted {
  std::string name;
  int64_t token = 0;
  std::string note;
};
struct LeaderSeen {
  std::string name;
  int64_t token = 0;  // zero: a vacancy
  std::string value;
  int64_t lease = 0;
  int64_t revision = 0;
  bool skipped = false;  // there may have been others between
  bool is_new = true;    // false: of the leader this was told before, and only the candidates are others
  std::optional<v1::Candidates> candidates;
};
using SessionEvent = std::variant<StateChanged, OperationEnded, ClaimLost, ReleaseWanted, LeaderSeen>;

// The server asks for this and all sessions of its stream to be attached at another one: whoever has the stream ends it
// once this response was handed on.
[[nodiscard]] bool asks_to_move(const v1::SessionResponse& response);

class SessionCore {
 public:
  SessionCore(SessionCoreOptions options, Instant now);
  SessionCore(const SessionCore&) = delete;
  SessionCore& operator=(const SessionCore&) = delete;
  ~SessionCore();

  // ---- Streams ----
  void on_connected(Instant now);     // to some server; asks to be opened or attached there
  void on_disconnected(Instant now);  // what was sent may have arrived or not
  void on_response(Instant now, const v1::SessionResponse& response);
  // Keep-alives are sent by the stream's owner, many sessions in one message: it asks when, and tells what came of it.
  [[nodiscard]] Instant keep_alive_at() const;  // kNever: not now
  void on_keep_alive_sent(Instant now);
  enum class Kept : uint8_t { kRenewed, kGone, kFailed };
  void on_kept(Instant now, Instant sent, Kept kept);

  // ---- Operations; each ends with OperationEnded ----
  // Of a name that the session has or wants already, it waits here until that is over.
  OperationId acquire(Instant now, AcquireOptions options);
  OperationId campaign(Instant now, std::string name, std::string value, int32_t priority);
  // Of an acquire or campaign that has not ended. It ends kCancelled, or was done first; without an answer for long,
  // kUnknown, and is taken back behind that.
  void cancel(Instant now, OperationId operation);
  // From here on the claim is not held, whatever comes of it.
  OperationId release(Instant now, const std::string& name, int64_t token);
  OperationId proclaim(Instant now, const std::string& name, int64_t token, std::string value);
  OperationId resign(Instant now, const std::string& name, int64_t token);
  OperationId transfer(Instant now, const std::string& name, int64_t token, int64_t to);
  // Again for a name that is observed: with the candidates from now on, or without.
  void observe(Instant now, const std::string& name, bool candidates = false);
  void stop_observing(Instant now, const std::string& name);
  // Ends the session and all it owns; kClosed follows at once. A server is told as soon as there is one
  // (wants_stream()).
  void close(Instant now);

  // ---- What may be believed ----
  [[nodiscard]] SessionState state() const;
  // Until then the session stands, by this clock; in the past: jeopardy.
  [[nodiscard]] Instant safe_until() const;
  [[nodiscard]] bool is_safe(Instant now) const { return state() == SessionState::kSafe && now < safe_until(); }
  // Granted, not released and not lost, as far as is known; it may be acted on only while is_safe().
  [[nodiscard]] bool holds(const std::string& name, int64_t token) const;
  [[nodiscard]] const SessionCoreOptions& options() const;
  // Its number. Until it is opened another one with each asking: an asking that was not answered may be done later,
  // when the session of another has lived and ended already, and must not bring that one back. What it opens, nobody
  // uses.
  [[nodiscard]] int64_t id() const;
  [[nodiscard]] v1::Place place() const;

  // ---- Time ----
  void tick(Instant now);
  [[nodiscard]] Instant next_deadline() const;

  // There is something left to say or to hear.
  [[nodiscard]] bool wants_stream() const;

  // ---- Outputs ----
  [[nodiscard]] std::vector<v1::SessionRequest> take_requests();
  [[nodiscard]] std::vector<SessionEvent> take_events();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace conclave::client
