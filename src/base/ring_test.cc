#include "base/ring.h"

#include <deque>
#include <string>

#include <gtest/gtest.h>

#include "base/random.h"

namespace conclave {
namespace {

TEST(Ring, AgreesWithADeque) {
  Random random(1);
  Ring<std::string> ring;
  std::deque<std::string> model;
  for (int round = 0; round < 20000; ++round) {
    switch (random.below(model.size() > 40 ? 4 : 6)) {
      case 0:
      case 1:
        if (!model.empty()) {
          ring.pop_front();
          model.pop_front();
        }
        break;
      case 2:
        if (!model.empty()) {
          ring.pop_back();
          model.pop_back();
        }
        break;
      default:
        ring.push_back(std::to_string(round));
        model.push_back(std::to_string(round));
    }
    ASSERT_EQ(ring.size(), model.size());
    const size_t from = random.below(model.size() + 1);
    const size_t count = random.below(model.size() - from + 1);
    auto [first, second] = ring.slices(from, count);
    ASSERT_EQ(first.size() + second.size(), count);
    for (size_t i = 0; i < count; ++i) {
      ASSERT_EQ(i < first.size() ? first[i] : second[i - first.size()], model[from + i]);
      ASSERT_EQ(ring[from + i], model[from + i]);
    }
  }
}

}  // namespace
}  // namespace conclave
