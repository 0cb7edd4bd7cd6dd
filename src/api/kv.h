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
    // The pieces of a whole RangeResponse, read at `revision`.
    virtual void on_range(std::vector<std::string> pieces, Revision revision) = 0;
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
  void take_piece();

  Context& context_;
  Owner& owner_;
  std::optional<keyspace::RangeRead> read_;
  std::vector<std::string> pieces_;
  std::string piece_;  // the last one
  Revision revision_;
  Term term_;
  size_t header_bytes_ = 0;
  size_t bytes_ = 0;          // what pieces_ hold
  size_t bytes_counted_ = 0;  // of them and the last one, in Context::range_bytes()
};

}  // namespace conclave::api
