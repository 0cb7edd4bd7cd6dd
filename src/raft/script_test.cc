// Scenarios a person reads: testdata/*.txt. Lines that begin with "> " are commands, lines that begin with "#" say what
// the scenario shows; everything else is the trace that the command before it must produce. `assert` commands state the
// point of the scenario apart from the trace: they hold whatever the trace looks like.
//
//     CONCLAVE_REWRITE=1 raft_test --gtest_filter='*Script*'     writes the traces anew: review the difference
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include <gtest/gtest.h>

#include "raft/describe.h"
#include "raft/testing/cluster.h"

namespace conclave::raft {
namespace {

std::vector<std::string> split(const std::string& text, char separator = ' ') {
  std::vector<std::string> parts;
  std::stringstream stream(text);
  for (std::string part; std::getline(stream, part, separator);) {
    if (!part.empty()) parts.push_back(part);
  }
  return parts;
}

// "key=value" words of a command.
std::string option(const std::vector<std::string>& words, const std::string& key, const std::string& otherwise = "") {
  for (const std::string& word : words) {
    if (word.starts_with(key + "=")) return word.substr(key.size() + 1);
  }
  return otherwise;
}

Duration duration(const std::string& text) {
  const int64_t number = std::stoll(text);
  return text.ends_with("ms") ? Duration(std::chrono::milliseconds(number)) : Duration(std::chrono::seconds(number));
}

class Script {
 public:
  // Runs one command; the trace it makes.
  std::string run(const std::string& line) {
    trace_.clear();
    std::vector<std::string> words = split(line);
    quiet_ = words.front() == "quiet";
    if (quiet_) words.erase(words.begin());
    execute(words);
    for (const std::string& violation : cluster_ ? cluster_->violations() : std::vector<std::string>()) {
      ADD_FAILURE() << line << ": " << violation;
    }
    return trace_;
  }

 private:
  void say(const std::string& text) {
    if (!quiet_) trace_ += text + "\n";
  }
  static uint64_t number(const std::string& text) { return std::stoull(text); }

  void execute(const std::vector<std::string>& words) {
    const std::string& command = words.front();
    if (command == "servers") {
      Options options;
      options.entries_per_message_max = number(option(words, "entries", "100"));
      options.inflight_messages_max = number(option(words, "inflight", "32"));
      options.uncommitted_bytes_max = number(option(words, "uncommitted", "100000000"));
      cluster_ = std::make_unique<Cluster>(number(words[1]), options);
      cluster_->set_trace([this](const std::string& text) { say(text); });
      return;
    }
    ASSERT_NE(cluster_, nullptr) << "the first command is: servers N";
    Cluster& c = *cluster_;
    const uint64_t id = words.size() > 1 && isdigit(words[1][0]) != 0 ? number(words[1]) : 0;
    if (command == "elect") {
      c.elect(id);
    } else if (command == "settle") {
      say(fmt::format("leader {}", c.settle()));
    } else if (command == "advance") {
      c.advance(duration(words[1]));
    } else if (command == "tick") {
      c.fire_deadline(id);
    } else if (command == "deliver") {
      deliver(words);
    } else if (command == "drop") {
      c.drop([&](const Message& message) { return matches(message, words); });
    } else if (command == "under-way") {
      for (const OwnedMessage& flight : c.flights()) say("  " + describe(flight.message()));
    } else if (command == "propose") {
      for (size_t i = 2; i < words.size(); ++i) {
        const Output& output = c.propose(id, words[i]);
        if (output.proposal && output.proposal->refusal != Refusal::kNone) {
          say(fmt::format("  {} refuses {}: {}", id, words[i], to_string(output.proposal->refusal)));
        }
      }
    } else if (command == "members") {
      change_members(id, words);
    } else if (command == "read") {
      c.read(id, number(words[2]));
    } else if (command == "transfer") {
      c.step(id, Transfer{.to = NodeId(words.size() > 2 ? number(words[2]) : 0)});
    } else if (command == "link-broken") {
      c.step(id, LinkBroken{.peer = NodeId(number(words[2]))});
    } else if (command == "link-up") {
      c.step(id, LinkUp{.peer = NodeId(number(words[2]))});
    } else if (command == "clock-lease") {
      for (uint64_t each = 1; c.has(each); ++each) {
        if (c.up(each)) c.step(each, ClockLease{.enabled = words[1] == "on"});
      }
    } else if (command == "snapshot") {
      c.snapshot(id, number(option(words, "keep", "0")));
    } else if (command == "snapshot-unreadable") {
      c.step(id, SnapshotUnreadable{.mark = {.last = c.raft(id).log().position_at(LogIndex(number(words[2])))}});
    } else if (command == "hole") {
      c.step(id, HoleFound{.from = LogIndex(number(words[2])), .to = LogIndex(number(words[3]))});
    } else if (command == "crash") {
      c.crash(id);
    } else if (command == "restart") {
      std::vector<LogIndex> holes;
      for (const std::string& hole : split(option(words, "holes"), ',')) holes.emplace_back(number(hole));
      c.restart(id, holes, option(words, "terms", "lost") == "known");
    } else if (command == "restart-empty") {
      c.server(id).durable = Durable{.group = GroupId(7)};
      c.restart(id);
    } else if (command == "restart-uncertain") {
      Recovered recovered = c.server(id).durable.recover();
      recovered.certainty = Certainty::kLastUncertain;
      c.restart_with(id, std::move(recovered));
    } else if (command == "save-disk") {
      saved_[id] = c.server(id).durable;
    } else if (command == "roll-back-disk") {
      c.server(id).durable = saved_.at(id);
    } else if (command == "add-server") {
      c.add_server(id);
    } else if (command == "stop-disk") {
      c.stop_disk(id);
    } else if (command == "start-disk") {
      c.start_disk(id);
    } else if (command == "cut") {
      c.cut(id, number(words[2]));
      if (words.size() < 4 || words[3] != "one-way") c.cut(number(words[2]), id);
    } else if (command == "isolate") {
      c.isolate(id);
    } else if (command == "heal") {
      c.heal_all();
    } else if (command == "status") {
      for (uint64_t each = 1; c.has(each); ++each) {
        say(c.up(each) ? fmt::format("  {}: {}, members {}", each, describe(c.raft(each).status()),
                                     c.raft(each).membership().describe())
                       : fmt::format("  {}: down", each));
      }
    } else if (command == "assert") {
      check(words);
    } else {
      ADD_FAILURE() << "no such command: " << command;
    }
  }

