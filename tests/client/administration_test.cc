// What operators ask and decide, and what the client library promises beside it, on a real server: one process with it,
// its clients as they are.

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <optional>
#include <stdexcept>
#include <thread>

#include <gtest/gtest.h>

#include "client/testing/told.h"
#include "conclave/client.h"
#include "server/server.h"

namespace conclave::client {
namespace {

using namespace std::chrono_literals;

// A port of loopback that nobody listens on.
uint16_t free_port() {
  const int socket = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  EXPECT_EQ(bind(socket, reinterpret_cast<sockaddr*>(&address), size), 0);
  EXPECT_EQ(getsockname(socket, reinterpret_cast<sockaddr*>(&address), &size), 0);
  close(socket);
  return ntohs(address.sin_port);
}

// A cluster of one on loopback, in a directory and a thread of its own; or a server of one that has not begun.
class RealServer {
 public:
  explicit RealServer(const std::string& join = {}) {
    server::set_log(server::LogFormat::kText, server::LogLevel::kError);
    directory_ = testing::TempDir() + "conclave-administration-XXXXXX";
    EXPECT_NE(mkdtemp(directory_.data()), nullptr);
    auto started = server::Server::start({.name = "n1",
                                          .data = directory_ + "/data",
                                          .client_listen = {.port = 0},
                                          .peer_listen = {.port = 0},
                                          .join = join});
    if (!started) throw std::runtime_error(started.error().message);
    server_ = std::move(*started);
    endpoint_ = "127.0.0.1:" + std::to_string(server_->info().client.port);
    thread_ = std::thread([this]() noexcept { server_->run(); });
  }
  RealServer(const RealServer&) = delete;
  RealServer& operator=(const RealServer&) = delete;
  ~RealServer() {
    server_->stop();
    thread_.join();
    server_.reset();
    std::filesystem::remove_all(directory_);
  }
  [[nodiscard]] const std::string& endpoint() const { return endpoint_; }

 private:
  std::string directory_;
  std::string endpoint_;
  std::unique_ptr<server::Server> server_;
  std::thread thread_;
};

// A lock or a term that is waited for without a thread. What else is in it may be looked at once it was granted.
template <class T>
struct Waited {
  Told<bool> told;
  std::optional<T> got;
  BootClock::time_point at{};
  void give(std::expected<T, Error> answer) {
    at = BootClock::now();
    if (answer) got.emplace(std::move(*answer));
    told.add(answer.has_value());
  }
  [[nodiscard]] bool is_granted() { return told.wait_for(true); }
  [[nodiscard]] bool is_waiting() { return told.all().empty(); }
};

// One server for all; each test has names of its own.
class AdministrationOnAServerTest : public testing::Test {
 protected:
  static void SetUpTestSuite() { server_ = std::make_unique<RealServer>(); }
  static void TearDownTestSuite() { server_.reset(); }

