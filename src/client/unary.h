// A unary call of the public face: posted to the client's thread, waited for, its answer read as a message.
#pragma once

#include <string>
#include <string_view>
#include <utility>

#include "client/io.h"

namespace conclave::client {

// Not on the client's thread: rejected there. `path` must be there until it is answered.
template <class Response, class Request>
[[nodiscard]] std::expected<Response, Error> ask_unary(Io& io, std::string_view path, const Request& request,
                                                       Calls::Repeat repeat, Duration timeout) {
  auto answer = io.ask<std::string>(
      [path, bytes = request.SerializeAsString(), repeat, timeout](Io& on, Promise<std::string> promise) mutable {
        on.calls().call(path, std::move(bytes), repeat, timeout,
                        [promise = std::move(promise)](std::expected<std::string, Error> got) mutable {
                          promise.give(std::move(got));
                        });
      });
  if (!answer) return std::unexpected(std::move(answer).error());
  Response response;
  if (!response.ParseFromString(*answer)) {
    return std::unexpected(
        Error{repeat == Calls::Repeat::kHarmless ? ErrorKind::kNotApplied : ErrorKind::kOutcomeUnknown, "UNREADABLE",
              "an answer that cannot be read"});
  }
  return response;
}
template <class Response, class Request>
[[nodiscard]] std::expected<Response, Error> ask_unary(Io& io, std::string_view path, const Request& request,
                                                       Calls::Repeat repeat) {
  return ask_unary<Response>(io, path, request, repeat, io.request_timeout());
}

}  // namespace conclave::client