  // "1->2" and a word of the description, both optional.
  static bool matches(const Message& message, const std::vector<std::string>& words) {
    for (size_t i = 1; i < words.size(); ++i) {
      if (words[i].starts_with("count=")) continue;
      if (describe(message).find(words[i]) == std::string::npos) return false;
    }
    return true;
  }

  void deliver(const std::vector<std::string>& words) {
    if (words.size() == 1) {
      cluster_->deliver_all();
      return;
    }
    const uint64_t count = number(option(words, "count", "1"));
    for (uint64_t i = 0; i < count; ++i) {
      EXPECT_TRUE(cluster_->deliver_one([&](const Message& message) { return matches(message, words); }))
          << "nothing to deliver";
    }
  }

  void change_members(uint64_t id, const std::vector<std::string>& words) {
    Membership target;
    for (const auto& [key, role] :
         {std::pair("voters", MemberRole::kVoter), std::pair("learners", MemberRole::kLearner),
          std::pair("promotable", MemberRole::kPromotable)}) {
      for (const std::string& member : split(option(words, key), ',')) {
        target.set({.id = NodeId(number(member)), .role = role});
      }
    }
    const Output& output = cluster_->step(id, ProposeMembership{.target = target});
    if (output.proposal->refusal != Refusal::kNone) {
      say(fmt::format("  {} refuses the change: {}", id, to_string(output.proposal->refusal)));
    }
    if (!cluster_->server(id).disk_stopped) cluster_->start_disk(id);
  }