  static Client connect(std::chrono::milliseconds request_timeout = kLimit) {
    return std::move(*Client::open({.endpoints = server_->endpoint(), .request_timeout = request_timeout}));
  }
  Session open(const std::string& description, std::chrono::milliseconds ttl = 60s) {
    auto session = client.open_session(
        {.ttl = ttl,
         .description = description,
         .on_state = [this](State state, const std::string&) { states.add(state); },
         .on_release_wanted = [this](const std::string& wanted_name, int64_t,
                                     const std::string& note) { wanted.add(wanted_name + ": " + note); }});
    if (!session) throw std::runtime_error(session.error().message);
    return std::move(*session);
  }
  static std::shared_ptr<Waited<Hold>> wait_lock(Session& session, const std::string& lock_name,
                                                 LockOptions options = {}) {
    auto waited = std::make_shared<Waited<Hold>>();
    session.lock(lock_name, std::move(options),
                 [waited](std::expected<Hold, Error> answer) { waited->give(std::move(answer)); });
    return waited;
  }
  static std::shared_ptr<Waited<Term>> wait_term(Session& session, const std::string& election_name,
                                                 const std::string& value, int32_t priority) {
    auto waited = std::make_shared<Waited<Term>>();
    session.campaign(election_name, value, {.priority = priority},
                     [waited](std::expected<Term, Error> answer) { waited->give(std::move(answer)); });
    return waited;
  }
  // As a client of etcd's recipe: a key below the name on a lease that it does not name, the session's here.
  int64_t put_foreign_claim(const std::string& line, const Session& session) {
    const auto put = client.kv().commit({.puts = {{.key = line + "/abc", .value = "foreign", .lease = session.id()}}});
    EXPECT_TRUE(put) << put.error().message;
    return put ? put->revision : 0;
  }
  LockDescription described(const std::string& lock_name) {
    auto lock = client.describe_lock(lock_name);
    EXPECT_TRUE(lock) << lock.error().message;
    return lock ? std::move(*lock) : LockDescription();
  }
  ElectionDescription elected(const std::string& election_name) {
    auto election = client.describe_election(election_name);
    EXPECT_TRUE(election) << election.error().message;
    return election ? std::move(*election) : ElectionDescription();
  }
  bool has_waiting(const std::string& lock_name, int64_t count) {
    return eventually([&] { return described(lock_name).waiting == count; });
  }

  const std::string name = testing::UnitTest::GetInstance()->current_test_info()->name();
  Told<State> states;
  Told<std::string> wanted;
  Client client = connect();

