// Children and their guardian: what ends when, and with which code.
#include <gtest/gtest.h>

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <optional>
#include <string>
#include <thread>

#include <fmt/format.h>

#include "cli/child.h"
#include "cli/guardian.h"
#include "env/posix/clock.h"

namespace conclave::cli {
namespace {

using namespace std::chrono_literals;

// Polled, since the tests' main program takes no signals.
std::optional<int> wait_for(Child& child, Duration limit = 20s) {
  env::PosixClock clock;
  for (const Instant end = clock.now() + limit; clock.now() < end; std::this_thread::sleep_for(2ms)) {
    if (const auto code = child.ended()) return code;
  }
  return {};
}

Child start(std::vector<std::string> command, std::vector<std::string> environment = {}) {
  auto started = Child::start({.command = std::move(command), .environment = std::move(environment)});
  EXPECT_TRUE(started.has_value());
  return *started;
}

TEST(Children, EndWithTheirOwnCode) {
  Child child = start({"sh", "-c", "exit 7"});
  EXPECT_EQ(wait_for(child), 7);
  EXPECT_FALSE(child.group_lives());
}

TEST(Children, EndWithTheirSignal) {
  Child child = start({"sh", "-c", "kill -KILL $$"});
  EXPECT_EQ(wait_for(child), 128 + SIGKILL);
}

TEST(Children, ThatCannotBeRun) {
  Child missing = start({"/nonexistent/command"});
  EXPECT_EQ(wait_for(missing), 127);
  Child no_program = start({"/dev/null"});
  EXPECT_EQ(wait_for(no_program), 126);
}

TEST(Children, SeeTheEnvironmentReplacedAndAdded) {
  setenv("CONCLAVE_TOKEN", "old", 1);  // NOLINT(concurrency-mt-unsafe): one thread
  Child child = start({"sh", "-c", R"([ "$CONCLAVE_TOKEN" = 12 ] && [ "$CONCLAVE_RESOURCE" = r ] && [ -n "$PATH" ])"},
                      {"CONCLAVE_TOKEN=12", "CONCLAVE_RESOURCE=r"});
  EXPECT_EQ(wait_for(child), 0);
  unsetenv("CONCLAVE_TOKEN");  // NOLINT(concurrency-mt-unsafe): one thread
}

TEST(Children, HaveAGroupThatSignalsReach) {
  Child child = start({"sh", "-c", "sleep 100 & exec sleep 100"});
  EXPECT_EQ(getpgid(child.pid()), child.pid());
  child.signal(SIGTERM);
  EXPECT_EQ(wait_for(child), 128 + SIGTERM);
}

// A command that ignores SIGTERM, once it does.
Child start_stubborn(const std::string& command = "") {
  int ready[2];
  EXPECT_EQ(pipe(ready), 0);
  Child child = start(
      {"sh", "-c", fmt::format("trap '' TERM HUP; {} echo >&{}; while :; do sleep 0.01; done", command, ready[1])});
  char byte = 0;
  EXPECT_EQ(read(ready[0], &byte, 1), 1);
  close(ready[0]);
  close(ready[1]);
  return child;
}

TEST(Children, ThatIgnoreTermEndByKill) {
  Child child = start_stubborn();
  child.signal(SIGTERM);
  child.signal(SIGKILL);
  EXPECT_EQ(wait_for(child), 128 + SIGKILL);
}

TEST(Guardians, EndTheGroupWhenItIsTime) {
  env::PosixClock clock;
  auto guardian = Guardian::start();
  ASSERT_TRUE(guardian.has_value());
  Child polite = start({"sleep", "100"});
  guardian->order({.group = polite.pid(), .terminate_at = clock.now() + 50ms, .kill_at = clock.now() + 60s});
  EXPECT_EQ(wait_for(polite), 128 + SIGTERM);
  Child stubborn = start_stubborn();
  const Instant kill_at = clock.now() + 300ms;
  guardian->order({.group = stubborn.pid(), .terminate_at = clock.now(), .kill_at = kill_at});
  EXPECT_EQ(wait_for(stubborn), 128 + SIGKILL);
  EXPECT_GE(clock.now(), kill_at);
}

TEST(Guardians, GoHomeWithoutHarm) {
  Child child = start({"sh", "-c", "sleep 0.2; exit 3"});
  {
    auto guardian = Guardian::start();
    ASSERT_TRUE(guardian.has_value());
    guardian->order({.group = child.pid(), .terminate_at = kNever, .kill_at = kNever});
  }
  EXPECT_EQ(wait_for(child), 3);
}

// The kernel ends the command itself with its wrapper; the guardian also what the command has started.
TEST(Guardians, EndTheGroupWhenTheOtherIsKilled) {
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  int told[2];
  ASSERT_EQ(pipe(told), 0);
  const pid_t wrapper = fork();
  if (wrapper == 0) {
    auto guardian = Guardian::start();
    const Child child = start_stubborn("sh -c 'while :; do sleep 0.01; done' &");
    guardian->order({.group = child.pid(), .terminate_at = kNever, .kill_at = kNever});
    const pid_t pid = child.pid();
    (void)!write(told[1], &pid, sizeof(pid));
    pause();
    _exit(0);
  }
  pid_t group = 0;
  ASSERT_EQ(read(told[0], &group, sizeof(group)), static_cast<ssize_t>(sizeof(group)));
  kill(wrapper, SIGKILL);
  env::PosixClock clock;
  bool gone = false;
  for (const Instant end = clock.now() + 20s; !gone && clock.now() < end; std::this_thread::sleep_for(2ms)) {
    while (waitpid(-1, nullptr, WNOHANG) > 0) {
    }
    gone = kill(-group, 0) != 0;
  }
  EXPECT_TRUE(gone);
  close(told[0]);
  close(told[1]);
}

}  // namespace
}  // namespace conclave::cli
