// For tests of sessions, locks and elections through the API: clients that speak by single calls or by a stream.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "api/testing/cluster.h"
#include "conclave/v1/election.pb.h"
#include "conclave/v1/lock.pb.h"
#include "conclave/v1/session.pb.h"

namespace conclave::api::testing {

inline std::string secret_of(int64_t session) {
  return "the secret of " + std::to_string(1'000'000 + session);
}

// One session's client that speaks by single calls. Its number, its secret, and what it counts.
class SingleCalls {
 public:
  SingleCalls(Cluster& cluster, int64_t session, uint64_t at = 1) : cluster_(cluster), session_(session), at_(at) {}

  std::string open(int64_t ttl_ms = 10'000, const std::string& description = "") {
    v1::OpenSession request;
    request.set_session(session_);
    request.set_secret(secret_of(session_));
    request.set_ttl_ms(ttl_ms);
    request.set_description(description);
    return cluster_.call("/conclave.v1.Sessions/Open", request, at_)->outcome();
  }
  v1::SessionIdentity identity() const {
    v1::SessionIdentity identity;
    identity.set_session(session_);
    identity.set_secret(secret_of(session_));
    identity.set_incarnation(1);
    return identity;
  }
  // As the next operation.
  template <class Request>
  std::unique_ptr<FakeCall> operate(const std::string& method, Request request) {
    *request.mutable_identity() = identity();
    request.mutable_identity()->set_sequence(++sequence_);
    return cluster_.call("/conclave.v1." + method, request, at_);
  }
  std::unique_ptr<FakeCall> acquire(const std::vector<std::string>& names, bool try_once = false,
                                    uint64_t up_to_ms = 0) {
    v1::AcquireRequest request;
    for (const std::string& name : names) request.mutable_acquire()->add_names(name);
    if (try_once) request.mutable_acquire()->set_try_(true);
    if (up_to_ms > 0) request.mutable_acquire()->set_up_to_ms(up_to_ms);
    return operate("Locks/Acquire", request);
  }
  // Granted at once, or it is an error.
  int64_t hold(const std::string& name) {
    const auto done = acquire({name});
    EXPECT_EQ(done->outcome(), "OK");
    const auto held = done->answer<v1::LocksHeld>();
    return held.claims_size() == 1 ? held.claims(0).token() : 0;
  }
  std::unique_ptr<FakeCall> release(const std::string& name, int64_t token) {
    v1::ReleaseRequest request;
    request.mutable_release()->set_name(name);
    request.mutable_release()->set_token(token);
    return operate("Locks/Release", request);
  }
  std::unique_ptr<FakeCall> campaign(const std::string& name, const std::string& value, int32_t priority = 0) {
    v1::CampaignRequest request;
    request.mutable_campaign()->set_name(name);
    request.mutable_campaign()->set_value(value);
    request.mutable_campaign()->set_priority(priority);
    return operate("Elections/Campaign", request);
  }
  void set_sequence(uint64_t sequence) { sequence_ = sequence; }

 private:
  Cluster& cluster_;
  int64_t session_;
  uint64_t at_;
  uint64_t sequence_ = 0;
};

// A stream of sessions, its client's side.
class SessionStream {
 public:
  explicit SessionStream(Cluster& cluster, uint64_t at = 1)
      : cluster_(cluster), call_(cluster.open("/conclave.v1.Sessions/Session", at)) {}

  void say(const v1::SessionRequest& request) { call_->say(request); }
  static v1::SessionRequest open_request(int64_t session, int64_t ttl_ms = 10'000) {
    v1::SessionRequest request;
    request.set_session(session);
    request.mutable_open()->set_secret(secret_of(session));
    request.mutable_open()->set_ttl_ms(ttl_ms);
    return request;
  }
  static v1::SessionRequest attach_request(int64_t session, uint64_t incarnation) {
    v1::SessionRequest request;
    request.set_session(session);
    request.mutable_attach()->set_secret(secret_of(session));
    request.mutable_attach()->set_incarnation(incarnation);
    return request;
  }
  static v1::SessionRequest acquire_request(int64_t session, uint64_t sequence, const std::string& name) {
    v1::SessionRequest request;
    request.set_session(session);
    request.set_sequence(sequence);
    request.mutable_acquire()->add_names(name);
    return request;
  }
  // All that came since the last time.
  std::vector<v1::SessionResponse> heard() {
    cluster_.settle();
    std::vector<v1::SessionResponse> out;
    for (; read_ < call_->sent.size(); ++read_) out.push_back(call_->answer<v1::SessionResponse>(read_));
    return out;
  }
  // The only one that came, or a failure.
  v1::SessionResponse answer() {
    const std::vector<v1::SessionResponse> all = heard();
    EXPECT_EQ(all.size(), 1U);
    return all.empty() ? v1::SessionResponse() : all.front();
  }
  v1::SessionResponse ask(const v1::SessionRequest& request) {
    say(request);
    return answer();
  }
  [[nodiscard]] FakeCall& call() { return *call_; }

 private:
  Cluster& cluster_;
  std::unique_ptr<FakeCall> call_;
  size_t read_ = 0;
};

}  // namespace conclave::api::testing
