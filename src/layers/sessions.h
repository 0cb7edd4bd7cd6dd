// Sessions: what one server knows and does of sessions whose clients speak to it: opens and attaches them, renews them,
// does their operations on locks and elections, and tells them what happens to what they own. Values in, values out:
// the messages of conclave.v1 (session.proto) from streams and to them; commands, reads and keep-alives to the replica,
// and what became of each. Owns nothing that is replicated: a stream that ends, or this server, leaves all as it is,
// and the client attaches its sessions elsewhere.
//
// What is said here is proven (architecture section 1, rule 5). A grant follows from the applied state: once oldest, a
// claim stays oldest until it is deleted. All else is said of a session only after a round of reads begun after its
// attachment was asked for. One thread, the replica's.
//
// What becomes of an operation (rule 4): its command carries session, incarnation and sequence. Applied: it is answered
// from that entry; applied before: from the state. Refused: known not done, and the same sequence may be asked again.
// Unknown: said so, and to be asked again.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/bytes.h"
#include "base/time.h"
#include "base/types.h"
#include "conclave/v1/session.pb.h"
#include "keyspace/interface.h"

namespace conclave::layers {

using Ticket = uint64_t;
using StreamId = uint64_t;

// Why something was not done, known so.
enum class NotDone : uint8_t {
  kNoQuorum,    // no leader in time
  kOverloaded,  // a queue is full
  kNoSpace,     // of memory's quota or the disk
};

// What Sessions asks of its host. Each ticket is answered once, by the function of Sessions named for it, possibly
// before the call returns.
class SessionsWorld {
 public:
  virtual ~SessionsWorld() = default;
  // Of the state as it is. Keys must not be looked at while `is_settled()` is false: the replica is in the middle of a
  // large entry, and tells of it when it is done.
  [[nodiscard]] virtual const keyspace::View& view() const = 0;
  [[nodiscard]] virtual bool is_settled() const = 0;
  virtual void write(Ticket ticket, const keyspace::CommandHeader& header, ByteView body) = 0;
  // Answered when the state includes all that anybody was told before this was asked.
  virtual void read(Ticket ticket) = 0;
  virtual void keep_alive(Ticket ticket, LeaseId lease) = 0;
  // kSecretHashBytes.
  [[nodiscard]] virtual std::string hash_of(ByteView secret) const = 0;
  // To a stream that is open. Must not call back.
  virtual void send(StreamId stream, v1::SessionResponse&& response) = 0;
};

struct SessionsOptions {
  size_t sessions_per_stream_max = 16'384;
  // Operations under way of one session: the client's window (kSessionWindow) is the bound, and this checks it.
  size_t operations_per_session_max = 64;
  size_t claims_per_session_max = 1024;
  // Sessions whose renewal is asked of the replica at once: more wait here, rather than being refused there.
  size_t keep_alives_under_way_max = 16'384;
  // Claims looked at again in one turn, where an entry had too many events to follow them one by one.
  size_t rechecks_per_turn = 256;
  size_t events_per_entry_max = 4096;
  // Told to go to another server, of one that lags: each is attached there at the cost of an opening.
  size_t handed_over_per_second = 2000;
};

class Sessions {
 public:
  Sessions(const SessionsOptions& options, SessionsWorld& world);
  Sessions(const Sessions&) = delete;
  Sessions& operator=(const Sessions&) = delete;
  ~Sessions();

  // ---- Streams ----
  [[nodiscard]] StreamId open_stream();
  // Nothing more is sent to it. What is under way may still happen.
  void close_stream(StreamId stream);
  // Answered by send(), possibly before it returns; whatever is wrong with it is an answer too.
  void request(Instant now, StreamId stream, const v1::SessionRequest& request);
  // For one operation without a stream of its own: the stream speaks for the session from `attached` (without claims)
  // on, without a round where the session stands here. Others of the same incarnation are not disturbed.
  void introduce(Instant now, StreamId stream, const v1::SessionIdentity& identity);
  // The one who asked for this operation is gone: nothing of it is to stay. Of acquire and campaign; for a client that
  // cannot cancel any more. No answer.
  void withdraw(Instant now, StreamId stream, SessionId session, uint64_t sequence);

  // ---- Answers ----
  void on_written(Instant now, Ticket ticket, const keyspace::Reply& reply);  // the state is as right after the entry
  void on_write_refused(Instant now, Ticket ticket, NotDone reason);
  void on_write_unknown(Instant now, Ticket ticket);
  void on_read(Instant now, Ticket ticket);
  void on_read_refused(Instant now, Ticket ticket, NotDone reason);
  void on_kept_alive(Ticket ticket, int64_t ttl_ms);  // zero: gone
  void on_keep_alive_refused(Ticket ticket, NotDone reason);

  // ---- The state ----
  // After each entry, after its on_written.
  void on_applied(Instant now, const keyspace::Applied& applied);
  // Another state took the place of the one before; all that streams speak for is attached again.
  void on_state_replaced(Instant now);
  // This server leads in `term`, and has applied the term's first entry; zero: it does not.
  void set_leading(Term term);
  // Whether this server lags behind its leader. From when it begins to, the streams that speak for sessions then
  // are handed over, by tick(): all sessions of one are told MOVED, and the next follows at the rate of the options.
  // Who attaches meanwhile stays: it found no better server, and what it was shown was as new as its asking.
  void set_lagging(Instant now, bool lagging);

  // ---- Time and work ----
  void tick(Instant now);
  [[nodiscard]] Instant next_deadline() const;
  // There is something to do at once, by work().
  [[nodiscard]] bool has_work() const;
  void work(Instant now);

  // For people and metrics.
  [[nodiscard]] size_t streams() const;
  [[nodiscard]] size_t attached() const;
  [[nodiscard]] uint64_t handed_over() const;  // sessions, in all
  [[nodiscard]] size_t waiters() const;        // claims and candidacies that wait, of sessions attached here

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace conclave::layers