 private:
  static std::unique_ptr<RealServer> server_;
};
std::unique_ptr<RealServer> AdministrationOnAServerTest::server_;

template <class T>
std::string reason_of(const std::expected<T, Error>& answer) {
  return answer ? "no error" : std::string(to_string(answer.error().kind)) + " " + answer.error().reason;
}

// ---- Locks ----

TEST_F(AdministrationOnAServerTest, ALockIsDescribed) {
  const LockDescription free = described(name);
  EXPECT_EQ(free.name, name);
  EXPECT_FALSE(free.owner);
  EXPECT_EQ(free.waiting, 0);

  Session first = open("host a");
  Session second = open("host b");
  const auto hold = first.lock(name, {.lock_delay = 1500ms, .note = "the nightly run"});
  ASSERT_TRUE(hold);
  const auto waited = wait_lock(second, name, {.note = "by hand"});
  ASSERT_TRUE(has_waiting(name, 1));
  const int64_t foreign = put_foreign_claim(name, first);

  const LockDescription lock = described(name);
  ASSERT_TRUE(lock.owner);
  EXPECT_EQ(lock.owner->key, hold->guard().key);
  EXPECT_EQ(lock.owner->token, hold->token());
  EXPECT_EQ(lock.owner->lease, first.id());
  EXPECT_TRUE(lock.owner->is_session);
  EXPECT_EQ(lock.owner->note, "the nightly run");
  EXPECT_EQ(lock.owner->description, "host a");
  EXPECT_EQ(lock.owner->lock_delay, 1500ms);
  EXPECT_EQ(lock.waiting, 2);
  EXPECT_GE(lock.revision, foreign);
  ASSERT_EQ(lock.waiters.size(), 2U);
  EXPECT_EQ(lock.waiters[0].lease, second.id());
  EXPECT_EQ(lock.waiters[0].description, "host b");
  EXPECT_EQ(lock.waiters[0].note, "by hand");
  EXPECT_GT(lock.waiters[0].token, hold->token());
  EXPECT_EQ(lock.waiters[1].key, name + "/abc");
  EXPECT_EQ(lock.waiters[1].token, foreign);
  EXPECT_FALSE(lock.waiters[1].is_session);

  const auto owner = client.describe_session(first.id());
  ASSERT_TRUE(owner) << owner.error().message;
  EXPECT_EQ(owner->session, first.id());
  EXPECT_EQ(owner->description, "host a");
  EXPECT_EQ(owner->ttl, 60s);
  ASSERT_TRUE(owner->remaining);
  EXPECT_GT(*owner->remaining, 0ms);
  EXPECT_LE(*owner->remaining, 60s);
  EXPECT_EQ(owner->incarnation, 1U);
  ASSERT_EQ(owner->claims.size(), 1U);
  EXPECT_EQ(owner->claims[0].name, name);
  EXPECT_EQ(owner->claims[0].kind, SessionClaim::Kind::kLock);
  EXPECT_EQ(owner->claims[0].token, hold->token());
  EXPECT_TRUE(owner->claims[0].granted);
  const auto waiter = client.describe_session(second.id());
  ASSERT_TRUE(waiter);
  ASSERT_EQ(waiter->claims.size(), 1U);
  EXPECT_FALSE(waiter->claims[0].granted);
  EXPECT_EQ(waiter->claims[0].token, lock.waiters[0].token);
}

TEST_F(AdministrationOnAServerTest, LocksAreListedInPages) {
  Session session = open("host a");
  Session other = open("host b");
  std::vector<std::string> names;
  for (const char* const each : {"a", "b", "c", "d", "e"}) names.push_back(name + "/" + each);
  const auto hold = session.lock_all(names, {.note = "all"});
  ASSERT_TRUE(hold);
  const auto term = session.campaign(name + "/election", "v");
  ASSERT_TRUE(term);
  const auto waited = wait_lock(other, names[2]);
  ASSERT_TRUE(has_waiting(names[2], 1));

  for (uint32_t count = 0; count <= 6; ++count) {
    std::vector<std::string> all;
    ListOptions options{.prefix = name + "/", .count = count};
    for (bool more = true; more && all.size() <= names.size();) {
      const auto page = client.list_locks(options);
      ASSERT_TRUE(page) << page.error().message;
      if (count > 0) {
        EXPECT_LE(page->locks.size(), count);
      }
      for (const LockDescription& lock : page->locks) {
        all.push_back(lock.name);
        EXPECT_EQ(lock.owner->token, hold->token(lock.name));
        EXPECT_EQ(lock.owner->note, "all");
        EXPECT_EQ(lock.waiting, lock.name == names[2] ? 1 : 0);
        EXPECT_TRUE(lock.waiters.empty());
      }
      more = page->next.has_value();
      options.after = page->next.value_or("");
    }
    EXPECT_EQ(all, names) << count << " on a page";
  }
  const auto behind = client.list_locks({.prefix = name + "/", .after = names[3]});
  ASSERT_EQ(behind->locks.size(), 1U);
  EXPECT_EQ(behind->locks[0].name, names[4]);
  EXPECT_TRUE(client.list_locks({.prefix = name + "/zzz"})->locks.empty());
  EXPECT_EQ(reason_of(client.list_locks({.count = 1001})), "rejected INVALID_REQUEST");
  EXPECT_EQ(reason_of(client.list_locks({.prefix = std::string(513, 'p')})), "rejected INVALID_REQUEST");
}

TEST_F(AdministrationOnAServerTest, AForcedReleaseAtOnce) {
  Session first = open("host a");
  Session second = open("host b");
  Session third = open("host c");
  auto hold = first.lock(name, {.lock_delay = 60s});
  ASSERT_TRUE(hold);
  const auto next = wait_lock(second, name);
  ASSERT_TRUE(has_waiting(name, 1));
  const auto last = wait_lock(third, name);
  ASSERT_TRUE(has_waiting(name, 2));

  const int64_t waiters = described(name).waiters[0].token;
  EXPECT_EQ(client.owns(name, hold->token()), true);
  EXPECT_EQ(client.owns(name, waiters), false) << "it waits";
  EXPECT_EQ(client.owns(name, hold->token() - 1), false);
  EXPECT_EQ(client.force_release(name, waiters, {.now = true}), false) << "it owns nothing";
  EXPECT_TRUE(hold->is_held());

  EXPECT_EQ(client.force_release(name, hold->token(), {.reason = "it hangs", .now = true}), true);
  EXPECT_TRUE(fires(hold->stop_token()));
  EXPECT_FALSE(hold->is_held());
  const auto lost = hold->wait_held(1ms);
  EXPECT_EQ(reason_of(lost), "lost FORCED");
  EXPECT_NE(lost.error().message.find("it hangs"), std::string::npos) << lost.error().message;
  ASSERT_TRUE(next->is_granted());
  EXPECT_EQ(next->got->token(), waiters);
  EXPECT_GT(next->got->token(), hold->token());
  EXPECT_EQ(client.owns(name, hold->token()), false);
  EXPECT_EQ(client.owns(name, next->got->token()), true);
  EXPECT_EQ(client.force_release(name, hold->token(), {.now = true}), false) << "again: it owns nothing any more";
  EXPECT_EQ(hold->release(), HeldEnd::kAlreadyLost);
  EXPECT_EQ(first.state(), State::kSafe) << "the session goes on";
  EXPECT_TRUE(next->got->is_held());
  EXPECT_EQ(next->got->release(), HeldEnd::kReleased);
  EXPECT_TRUE(last->is_granted());
}

TEST_F(AdministrationOnAServerTest, TheOwnerIsAskedFirstAndMayRelease) {
  Session session = open("host a");
  auto hold = session.lock(name);
  ASSERT_TRUE(hold);
  HeldEnd ended = HeldEnd::kUnknown;
  std::thread owner([&] {
    EXPECT_TRUE(wanted.wait_for(name + ": maintenance"));
    ended = hold->release();
  });
  EXPECT_EQ(client.force_release(name, hold->token(), {.reason = "maintenance"}), true);
  owner.join();
  EXPECT_EQ(ended, HeldEnd::kReleased) << "nothing was forced";
  EXPECT_FALSE(described(name).owner);
}

TEST_F(AdministrationOnAServerTest, AnOwnerThatDoesNothingIsForcedWhenItsTimeIsOver) {
  constexpr auto kTtl = 2s;
  Session session = open("host a", kTtl);
  auto hold = session.lock(name);
  ASSERT_TRUE(hold);
  Client impatient = connect(500ms);
  const auto begin = BootClock::now();
  EXPECT_EQ(impatient.force_release(name, hold->token()), true) << "its time is not that of other calls";
  EXPECT_GE(BootClock::now() - begin, kTtl);
  EXPECT_TRUE(wanted.wait_for(name + ": "));
  EXPECT_TRUE(fires(hold->stop_token()));
  EXPECT_EQ(reason_of(hold->wait_held(1ms)), "lost FORCED");
  EXPECT_TRUE(session.wait_safe(kLimit));
}

TEST_F(AdministrationOnAServerTest, AfterItsTimeoutNothingIsForced) {
  constexpr auto kTtl = 2s;
  Session session = open("host a", kTtl);
  auto hold = session.lock(name);
  ASSERT_TRUE(hold);
  EXPECT_EQ(reason_of(client.force_release(name, hold->token(), {.timeout = kTtl / 2})),
            "outcome unknown UNKNOWN_OUTCOME");
  EXPECT_TRUE(wanted.wait_for(name + ": ")) << "it was asked";
  const auto its_time_is_over = BootClock::now() + kTtl;
  EXPECT_TRUE(eventually([&] { return BootClock::now() >= its_time_is_over; }));
  EXPECT_EQ(client.owns(name, hold->token()), true);
  EXPECT_FALSE(hold->stop_token().stop_requested());
  EXPECT_EQ(hold->release(), HeldEnd::kReleased);
}

TEST_F(AdministrationOnAServerTest, AReleaseIsRequested) {
  EXPECT_EQ(reason_of(client.request_release(name)), "rejected NOT_HELD");
  Session session = open("host a");
  {
    const auto hold = session.lock(name);
    ASSERT_TRUE(hold);
    EXPECT_EQ(client.request_release(name, "maintenance at nine"), hold->token());
    EXPECT_TRUE(wanted.wait_for(name + ": maintenance at nine"));
    EXPECT_TRUE(hold->is_held()) << "it may ignore that";
    EXPECT_EQ(reason_of(client.request_release(name, std::string(257, 'n'))), "rejected INVALID_REQUEST");
  }
  put_foreign_claim(name, session);
  EXPECT_EQ(reason_of(client.request_release(name)), "rejected NOT_A_SESSION");
}

TEST_F(AdministrationOnAServerTest, WhatIsNoName) {
  for (const std::string& bad : {std::string(), std::string(513, 'n'), std::string("/.conclave/x")}) {
    EXPECT_EQ(reason_of(client.describe_lock(bad)), "rejected INVALID_NAME") << bad;
    EXPECT_EQ(reason_of(client.describe_election(bad)), "rejected INVALID_NAME") << bad;
    EXPECT_EQ(reason_of(client.request_release(bad)), "rejected INVALID_NAME") << bad;
    EXPECT_EQ(reason_of(client.force_release(bad, 1, {.now = true})), "rejected INVALID_NAME") << bad;
  }
  EXPECT_EQ(reason_of(client.force_release(name, 0)), "rejected INVALID_REQUEST") << "no token";
  EXPECT_EQ(reason_of(client.force_release(name, 1, {.reason = std::string(257, 'r')})), "rejected INVALID_REQUEST");
  EXPECT_EQ(client.force_release(name, 1), false) << "nobody owns it";
}

// What a server refuses that serves nobody yet has certainly not been done.
TEST(AdministrationTest, AServerThatHasNotBegunHasDoneNothing) {
  const RealServer server("n1=127.0.0.1:" + std::to_string(free_port()) +
                          ",n2=127.0.0.1:" + std::to_string(free_port()));
  auto client = Client::open({.endpoints = server.endpoint(), .request_timeout = 200ms});
  ASSERT_TRUE(client);
  const auto asked = client->request_release("a lock");
  ASSERT_FALSE(asked);
  EXPECT_EQ(asked.error().kind, ErrorKind::kNotApplied) << asked.error().message;
  const auto killed = client->kill_session(7);
  ASSERT_FALSE(killed);
  EXPECT_EQ(killed.error().kind, ErrorKind::kNotApplied) << killed.error().message;
}

// ---- Sessions ----

TEST_F(AdministrationOnAServerTest, ASessionIsKilled) {
  Session victim = open("host a");
  Session other = open("host b");
  auto hold = victim.lock(name, {.lock_delay = 60s});
  ASSERT_TRUE(hold);
  const auto next = wait_lock(other, name);
  ASSERT_TRUE(has_waiting(name, 1));
  const int64_t id = victim.id();
  const auto killed = client.kill_session(id);
  EXPECT_TRUE(killed) << killed.error().message;
  EXPECT_TRUE(states.wait_for(State::kExpired));
  EXPECT_EQ(victim.state(), State::kExpired);
  EXPECT_TRUE(fires(hold->stop_token()));
  EXPECT_EQ(reason_of(hold->wait_held(1ms)), "lost SESSION_EXPIRED");
  EXPECT_TRUE(next->is_granted()) << "without the lock's delay";
  EXPECT_EQ(reason_of(victim.close()), "lost SESSION_EXPIRED");
  EXPECT_EQ(reason_of(client.kill_session(id)), "rejected SESSION_EXPIRED");
  EXPECT_EQ(reason_of(client.describe_session(id)), "rejected SESSION_EXPIRED");
  EXPECT_EQ(reason_of(client.kill_session(0)), "rejected INVALID_REQUEST");
  EXPECT_EQ(reason_of(client.describe_session(-1)), "rejected INVALID_REQUEST");
}

TEST_F(AdministrationOnAServerTest, SessionsAreListedInPages) {
  std::vector<Session> sessions;
  std::vector<int64_t> ids;
  for (int i = 0; i < 5; ++i) {
    sessions.push_back(open(name + std::to_string(i)));
    ids.push_back(sessions.back().id());
  }
  std::ranges::sort(ids);
  const auto hold = sessions[0].lock(name);
  for (uint32_t count = 0; count <= 6; ++count) {
    std::vector<int64_t> all;
    SessionListOptions options{.count = count};
    for (bool more = true; more && all.size() <= ids.size();) {
      const auto page = client.list_sessions(options);
      ASSERT_TRUE(page) << page.error().message;
      if (count > 0) {
        EXPECT_LE(page->sessions.size(), count);
      }
      for (const SessionDescription& session : page->sessions) {
        EXPECT_EQ(session.ttl, 60s);
        EXPECT_TRUE(session.description.starts_with(name)) << session.description;
        EXPECT_FALSE(session.remaining);
        EXPECT_TRUE(session.claims.empty());
        all.push_back(session.session);
      }
      more = page->next.has_value();
      options.after = page->next.value_or(0);
    }
    EXPECT_EQ(all, ids) << count << " on a page";
  }
  EXPECT_EQ(reason_of(client.list_sessions({.count = 1001})), "rejected INVALID_REQUEST");
  EXPECT_EQ(reason_of(client.list_sessions({.after = -1})), "rejected INVALID_REQUEST");
}

// ---- Elections ----

TEST_F(AdministrationOnAServerTest, AnElectionIsDescribedAndTransferred) {
  const ElectionDescription nobody = elected(name);
  EXPECT_EQ(nobody.name, name);
  EXPECT_EQ(nobody.leader.token, 0);
  EXPECT_EQ(nobody.waiting, 0);

  Session first = open("host a");
  auto term = first.campaign(name, "a");
  ASSERT_TRUE(term);
  std::vector<Session> sessions;
  std::vector<std::shared_ptr<Waited<Term>>> waited;
  const int32_t priorities[] = {-3, 1, 7};
  for (size_t i = 0; i < 3; ++i) {
    sessions.push_back(open("host " + std::to_string(i)));
    waited.push_back(wait_term(sessions[i], name, "value " + std::to_string(i), priorities[i]));
  }
  ASSERT_TRUE(eventually([&] { return elected(name).waiting == 3; }));

  ElectionDescription election = elected(name);
  EXPECT_EQ(election.leader.token, term->token());
  EXPECT_EQ(election.leader.value, "a");
  EXPECT_EQ(election.leader.lease, first.id());
  EXPECT_EQ(election.leader.revision, term->token());
  EXPECT_EQ(election.claims_waiting, 0) << "candidates of sessions wait outside";
  ASSERT_EQ(election.candidates.size(), 3U);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(election.candidates[i].session, sessions[2 - i].id()) << "the highest priority first";
    EXPECT_EQ(election.candidates[i].priority, priorities[2 - i]);
    EXPECT_EQ(election.candidates[i].value, "value " + std::to_string(2 - i));
    EXPECT_EQ(election.candidates[i].description, "host " + std::to_string(2 - i));
  }
  const auto candidate = client.describe_session(sessions[1].id());
  ASSERT_TRUE(candidate);
  ASSERT_EQ(candidate->claims.size(), 1U);
  EXPECT_EQ(candidate->claims[0].kind, SessionClaim::Kind::kElection);
  EXPECT_EQ(candidate->claims[0].token, 0);
  EXPECT_FALSE(candidate->claims[0].granted);

