#include "api/claims.h"

#include <algorithm>
#include <utility>

#include "base/assert.h"
#include "base/mark.h"
#include "keyspace/interface.h"
#include "keyspace/validate.h"
#include "keyspace/wire.h"
#include "layers/recipe.h"

namespace conclave::api {

using keyspace::CommandKind;
using keyspace::ErrorId;
using layers::ClaimQueue;

// One claim. Erased by its own last step, so every step that may be the last is the last thing done.
class Claims::Claim final : public Waiter, public Timed {
 public:
  Claim(Claims& claims, Id id, Wish wish, Owner& owner)
      : claims_(claims),
        id_(id),
        owner_(&owner),
        prefix_(layers::claim_prefix(wish.name)),
        name_(std::move(wish.name)),
        value_(std::move(wish.value)),
        lease_(wish.lease),
        replaces_value_(wish.replaces_value) {}
  ~Claim() override {
    context().forget(ticket_);
    context().stop_timer(*this);
  }

  void begin();
  void cancel();
  void decide(ClaimQueue::Outcome outcome);

  void on_applied(node::Ticket, const keyspace::Reply& reply) override;
  void on_refused(node::Ticket, ErrorId error) override;
  void on_time(Instant now) override;

 private:
  enum class Stage : uint8_t { kLease, kPut, kWait, kRelease };

  Context& context() { return claims_.context_; }
  void write(const keyspace::CommandHeader& header, ByteView body);
  void put();
  void on_put(Revision revision);
  void release();
  void refuse(ErrorId error);
  void end() { claims_.claims_.erase(id_); }

