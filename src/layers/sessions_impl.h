// The inside of Sessions (sessions.h): sessions.cc has streams, attachments and keep-alives, session_operations.cc what
// they ask, session_events.cc what they are told.
#pragma once

#include <algorithm>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "keyspace/errors.h"
#include "layers/claim_queue.h"
#include "layers/claim_record.h"
#include "layers/command_builder.h"
#include "layers/elections.h"
#include "layers/sessions.h"

namespace conclave::layers {

class Sessions::Impl {
 public:
  Impl(const SessionsOptions& options, SessionsWorld& world) : options_(options), world_(world) {
    elections_.begin_rebuild();
  }

  StreamId open_stream();
  void close_stream(StreamId stream);
  void request(Instant now, StreamId stream, const v1::SessionRequest& request);
  void introduce(Instant now, StreamId stream, const v1::SessionIdentity& identity);
  void withdraw(Instant now, StreamId stream, SessionId session, uint64_t sequence);

  void on_written(Instant now, Ticket ticket, const keyspace::Reply& reply);
  void on_not_written(Instant now, Ticket ticket, std::optional<NotDone> reason);  // nothing: unknown
  void on_read(Instant now, Ticket ticket);
  void on_read_refused(Instant now, Ticket ticket, NotDone reason);
  void on_kept(Ticket ticket, std::optional<int64_t> ttl_ms);

  void on_applied(Instant now, const keyspace::Applied& applied);
  void on_state_replaced(Instant now);
  void set_leading(Term term);
  void set_lagging(Instant now, bool lagging);

  void tick(Instant now);
  [[nodiscard]] Instant next_deadline() const;
  [[nodiscard]] bool has_work() const;
  void work(Instant now);

  [[nodiscard]] size_t streams() const { return streams_.size(); }
  [[nodiscard]] size_t attached() const { return sessions_.size(); }
  [[nodiscard]] uint64_t handed_over() const { return handed_over_; }
  [[nodiscard]] size_t waiters() const { return queue_.waiting(); }

 private:
  using WaiterId = ClaimQueue::WaiterId;
  using Reply = keyspace::Reply;

  struct Stream {
    std::set<SessionId> sessions;
    std::set<std::pair<SessionId, std::string>> observed;
    size_t requests_under_way = 0;  // opens, attachments and observations
    size_t keep_alives_under_way = 0;
  };

  // What a session has in line for a name.
  struct Claim {
    ClaimKind kind = ClaimKind::kLock;
    std::string key;
    Revision token;  // zero: a candidate whose claim was not put yet
    bool granted = false;
    WaiterId waiter = 0;     // in queue_; zero with a candidate
    uint64_t operation = 0;  // by which it came, if that was asked here
  };

  struct Refusal {
    keyspace::GrpcCode code = keyspace::GrpcCode::kOk;
    std::string_view reason;
    std::string_view message;
  };

  struct Operation {
    std::unique_ptr<v1::SessionRequest> request;  // kept until it is answered
    StreamId stream = 0;
    enum class Stage : uint8_t {
      kSettle,    // for the state to be looked at
      kLook,      // for a round before a look that could refuse
      kWrite,     // for its entry
      kMark,      // of a cancel: for the mark that keeps the operation from happening later
      kTarget,    // of a cancel: for what is cancelled to be decided
      kCancel,    // of a cancel: for the deletion
      kRefuse,    // for the mark that keeps it from happening later, before it is refused
      kAnswered,  // of an acquire or campaign: it stands in line
    } stage = Stage::kSettle;
    std::vector<std::string> names;
    Ticket ticket = 0;    // what it waits for: an answer to an earlier one of that sequence is none
    bool proven = false;  // a round was made for it
    int attempts = 0;
    Instant deadline = kNever;  // of an acquire
    bool cancelled = false;     // a cancel waits for it to be decided
    bool withdrawn = false;     // nobody waits for it
    uint64_t incarnation = 0;   // that its command carries
    Refusal refusal;
  };

  struct Session {
    uint64_t incarnation = 0;
    std::vector<StreamId> streams;             // mostly one
    std::map<std::string, Claim> claims;       // by name
    std::map<uint64_t, Operation> operations;  // by sequence
    [[nodiscard]] bool is_spoken_for_by(StreamId stream) const {
      return std::find(streams.begin(), streams.end(), stream) != streams.end();
    }
    bool listed = false;  // claims are all it has
  };

