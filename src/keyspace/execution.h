// One command on its way through the state: compares and guards, checks, operations, publication, cleaning up, each in
// slices of bounded work. Nothing is visible before publication; nothing can fail after the checks. Owns the reply and
// its place; the state belongs to Store and Tables. Reused for every command, so that a small one allocates next to
// nothing.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/types.h"
#include "keyspace/command.h"
#include "keyspace/internal_command.h"
#include "keyspace/limits.h"
#include "keyspace/range_read.h"
#include "keyspace/requests.h"
#include "keyspace/store.h"
#include "keyspace/tables.h"
#include "keyspace/watch_hub.h"

namespace conclave::keyspace {

// The answer to one command.
struct Reply {
  LogIndex index;
  CommandHeader header;            // of the command: who asked; empty if it could not be read
  ErrorId error = ErrorId::kNone;  // nothing was changed, unless kAnswerTooLarge
  Revision revision;               // of the keyspace after the command: for the response's header
  // The response message of etcd's API without field 1, its header, which the API puts in front. Empty if nobody here
  // waits for it (AnswerOptions).
  std::string body;
  uint32_t failed_guard = 0;  // with kGuardFailed: which, from 0
};

// What a command did beside keys, for whoever keeps clocks and caches by it. Of the last command.
struct Effects {
  Revision revision_before;
  std::vector<RecordChange> records;
  std::vector<LeaseId> leases_started;
  std::vector<LeaseId> leases_ended;
};

// Which answers are built. Of no effect on the state: replicas differ in it.
struct AnswerOptions {
  // Commands of this origin alone are answered; unset: all are.
  NodeId origin;
  Boot boot;
  // A longer answer is dropped as soon as it is, and the reply is kAnswerTooLarge.
  size_t bytes_max = kAnswerBytesMax;
};

class Execution {
 public:
  Execution(Store& store, Tables& tables, WatchHub& hub) : store_(store), tables_(tables), hub_(hub) {}

  void set_answers(const AnswerOptions& options) { answer_options_ = options; }
  // The last command must be done.
  void begin(LogIndex index, Term term, const SharedBytes& command);
  // True when the command is done. `units` is reduced by the work.
  [[nodiscard]] bool run(uint32_t& units);
  [[nodiscard]] bool is_done() const { return stage_ == Stage::kDone; }
  [[nodiscard]] Reply& reply() { return reply_; }
  [[nodiscard]] const Effects& effects() const { return effects_; }

 private:
  enum class Stage : uint8_t { kGuard, kCheck, kOperate, kCleanKeys, kCleanLeases, kDone };
  enum class Body : uint8_t { kSingle, kTxn, kInternal, kExpire };
  // One open transaction on the chosen path.
  struct Frame {
    uint32_t txn = 0;
    uint32_t next = 0;  // operation
    uint32_t end = 0;
    size_t open_response = 0;  // the messages of the reply it stands in
    size_t open_body = 0;
  };

  [[nodiscard]] ErrorId prepare(Term term);
  [[nodiscard]] ErrorId prepare_session(const Session*& session) const;
  [[nodiscard]] ErrorId prepare_body();
  void finish(ErrorId error);
  void publish();

  [[nodiscard]] bool guard(uint32_t& units);
  [[nodiscard]] bool guard_txns(uint32_t& units);
  [[nodiscard]] bool guard_internal(uint32_t& units);
  // False if units ran out; otherwise `holds` is the answer.
  [[nodiscard]] bool compare(const Compare& compare, uint32_t& units, bool& holds);
  [[nodiscard]] static bool holds_for(const Compare& compare, const Version* version);

  [[nodiscard]] bool check(uint32_t& units, ErrorId& error);
  [[nodiscard]] ErrorId check_operation(const Operation& operation) const;
  [[nodiscard]] ErrorId check_put(const PutRequest& put) const;
  [[nodiscard]] ErrorId check_range(const RangeRequest& range) const;
  [[nodiscard]] ErrorId check_internal(const InternalOperation& operation);
  [[nodiscard]] bool lease_stands(LeaseId id) const;

  [[nodiscard]] bool operate(uint32_t& units);
  [[nodiscard]] bool operate_requests(uint32_t& units);
  [[nodiscard]] bool operate_internal(uint32_t& units);
  // False if units ran out in the middle; called again to go on.
  [[nodiscard]] bool run_operation(const Operation& operation, uint32_t& units);
  [[nodiscard]] bool delete_range(const KeyRange& range, bool prev_kv, uint32_t& units);
  [[nodiscard]] bool revoke(LeaseId id, uint32_t& units);
  void put(const PutRequest& put);
  void attach(const Version* version);
  void open_frame(uint32_t txn);
  void close_frame();
  void append_inner_header();
  void bound_answer();

  [[nodiscard]] bool clean_keys(uint32_t& units);
  [[nodiscard]] bool clean_leases(uint32_t& units);

  Store& store_;
  Tables& tables_;
  WatchHub& hub_;
  AnswerOptions answer_options_;
  Reply reply_;
  Effects effects_;

  Stage stage_ = Stage::kDone;
  Body body_ = Body::kSingle;
  SharedBytes bytes_;  // keeps alive what the parsed command views
  CommandHeader header_;
  ByteView request_;
  Program program_;
  InternalCommand internal_;
  int64_t revision_ = 0;  // of the events written next
  bool answers_ = true;   // reply_.body is being built
  bool answer_too_large_ = false;

  // Guards and compares.
  std::vector<uint32_t> undecided_;  // transactions of the chosen path, in the order they are decided
  std::vector<uint8_t> succeeded_;   // by transaction
  size_t guard_at_ = 0;
  uint32_t compare_at_ = 0;
  bool compare_found_ = false;

  // Checks and operations.
  std::vector<Frame> frames_;
  size_t operation_at_ = 0;
  bool operation_open_ = false;
  size_t open_response_ = 0;
  size_t open_body_ = 0;
  int64_t deleted_ = 0;
  RangeRead range_;
  ErrorId range_error_ = ErrorId::kNone;  // first of the path being checked; counts if no put has one
  std::map<LeaseId, bool> leases_after_;  // what the internal operations checked so far make of leases
  std::vector<size_t> record_operations_;

  // Where a sliced walk goes on.
  bool resumed_ = false;
  std::string resume_key_;

  // Cleaning up: events of the command, revision by revision.
  uint64_t first_event_ = 0;
  uint64_t clean_at_ = 0;
  size_t clean_lease_at_ = 0;
};

}  // namespace conclave::keyspace
