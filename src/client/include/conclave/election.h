// Elections: candidacies, terms, and who leads. See Session::campaign(), Client::elect(), Session::observe().
#pragma once

#include "conclave/held.h"

namespace conclave::client {

struct CampaignOptions {
  // The highest is elected first; among equals, who came first.
  int32_t priority = 0;
  std::chrono::milliseconds timeout{0};  // zero: until elected or cancelled
  std::stop_token cancel{};
  bool stop_in_jeopardy = false;
  std::chrono::milliseconds release_timeout{5000};
  std::function<void(HeldEnd)> on_end{};
};

// A term as leader. At the end of its scope it resigns, as a Hold lets go. Move-only.
class [[nodiscard]] Term : public Held {
 public:
  Term(Term&& other) noexcept = default;
  ~Term() = default;
  // Another value, which observers see.
  [[nodiscard]] std::expected<void, Error> proclaim(std::string value);
  [[nodiscard]] HeldEnd resign() { return end(); }
  // Resigns in favour of a candidate, who is named by its session. kRejected: FOREIGN_WAITERS (others stand in line who
  // cannot be passed over), NO_CANDIDATE; the term goes on then.
  [[nodiscard]] std::expected<void, Error> transfer(int64_t to);

 private:
  friend class Session;
  using Held::Held;
};

struct Candidate {
  int64_t session = 0;
  std::string description{};  // of the session
  int32_t priority = 0;
  std::string value{};  // in a description; observers are not told it
};

struct ObserveOptions {
  bool candidates = false;  // also who waits to be elected
};

struct Leader {
  std::string name{};
  int64_t token = 0;  // zero: nobody leads
  std::string value{};
  // Of its claim: the session's number, or the lease of somebody who follows etcd's recipe.
  int64_t lease = 0;
  int64_t revision = 0;  // when the value was written; of a vacancy, when it was seen
  bool skipped = false;  // there may have been others since the last one told
  // To observers that asked for it, as it was told last: who waits, in the order in which they would be elected, the
  // first 32; and how many.
  std::vector<Candidate> candidates{};
  int64_t waiting = 0;
};

// While it lives, leaders and vacancies of an election are told, from the present one on. Move-only.
class [[nodiscard]] Observation {
 public:
  class State;
  explicit Observation(std::shared_ptr<State> state);
  Observation(Observation&& other) noexcept;
  Observation& operator=(Observation&& other) noexcept = delete;
  Observation(const Observation&) = delete;
  Observation& operator=(const Observation&) = delete;
  // Nothing is told after it, unless it ends on the client's thread within a call.
  ~Observation();

 private:
  std::shared_ptr<State> state_;
};

// What Client::elect() does after a term.
enum class Next : uint8_t {
  kCampaignAgain,
  kEnd,
};

}  // namespace conclave::client