  // What a ticket is for.
  struct Pending {
    enum class Kind : uint8_t {
      kOperation,
      kOpen,
      kAttach,
      kClose,
      kKeepAlive,
      kWithdrawal,
      kElection,
      kObserve
    } kind = Kind::kOperation;
    StreamId stream = 0;
    SessionId session;
    uint64_t number = 0;  // sequence; keep-alive; withdrawal
    std::string text;     // secret hash; name of an election
    uint64_t incarnation = 0;
    v1::Place place;
    std::pair<int64_t, int64_t> seen;  // of an observer: token and revision of the leader it saw last
    bool candidates = false;           // of an observer: it wants them
    bool lists = true;                 // of an attachment: all the session owns is told
  };

  struct KeepAlive {
    StreamId stream = 0;
    std::vector<SessionId> to_ask;  // the next at the back
    size_t waiting = 0;             // asked, and those of to_ask
    v1::SessionsKept answer;
  };

  // Claims of a session are to be gone, whoever asked for it: asked again until they are.
  struct Withdrawal {
    SessionId session;
    struct Name {
      std::string name;
      Revision token;  // zero: a candidate's, or not known
      // A campaign's: bound, elected or a candidate again, it may stand by another token by now, or by its record.
      bool may_be_candidate = true;
    };
    std::vector<Name> names;
    uint64_t unknown_sequence = 0;  // to be marked first: it may happen yet
    // Some of it was lost while the rest waited: it never was granted as a whole, and will not be.
    bool is_void = false;
    uint64_t incarnation = 0;
    Ticket ticket = 0;
    // Its client is told when it is done: of an acquire whose time was over.
    bool tells = false;
    uint64_t sequence = 0;
  };

  struct Observed {
    std::map<std::pair<StreamId, SessionId>, bool> observers;  // with candidates
    v1::Leadership last;
  };

  // ---- sessions.cc ----
  void open(Instant now, StreamId stream, const v1::SessionRequest& request);
  void attach(StreamId stream, SessionId id, const v1::AttachSession& request);
  void finish_read(Instant now, const Pending& pending);
  void finish_attachment(Instant now, const Pending& pending);
  Session* speak_for(StreamId stream, SessionId id, uint64_t incarnation);
  // What the state has of it, by name, or some of that, once so many were found; a candidacy's token is zero.
  struct Standing {
    ClaimKind kind = ClaimKind::kLock;
    Revision token;
  };
  [[nodiscard]] std::map<std::string, Standing> claims_of(SessionId id, size_t enough = SIZE_MAX) const;
  void list_claims(SessionId id, Session& session);
  void close(StreamId stream, SessionId id);
  void keep_alive(StreamId stream, const v1::KeepSessions& request);
  void ask_keep_alives();
  void finish_keep_alive(uint64_t number);
  void detach(StreamId stream, SessionId id);
  void hand_over(Instant now);
  void drop_if_idle(SessionId id);
  void end_session(SessionId id, v1::SessionEnded::Reason reason);
  void forget_claim(Session& session, const std::string& name);
  [[nodiscard]] Ticket issue(Pending pending);
  void run_settled(Instant now);

  // ---- session_operations.cc ----
  void operate(Instant now, StreamId stream, const v1::SessionRequest& request);
  [[nodiscard]] bool validate(const v1::SessionRequest& request, std::vector<std::string>& names, std::string& why,
                              std::string_view& reason) const;
  void run(Instant now, SessionId id, uint64_t sequence);
  [[nodiscard]] bool holds_others(SessionId id, const Session& session, uint64_t sequence) const;
  void run_acquire(Instant now, SessionId id, Session& session, uint64_t sequence, Operation& operation);
  void run_cancel(Instant now, SessionId id, Session& session, uint64_t sequence, Operation& operation);
  void run_campaign(SessionId id, uint64_t sequence, Operation& operation);
  void run_proclaim(SessionId id, uint64_t sequence, Operation& operation);
  void run_resign(Instant now, SessionId id, uint64_t sequence, Operation& operation);
  void look_first(SessionId id, uint64_t sequence, Operation& operation);
  void refuse_by_look(Instant now, SessionId id, uint64_t sequence, Operation& operation, Refusal refusal);
  // As the operation's own sequence, or another.
  void write(SessionId id, uint64_t sequence, Operation& operation, Operation::Stage stage,
             const CommandBuilder& command, uint64_t as_sequence = 0);
  void delete_claims(SessionId id, uint64_t sequence, Operation& operation);
  void on_operation_written(Instant now, Ticket ticket, const Pending& pending, const Reply& reply);
  void on_operation_not_written(Instant now, Ticket ticket, const Pending& pending, std::optional<NotDone> reason);
  void on_done(Instant now, SessionId id, Session& session, uint64_t sequence, Operation& operation, bool repeated);
  [[nodiscard]] bool was_transferred(Instant now, SessionId id, uint64_t sequence, const Operation& operation);
  void on_guard_failed(Instant now, SessionId id, Session& session, uint64_t sequence, Operation& operation,
                       const Reply& reply);
  void on_acquired(Instant now, SessionId id, Session& session, uint64_t sequence, Operation& operation);
  void on_cancelled(Instant now, SessionId id, Session& session, uint64_t sequence, Operation& operation);
  // These end an operation; it is not to be looked at afterwards.
  void finish(Instant now, SessionId id, uint64_t sequence, v1::SessionResponse&& response);
  void fail(Instant now, SessionId id, uint64_t sequence, keyspace::GrpcCode code, std::string_view reason,
            std::string_view message);
  void fail(Instant now, SessionId id, uint64_t sequence, const Reply& reply);
  void fail_cancelled(Instant now, SessionId id, uint64_t sequence);
  void run_cancels_of(Instant now, SessionId id, uint64_t target);
  void withdraw_claims(Instant now, SessionId id, uint64_t sequence, uint64_t unknown);
  void run_withdrawal(Instant now, uint64_t number);
  void track(SessionId id, Session& session, const std::string& name, ClaimKind kind, Revision token,
             uint64_t operation);
  void end_waits(Instant now);

