// etcdserverpb.KV: ranges, puts, deletes, transactions, compactions. Writes go from the client's bytes into the log and
// from the log's reply to the client without being decoded by protobuf.
#pragma once

#include <memory>

#include "api/call.h"

namespace conclave::api {

// Of kRange, kRangeStream, kPut, kDeleteRange, kTxn and kCompact.
[[nodiscard]] std::unique_ptr<net::CallHandler> make_kv_call(Context& context, net::ServerCall& wire, Method method);

// One range read at a pinned revision, in slices if it is large, answered as a RangeResponse.
class RangeWork final : public Job, public StateUser {
 public:
  class Owner {
   public:
    virtual ~Owner() = default;
    // `message` is a whole RangeResponse, read at `revision`.
    virtual void on_range(std::string message, Revision revision) = 0;
    virtual void on_range_refused(keyspace::ErrorId error) = 0;
  };
  RangeWork(Context& context, Owner& owner) : context_(context), owner_(owner) {}
  ~RangeWork() override { stop(); }

  // The keyspace as it is now. The bytes the request views must live until the owner was answered, which may be at
  // once.
  void start(const keyspace::RangeRequest& request);
  void stop();
  bool run(uint32_t& units) override;
  void on_state_replaced() override;

 private:
  Context& context_;
  Owner& owner_;
  std::optional<keyspace::RangeRead> read_;
  std::string message_;
  Revision revision_;
  Term term_;
  size_t header_bytes_ = 0;
  size_t counted_ = 0;  // of message_, in Context::range_bytes()
};

}  // namespace conclave::api
