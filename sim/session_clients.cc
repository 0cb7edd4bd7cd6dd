#include "sim/session_clients.h"

#include "sim/node_cluster.h"

namespace conclave::sim {
namespace {

using std::chrono::seconds;

constexpr Duration kMeddleMean = seconds(4);
constexpr Duration kOperateMean = seconds(1);

}  // namespace

// Says what happens to claims and sessions in the one history.
class SessionClients::Story final : public NodeCheck::Observer {
 public:
  explicit Story(const SessionScene& scene) : scene_(scene) {}
  void on_command(const NodeCheck::Commanded& command) override { by_ = command.header; }
  void on_event(int64_t revision, const NodeCheck::Event& event) override {
    if (ClaimHistory::name_of(event.key).empty()) return;
    scene_.say(fmt::format("revision {}: {} {} '{}' on {:x} by {:x}/{} in term {}", revision,
                           event.is_put ? "put" : "deleted", event.key, event.value, event.lease.value(),
                           by_.session.value(), by_.sequence, by_.term));
  }
  void on_lease_ended(LeaseId lease, bool expired) override {
    scene_.say(fmt::format("{:x} {}", lease.value(), expired ? "has ended by its time" : "was revoked"));
  }

 private:
  const SessionScene& scene_;
  keyspace::CommandHeader by_;
};

SessionClients::SessionClients(World& world, NodeCluster& cluster, NodeCheck& check, LockCheck& recipes,
                               const NodeKnobs& knobs, RunResult& result)
    : primitives_(check, recipes, {.clocks_lie = world.parameters().enabled[FaultKind::kDriftBeyondBound]}),
      scene_{.world = world,
             .cluster = cluster,
             .knobs = knobs,
             .result = result,
             .primitives = primitives_,
             .random = world.decisions().generator("node.sessions")},
      operator_(scene_, world.decisions().generator("node.sessions.operator")) {
  if (NodeServer::is_verbose()) {
    story_ = std::make_unique<Story>(scene_);
    check.add_observer(*story_);
  }
  for (uint64_t i = 0; i < knobs.session_clients; ++i) {
    processes_.push_back(std::make_unique<SessionProcess>(scene_, i, scene_.random.fork()));
  }
}

SessionClients::~SessionClients() = default;

void SessionClients::start() {
  for (const auto& process : processes_) process->start();
  if (processes_.empty() || scene_.knobs.trouble_mean == Duration()) return;
  meddle();
  operate();
}

SessionOwner* SessionClients::draw_owner() {
  std::vector<SessionOwner*> able;
  for (const auto& process : processes_) {
    for (const auto& owner : process->owners()) {
      if (!owner->is_over()) able.push_back(owner.get());
    }
  }
  return able.empty() ? nullptr : able[scene_.random.below(able.size())];
}

void SessionClients::operate() {
  if (scene_.closing) return;
  if (SessionOwner* owner = draw_owner()) operator_.act(*owner);
  scene_.world.scheduler().schedule(scene_.world.now() + scene_.random.exponential(kOperateMean),
                                    [this] { operate(); });
}

void SessionClients::meddle() {
  if (scene_.closing) return;
  if (SessionOwner* drawn = draw_owner()) {
    SessionOwner& owner = *drawn;
    const size_t node = scene_.cluster.pick_server();
    if (scene_.random.chance(1, 4)) {
      ++scene_.result.counts["sessions revoked by hand"];
      scene_.cluster.call(
          node, [lease = LeaseId(owner.id())](NodeServer& server) { server.revoke(lease, [](const NodeAnswer&) {}); });
    } else if (const auto held = owner.draw_held()) {
      ++scene_.result.counts["claims deleted by hand"];
      scene_.cluster.call(node, [key = ClaimHistory::key_of(held->name, owner.id())](NodeServer& server) {
        server.erase(key, [](const NodeAnswer&) {});
      });
    }
  }
  scene_.world.scheduler().schedule(scene_.world.now() + scene_.random.exponential(kMeddleMean), [this] { meddle(); });
}

void SessionClients::begin_liveness() {
  scene_.closing = true;
  for (const auto& process : processes_) process->begin_liveness();
}

void SessionClients::move_strays() {
  for (const auto& process : processes_) {
    if (process->server() != SIZE_MAX && !scene_.cluster.is_told(process->server())) process->move();
  }
  if (scene_.closing) close_if_idle();
}

// All at once: who closes earlier leaves nothing to see for those who observe.
void SessionClients::close_if_idle() {
  for (const auto& process : processes_) {
    for (const auto& owner : process->owners()) {
      if (!owner->is_over() && !owner->is_idle()) return;
    }
  }
  if (!primitives_.leaders().who_is_behind().empty() || !primitives_.who_is_not_told().empty()) return;
  for (const auto& process : processes_) {
    process->step([&process] {
      for (const auto& owner : process->owners()) owner->close();
    });
  }
}

std::string SessionClients::why_not_done() const {
  if (processes_.empty()) return {};
  bool are_over = true;
  for (const auto& process : processes_) {
    for (const auto& owner : process->owners()) {
      are_over = are_over && owner->is_over();
      if (owner->is_over() || owner->is_idle()) continue;
      return process->describe() + ": " + owner->describe();
    }
  }
  if (are_over) return primitives_.what_is_open();
  if (const std::string behind = primitives_.leaders().who_is_behind(); !behind.empty()) return behind;
  const std::string not_told = primitives_.who_is_not_told();
  return not_told.empty() ? "sessions are to close" : not_told;
}

void SessionClients::count(RunResult& result) const {
  if (processes_.empty()) return;
  result.counts["claims granted to sessions"] = primitives_.granted();
  result.counts["locks held back"] = primitives_.held_back();
  result.counts["leaders seen"] = primitives_.leaders().leaders_seen();
  result.counts["vacancies seen"] = primitives_.leaders().vacancies_seen();
  result.counts["leaders that may have been missed"] = primitives_.leaders().skips();
  result.counts["elections judged"] = primitives_.candidates().elections();
  result.counts["candidates passed over"] = primitives_.candidates().passed_over();
  result.counts["candidates back from the line"] = primitives_.candidates().returned();
  result.counts["sessions killed"] = primitives_.operators().killed();
  result.counts["claims forced"] = primitives_.operators().forced();
  result.counts["owners told that they were forced"] = primitives_.operators().told_forced();
}

}  // namespace conclave::sim
