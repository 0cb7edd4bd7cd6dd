// The replicated state without revisions: leases, sessions, system records. Owns them, what hangs on a lease (keys by
// pointer, records, a session), their digest, and the shadows by which a snapshot reads them as of an earlier index
// while commands go on. One thread.
//
// A command marks leases as starting or ending and makes that visible as a whole: while `is_committed()` is false,
// outside look-ups see the state before, afterwards the state after, though the ended are taken apart in slices behind
// it.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/types.h"
#include "keyspace/limits.h"
#include "keyspace/version.h"

namespace conclave::keyspace {

// The keys attached to one lease, in key order. Nearly all leases have one: that one costs nothing but its pointer.
class LeaseKeys {
 public:
  void insert(Key* key);
  void erase(Key* key);
  [[nodiscard]] size_t size() const { return many_ ? many_->size() : (one_ != nullptr ? 1 : 0); }
  // Calls visit(key) for each key >= `from` in order until it says false. True if it never did.
  template <class Visit>
  bool each_from(ByteView from, Visit visit) const {
    if (!many_) return one_ == nullptr || one_->bytes() < from || visit(one_);
    for (auto at = many_->lower_bound(from); at != many_->end(); ++at) {
      if (!visit(*at)) return false;
    }
    return true;
  }
  // Drops up to `count` entries; true when none are left. For freeing a large set in slices.
  bool drop_some(size_t count);

 private:
  struct Order {
    using is_transparent = void;
    bool operator()(const Key* a, const Key* b) const { return a->bytes() < b->bytes(); }
    bool operator()(const Key* a, ByteView b) const { return a->bytes() < b; }
    bool operator()(ByteView a, const Key* b) const { return a < b->bytes(); }
  };
  Key* one_ = nullptr;
  std::unique_ptr<std::set<Key*, Order>> many_;
};

struct Lease {
  LeaseId id;
  int64_t ttl_ms = 0;     // granted
  SessionId session;      // that ends with it, if any
  bool starting = false;  // granted by the command being applied
  bool ending = false;    // ended by the command being applied, or already taken apart
  LeaseKeys keys;         // a superset while a command is applied: a key counts if its version names the lease
  std::set<std::string, std::less<>> records;
};

struct Session {
  SessionId id;
  LeaseId lease;
  std::array<char, kSecretHashBytes> secret_hash{};
  uint64_t incarnation = 0;
  uint64_t highest = 0;  // sequence
  uint64_t window = 0;   // bit i: sequence highest - i was applied
  std::string description;
  [[nodiscard]] bool was_applied(uint64_t sequence) const;
  void mark_applied(uint64_t sequence);
};

struct Record {
  std::string value;
  LeaseId lease;        // it ends with, if set
  LogIndex written_at;  // the entry that wrote it last: its version
};

// What happened to one system record, for layers that watch them.
struct RecordChange {
  std::string key;
  bool deleted = false;
};

enum class TableKind : uint8_t { kLease = 1, kSession = 2, kRecord = 3 };

// How far one snapshot has read, and what the rest was when it began.
class TableShadow {
 public:
  using Name = std::pair<uint8_t, std::string>;  // table, and its key in an order-preserving form

 private:
  friend class Tables;
  std::map<Name, std::optional<std::string>>
      before_;  // entries changed since, ahead of the reader; nullopt: was not there
  Name done_;   // everything up to here was read
  bool finished_ = false;
};

class Tables {
 public:
  Tables() = default;
  Tables(const Tables&) = delete;
  Tables& operator=(const Tables&) = delete;

  // As the command being applied sees it: started ones included, ended ones not.
  [[nodiscard]] Lease* lease(LeaseId id);
  [[nodiscard]] Session* session(SessionId id);
  // As everybody else sees it.
  [[nodiscard]] const Lease* visible_lease(LeaseId id) const;
  [[nodiscard]] const Session* visible_session(SessionId id) const;
  // A record whose lease is gone is gone.
  [[nodiscard]] const Record* visible_record(ByteView key) const;
  [[nodiscard]] const std::map<LeaseId, Lease>& leases() const { return leases_; }
  [[nodiscard]] const std::map<SessionId, Session>& sessions() const { return sessions_; }
  [[nodiscard]] const std::map<std::string, Record, std::less<>>& records() const { return records_; }
  [[nodiscard]] bool is_visible(const Lease& lease) const { return committed_ ? !lease.ending : !lease.starting; }

  // Changes by the command being applied, from begin to the end of its cleaning up.
  void begin_command() { committed_ = false; }
  void commit() { committed_ = true; }
  [[nodiscard]] bool is_committed() const { return committed_; }
  Lease& grant(LeaseId id, int64_t ttl_ms);
  void end(Lease& lease) { lease.ending = true; }
  void started(LeaseId id);
  // Takes an ended lease apart: its records, its session, itself. False if units ran out first.
  bool take_apart(LeaseId id, uint32_t& units, std::vector<RecordChange>& changes);
  void open_session(Session session);
  // A changed session: incarnation raised, sequence marked.
  void update_session(Session& session, uint64_t incarnation, std::optional<uint64_t> applied);
  void put_record(ByteView key, ByteView value, LeaseId lease, LogIndex index);
  void erase_record(ByteView key);

  // Frees sets of ended leases; false if there was nothing.
  bool free_some(uint32_t units);

  // The sum over all entries: order plays no part.
  [[nodiscard]] uint64_t digest() const { return digest_; }

  // Snapshots. The shadow must be detached before it ends.
  void attach(TableShadow* shadow) { shadows_.push_back(shadow); }
  void detach(TableShadow* shadow) { std::erase(shadows_, shadow); }
  // Appends the next entry in order, as of the shadow's beginning: false at the end.
  bool next_entry(TableShadow& shadow, TableKind& kind, std::string& encoded);
  // Loading: an entry as next_entry gave it, leases first. False if malformed or out of place.
  [[nodiscard]] bool load_entry(TableKind kind, ByteView encoded);

 private:
  [[nodiscard]] bool encode_entry(const TableShadow::Name& name, std::string& out) const;
  [[nodiscard]] std::optional<TableShadow::Name> entry_after(const TableShadow::Name& name) const;
  void preserve(TableKind kind, const std::string& key);
  // Every change of a persistent entry stands between these two.
  void before_change(TableKind kind, const std::string& key);
  void after_change(TableKind kind, const std::string& key);
  [[nodiscard]] uint64_t entry_hash(TableKind kind, const std::string& key);

  std::map<LeaseId, Lease> leases_;
  std::map<SessionId, Session> sessions_;
  std::map<std::string, Record, std::less<>> records_;
  bool committed_ = true;
  uint64_t digest_ = 0;
  std::vector<TableShadow*> shadows_;
  std::vector<LeaseKeys> garbage_;
  std::string scratch_;
};

}  // namespace conclave::keyspace
