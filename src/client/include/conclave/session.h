// Session: a client's presence in the cluster. What it holds stands while it does, and ends with it, all at once.
#pragma once

#include "conclave/election.h"
#include "conclave/lock.h"

namespace conclave::client {

enum class State : uint8_t {
  kOpening,   // not answered yet
  kSafe,      // it stands, by this machine's clock
  kJeopardy,  // not renewed within its time: it may stand or not. Nobody may act on what it holds; wait
  kExpired,   // it has ended, or must be taken for ended: final
  kClosed,    // by its owner: final
};
[[nodiscard]] std::string_view to_string(State state);

struct SessionOptions {
  // 1 s to 30 days. What the session holds is free again so long after this process is gone.
  std::chrono::milliseconds ttl{10'000};
  // For people: what this is, and where. At most 256 bytes.
  std::string description{};
  // So long may it be in jeopardy before it counts as expired.
  std::chrono::milliseconds jeopardy_max{45'000};
  // Both on the client's thread, which they must not block. `reason` is for people.
  std::function<void(State state, const std::string& reason)> on_state{};
  // Somebody asks the holder to let go of `name`, who may do so or not.
  std::function<void(const std::string& name, int64_t token, const std::string& note)> on_release_wanted{};
};

struct SessionHandle;

// May be used by many threads. The calls that wait are not for the client's thread (callbacks): they answer kRejected
// (ON_CLIENT_THREAD) there; those with `done` answer on it. Move-only; at the end of its scope it is closed.
class [[nodiscard]] Session {
 public:
  Session(Session&& other) noexcept;
  Session& operator=(Session&& other) noexcept = delete;
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
  // As close(), its outcome not told.
  ~Session();

  [[nodiscard]] int64_t id() const;  // its lease has the same number
  // By the clock at this call.
  [[nodiscard]] State state() const;
  [[nodiscard]] BootClock::time_point deadline() const;
  // Until it is safe: kNotApplied (IN_JEOPARDY) if it is not in time, kLost if it never will be.
  [[nodiscard]] std::expected<void, Error> wait_safe(std::chrono::milliseconds at_most) const;
  // Ends it and all it holds, in one revision. kOutcomeUnknown: no server answered in time; it ends by itself.
  [[nodiscard]] std::expected<void, Error> close();

  // ---- Locks ----
  // Waits its turn. kRejected with the server's reason; kNotApplied (TIMED_OUT): not in its time, and nothing of it is
  // left; kOutcomeUnknown (TIMED_OUT, CANCELLED): no server could be asked to take it back, which is done as soon as
  // one can. kLost: the claim or the session was lost while it waited.
  [[nodiscard]] std::expected<Hold, Error> lock(std::string name, LockOptions options = {});
  // Now or not at all: kNotApplied (WOULD_BLOCK).
  [[nodiscard]] std::expected<Hold, Error> try_lock(std::string name, LockOptions options = {});
  // Several, all or none, in one revision.
  [[nodiscard]] std::expected<Hold, Error> lock_all(std::vector<std::string> names, LockOptions options = {});
  void lock(std::string name, LockOptions options, std::move_only_function<void(std::expected<Hold, Error>)> done);
  void lock_all(std::vector<std::string> names, LockOptions options,
                std::move_only_function<void(std::expected<Hold, Error>)> done);
  // Takes the lock, runs `body` on this thread, lets go, and says how it ended. An exception passes, after letting go.
  [[nodiscard]] std::expected<HeldEnd, Error> with_lock(std::string name, LockOptions options,
                                                        const std::function<void(Hold& hold)>& body);

  // ---- Elections ----
  // Waits to be elected. Errors as of lock().
  [[nodiscard]] std::expected<Term, Error> campaign(std::string name, std::string value, CampaignOptions options = {});
  void campaign(std::string name, std::string value, CampaignOptions options,
                std::move_only_function<void(std::expected<Term, Error>)> done);
  // `seen` on the client's thread: who leads now, or that nobody does, and then each change, until the session ends;
  // where asked for, of candidates too, several of them at once.
  [[nodiscard]] Observation observe(std::string name, std::function<void(const Leader& leader)> seen,
                                    ObserveOptions options = {});

 private:
  friend class Client;
  explicit Session(std::shared_ptr<SessionHandle> handle);
  [[nodiscard]] std::expected<Hold, Error> wait_lock(std::vector<std::string> names, bool try_once,
                                                     LockOptions options);
  std::shared_ptr<SessionHandle> handle_;
};

}  // namespace conclave::client
