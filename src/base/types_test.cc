#include "base/types.h"

#include <type_traits>

#include <gtest/gtest.h>

namespace conclave {
namespace {

// The point of strong types: these must not compile.
static_assert(!std::is_convertible_v<uint64_t, Term>);
static_assert(!std::is_convertible_v<Term, uint64_t>);
static_assert(!std::is_constructible_v<Term, LogIndex>);
static_assert(!std::is_assignable_v<LogIndex&, Term>);

template <class A, class B>
concept Comparable = requires(A a, B b) { a < b; };
static_assert(Comparable<Term, Term> && !Comparable<Term, LogIndex> && !Comparable<NodeId, GroupId>);

TEST(Types, OrdinalsStepAndSubtract) {
  EXPECT_EQ(LogIndex(4).next(), LogIndex(5));
  EXPECT_EQ(LogIndex(0).prev(), LogIndex(0));
  EXPECT_EQ(LogIndex(9) - LogIndex(4), 5U);
  EXPECT_EQ(fmt::format("{} {}", Term(3), NodeId(7)), "3 7");
  EXPECT_FALSE(NodeId().is_set());
}

}  // namespace
}  // namespace conclave
