// The words everyone uses: strong types for the numbers of the protocol. A term is never compared with an index by
// accident, and none converts silently from or to an integer.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>

#include <fmt/format.h>

namespace conclave {

// A number that names a thing. Equality and order (for containers) only; no arithmetic.
template <class Tag, class Rep = uint64_t>
class Identity {
 public:
  using rep = Rep;
  constexpr Identity() = default;
  explicit constexpr Identity(Rep value) : value_(value) {}
  [[nodiscard]] constexpr Rep value() const { return value_; }
  // Zero names nothing, in every identity type.
  [[nodiscard]] constexpr bool is_set() const { return value_ != 0; }
  friend constexpr auto operator<=>(const Identity&, const Identity&) = default;

 private:
  Rep value_ = 0;
};

// A number that counts: positions and epochs. Steps by plain integers; the difference of two is a plain integer.
template <class Tag, class Rep = uint64_t>
class Ordinal {
 public:
  using rep = Rep;
  constexpr Ordinal() = default;
  explicit constexpr Ordinal(Rep value) : value_(value) {}
  [[nodiscard]] constexpr Rep value() const { return value_; }
  [[nodiscard]] constexpr Ordinal next() const { return Ordinal(value_ + 1); }
  // The one before; of zero, zero.
  [[nodiscard]] constexpr Ordinal prev() const { return Ordinal(value_ == 0 ? 0 : value_ - 1); }
  constexpr Ordinal& operator++() {
    ++value_;
    return *this;
  }
  friend constexpr Ordinal operator+(Ordinal a, Rep n) { return Ordinal(a.value_ + n); }
  friend constexpr Ordinal operator-(Ordinal a, Rep n) { return Ordinal(a.value_ - n); }
  friend constexpr Rep operator-(Ordinal a, Ordinal b) { return a.value_ - b.value_; }
  friend constexpr auto operator<=>(const Ordinal&, const Ordinal&) = default;

 private:
  Rep value_ = 0;
};

// Consensus.
using Term = Ordinal<struct TermTag>;
using LogIndex = Ordinal<struct LogIndexTag>;            // 1 is the first entry; 0 is "before the log"
using WriteSequence = Ordinal<struct WriteSequenceTag>;  // numbers durable writes of one boot, in order
using NodeId = Identity<struct NodeIdTag>;               // a server; never reused
using GroupId = Identity<struct GroupIdTag>;             // one ordered log
using ClusterId = Identity<struct ClusterIdTag>;
using Boot = Ordinal<struct BootTag>;                // one life of a server process; grows with each start
using Incarnation = Ordinal<struct IncarnationTag>;  // one voting identity of a server; 0 is "may not vote"
using ReadId = Ordinal<struct ReadIdTag>;            // one read-index round; never reused within a boot

// Keyspace. Signed, as etcd's API has them.
using Revision = Ordinal<struct RevisionTag, int64_t>;
using LeaseId = Identity<struct LeaseIdTag, int64_t>;
using SessionId = Identity<struct SessionIdTag>;

// A fixed mix (the finaliser of splitmix64): each bit of the result hangs on all of the argument, on every compiler
// alike.
[[nodiscard]] constexpr uint64_t mix64(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

}  // namespace conclave

template <class Tag, class Rep>
struct std::hash<conclave::Identity<Tag, Rep>> {
  size_t operator()(const conclave::Identity<Tag, Rep>& id) const noexcept {
    // Not the library's, so that no order depends on it.
    return static_cast<size_t>(conclave::mix64(static_cast<uint64_t>(id.value())));
  }
};

template <class Tag, class Rep>
struct fmt::formatter<conclave::Identity<Tag, Rep>> : fmt::formatter<Rep> {
  template <class Context>
  auto format(const conclave::Identity<Tag, Rep>& id, Context& context) const {
    return fmt::formatter<Rep>::format(id.value(), context);
  }
};

template <class Tag, class Rep>
struct fmt::formatter<conclave::Ordinal<Tag, Rep>> : fmt::formatter<Rep> {
  template <class Context>
  auto format(const conclave::Ordinal<Tag, Rep>& ordinal, Context& context) const {
    return fmt::formatter<Rep>::format(ordinal.value(), context);
  }
};