  Claims& claims_;
  Id id_;
  Owner* owner_;  // null: cancelled
  Stage stage_ = Stage::kLease;
  std::string prefix_;
  std::string name_;
  std::string value_;
  LeaseId lease_;
  bool replaces_value_;
  std::string key_;
  Revision create_;
  node::Ticket ticket_ = 0;
};

void Claims::Claim::write(const keyspace::CommandHeader& header, ByteView body) {
  ticket_ = context().issue(*this);
  context().write(ticket_, header, body);
}

void Claims::Claim::begin() {
  if (lease_.is_set()) {
    put();
    return;
  }
  lease_ = context().choose_lease();
  const int64_t seconds = std::max(kSessionTtlSeconds, context().ttl_seconds_min());
  std::string body;
  keyspace::append_int64_field(body, 1, seconds);
  keyspace::append_int64_field(body, 2, lease_.value());
  write({.kind = CommandKind::kLeaseGrant, .lease = lease_, .ttl_ms = seconds * 1000}, body);
}

void Claims::Claim::put() {
  stage_ = Stage::kPut;
  key_ = layers::claim_key(name_, lease_);
  const std::string body =
      replaces_value_ ? layers::encode_campaign(key_, value_, lease_) : layers::encode_claim(key_, value_, lease_);
  if (body.size() > kRequestBytesMax) {
    refuse(ErrorId::kRequestTooLarge);
    return;
  }
  write({.kind = CommandKind::kTxn}, body);
}

void Claims::Claim::on_applied(node::Ticket, const keyspace::Reply& reply) {
  ticket_ = 0;
  switch (stage_) {
    case Stage::kLease:
      if (owner_ == nullptr) {
        end();  // the lease holds nothing and ends by itself
      } else if (reply.error != ErrorId::kNone) {
        refuse(reply.error);
      } else {
        put();
      }
      return;
    case Stage::kPut:
      if (reply.error != ErrorId::kNone) {
        refuse(reply.error);
      } else {
        on_put(reply.revision);
      }
      return;
    case Stage::kRelease:
      end();
      return;
    case Stage::kWait:
      break;
  }
  UNREACHABLE();
}

// The state is as it is right after the entry, so the claim stands: put by it, or before.
void Claims::Claim::on_put(Revision revision) {
  const keyspace::KeyspaceView view(context().keyspace());
  const std::optional<keyspace::KeyValue> own = view.get(key_);
  ASSERT(own);
  create_ = own->create;
  if (owner_ == nullptr) {
    REACHED(claim_cancelled_while_put);
    if (own->create == revision && own->version == 1) {
      release();
    } else {
      end();  // it stood before: another call's, or what that call was granted
    }
    return;
  }
  stage_ = Stage::kWait;
  const ClaimQueue::Outcome outcome = claims_.queue_.wait(view, id_, prefix_, key_, create_);
  if (outcome != ClaimQueue::Outcome::kWaiting) decide(outcome);
}

void Claims::Claim::decide(ClaimQueue::Outcome outcome) {
  Owner& owner = *std::exchange(owner_, nullptr);
  if (outcome == ClaimQueue::Outcome::kGranted) {
    owner.on_claim_granted(
        {.key = key_, .create = create_, .lease = lease_, .revision = context().keyspace().revision()});
  } else {
    owner.on_claim_lost(context().keyspace().lease(lease_).has_value());
  }
  end();
}

void Claims::Claim::refuse(ErrorId error) {
  if (Owner* owner = std::exchange(owner_, nullptr)) owner->on_claim_refused(error);
  end();
}

void Claims::Claim::on_refused(node::Ticket, ErrorId error) {
  ticket_ = 0;
  if (stage_ != Stage::kRelease) {
    refuse(error);
    return;
  }
  REACHED(claim_release_asked_again);
  context().set_timer(*this, context().now() + kOwnRetry);
}

void Claims::Claim::cancel() {
  owner_ = nullptr;
  // Otherwise the answer to what is under way decides what is left to do.
  if (stage_ != Stage::kWait) return;
  claims_.queue_.forget(id_);
  release();
}

void Claims::Claim::release() {
  stage_ = Stage::kRelease;
  write({.kind = CommandKind::kTxn}, layers::encode_release(key_, create_));
}

void Claims::Claim::on_time(Instant now) {
  if (context().keyspace().is_busy()) {
    context().set_timer(*this, now + kOwnRetry);
    return;
  }
  const keyspace::KeyspaceView view(context().keyspace());
  const std::optional<keyspace::KeyValue> own = view.get(key_);
  if (own && own->create == create_) {
    release();
  } else {
    end();  // gone with its lease, or by the command whose outcome was not known
  }
}

Claims::Claims(Context& context) : context_(context), recheck_(*this) {}

Claims::~Claims() {
  context_.stop_job(recheck_);
}

Claims::Id Claims::make(Wish wish, Owner& owner) {
  if (claims_.size() >= kClaimsMax) {
    REACHED(claims_refused);
    owner.on_claim_refused(ErrorId::kTooManyRequests);
    return 0;
  }
  const Id id = ++last_;
  Claim& claim = *claims_.emplace(id, std::make_unique<Claim>(*this, id, std::move(wish), owner)).first->second;
  claim.begin();
  return id;
}

void Claims::cancel(Id id) {
  const auto found = claims_.find(id);
  if (found != claims_.end()) found->second->cancel();
}

void Claims::on_applied() {
  if (queue_.waiters() == 0) return;
  keyspace::Keyspace& keyspace = context_.keyspace();
  const keyspace::Store& store = keyspace.store();
  const uint64_t first = store.first_event(keyspace.effects().revision_before.value() + 1);
  if (first == store.events_end()) return;
  if (store.events_end() - first > kClaimEventsMax) {
    recheck_all();
    return;
  }
  queue_.on_applied(keyspace::KeyspaceView(keyspace), keyspace::applied_of(keyspace));
  take_decisions();
}

void Claims::on_state_replaced() {
  if (queue_.waiters() > 0) recheck_all();
}

void Claims::recheck_all() {
  REACHED(claims_rechecked);
  queue_.begin_recheck();
  context_.start_job(recheck_);
}

bool Claims::Recheck::run(uint32_t& units) {
  Context& context = claims_.context_;
  if (context.keyspace().is_busy()) return false;
  const bool done = claims_.queue_.recheck(keyspace::KeyspaceView(context.keyspace()), kClaimRechecksPerTurn);
  units = 0;
  claims_.take_decisions();
  return done;
}

void Claims::take_decisions() {
  for (const ClaimQueue::Decision& decision : queue_.take_decisions()) {
    const auto found = claims_.find(decision.waiter);
    ASSERT(found != claims_.end());
    found->second->decide(decision.outcome);
  }
}

}  // namespace conclave::api
