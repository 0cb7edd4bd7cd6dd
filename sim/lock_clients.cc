#include "sim/lock_clients.h"

#include <functional>
#include <utility>

#include "etcd/rpc.pb.h"
#include "sim/node_cluster.h"

namespace conclave::sim {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr Duration kHoldMean = milliseconds(300);
constexpr Duration kPauseMean = milliseconds(300);
constexpr Duration kWatchAgain = milliseconds(100);

}  // namespace

class LockClients::Client final : public WatchSink {
 public:
  explicit Client(LockClients& all) : all_(all) {}

  void begin_after(Duration pause) {
    stage_ = Stage::kResting;
    after(pause, [this] { begin(); });
  }
  void begin_liveness() {
    if (stage_ == Stage::kHolding) after(all_.random_.exponential(kHoldMean), [this] { let_go(); });
    move();
  }
  // Of one that watches.
  void move() {
    if (!attached_) return;
    detach();
    plan_attach(kWatchAgain);
  }
  [[nodiscard]] bool is_at_rest() const { return stage_ == Stage::kResting; }
  [[nodiscard]] bool is_attached() const { return attached_; }
  [[nodiscard]] size_t server() const { return server_; }
  [[nodiscard]] std::string describe() const {
    static constexpr std::string_view kStages[] = {"rests", "asks for a lease",    "claims", "looks at", "waits for",
                                                   "holds", "deletes its claim on"};
    return fmt::format("lease {} {} {}", lease_, kStages[static_cast<size_t>(stage_)], lock_);
  }

  void on_response(const keyspace::WatchResponse& response) override {
    etcdserverpb::WatchResponse decoded;
    if (!decoded.ParseFromString(response.body)) {
      all_.check_.violate("a watch response cannot be parsed");
      return;
    }
    if (decoded.canceled() && decoded.compact_revision() == 0) {
      all_.check_.violate(fmt::format("who waits for {} was canceled: {}", predecessor_, decoded.cancel_reason()));
    }
    if (decoded.canceled()) ++all_.result_.counts["lock waits that met a compaction"];
    bool looks = decoded.canceled();
    for (const mvccpb::Event& event : decoded.events()) {
      // What was waited for is known; the key may be claimed and deleted again.
      if (told_ || looks) break;
      if (event.kv().key() != predecessor_) {
        all_.check_.violate(fmt::format("who waits for {} was told of {}", predecessor_, event.kv().key()));
      }
      if (event.type() != mvccpb::Event::DELETE) continue;
      all_.locks_.note_deletion(lease_, event.kv().mod_revision());
      looks = true;
    }
    if (!looks) return;
    told_ = true;
    // Not from within the server's turn.
    after(Duration(), [this] { look(); });
  }
  void on_watch_lost() override {
    attached_ = false;
    if (stage_ == Stage::kWaiting) plan_attach(kWatchAgain);
  }

 private:
  enum class Stage : uint8_t { kResting, kGranting, kClaiming, kLooking, kWaiting, kHolding, kReleasing };
  using Ask = std::function<void(NodeServer&, NodeServer::Done)>;
  using Take = std::function<void(const NodeAnswer&)>;

  [[nodiscard]] Instant now() const { return all_.world_.now(); }
  [[nodiscard]] Random& random() { return all_.random_; }
  // By its own clock, which is right.
  [[nodiscard]] bool trusts() const { return now() < trust_.sent + trust_.ttl; }

  // The next step; whatever else was to come does not.
  void after(Duration pause, std::function<void()> step) {
    all_.world_.scheduler().schedule(now() + pause, [this, number = ++step_, step = std::move(step)] {
      if (step_ == number) step();
    });
  }
  // Asks some server, and takes its answer; without one for long, that it is unknown.
  void ask(Stage stage, Ask question, const Take& take) {
    stage_ = stage;
    const uint64_t number = ++step_;
    const auto once = [this, number, take](const NodeAnswer& answer) {
      if (step_ != number) return;
      ++step_;
      asks_next_ = answer.outcome == NodeOutcome::kDone ? asks_next_ : all_.cluster_.pick_server(asks_next_);
      take(answer);
    };
    NodeServer::Done done = all_.cluster_.reply_to(once);
    // With luck the same server for long; another if it does not help.
    if (asks_next_ == SIZE_MAX || random().chance(1, 4)) asks_next_ = all_.cluster_.pick_server();
    all_.cluster_.call(asks_next_, [question = std::move(question), done = std::move(done)](NodeServer& server) {
      question(server, done);
    });
    all_.world_.scheduler().schedule(now() + all_.knobs_.operation_timeout, [once] { once(NodeAnswer{}); });
  }
  // After an answer that says nothing.
  void again(std::function<void()> step) {
    after(random().between(milliseconds(50), Duration(milliseconds(300))), std::move(step));
  }

