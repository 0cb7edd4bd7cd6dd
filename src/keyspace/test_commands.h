// A keyspace and the model driven by the same plain commands: for tests.
#pragma once

#include <string>

#include <gtest/gtest.h>

#include "etcd/rpc.pb.h"
#include "keyspace/command.h"
#include "keyspace/keyspace.h"
#include "keyspace/model.h"

// In functions that return bool: a failed expectation ends them.
#define ASSERT_TRUE_OR_RETURN(condition) \
  do {                                   \
    bool holds_ = (condition);           \
    EXPECT_TRUE(holds_) << #condition;   \
    if (!holds_) return false;           \
  } while (false)

namespace conclave::keyspace {

struct Driver {
  Keyspace keyspace;
  model::Model model;
  uint64_t index = 0;
  int slices = 0;  // of the last command

  template <class Message>
  Reply& apply(CommandKind kind, const Message& request, CommandHeader header = {}) {
    header.kind = kind;
    apply_to_model(request);
    return apply(header, request.SerializeAsString());
  }
  // Ours: the model does not hear of it.
  Reply& apply(const CommandHeader& header, const std::string& body, uint64_t term = 1) {
    slices = 1;
    bool done = keyspace.apply(LogIndex(++index), Term(term), encode_command(header, body));
    while (!done) {
      ++slices;
      done = keyspace.run_slice();
    }
    return keyspace.reply();
  }
  Reply& put(const std::string& key, const std::string& value, int64_t lease = 0) {
    etcdserverpb::PutRequest request;
    request.set_key(key);
    request.set_value(value);
    request.set_lease(lease);
    return apply(CommandKind::kPut, request);
  }
  Reply& remove(const std::string& key, const std::string& range_end = "") {
    etcdserverpb::DeleteRangeRequest request;
    request.set_key(key);
    request.set_range_end(range_end);
    return apply(CommandKind::kDeleteRange, request);
  }
  Reply& compact(int64_t revision) {
    etcdserverpb::CompactionRequest request;
    request.set_revision(revision);
    return apply(CommandKind::kCompact, request);
  }
  Reply& grant(int64_t id, int64_t ttl_ms) {
    etcdserverpb::LeaseGrantRequest request;
    request.set_id(id);
    request.set_ttl(ttl_ms / 1000);
    (void)model.grant(id, ttl_ms);
    CommandHeader header{.kind = CommandKind::kLeaseGrant, .lease = LeaseId(id), .ttl_ms = ttl_ms};
    return apply(header, request.SerializeAsString());
  }
  Reply& revoke(int64_t id) {
    etcdserverpb::LeaseRevokeRequest request;
    request.set_id(id);
    return apply(CommandKind::kLeaseRevoke, request);
  }

 private:
  void apply_to_model(const etcdserverpb::PutRequest& request) { (void)model.put(request); }
  void apply_to_model(const etcdserverpb::DeleteRangeRequest& request) { (void)model.delete_range(request); }
  void apply_to_model(const etcdserverpb::TxnRequest& request) { (void)model.txn(request); }
  void apply_to_model(const etcdserverpb::CompactionRequest& request) { (void)model.compact(request); }
  void apply_to_model(const etcdserverpb::LeaseRevokeRequest& request) { (void)model.revoke(request.id()); }
};

}  // namespace conclave::keyspace
