// Makes requests by a seed and by what it is told of the answers: few keys, so that requests meet; revisions around the
// newest; leases that stand, stood, or never did; watches of what is written; and what must be refused.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include <google/protobuf/message.h>

#include "base/random.h"
#include "etcd/rpc.pb.h"

namespace conclave::differential {

// Leases whose ids the server chooses are called this and more in requests.
inline constexpr int64_t kChosenLease = 1'000'000;
inline constexpr size_t kWatchStreams = 3;

struct Ask {
  enum class Shape : uint8_t {
    kUnary,
    kStream,  // some requests, and as many answers
    kWatch,   // requests to a stream that stands until another takes its place
  };
  Shape shape = Shape::kUnary;
  std::string path;  // of gRPC
  std::vector<std::unique_ptr<google::protobuf::Message>> requests;
  const google::protobuf::Message* response = nullptr;
  int64_t chosen_lease = 0;        // what the answer's ID is called from now on
  bool is_of_short_lease = false;  // of one that ends by itself soon
  // Of a watch.
  size_t stream = 0;
  bool begins_stream = false;
  // How it is written in JSON.
  bool in_camel_case = false;
  bool enums_as_numbers = false;
  bool with_defaults = false;
};

class Generator {
 public:
  explicit Generator(uint64_t seed) : random_(seed) {}
  void see_revision(int64_t revision) { revision_ = std::max(revision_, revision); }
  void see_compaction(int64_t revision) { compacted_ = revision; }

  [[nodiscard]] Ask next();

 private:
  bool one_in(uint64_t n) { return random_.below(n) == 0; }
  template <class Request, class Response>
  Ask ask(const std::string& path, const Request& request);
  Ask draw();
  Ask watch();
  Ask odd();
  void large();
  void short_lease();
  void chosen_lease();

  std::string key();
  std::string range_end();
  int64_t lease();
  int64_t near_revision();
  etcdserverpb::PutRequest put();
  etcdserverpb::RangeRequest range();
  etcdserverpb::RangeRequest range_within();
  etcdserverpb::DeleteRangeRequest remove();
  etcdserverpb::Compare compare();
  void add_operations(google::protobuf::RepeatedPtrField<etcdserverpb::RequestOp>* operations, int depth);
  etcdserverpb::TxnRequest txn(int depth);
  etcdserverpb::TxnRequest large_txn();
  etcdserverpb::WatchRequest create();

  Random random_;
  std::deque<Ask> next_;  // what belongs behind the last
  int64_t revision_ = 1;
  int64_t compacted_ = 0;
  int64_t leases_chosen_ = 0;
  uint64_t asked_ = 0;
};

}  // namespace conclave::differential