  // ---- session_events.cc ----
  void follow_events(const keyspace::Applied& applied, std::set<std::string>& names, std::set<std::string>& twice);
  void take_decisions();
  void recheck_all();
  void follow_candidate(SessionId id, const std::string& name);
  void on_candidate_record(ByteView key);
  void tell_granted(SessionId id, Session& session, const std::string& name);
  void tell_lost(SessionId id, Session& session, const std::string& name);
  void tell_forced(StreamId stream, SessionId id, const Session& session);
  void on_request_record(ByteView key);
  void tell_request(SessionId id, const std::string& name, const Claim& claim, const RequestRecord& record);
  void observe(StreamId stream, const v1::SessionRequest& request);
  void begin_observing(const Pending& pending);
  void stop_observing(StreamId stream, SessionId session, const std::string& name);
  void stop_observing(StreamId stream, SessionId session);
  void tell_candidates(Instant now);
  void look_at_leaders(const std::set<std::string>& names, const std::set<std::string>& twice);
  void decide_elections();

  // ---- What is said ----
  [[nodiscard]] v1::SessionResponse response(SessionId session, uint64_t sequence) const;
  void send(StreamId stream, v1::SessionResponse&& response);
  void push(SessionId id, const v1::SessionResponse& response);
  void send_error(StreamId stream, SessionId session, uint64_t sequence, keyspace::GrpcCode code,
                  std::string_view reason, std::string_view message);
  void send_error(StreamId stream, SessionId session, uint64_t sequence, const Refusal& refusal) {
    send_error(stream, session, sequence, refusal.code, refusal.reason, refusal.message);
  }
  // Nothing: unknown.
  [[nodiscard]] static Refusal refusal_of(std::optional<NotDone> reason);

  const SessionsOptions options_;
  SessionsWorld& world_;
  std::map<StreamId, Stream> streams_;
  StreamId last_stream_ = 0;
  std::unordered_map<SessionId, Session> sessions_;  // never walked but to end all
  std::map<Ticket, Pending> pending_;
  Ticket last_ticket_ = 0;
  std::map<uint64_t, KeepAlive> keep_alives_;
  uint64_t last_keep_alive_ = 0;
  std::deque<uint64_t> keep_alives_to_ask_;
  size_t keep_alives_under_way_ = 0;

  ClaimQueue queue_{ClaimQueue::Line::kDirectChildren};
  std::unordered_map<WaiterId, std::pair<SessionId, std::string>> waiters_;  // never walked
  WaiterId last_waiter_ = 0;
  // Candidates of sessions here: by the key their claim will have.
  std::map<std::string, std::pair<SessionId, std::string>, std::less<>> candidacies_;

  Elections elections_;
  std::map<std::string, Observed, std::less<>> observed_;
  std::set<std::string> candidates_changed_;  // of names that are observed
  Instant candidates_at_ = Instant::min();    // not told before

  std::deque<std::pair<SessionId, uint64_t>> unsettled_;                // operations that wait for a state to look at
  std::deque<Pending> unsettled_attachments_;                           // and observers
  std::set<std::pair<Instant, std::pair<SessionId, uint64_t>>> waits_;  // acquires with a limit
  std::map<uint64_t, Withdrawal> withdrawals_;
  uint64_t last_withdrawal_ = 0;
  std::set<std::pair<Instant, uint64_t>> withdrawals_again_;
  std::set<std::pair<Instant, std::string>> elections_again_;
  std::deque<std::pair<Instant, Pending>> observers_again_;

  bool is_lagging_ = false;
  std::deque<StreamId> to_hand_over_;  // ascending; some may be closed
  Instant hand_over_at_{};             // the next, not before
  uint64_t handed_over_ = 0;
};

}  // namespace conclave::layers
