// What is frozen, and that its record is whole: each feature level that this build knows has its golden files, and the
// file `frozen` says which commit wrote them.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "node/features.h"
#include "tests/compat/golden.h"

namespace conclave::compat {
namespace {

TEST(Frozen, EachLevelHasItsGoldenFilesAndTheCommitThatWroteThem) {
  std::ifstream file("frozen");
  uint64_t next = 1;
  for (std::string line; std::getline(file, line);) {
    if (line.empty() || line.front() == '#') continue;
    std::istringstream words(line);
    uint64_t level = 0;
    std::string commit;
    std::string more;
    words >> level >> commit;
    EXPECT_FALSE(words >> more) << line;
    EXPECT_EQ(level, next) << line;
    EXPECT_TRUE(commit.size() == 40 && commit.find_first_not_of("0123456789abcdef") == std::string::npos) << line;
    EXPECT_TRUE(std::filesystem::is_directory(fmt::format("golden/{}", level))) << line;
    ++next;
  }
  EXPECT_EQ(next, node::kFeatureLevelMax + 1);
}

TEST(Frozen, TextSaysTheBytes) {
  const Named values{{"none", ""}, {"some", std::string("\0\x7f\x80\xff", 4)}};
  EXPECT_EQ(to_text("two values", values), "# two values\nnone\nsome 00 7f 80 ff\n");
  EXPECT_EQ(parse_text(to_text("two values", values)), values);
}

}  // namespace
}  // namespace conclave::compat
