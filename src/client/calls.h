// Calls: unary calls to whichever server answers, without a thread that waits. A call goes to the server that answered
// last, and to the next one where that cannot have done anything, or where doing it twice does no harm. On the loop's
// thread.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "base/time.h"
#include "conclave/error.h"
#include "net/client.h"
#include "net/endpoint.h"
#include "net/loop.h"

namespace conclave::client {

class Calls {
 public:
  enum class Repeat : uint8_t {
    kHarmless,  // a read
    kChange     // asked again only where it is known that nothing was done
  };
  using Done = std::move_only_function<void(std::expected<std::string, Error>)>;

  Calls(net::Loop& loop, std::vector<net::Endpoint> endpoints);
  Calls(const Calls&) = delete;
  Calls& operator=(const Calls&) = delete;
  ~Calls();

  // `done` once, at the latest after `timeout`.
  void call(std::string_view path, std::string request, Repeat repeat, Duration timeout, Done done);
  // What is under way ends, its outcome unknown.
  void shut();

 private:
  struct Call;
  void attempt(const std::shared_ptr<Call>& call);
  void ask(const std::shared_ptr<Call>& call);
  void on_answer(const std::shared_ptr<Call>& call, const net::GrpcStatus& status, std::string_view response);
  void try_next(const std::shared_ptr<Call>& call);
  void finish(const std::shared_ptr<Call>& call, std::expected<std::string, Error> answer);

  net::Loop& loop_;
  const std::vector<net::Endpoint> endpoints_;
  std::vector<std::unique_ptr<net::Channel>> channels_;
  size_t preferred_ = 0;
  std::unordered_set<std::shared_ptr<Call>> calls_;
};

}  // namespace conclave::client
