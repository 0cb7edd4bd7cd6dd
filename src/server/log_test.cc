#include "server/log.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <cstdlib>

namespace conclave::server {
namespace {

TEST(LogTest, ALineForPeopleAndForPrograms) {
  const std::array<LogField, 2> fields = {{{"term", "4"}, {"leader", "9f3a"}}};
  EXPECT_EQ(log_line(LogFormat::kText, "leader_changed", "n2 leads", fields),
            "n2 leads event=leader_changed term=4 leader=9f3a");
  EXPECT_EQ(log_line(LogFormat::kJson, "leader_changed", "n2 leads", fields),
            R"("message":"n2 leads","event":"leader_changed","term":"4","leader":"9f3a")");
  EXPECT_EQ(log_line(LogFormat::kText, "ended", "ended", {}), "ended event=ended");
}

// Names of members and words of peers are in it: none of them may make a line of its own, or a field.
TEST(LogTest, WhateverTheWordsItStaysOneLine) {
  const std::array<LogField, 4> fields = {
      {{"name", "a b"}, {"odd", "x\nevent=forged\x7f"}, {"nothing", ""}, {"quotes", R"(say "no" \ = never)"}}};
  EXPECT_EQ(
      log_line(LogFormat::kText, "e", "two\nlines", fields),
      R"(two\u000alines event=e name="a b" odd="x\u000aevent=forged\u007f" nothing="" quotes="say \"no\" \\ = never")");
  EXPECT_EQ(
      log_line(LogFormat::kJson, "e", "two\nlines", fields),
      R"("message":"two\u000alines","event":"e","name":"a b","odd":"x\u000aevent=forged\u007f","nothing":"","quotes":"say \"no\" \\ = never")");
}

// Nobody reads what is written, and the pipe is soon full.
TEST(LogTest, WhoeverReadsItNobodyWaits) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  constexpr int kLines = 30'000;
  const auto tell = [] {
    std::array<int, 2> pipe{};
    if (::pipe(pipe.data()) != 0 || ::dup2(pipe[1], STDERR_FILENO) < 0) std::_Exit(2);
    for (int i = 0; i < kLines; ++i) log_info("line", "one of many");
    log_flush();
    std::_Exit(log_lines_dropped() > kLines / 2 ? 0 : 1);
  };
  EXPECT_EXIT(tell(), ::testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace conclave::server
