// The keyspace again, written from the API's facts to be obviously right and nothing else: ordered maps, whole
// histories, linear searches, protobuf messages in and out. The implementation is held against it by model_test and by
// the differential fuzzer. Shares no code with it.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "etcd/rpc.pb.h"

namespace conclave::keyspace::model {

struct Version {
  int64_t mod = 0;
  int64_t create = 0;
  int64_t version = 0;
  int64_t lease = 0;
  std::string value;
  bool deleted = false;
};

struct Event {
  int64_t revision = 0;
  std::string key;
  Version version;
};

// An error's text, or a response message without header.
struct Answer {
  std::string error;
  std::string body;
};

struct Session {
  int64_t lease = 0;
  std::string secret_hash;
  uint64_t incarnation = 0;
  uint64_t highest = 0;
  std::set<uint64_t> applied;
};

struct Record {
  std::string value;
  int64_t lease = 0;
  uint64_t index = 0;
};

struct Guard {
  enum Kind { kCompare, kRecordAt, kLease, kNoLease, kSession } kind = kCompare;
  etcdserverpb::Compare compare;
  std::string record;
  int64_t number = 0;
};

struct Operation {
  enum Kind { kPut, kDelete, kRecordPut, kRecordDelete, kGrant, kRevoke } kind = kPut;
  bool ignore_value = false;
  std::string key;
  std::string range_end;
  std::string value;
  int64_t lease = 0;
  int64_t milliseconds = 0;
};

struct SessionHeader {
  uint64_t session = 0;
  uint64_t incarnation = 0;
  uint64_t sequence = 0;
};

class Model {
 public:
  int64_t revision = 1;
  int64_t compacted = -1;
  std::map<std::string, std::vector<Version>> keys;  // oldest first, never pruned
  std::vector<Event> events;                         // all there ever were
  std::map<int64_t, int64_t> leases;                 // and their TTL in milliseconds
  std::map<uint64_t, Session> sessions;
  std::map<std::string, Record> records;

  Answer range(const etcdserverpb::RangeRequest& request) const;
  Answer put(const etcdserverpb::PutRequest& request);
  Answer delete_range(const etcdserverpb::DeleteRangeRequest& request);
  Answer txn(const etcdserverpb::TxnRequest& request);
  Answer compact(const etcdserverpb::CompactionRequest& request);
  Answer grant(int64_t id, int64_t ttl_ms);
  Answer revoke(int64_t id);
  // Each in a revision of its own; unknown ones are passed over.
  Answer expire(const std::vector<int64_t>& ids);
  std::vector<std::string> lease_keys(int64_t id) const;
  Answer open_session(uint64_t id, int64_t lease, int64_t ttl_ms, const std::string& secret_hash);
  Answer internal(const std::vector<Guard>& guards, const std::vector<Operation>& operations, uint64_t index,
                  int* failed_guard);

  // Around a command of a session: an error that stops it, or nothing; then what its outcome means for the session.
  std::string before_session_command(const SessionHeader& header) const;
  void after_session_command(const SessionHeader& header, bool succeeded);

  // Events at or after `revision` of keys in the range, with the previous version where there is one to tell.
  std::vector<mvccpb::Event> watch(const std::string& key, const std::string& range_end, int64_t from,
                                   bool with_previous, bool no_put, bool no_delete) const;

 private:
  const Version* at(const std::string& key, int64_t revision) const;
  std::vector<std::string> live_keys(const std::string& key, const std::string& range_end, int64_t revision) const;
  bool in_range(const std::string& candidate, const std::string& key, const std::string& range_end) const;
  void message(const std::string& key, const Version& version, mvccpb::KeyValue* out) const;
  void write(const std::string& key, Version version);
  void remove(const std::string& key);
  bool holds(const etcdserverpb::Compare& compare) const;
  void end_lease(int64_t id);

  std::string check(const etcdserverpb::RangeRequest& request) const;
  std::string check(const etcdserverpb::PutRequest& request) const;
  std::string check(const etcdserverpb::DeleteRangeRequest& request) const;
  std::string check(const etcdserverpb::TxnRequest& request, int budget) const;
  std::string check_operation(const etcdserverpb::RequestOp& operation, int budget) const;
  bool has_unknown_compare(const etcdserverpb::TxnRequest& request) const;
  bool has_unknown_sort(const etcdserverpb::TxnRequest& request) const;
  struct Written {
    std::set<std::string> puts;
    std::vector<std::pair<std::string, std::string>> deletes;
  };
  bool conflicts(const google::protobuf::RepeatedPtrField<etcdserverpb::RequestOp>& operations, Written* written) const;
  std::string check_state(const etcdserverpb::PutRequest& request) const;
  std::string check_state(const etcdserverpb::RangeRequest& request) const;

  // The chosen path, decided before anything is written.
  struct Path {
    bool succeeded = false;
    std::map<int, Path> nested;
  };
  Path decide(const etcdserverpb::TxnRequest& request) const;
  // Of the chosen path, as etcd does: all puts, then all ranges.
  enum class Checked : uint8_t { kPuts, kRanges };
  std::string check_path(const etcdserverpb::TxnRequest& request, const Path& path, Checked checked) const;
  void run_path(const etcdserverpb::TxnRequest& request, const Path& path, etcdserverpb::TxnResponse* response);

  void run(const etcdserverpb::RangeRequest& request, int64_t at, etcdserverpb::RangeResponse* response) const;
  void run(const etcdserverpb::PutRequest& request, etcdserverpb::PutResponse* response);
  void run(const etcdserverpb::DeleteRangeRequest& request, etcdserverpb::DeleteRangeResponse* response);

  // While a command writes: its revision is revision + 1 and `written` says whether it has written yet.
  bool written_ = false;
  [[nodiscard]] int64_t inner_revision() const { return written_ ? revision + 1 : revision; }
  void commit() {
    if (written_) ++revision;
    written_ = false;
  }
};

}  // namespace conclave::keyspace::model
