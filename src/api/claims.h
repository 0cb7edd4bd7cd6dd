// The claims that calls of Lock and Campaign make, from the first command to the grant. A claim whose caller went away
// while it waited is taken back here, however often that must be asked; one that was granted belongs to its caller and
// its lease. What it stands on: once its own put is applied, a claim that is the oldest of the state here stays that
// until it is deleted (architecture section 1, rule 5).
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "api/context.h"
#include "layers/claim_queue.h"

namespace conclave::api {

class Claims {
 public:
  using Id = uint64_t;

  struct Grant {
    ByteView key;
    Revision create;
    LeaseId lease;
    Revision revision;  // of the state in which it is the oldest
  };
  // Told one of these, once, unless it cancels; possibly before make() returns.
  class Owner {
   public:
    virtual ~Owner() = default;
    virtual void on_claim_granted(const Grant& grant) = 0;
    // It ended while it waited.
    virtual void on_claim_lost(bool lease_stands) = 0;
    virtual void on_claim_refused(keyspace::ErrorId error) = 0;
  };

  struct Wish {
    std::string name;
    LeaseId lease;  // none: one is granted for it, of kSessionTtlSeconds
    std::string value;
    bool replaces_value = false;  // a claim that stands with another value takes this one
  };

  explicit Claims(Context& context);
  Claims(const Claims&) = delete;
  Claims& operator=(const Claims&) = delete;
  ~Claims();

  Id make(Wish wish, Owner& owner);
  // The owner is gone: nothing of the claim is to stay. May be decided already.
  void cancel(Id id);

  // After each entry.
  void on_applied();
  void on_state_replaced();
  [[nodiscard]] size_t size() const { return claims_.size(); }
  [[nodiscard]] size_t waiting() const { return queue_.waiters(); }

 private:
  class Claim;
  class Recheck final : public Job {
   public:
    explicit Recheck(Claims& claims) : claims_(claims) {}
    bool run(uint32_t& units) override;
    [[nodiscard]] bool may_wait() const override { return false; }

   private:
    Claims& claims_;
  };
  void take_decisions();
  void recheck_all();

  Context& context_;
  layers::ClaimQueue queue_{layers::ClaimQueue::Line::kAllBelow};
  std::map<Id, std::unique_ptr<Claim>> claims_;
  Id last_ = 0;
  Recheck recheck_;
};

}  // namespace conclave::api