  void begin() {
    if (all_.closing_) return;
    lease_ = all_.cluster_.next_lease();
    trust_ = {.ttl = seconds(2 + static_cast<int64_t>(random().below(4)))};
    renews_ = true;
    ask(
        Stage::kGranting,
        [lease = lease_, ttl = trust_.ttl](NodeServer& server, NodeServer::Done done) {
          server.grant(lease, ttl, std::move(done));
        },
        [this, sent = now()](const NodeAnswer& answer) {
          if (answer.outcome != NodeOutcome::kDone || answer.error != keyspace::ErrorId::kNone) {
            end();
            return;
          }
          all_.check_.note_asked(lease_, now(), trust_.ttl);
          trust(sent);
          plan_renewal();
          choose();
        });
  }
  // It lets the lease end, if it has not ended.
  void end() {
    detach();
    all_.locks_.note_let_go(lease_);
    all_.locks_.note_waits_no_more(lease_);
    lease_ = LeaseId();
    begin_after(random().exponential(kPauseMean));
  }
  // It was told that its lease, or its claim with it, is gone.
  void learn_end() {
    const bool held = stage_ == Stage::kHolding || stage_ == Stage::kReleasing;
    ++all_.result_.counts[held ? "lock holders whose lease ended" : "lock waiters whose lease ended"];
    end();
  }

  // --- The lease.

  void trust(Instant sent) {
    all_.check_.note_trusted(lease_, sent, trust_.ttl);
    trust_.sent = std::max(trust_.sent, sent);
    all_.locks_.note_renewed(lease_, now(), trust_);
  }
  void plan_renewal() {
    all_.world_.scheduler().schedule(now() + trust_.ttl / 3, [this, lease = lease_] {
      if (lease_ != lease) return;
      renew();
      plan_renewal();
    });
  }
  void renew() {
    if (!renews_) {
      // Who waits without a lease learns it in the end.
      if (stage_ == Stage::kWaiting && now() >= trust_.sent + 2 * trust_.ttl) after(Duration(), [this] { look(); });
      return;
    }
    auto done = all_.cluster_.reply_to([this, lease = lease_, sent = now()](const NodeAnswer& answer) {
      if (lease_ != lease || answer.outcome != NodeOutcome::kDone) return;
      if (answer.ttl_ms > 0) {
        trust(sent);
        return;
      }
      all_.check_.note_gone(lease_, now());
      learn_end();
    });
    all_.check_.note_asked(lease_, now(), trust_.ttl);
    all_.cluster_.call(all_.cluster_.pick_server(), [lease = lease_, done = std::move(done)](NodeServer& server) {
      server.keep_alive(lease, done);
    });
  }

  // --- The recipe.

