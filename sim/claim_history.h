// ClaimHistory: who owned which name at each revision, as the one history of a run has it: a name's owner is the oldest
// of the keys directly below it (NAME/CLAIM; `orders` and `orders/42` are two names). It only remembers.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "sim/node_check.h"

namespace conclave::sim {

class ClaimHistory {
 public:
  // From `since` on, until the next.
  struct Owner {
    int64_t since = 0;
    int64_t token = 0;  // zero: nobody
    std::string key;
    int64_t mod = 0;  // when the value was written
    std::string value;
  };

  // Empty: the key is no claim.
  [[nodiscard]] static std::string name_of(const std::string& key);
  [[nodiscard]] static std::string key_of(const std::string& name, int64_t session);
  // Zero: none.
  [[nodiscard]] static int64_t session_of(const std::string& key);

  void on_event(int64_t revision, const NodeCheck::Event& event);

  [[nodiscard]] Owner owner_at(const std::string& name, int64_t revision) const;
  // All there ever were, vacancies included; the first is the vacancy before everything.
  [[nodiscard]] const std::vector<Owner>& owners(const std::string& name) const;
  // The create revision of the claim as it stood at that revision, or stands now; zero: it did not.
  [[nodiscard]] int64_t token_at(const std::string& key, int64_t revision) const;
  [[nodiscard]] int64_t token_of(const std::string& key) const { return token_at(key, INT64_MAX - 1); }
  // The lease it hangs on.
  [[nodiscard]] LeaseId lease_of(const std::string& key) const;
  // Those of a session that stood at that revision.
  [[nodiscard]] std::vector<std::string> keys_at(int64_t session, int64_t revision) const;
  [[nodiscard]] int64_t revision() const { return revision_; }

 private:
  // It stood from `created` until before `deleted`.
  struct Life {
    int64_t created = 0;
    int64_t deleted = INT64_MAX;
    int64_t mod = 0;
    std::string value;
    LeaseId lease;
  };
  struct Name {
    std::set<std::pair<int64_t, std::string>> claims;  // that stand, by token; of equal tokens by key
    std::vector<Owner> owners = {{}};
  };

  std::map<std::string, Name> names_;
  std::map<std::string, std::vector<Life>> lives_;  // by key
  std::map<int64_t, std::set<std::string>> keys_;   // that a session ever claimed
  int64_t revision_ = 1;
};

}  // namespace conclave::sim
