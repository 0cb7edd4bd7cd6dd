// Client: the way into a Conclave cluster. Begin here.
//
//   auto client = Client::open({.endpoints = "a:2379,b:2379,c:2379"});
//   auto session = client->open_session({.description = "backup on host a"});
//   auto hold = session->lock("backup");
//   if (hold) { ... hold->token() ... }
//
// One thread belongs to a client, from open() to its end: it speaks with one server at a time for all sessions, renews
// them, moves to another server when one is silent, and makes the callbacks. What was under way is asked again there
// and never done twice. There is no other thread but those of Held::run().
#pragma once

#include "conclave/describe.h"
#include "conclave/kv.h"
#include "conclave/session.h"

namespace conclave::client {

// In all options each field has a default, so that a program names those it means and no warning asks for the rest.
struct ClientOptions {
  // HOST:PORT,HOST:PORT, each with https:// or http:// before it or neither.
  std::string endpoints = "127.0.0.1:2379";
  // Paths of PEM files; any of them: TLS, for endpoints that do not say otherwise.
  std::string ca{};           // empty: those the system believes
  std::string certificate{};  // to show; and its chain
  std::string key{};
  // Of what is no operation of a session: opening one, closing one, keys and values, what operators ask.
  std::chrono::milliseconds request_timeout{5000};
};

struct ElectOptions {
  SessionOptions session{};
  int32_t priority = 0;
  // Ends the loop: a term under way is resigned when its body has returned.
  std::stop_token stop{};
  // Of each session that a campaign could not be made with, and will be made again.
  std::function<void(const Error& error)> on_error{};
};

// Any thread. Sessions and what they hold may outlive it, but nothing is held any more then. Move-only.
class [[nodiscard]] Client {
 public:
  // kRejected: the endpoints or files are not right. Whether a server is there is not asked.
  [[nodiscard]] static std::expected<Client, Error> open(const ClientOptions& options);
  Client(Client&& other) noexcept;
  Client& operator=(Client&& other) noexcept = delete;
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;
  ~Client();

  // Answers when it stands. kNotApplied: no server could open it in time.
  [[nodiscard]] std::expected<Session, Error> open_session(SessionOptions options = {});
  [[nodiscard]] Kv kv();

  // Campaigns for `name`, runs `body` on this thread for each term and, where it says so, campaigns again: with the
  // same session while that stands, with a new one after it. `body` must return soon after the term's stop token fired.
  // Ends with kCancelled when stopped, kRejected where asking again is of no use, and without an error where `body`
  // says so.
  [[nodiscard]] std::expected<void, Error> elect(const std::string& name, const std::string& value,
                                                 const ElectOptions& options,
                                                 const std::function<Next(Term& term)>& body);
  // Who leads, by a round to the servers.
  [[nodiscard]] std::expected<Leader, Error> leader(const std::string& name);
  // Whether `token` owns the lock now, by a round to the servers: for a resource that cannot keep the highest token it
  // has seen. Nothing says for how long.
  [[nodiscard]] std::expected<bool, Error> owns(const std::string& name, int64_t token);

  // ---- For operators ----
  // Any thread but the client's; in the request_timeout where nothing else is said. Each looks at a state that a round
  // to the servers has proven. A name that nobody claims is free, and no error.
  [[nodiscard]] std::expected<LockDescription, Error> describe_lock(const std::string& name);
  // A page of those that somebody claims; claims may come and go between two of them.
  [[nodiscard]] std::expected<LockPage, Error> list_locks(const ListOptions& options = {});
  [[nodiscard]] std::expected<ElectionDescription, Error> describe_election(const std::string& name);
  [[nodiscard]] std::expected<ElectionPage, Error> list_elections(const ListOptions& options = {});
  // kRejected (SESSION_EXPIRED): there is none, or not any more.
  [[nodiscard]] std::expected<SessionDescription, Error> describe_session(int64_t session);
  [[nodiscard]] std::expected<SessionPage, Error> list_sessions(const SessionListOptions& options = {});

  // Of changes that no server answered, kOutcomeUnknown: they are never repeated on a guess.
  //
  // Ends the claim that owns the lock, if it has this token: its Hold is lost (FORCED), and only the token protects
  // what the lock guards. False: the token did not own it any more when it was looked at. kOutcomeUnknown where the
  // timeout came before the owner's time was over.
  [[nodiscard]] std::expected<bool, Error> force_release(const std::string& name, int64_t token,
                                                         const ForceReleaseOptions& options = {});
  // Asks the owner to let go (on_release_wanted), who may do so or not; `note` has at most 256 bytes. Answers whose
  // token it is. kRejected (NOT_HELD, NOT_A_SESSION): nobody owns it, or nobody who can be asked.
  [[nodiscard]] std::expected<int64_t, Error> request_release(const std::string& name, const std::string& note = {});
  // Ends the session and all it holds, in one revision, its locks without their delay; its owner is told. kRejected
  // (SESSION_EXPIRED): as of describe_session().
  [[nodiscard]] std::expected<void, Error> kill_session(int64_t session);

 private:
  explicit Client(std::shared_ptr<Io> io);
  std::shared_ptr<Io> io_;
};

}  // namespace conclave::client