  void choose() {
    lock_ = fmt::format("lock{}", random().below(all_.knobs_.locks));
    // By the same recipe.
    if (all_.knobs_.elections > 0 && random().chance(1, 4)) {
      lock_ = fmt::format("election{}", random().below(all_.knobs_.elections));
    }
    key_ = LockCheck::key_of(lock_, lease_);
    token_ = 0;
    if (random().chance(1, 16)) renews_ = false;
    claim();
  }
  void claim() {
    ask(
        Stage::kClaiming,
        [prefix = LockCheck::prefix_of(lock_), key = key_, value = all_.cluster_.next_value(), lease = lease_](
            NodeServer& server, NodeServer::Done done) { server.claim(prefix, key, value, lease, std::move(done)); },
        [this](const NodeAnswer& answer) {
          if (answer.outcome != NodeOutcome::kDone) {
            again([this] { claim(); });
          } else if (answer.error == keyspace::ErrorId::kLeaseNotFound) {
            learn_end();
          } else if (answer.error != keyspace::ErrorId::kNone) {
            all_.check_.violate(fmt::format("a claim was refused: {}", keyspace::error_text(answer.error)));
          } else {
            token_ = answer.lock.own;
            if (answer.lock.oldest == token_) {
              hold(answer.revision);
            } else {
              look();
            }
          }
        });
  }
  void look() {
    detach();
    all_.locks_.note_waits_no_more(lease_);
    ask(
        Stage::kLooking,
        [prefix = LockCheck::prefix_of(lock_), key = key_](NodeServer& server, NodeServer::Done done) {
          server.look(prefix, key, std::move(done));
        },
        [this](const NodeAnswer& answer) {
          if (answer.outcome != NodeOutcome::kDone) {
            again([this] { look(); });
          } else if (answer.lock.own == 0) {
            all_.locks_.note_missed(key_, answer.revision);
            learn_end();
          } else if (answer.lock.own != token_) {
            all_.check_.violate(
                fmt::format("{} was created at {}, and is said to be of {}", key_, token_, answer.lock.own));
          } else if (answer.lock.oldest == token_) {
            hold(answer.revision);
          } else {
            wait(answer.lock.predecessor, answer.revision);
          }
        });
  }
  void wait(const std::string& predecessor, int64_t revision) {
    stage_ = Stage::kWaiting;
    predecessor_ = predecessor;
    from_revision_ = revision;
    ++all_.result_.counts["lock waits"];
    all_.locks_.note_waiting(lease_, predecessor_, from_revision_);
    // Often what is waited for has happened by then, and comes from history.
    plan_attach(random().coin() ? Duration() : random().exponential(kWatchAgain));
  }
  void plan_attach(Duration pause) {
    after(pause, [this] { attach(); });
  }
  void attach() {
    server_ = all_.cluster_.pick_server();
    NodeServer* server = all_.cluster_.server(server_);
    if (server == nullptr || server->replica() == nullptr || server->is_dead()) {
      plan_attach(kWatchAgain);
      return;
    }
    attached_ = true;
    told_ = false;
    server->watch_key(*this, predecessor_, from_revision_);
  }
  void detach() {
    if (!std::exchange(attached_, false)) return;
    if (NodeServer* server = all_.cluster_.server(server_)) server->unwatch(*this);
  }
  void hold(int64_t revision) {
    if (!trusts()) {
      // The answer came too late to be of use.
      ++all_.result_.counts["lock grants not trusted"];
      end();
      return;
    }
    stage_ = Stage::kHolding;
    all_.locks_.note_held(lock_, lease_, token_, revision, now(), trust_);
    after(random().exponential(kHoldMean), [this] { let_go(); });
  }
  void let_go() {
    const uint64_t way = random().below(8);
    if (way < 5) {
      release();
    } else if (way < 7) {
      all_.locks_.note_let_go(lease_);
      all_.cluster_.call(all_.cluster_.pick_server(),
                         [lease = lease_](NodeServer& server) { server.revoke(lease, [](const NodeAnswer&) {}); });
      end();
    } else {
      // It stops renewing, and holds for as long as it may.
      renews_ = false;
      hold_to_the_end();
    }
  }
  void hold_to_the_end() {
    const Instant until = trust_.sent + trust_.ttl;
    if (now() >= until) {
      end();
    } else {
      after(until - now(), [this] { hold_to_the_end(); });
    }
  }
  void release() {
    all_.locks_.note_let_go(lease_);
    ask(
        Stage::kReleasing,
        [key = key_](NodeServer& server, NodeServer::Done done) { server.erase(key, std::move(done)); },
        [this](const NodeAnswer& answer) {
          // Deleted for certain: the same lease may claim again. Otherwise the deletion may come still.
          if (answer.outcome == NodeOutcome::kDone && renews_ && !all_.closing_ && random().coin()) {
            choose();
          } else {
            end();
          }
        });
  }

  LockClients& all_;
  Stage stage_ = Stage::kResting;
  uint64_t step_ = 0;
  LeaseId lease_;
  LockCheck::Trust trust_;
  bool renews_ = true;
  std::string lock_;
  std::string key_;
  int64_t token_ = 0;
  std::string predecessor_;
  int64_t from_revision_ = 0;
  bool attached_ = false;
  bool told_ = false;  // by the watch, and it is to look again
  size_t asks_next_ = SIZE_MAX;
  size_t server_ = 0;
};

LockClients::LockClients(World& world, NodeCluster& cluster, NodeCheck& check, const NodeKnobs& knobs,
                         RunResult& result)
    : world_(world),
      cluster_(cluster),
      check_(check),
      knobs_(knobs),
      result_(result),
      locks_(check, {.clocks_lie = world.parameters().enabled[FaultKind::kDriftBeyondBound]}),
      random_(world.decisions().generator("node.locks")) {
  for (uint64_t i = 0; i < knobs.lock_clients; ++i) clients_.push_back(std::make_unique<Client>(*this));
}

LockClients::~LockClients() = default;

void LockClients::start() {
  for (const auto& client : clients_) client->begin_after(random_.exponential(kPauseMean));
}

void LockClients::begin_liveness() {
  closing_ = true;
  for (const auto& client : clients_) client->begin_liveness();
}

void LockClients::move_strays() {
  for (const auto& client : clients_) {
    if (client->is_attached() && !cluster_.is_told(client->server())) client->move();
  }
}

std::string LockClients::why_not_done() const {
  for (const auto& client : clients_) {
    if (client->is_at_rest()) continue;
    const std::string vain = locks_.who_waits_in_vain();
    return vain.empty() ? client->describe() : vain;
  }
  return {};
}

void LockClients::count(RunResult& result) const {
  result.counts["locks held"] = locks_.held();
  result.counts["locks handed over by expiry"] = locks_.handed_over_by_expiry();
}

}  // namespace conclave::sim