  void check(const std::vector<std::string>& words) {
    Cluster& c = *cluster_;
    const std::string& what = words[1];
    std::string text;
    for (const std::string& word : words) text += word + " ";
    if (what == "leader") {
      EXPECT_EQ(c.leader(), number(words[2])) << text;
      return;
    }
    if (what == "refused") {
      // assert refused N reason words
      std::string reason;
      for (size_t i = 3; i < words.size(); ++i) reason += (i > 3 ? " " : "") + words[i];
      int count = 0;
      for (const auto& [refusal, times] : c.refusals()) count += to_string(refusal) == reason ? times : 0;
      EXPECT_EQ(count, std::stoi(words[2])) << text;
      return;
    }
    const uint64_t id = number(words[2]);
    const Status status = c.raft(id).status();
    if (what == "committed") {
      EXPECT_EQ(c.committed(id), std::vector<std::string>(words.begin() + 3, words.end())) << text;
    } else if (what == "commit") {
      EXPECT_EQ(status.commit, LogIndex(number(words[3]))) << text;
    } else if (what == "last") {
      EXPECT_EQ(describe(status.last), words[3]) << text;
    } else if (what == "term") {
      EXPECT_EQ(status.term, Term(number(words[3]))) << text;
    } else if (what == "role") {
      EXPECT_EQ(to_string(status.role), words[3]) << text;
    } else if (what == "knows-leader") {
      EXPECT_EQ(status.leader, NodeId(number(words[3]))) << text;
    } else if (what == "gap") {
      EXPECT_EQ(status.has_gap, words[3] == "yes") << text;
    } else if (what == "voter") {
      EXPECT_EQ(status.voter, words[3] == "yes") << text;
    } else if (what == "certainty") {
      EXPECT_EQ(to_string(status.certainty).find(words[3]) != std::string::npos, true) << text;
    } else if (what == "quorum-lost") {
      EXPECT_EQ(status.quorum_lost, words[3] == "yes") << text;
    } else if (what == "members") {
      std::string expected;
      for (size_t i = 3; i < words.size(); ++i) expected += (i > 3 ? " " : "") + words[i];
      EXPECT_EQ(c.raft(id).membership().describe(), expected) << text;
    } else if (what == "read") {
      // assert read ID CONTEXT index N | failed | waiting
      const auto& reads = c.server(id).reads;
      const auto found = std::ranges::find(reads, number(words[3]), &ReadResult::context);
      if (words[4] == "waiting") {
        EXPECT_TRUE(found == reads.end()) << text;
        return;
      }
      ASSERT_TRUE(found != reads.end()) << text;
      EXPECT_EQ(found->refusal == Refusal::kNone, words[4] == "index") << text;
      if (words[4] == "index") {
        EXPECT_EQ(found->index, LogIndex(number(words[5]))) << text;
      }
    } else {
      ADD_FAILURE() << "no such assertion: " << what;
    }
  }

  std::unique_ptr<Cluster> cluster_;
  std::map<uint64_t, Durable> saved_;
  std::string trace_;
  bool quiet_ = false;
};

class ScriptTest : public testing::TestWithParam<std::string> {};

TEST_P(ScriptTest, TellsTheExpectedTrace) {
  std::ifstream in(GetParam());
  ASSERT_TRUE(in) << GetParam();
  Script script;
  std::string actual;
  std::string expected;
  bool says_what = false;
  bool asserts = false;
  for (std::string line; std::getline(in, line);) {
    expected += line + "\n";
    if (line.starts_with("#")) {
      says_what = true;
      actual += line + "\n";
    } else if (line.starts_with("> ")) {
      asserts = asserts || line.starts_with("> assert ");
      actual += line + "\n" + script.run(line.substr(2));
    } else if (line.empty()) {
      actual += "\n";
    }
  }
  EXPECT_TRUE(says_what) << "a scenario opens with what it shows";
  EXPECT_TRUE(asserts) << "a scenario asserts its point beside the trace";
  if (std::getenv("CONCLAVE_REWRITE") != nullptr) {  // NOLINT(concurrency-mt-unsafe)
    std::ofstream(GetParam()) << actual;
    return;
  }
  EXPECT_EQ(actual, expected);
}

std::vector<std::string> scripts() {
  std::vector<std::string> paths;
  for (const auto& entry : std::filesystem::directory_iterator(CONCLAVE_RAFT_TESTDATA)) {
    if (entry.path().extension() == ".txt") paths.push_back(entry.path().string());
  }
  std::ranges::sort(paths);
  return paths;
}

INSTANTIATE_TEST_SUITE_P(Scenarios, ScriptTest, testing::ValuesIn(scripts()),
                         [](const auto& scenario) { return std::filesystem::path(scenario.param).stem().string(); });

TEST(ScriptSuite, HasThirtyScenariosAtLeast) {
  EXPECT_GE(scripts().size(), 30U);
}

}  // namespace
}  // namespace conclave::raft
