#include "base/mark.h"

#include <cstring>

#include <gtest/gtest.h>

#include "base/assert.h"

namespace conclave {
namespace {

void branch(bool taken) {
  if (taken) REACHED(test_taken);
  if (!taken) REACHED(test_not_taken);
}

uint64_t hits(const char* name) {
  for (const Mark* mark : all_marks()) {
    if (std::strcmp(mark->name, name) == 0) return mark->hits;
  }
  ADD_FAILURE() << "no mark " << name;
  return 0;
}

TEST(Mark, CountsAndKnowsWhatWasNeverReached) {
  EXPECT_EQ(hits("test_taken"), 0U);
  branch(true);
  branch(true);
  EXPECT_EQ(hits("test_taken"), 2U);
  EXPECT_EQ(hits("test_not_taken"), 0U);
}

TEST(AssertDeathTest, PrintsTheValues) {
  const int left = 3;
  EXPECT_DEATH(ASSERT_CMP(left, >, 4), "left > 4: left 3 right 4");
  EXPECT_DEATH(ASSERT(left == 4), "left == 4");
  EXPECT_DEATH(ASSERT_MSG(left == 4, "seed {}", 17), "seed 17");
}

}  // namespace
}  // namespace conclave
