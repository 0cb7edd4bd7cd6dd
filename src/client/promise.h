// An answer that one thread waits for and the client's gives: once, or, where it is dropped without one, that the
// client has ended.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>

#include "conclave/error.h"

namespace conclave::client {

[[nodiscard]] inline Error client_closed() {
  return {ErrorKind::kOutcomeUnknown, "CLIENT_CLOSED", "the client has ended, and with it what was under way"};
}

template <class T>
class Promise {
  using Value = std::expected<T, Error>;
  struct Shared {
    std::mutex mutex;
    std::condition_variable given;
    std::optional<Value> value;
  };

 public:
  Promise() : shared_(std::make_shared<Shared>()) {}
  Promise(Promise&& other) noexcept = default;
  Promise& operator=(Promise&& other) noexcept = delete;
  Promise(const Promise&) = delete;
  Promise& operator=(const Promise&) = delete;
  ~Promise() {
    if (shared_) give(std::unexpected(client_closed()));
  }

  // The other end, taken before the promise is moved away.
  class Answer {
   public:
    [[nodiscard]] Value wait() {
      std::unique_lock lock(shared_->mutex);
      shared_->given.wait(lock, [this] { return shared_->value.has_value(); });
      return std::move(*shared_->value);
    }

   private:
    friend class Promise;
    explicit Answer(std::shared_ptr<Shared> shared) : shared_(std::move(shared)) {}
    std::shared_ptr<Shared> shared_;
  };
  [[nodiscard]] Answer answer() const { return Answer(shared_); }
  void give(Value value) {
    const std::shared_ptr<Shared> shared = std::move(shared_);
    const std::lock_guard lock(shared->mutex);
    shared->value.emplace(std::move(value));
    shared->given.notify_one();
  }

 private:
  std::shared_ptr<Shared> shared_;
};

}  // namespace conclave::client