  EXPECT_EQ(reason_of(term->transfer(first.id() + 1)), "rejected NO_CANDIDATE");
  EXPECT_TRUE(term->is_held());
  const auto transferred = term->transfer(sessions[0].id());
  EXPECT_TRUE(transferred) << transferred.error().message;
  ASSERT_TRUE(waited[0]->is_granted()) << "whatever its priority";
  election = elected(name);
  EXPECT_EQ(election.leader.lease, sessions[0].id());
  EXPECT_EQ(election.leader.token, waited[0]->got->token());
  EXPECT_GT(election.leader.token, term->token());
  EXPECT_EQ(election.waiting, 2);
  const auto leader = client.leader(name);
  ASSERT_TRUE(leader);
  EXPECT_EQ(leader->lease, sessions[0].id());

  Told<int64_t> seen;
  const Observation observation = first.observe(name, [&](const Leader& each) { seen.add(each.lease); });
  EXPECT_TRUE(seen.wait_for(sessions[0].id()));
}

TEST_F(AdministrationOnAServerTest, ElectionsAreListedInPages) {
  Session session = open("host a");
  Session other = open("host b");
  std::vector<Term> terms;
  std::vector<std::string> names;
  for (const char* const each : {"a", "b", "c"}) {
    names.push_back(name + "/" + each);
    auto term = session.campaign(names.back(), each);
    ASSERT_TRUE(term);
    terms.push_back(std::move(*term));
  }
  const auto hold = session.lock(name + "/lock");
  const auto waited = wait_term(other, names[0], "later", 0);
  ASSERT_TRUE(eventually([&] { return elected(names[0]).waiting == 1; }));
  const auto page = client.list_elections({.prefix = name + "/", .count = 2});
  ASSERT_TRUE(page) << page.error().message;
  ASSERT_EQ(page->elections.size(), 2U);
  EXPECT_EQ(page->elections[0].name, names[0]);
  EXPECT_EQ(page->elections[0].leader.name, names[0]);
  EXPECT_EQ(page->elections[0].leader.value, "a");
  EXPECT_EQ(page->elections[0].leader.token, terms[0].token());
  EXPECT_TRUE(page->elections[0].candidates.empty());
  EXPECT_EQ(page->elections[1].name, names[1]);
  EXPECT_EQ(page->next, names[1]);
  const auto last = client.list_elections({.prefix = name + "/", .after = *page->next, .count = 2});
  ASSERT_TRUE(last);
  ASSERT_EQ(last->elections.size(), 1U);
  EXPECT_EQ(last->elections[0].name, names[2]);
  EXPECT_FALSE(last->next);
  EXPECT_EQ(reason_of(client.list_elections({.count = 1001})), "rejected INVALID_REQUEST");
}

TEST_F(AdministrationOnAServerTest, ATermIsNotTransferredPastOthersInLine) {
  Session session = open("host a");
  Session other = open("host b");
  auto term = session.campaign(name, "a");
  ASSERT_TRUE(term);
  const int64_t foreign = put_foreign_claim(name, session);
  const auto waited = wait_term(other, name, "b", 0);
  ASSERT_TRUE(eventually([&] { return elected(name).claims_waiting == 2; }))
      << "the best is bound behind the foreign one";
  EXPECT_EQ(elected(name).waiting, 0);
  EXPECT_EQ(reason_of(term->transfer(other.id())), "rejected FOREIGN_WAITERS");
  EXPECT_TRUE(term->is_held()) << "it goes on";
  EXPECT_EQ(elected(name).leader.token, term->token());

  EXPECT_EQ(term->resign(), HeldEnd::kReleased);
  const auto leader = client.leader(name);
  ASSERT_TRUE(leader);
  EXPECT_EQ(leader->token, foreign) << "who was first in line";
  EXPECT_EQ(leader->value, "foreign");
  EXPECT_TRUE(waited->is_waiting());
  EXPECT_EQ(client.kv().erase(name + "/abc"), true);
  EXPECT_TRUE(waited->is_granted());
}

// ---- What the library promises besides ----

TEST_F(AdministrationOnAServerTest, AfterAnExpiryALockIsHeldBackForItsDelay) {
  constexpr auto kDelay = 3s;
  Session other = open("host b");
  std::optional<Client> ending(connect());
  auto session = ending->open_session({.ttl = 1s});
  ASSERT_TRUE(session);
  const auto hold = session->lock(name, {.lock_delay = kDelay});
  ASSERT_TRUE(hold);
  const auto next = wait_lock(other, name);
  ASSERT_TRUE(has_waiting(name, 1));
  const int64_t id = session->id();
  const auto stands_until = session->deadline();
  ending.reset();  // without a word
  LockDescription held_back;
  ASSERT_TRUE(eventually([&] {
    held_back = described(name);
    return held_back.owner && held_back.owner->lease != id;
  })) << "it has expired";
  EXPECT_EQ(held_back.owner->token, hold->token());
  EXPECT_FALSE(held_back.owner->is_session);
  EXPECT_EQ(held_back.waiting, 1);
  EXPECT_EQ(client.owns(name, hold->token()), false) << "who owned it does not any more";
  EXPECT_EQ(client.list_locks({.prefix = name})->locks.size(), 1U) << "somebody waits for it";
  EXPECT_TRUE(next->is_waiting());
  ASSERT_TRUE(next->is_granted());
  EXPECT_GE(next->at, stands_until + kDelay);
  EXPECT_GT(next->got->token(), hold->token());
}

TEST_F(AdministrationOnAServerTest, AReleaseHasNoDelay) {
  Session session = open("host a");
  Session other = open("host b");
  auto hold = session.lock(name, {.lock_delay = 60s});
  ASSERT_TRUE(hold);
  EXPECT_EQ(hold->release(), HeldEnd::kReleased);
  const auto next = other.lock(name, {.timeout = kLimit});
  EXPECT_TRUE(next) << next.error().message;
}

TEST_F(AdministrationOnAServerTest, SeveralLocksWhileOthersAreHeldOnlyWhereThatIsMeant) {
  Session session = open("host a");
  const std::string held_name = name + "/held";
  const std::vector<std::string> names = {name + "/a", name + "/b"};
  auto held = session.lock(held_name);
  ASSERT_TRUE(held);
  EXPECT_EQ(reason_of(session.lock_all(names)), "rejected HOLDS_OTHERS");
  EXPECT_FALSE(described(names[0]).owner) << "nothing of it is left";
  const auto both = session.lock_all(names, {.while_holding = true});
  ASSERT_TRUE(both) << both.error().message;
  EXPECT_TRUE(both->is_held());
  EXPECT_TRUE(held->is_held());
  EXPECT_EQ(client.owns(names[1], both->token(names[1])), true);
  // Of what the session itself has, the library waits for the first to let go.
  const auto again = session.lock_all({held_name, name + "/c"}, {.timeout = 50ms, .while_holding = true});
  EXPECT_EQ(reason_of(again), "not applied TIMED_OUT");
  EXPECT_FALSE(described(name + "/c").owner);
}

// Who asked for them is told; another observer of the same session hears of leaders only.
TEST_F(AdministrationOnAServerTest, CandidatesAreObservedOnRequest) {
  Session session = open("leads");
  Session other = open("waits");
  Told<std::string> leaders;
  Told<std::string> waiting;
  const Observation plain = session.observe("observed", [&](const Leader& leader) {
    leaders.add(leader.value + "/" + std::to_string(leader.waiting + static_cast<int64_t>(leader.candidates.size())));
  });
  EXPECT_TRUE(leaders.wait_for("/0"));
  const Observation observation =
      session.observe("observed",
                      [&](const Leader& leader) {
                        std::string line = leader.value + "/" + std::to_string(leader.waiting);
                        for (const Candidate& candidate : leader.candidates) {
                          line += " " + candidate.description + "(" + std::to_string(candidate.priority) + ")";
                        }
                        waiting.add(line);
                      },
                      {.candidates = true});
  EXPECT_TRUE(waiting.wait_for("/0"));
  auto term = session.campaign("observed", "first");
  ASSERT_TRUE(term);
  EXPECT_TRUE(waiting.wait_for("first/0"));
  std::stop_source cancel;
  Waited<Term> next;
  other.campaign("observed", "second", {.priority = 3, .cancel = cancel.get_token()},
                 [&](auto answer) { next.give(std::move(answer)); });
  EXPECT_TRUE(waiting.wait_for("first/1 waits(3)"));
  cancel.request_stop();
  EXPECT_TRUE(next.told.wait_for(false));
  EXPECT_TRUE(waiting.wait([](const auto& all) { return all.back() == "first/0"; }));
  EXPECT_TRUE(leaders.wait_for("first/0"));
  EXPECT_EQ(term->resign(), HeldEnd::kReleased);
  EXPECT_TRUE(leaders.wait([](const auto& all) { return all.back() == "/0"; }));
  for (const std::string& line : leaders.all()) EXPECT_TRUE(line.ends_with("/0")) << line;
}

}  // namespace
}  // namespace conclave::client
