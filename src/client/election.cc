// The public face of terms and observations.
#include "conclave/election.h"

#include <utility>

#include "client/io.h"
#include "client/names.h"

namespace conclave::client {
namespace {

std::expected<void, Error> result_of(const OperationEnded& ended) {
  if (ended.outcome == Outcome::kDone) return {};
  return std::unexpected(error_of(ended));
}

}  // namespace

std::expected<void, Error> Term::proclaim(std::string value) {
  const std::shared_ptr<HeldState> held = state_;
  return held->io().ask<void>([held, value = std::move(value)](Io& io, Promise<void> promise) mutable {
    io.sessions().proclaim(
        held->session(), held->claims().front(), std::move(value),
        [promise = std::move(promise)](OperationEnded&& ended) mutable { promise.give(result_of(ended)); });
  });
}

std::expected<void, Error> Term::transfer(int64_t to) {
  const std::shared_ptr<HeldState> held = state_;
  held->set_offered(true);
  auto transferred = held->io().ask<void>([held, to](Io& io, Promise<void> promise) {
    io.sessions().transfer(held->session(), held->claims().front(), to,
                           [held, promise = std::move(promise)](OperationEnded&& ended) mutable {
                             if (ended.outcome == Outcome::kDone) {
                               held->lose(HeldState::Over::kResigned, "TRANSFERRED", "it was transferred");
                             }
                             promise.give(result_of(ended));
                           });
  });
  // Refused, by the cluster or before it was asked. Of what is unknown the session's end tells.
  const auto is_refusal = [](const Error& error) {
    return error.kind == ErrorKind::kRejected || error.kind == ErrorKind::kNotApplied;
  };
  if (!transferred && is_refusal(transferred.error())) held->set_offered(false);
  return transferred;
}

Observation::Observation(std::shared_ptr<State> state) : state_(std::move(state)) {}

Observation::Observation(Observation&& other) noexcept = default;

Observation::~Observation() {
  if (!state_) return;
  state_->end();
  state_->io().post(
      [session = state_->session(), name = state_->name()](Io& io) { io.sessions().stop_observing(session, name); });
}

}  // namespace conclave::client
