// One of some servers ends in the middle of every storage call it makes around a commit, its own snapshot, the install
// of another's and each change of membership, with every legal state of its disk that such an end may leave. A new
// process of it begins on that, and all must be legal: what was acknowledged is there, what was promised is kept, a
// state or a configuration is the old or the new one, a crash is never taken for damage, and soon it is even with the
// others.
//
// A scenario is a list of steps, each an act and the condition that ends it. It is played once to find the crash points
// and what may be left at each; then from its beginning for each of them.
#include <algorithm>
#include <cstdlib>
#include <map>
#include <set>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/mark.h"
#include "base/random.h"
#include "tests/node/cluster.h"

namespace conclave::node {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr NodeId kFirst{1};
constexpr NodeId kSecond{2};
constexpr NodeId kThird{3};
constexpr NodeId kFourth{4};
constexpr NodeId kFifth{5};

struct Step {
  std::string name;
  std::function<void(Cluster&)> act;
  std::function<bool(const Cluster&)> is_done;
};

struct Scenario {
  std::string name;
  ClusterOptions options;
  std::vector<Step> steps;
  size_t counted_from = 0;  // crash points are in the steps from this one on
  // So many distinct images there must be; and, found by the processes that begin on them, so many snapshots and
  // configurations.
  size_t images_min = 0;
  size_t snapshots_min = 0;
  size_t memberships_min = 0;
  std::vector<std::string> reaches;  // marks of the product (base/mark.h)
};

// ---- What a crash may leave ----

// Up to this many unsynced pieces every subset is tried; beyond, those that differ from nothing or all by one piece or
// by a prefix, of at most so many pieces.
constexpr size_t kEveryPieces = 7;
constexpr size_t kSampledPieces = 16;

void each_crash(const sim::TraceDisk& disk, uint64_t call, const std::function<void(CrashPoint)>& visit) {
  const size_t pieces = disk.unsynced();
  std::vector<bool> kept(pieces);
  const auto visit_kept = [&] { visit({.call = call, .kept = kept}); };
  if (pieces <= kEveryPieces) {
    for (uint64_t mask = 0; mask < uint64_t{1} << pieces; ++mask) {
      for (size_t i = 0; i < pieces; ++i) kept[i] = ((mask >> i) & 1) != 0;
      visit_kept();
    }
  }
  const size_t stride = (pieces + kSampledPieces - 1) / kSampledPieces;
  for (size_t one = 0; one < pieces; one += stride) {
    if (pieces > kEveryPieces) {
      for (size_t i = 0; i < pieces; ++i) kept[i] = i < one;
      visit_kept();
      kept.flip();
      visit_kept();
      for (size_t i = 0; i < pieces; ++i) kept[i] = i == one;
      visit_kept();
      kept.flip();
      visit_kept();
    }
    // Within a sector.
    for (const bool front : {true, false}) {
      visit({.call = call,
             .kept = std::vector<bool>(pieces, true),
             .torn = one,
             .cut = front ? size_t{21} : size_t{480},
             .keep_front = front});
    }
  }
}

// Of every so many processes that begin after a crash one ends again, in one of its first so many calls.
constexpr size_t kSecondCrashes = 3;
constexpr uint64_t kSecondCalls = 24;

// CONCLAVE_NODE_CRASH_STRIDE in the environment: of the crash states found only every n-th is gone on from
// (sanitizers).
size_t stride_of_states() {
  const char* text = std::getenv("CONCLAVE_NODE_CRASH_STRIDE");  // NOLINT(concurrency-mt-unsafe): one thread
  return text == nullptr ? 1 : std::max(1UL, std::strtoul(text, nullptr, 10));
}

// Marks of the product that only damage, or a full disk, leads to.
constexpr std::string_view kOfDamage[] = {"storage_discarded",
                                          "storage_older_snapshot_serves",
                                          "storage_own_snapshot_damaged",
                                          "storage_transfer_was_bad",
                                          "wal_snapshot_damaged",
                                          "wal_snapshot_received_damaged",
                                          "wal_gap",
                                          "wal_gap_to_sealed_end",
                                          "wal_tail_uncertain",
                                          "wal_unreadable_sectors",
                                          "wal_segment_missing",
                                          "wal_newest_segment_cut",
                                          "wal_entries_behind_untold_gap",
                                          "rolled_back_detected",
                                          "wal_hole_below_snapshot"};

uint64_t hits_of(std::string_view name) {
  uint64_t hits = 0;
  bool exists = false;
  for (const Mark* mark : all_marks()) {
    if (mark->name != name) continue;
    exists = true;
    hits += mark->hits.load(std::memory_order_relaxed);
  }
  EXPECT_TRUE(exists) << "no mark is called " << name;
  return hits;
}

// ---- Playing ----

// False if the victim ended, or a step did not.
bool play(const Scenario& scenario, Cluster& cluster, std::string& at) {
  for (size_t i = 0; i < scenario.steps.size(); ++i) {
    const Step& step = scenario.steps[i];
    at = step.name;
    if (i == scenario.counted_from) cluster.count_calls();
    step.act(cluster);
    if (cluster.crashes() > 0) return false;
    if (!cluster.run_until([&] { return step.is_done(cluster); }, seconds(20))) return false;
  }
  return true;
}

// All that are members become even, take a write each and show it. Why not, or empty.
std::string come_together(const Scenario& scenario, Cluster& cluster) {
  const NodeId victim = scenario.options.victim;
  const auto become_even = [&](std::string_view when) -> std::string {
    std::string why;
    const auto is_even = [&] {
      if (!cluster.is_up(victim)) return false;
      why = cluster.why_not_even();
      return why.empty();
    };
    // Once more if the second process ends, too.
    const uint64_t crashes = cluster.crashes();
    bool over = cluster.run_until(is_even, seconds(30));
    if (!over && cluster.crashes() > crashes) over = cluster.run_until(is_even, seconds(30));
    if (over) return {};
    if (!cluster.violation().empty()) return cluster.violation();
    return fmt::format("{}: {}", when, cluster.is_up(victim) ? why : "the victim is down");
  };
  if (std::string why = become_even("not even"); !why.empty()) return why;
  cluster.crash_no_more();
  std::vector<NodeId> asked = {cluster.leader()};
  if (cluster.is_member(victim) && victim != asked.front()) asked.push_back(victim);
  for (const NodeId id : asked) cluster.put(id, fmt::format("after{}", id), fmt::format("probe of {}", id));
  if (!cluster.run_until([&] { return cluster.is_answered(); }, seconds(10))) {
    return cluster.violation().empty() ? "a write after the crash is not answered" : cluster.violation();
  }
  if (std::string why = become_even("not even after a write"); !why.empty()) return why;
  for (const NodeId id : asked) {
    for (const char* key : {"key0", "key1", "key2"}) cluster.get(id, key);
  }
  if (!cluster.run_until([&] { return cluster.is_answered(); }, seconds(10))) {
    return cluster.violation().empty() ? "a read after the crash is not answered" : cluster.violation();
  }
  if (std::string why = cluster.lost_changes(); !why.empty()) return why;
  return cluster.judge_history();
}

std::string describe(const CrashPoint& point) {
  std::string kept;
  for (const bool keep : point.kept) kept += keep ? '1' : '0';
  std::string text = fmt::format("call {} kept {}", point.call, kept.empty() ? "nothing more" : kept);
  if (point.torn != CrashPoint::kNothingTorn) {
    text += fmt::format(", piece {} torn at {}", point.torn, point.cut);
  }
  return text;
}

void enumerate(const Scenario& scenario) {
  std::map<std::string_view, uint64_t> damage_before;
  for (const std::string_view name : kOfDamage) damage_before[name] = hits_of(name);
  std::map<std::string_view, uint64_t> reached_before;
  for (const std::string& name : scenario.reaches) reached_before[name] = hits_of(name);
  std::set<uint64_t> images;
  std::set<std::pair<uint64_t, uint64_t>> states;  // image, and what must hold of it
  std::vector<CrashPoint> points;
  uint64_t calls = 0;
  std::string at;
  {
    Cluster cluster(scenario.options);
    cluster.visit_calls([&](const sim::TraceDisk& disk, uint64_t call) {
      calls = call;
      const uint64_t promises = cluster.promises_hash();
      each_crash(disk, call, [&](CrashPoint point) {
        const uint64_t image = point.image_of(disk).hash();
        images.insert(image);
        if (states.emplace(image, promises).second) points.push_back(std::move(point));
      });
    });
    ASSERT_TRUE(play(scenario, cluster, at))
        << scenario.name << ", " << at << ": " << cluster.violation() << cluster.why_not_even();
    ASSERT_EQ(cluster.changes_refused(), 0U) << scenario.name;
    cluster.visit_calls({});
    ASSERT_EQ(come_together(scenario, cluster), "") << scenario.name << " without a crash";
  }
  const size_t stride = stride_of_states();
  Random random(points.size());
  uint64_t gone_on = 0;
  uint64_t twice = 0;
  uint64_t with = 0;  // found with the write that was under way
  uint64_t without = 0;
  std::set<Position> snapshots;
  std::set<std::string> memberships;
  for (size_t i = 0; i < points.size(); i += stride) {
    const CrashPoint& point = points[i];
    Cluster cluster(scenario.options);
    CrashPlan plan{.first = point, .down = random.coin() ? milliseconds(20) : Duration(seconds(4))};
    // Some of the processes that begin on what is left end, too, most of them while they recover.
    if (i % kSecondCrashes == 0) {
      plan.second_call = 1 + i / kSecondCrashes % kSecondCalls;
      plan.second_kept = random.next();
    }
    cluster.crash_at(plan);
    (void)play(scenario, cluster, at);
    ASSERT_GT(cluster.crashes(), 0U) << scenario.name << ", " << at << ": " << describe(point) << " is not met";
    const std::string why = come_together(scenario, cluster);
    ASSERT_EQ(why, "") << scenario.name << ", " << at << ", " << describe(point);
    ++gone_on;
    if (cluster.crashes() > 1) ++twice;
    const Found& found = cluster.found();
    snapshots.insert(found.snapshot);
    memberships.insert(found.membership);
    if (found.had_write_under_way) ++(found.has_write_under_way ? with : without);
  }
  fmt::print(
      "crash points, {}: {} storage calls, {} distinct images; of {} states gone on from {}, {} with a second crash\n",
      scenario.name, calls, images.size(), points.size(), gone_on, twice);
  fmt::print("  found with the write under way {}, without it {}; {} snapshots, {} configurations\n", with, without,
             snapshots.size(), memberships.size());
  EXPECT_GE(images.size(), scenario.images_min);
  EXPECT_GE(gone_on, images.size() / stride);
  for (const auto& [name, hits] : damage_before) EXPECT_EQ(hits_of(name), hits) << name << ", of a crash";
  if (stride > 1) return;  // a sample shows less
  for (const auto& [name, hits] : reached_before) EXPECT_GT(hits_of(name), hits) << name;
  EXPECT_GT(twice, 0U);
  EXPECT_GT(with, 0U);
  EXPECT_GT(without, 0U);
  EXPECT_GE(snapshots.size(), scenario.snapshots_min);
  EXPECT_GE(memberships.size(), scenario.memberships_min);
}

// ---- Steps ----

Step start_servers(uint64_t count) {
  return {
      .name = "start",
      .act =
          [count](Cluster& cluster) {
            for (uint64_t id = 1; id <= count; ++id) cluster.start(NodeId(id));
          },
      .is_done = [](const Cluster& cluster) { return cluster.leader() == kFirst && cluster.why_not_even().empty(); }};
}

// A write, once the one before is answered.
Step write(NodeId at, int number, size_t bytes) {
  return {.name = fmt::format("write {} at {}", number, at),
          .act =
              [=](Cluster& cluster) {
                cluster.put(at, fmt::format("key{}", number % 3), fmt::format("{:0>{}}", number, bytes));
              },
          .is_done = [](const Cluster& cluster) { return cluster.is_answered(); }};
}

void add_writes(std::vector<Step>& steps, NodeId at, int from, int to, size_t bytes) {
  for (int number = from; number <= to; ++number) steps.push_back(write(at, number, bytes));
}

// Writes that wait for no answer: each finds the disks at work for those before.
Step stream(NodeId at, int from, int to) {
  return {.name = "stream",
          .act =
              [=](Cluster& cluster) {
                for (int number = from; number <= to && cluster.crashes() == 0; ++number) {
                  cluster.put(at, fmt::format("key{}", number % 3), std::to_string(number));
                  cluster.run_for(milliseconds(1));
                }
              },
          .is_done = [](const Cluster& cluster) { return cluster.is_answered(); }};
}

Step become_even() {
  return {.name = "even",
          .act = [](Cluster&) {},
          .is_done = [](const Cluster& cluster) { return cluster.is_quiet() && cluster.why_not_even().empty(); }};
}

Step rest(Duration duration) {
  return {.name = "rest",
          .act = [duration](Cluster& cluster) { cluster.run_for(duration); },
          .is_done = [](const Cluster&) { return true; }};
}

Step change(MemberChangeKind kind, NodeId id, NodeId replaced = NodeId()) {
  return {.name = fmt::format("change {} of {}", static_cast<int>(kind), id),
          .act =
              [=](Cluster& cluster) {
                cluster.administer(cluster.leader(), {.kind = kind, .id = id, .replaced = replaced});
              },
          .is_done =
              [](const Cluster& cluster) {
                return cluster.is_answered() && cluster.is_quiet() && cluster.why_not_even().empty();
              }};
}

// ---- Scenarios ----

ClusterOptions small(NodeId victim) {
  ClusterOptions options{.victim = victim};
  options.replica.entries_per_digest = 4;
  options.replica.snapshot_bytes_pending_max = 1;
  options.storage.segment_bytes = wal::kSegmentBytesMin;
  return options;
}

// Writes stored, replicated, acknowledged and applied; some at once, some of several sectors, one that brings the
// commit mark, and the idle mark behind them.
Scenario commit(std::string name, uint64_t voters, NodeId victim) {
  Scenario scenario{.name = std::move(name), .options = small(victim), .images_min = 500, .reaches = {"wal_tail_torn"}};
  scenario.options.voters = voters;
  auto& steps = scenario.steps;
  steps.push_back(start_servers(voters));
  add_writes(steps, kFirst, 1, 3, 20);
  steps.push_back(rest(milliseconds(150)));
  add_writes(steps, NodeId(voters), 4, 5, 1200);
  steps.push_back({.name = "writes at once",
                   .act =
                       [](Cluster& cluster) {
                         for (int i = 0; i < 5; ++i) {
                           cluster.put(kFirst, fmt::format("key{}", i % 3),
                                       fmt::format("{:0>{}}", 10 + i, 150 * i + 10));
                         }
                       },
                   .is_done = [](const Cluster& cluster) { return cluster.is_answered(); }});
  steps.push_back(rest(milliseconds(50)));
  steps.push_back(stream(kFirst, 20, 27));
  steps.push_back(become_even());
  return scenario;
}

TEST(CrashPoints, CommitOfALeader) {
  enumerate(commit("commit, leader", 3, kFirst));
}
TEST(CrashPoints, CommitOfAFollower) {
  enumerate(commit("commit, follower", 3, kThird));
}
TEST(CrashPoints, CommitOfOneServer) {
  enumerate(commit("commit, one server", 1, kFirst));
}

// Three snapshots: the mark of each goes to the log, what the older of two covers is released, the third takes the
// first one away, and segments come back.
Scenario own_snapshot(std::string name, NodeId victim) {
  Scenario scenario{.name = std::move(name),
                    .options = small(victim),
                    .counted_from = 1,
                    .images_min = 1000,
                    .snapshots_min = 4,
                    .reaches = {"wal_segments_released"}};
  scenario.options.replica.snapshot_log_bytes = 3000;
  auto& steps = scenario.steps;
  steps.push_back(start_servers(3));
  add_writes(steps, kFirst, 1, 24, 700);
  steps.push_back({.name = "snapshots",
                   .act = [](Cluster&) {},
                   .is_done =
                       [victim](const Cluster& cluster) {
                         return cluster.replica(victim).counters().snapshots_taken >= 3 && cluster.is_quiet();
                       }});
  steps.push_back(rest(milliseconds(50)));
  steps.push_back(become_even());
  return scenario;
}

TEST(CrashPoints, SnapshotOfALeader) {
  enumerate(own_snapshot("snapshot, leader", kFirst));
}
TEST(CrashPoints, SnapshotOfAFollower) {
  enumerate(own_snapshot("snapshot, follower", kSecond));
}

// One whose file is written in several pieces, with writes of the log between them.
Scenario large_snapshot(std::string name, NodeId victim) {
  Scenario scenario{
      .name = std::move(name), .options = small(victim), .counted_from = 14, .images_min = 250, .snapshots_min = 2};
  scenario.options.replica.snapshot_log_bytes = 80'000;
  scenario.options.storage.segment_bytes = 2 * wal::kSegmentBytesMin;
  scenario.options.storage.compress_snapshots = false;
  auto& steps = scenario.steps;
  steps.push_back(start_servers(3));
  add_writes(steps, kFirst, 1, 14, 6000);
  steps.push_back(stream(kFirst, 15, 18));
  steps.push_back({.name = "snapshot",
                   .act = [](Cluster&) {},
                   .is_done =
                       [victim](const Cluster& cluster) {
                         return cluster.replica(victim).counters().snapshots_taken > 0 && cluster.is_quiet();
                       }});
  steps.push_back(become_even());
  return scenario;
}

TEST(CrashPoints, SnapshotOfSeveralPieces) {
  enumerate(large_snapshot("snapshot, several pieces", kSecond));
}

// The third server has a state of its own and is away until the log it would need is released; then the snapshot comes
// in pieces, takes the place of its log and state, and entries follow.
Scenario install(std::string name, NodeId victim, size_t images_min, size_t snapshots_min) {
  Scenario scenario{.name = std::move(name),
                    .options = small(victim),
                    .images_min = images_min,
                    .snapshots_min = snapshots_min,
                    .reaches = {"snapshot_installed", "state_replaced"}};
  scenario.options.replica.snapshot_log_bytes = 1200;
  scenario.options.storage.chunk_bytes = 700;
  scenario.options.storage.compress_snapshots = false;
  auto& steps = scenario.steps;
  steps.push_back(start_servers(3));
  add_writes(steps, kFirst, 1, 3, 100);
  steps.push_back(become_even());
  steps.push_back({.name = "away",
                   .act = [](Cluster& cluster) { cluster.cut_off(kThird); },
                   .is_done = [](const Cluster& cluster) { return cluster.is_quiet(); }});
  add_writes(steps, kFirst, 4, 16, 300);
  steps.push_back({.name = "snapshots",
                   .act = [](Cluster&) {},
                   .is_done =
                       [](const Cluster& cluster) {
                         return cluster.replica(kFirst).counters().snapshots_taken >= 2 && cluster.is_quiet();
                       }});
  scenario.counted_from = steps.size();
  steps.push_back({.name = "back",
                   .act = [](Cluster& cluster) { cluster.reconnect(kThird); },
                   .is_done =
                       [](const Cluster& cluster) {
                         return cluster.replica(kThird).counters().snapshots_installed > 0 && cluster.is_quiet();
                       }});
  add_writes(steps, kFirst, 17, 19, 100);
  steps.push_back(become_even());
  steps.push_back(rest(milliseconds(50)));
  return scenario;
}

TEST(CrashPoints, InstallOfAFollower) {
  Scenario scenario = install("install, follower", kThird, 350, 2);
  scenario.reaches.emplace_back("wal_snapshot_transfer_resumed");
  enumerate(scenario);
}
TEST(CrashPoints, InstallFromALeader) {
  enumerate(install("install, leader", kFirst, 100, 1));
}

// The first leader is cut off with writes that nobody else has, and learns later than the log of the next one reaches
// back: its own log goes, and the snapshot takes the place of what it applied.
Scenario install_over_own_log(std::string name) {
  Scenario scenario{.name = std::move(name),
                    .options = small(kFirst),
                    .images_min = 400,
                    .snapshots_min = 2,
                    .reaches = {"snapshot_installed", "state_replaced"}};
  scenario.options.replica.snapshot_log_bytes = 1200;
  scenario.options.storage.chunk_bytes = 700;
  scenario.options.storage.compress_snapshots = false;
  auto& steps = scenario.steps;
  steps.push_back(start_servers(3));
  add_writes(steps, kFirst, 1, 3, 100);
  steps.push_back(become_even());
  steps.push_back(
      {.name = "away",
       .act =
           [](Cluster& cluster) {
             cluster.cut_off(kFirst);
             for (int number = 4; number <= 6; ++number) {
               cluster.put(kFirst, "key0", fmt::format("{:0>{}}", number, 100));
             }
           },
       .is_done = [](const Cluster& cluster) { return cluster.leader() != kFirst && cluster.is_answered(); }});
  add_writes(steps, kSecond, 7, 19, 300);
  steps.push_back({.name = "snapshots",
                   .act = [](Cluster&) {},
                   .is_done =
                       [](const Cluster& cluster) {
                         return cluster.replica(cluster.leader()).counters().snapshots_taken >= 2 && cluster.is_quiet();
                       }});
  scenario.counted_from = steps.size();
  steps.push_back({.name = "back",
                   .act = [](Cluster& cluster) { cluster.reconnect(kFirst); },
                   .is_done =
                       [](const Cluster& cluster) {
                         return cluster.replica(kFirst).counters().snapshots_installed > 0 && cluster.is_quiet();
                       }});
  add_writes(steps, kSecond, 20, 22, 100);
  steps.push_back(become_even());
  steps.push_back(rest(milliseconds(50)));
  return scenario;
}

TEST(CrashPoints, InstallOverTheLogOfADeposedLeader) {
  enumerate(install_over_own_log("install, deposed leader"));
}

// A learner comes and is promoted, a voter is replaced in one joint change, one is removed, and last the leader itself.
Scenario membership(std::string name, NodeId victim, size_t images_min, size_t memberships_min) {
  Scenario scenario{.name = std::move(name),
                    .options = small(victim),
                    .images_min = images_min,
                    .memberships_min = memberships_min,
                    .reaches = {"learner_promoted", "leader_removed_itself"}};
  scenario.options.spares = 2;
  auto& steps = scenario.steps;
  steps.push_back(start_servers(5));
  add_writes(steps, kFirst, 1, 2, 50);
  scenario.counted_from = steps.size();
  steps.push_back(change(MemberChangeKind::kAddLearner, kFourth));
  steps.push_back(change(MemberChangeKind::kPromote, kFourth));
  add_writes(steps, kFirst, 3, 3, 50);
  steps.push_back(change(MemberChangeKind::kReplace, kFifth, kSecond));
  steps.push_back(change(MemberChangeKind::kRemove, kThird));
  add_writes(steps, kFirst, 4, 4, 50);
  steps.push_back(change(MemberChangeKind::kRemove, kFirst));
  return scenario;
}

TEST(CrashPoints, MembershipOfALeader) {
  enumerate(membership("membership, leader", kFirst, 600, 10));
}
TEST(CrashPoints, MembershipOfWhoIsReplaced) {
  enumerate(membership("membership, replaced", kSecond, 300, 6));
}
TEST(CrashPoints, MembershipOfWhoIsRemoved) {
  enumerate(membership("membership, removed", kThird, 450, 9));
}
TEST(CrashPoints, MembershipOfWhoJoins) {
  enumerate(membership("membership, learner", kFourth, 600, 10));
}
TEST(CrashPoints, MembershipOfWhoTakesAPlace) {
  enumerate(membership("membership, replacement", kFifth, 400, 7));
}

}  // namespace
}  // namespace conclave::node
