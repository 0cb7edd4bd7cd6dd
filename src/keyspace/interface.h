// What layers may know of the keyspace: read it, and hear what was applied. Nothing else of this folder is theirs but
// the commands they hand to who owns them. KeyspaceView implements View, and so may tests.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/types.h"
#include "keyspace/command.h"
#include "keyspace/execution.h"
#include "keyspace/internal_command.h"
#include "keyspace/keyspace.h"
#include "keyspace/requests.h"
#include "keyspace/tables.h"

namespace conclave::keyspace {

// A live key. Views are good until the next command.
struct KeyValue {
  ByteView key;
  ByteView value;
  Revision create;
  Revision mod;
  int64_t version = 0;
  LeaseId lease;
};

// The state after `index()`. All calls are between commands, on the replica's thread.
class View {
 public:
  virtual ~View() = default;
  [[nodiscard]] virtual LogIndex index() const = 0;
  [[nodiscard]] virtual Revision revision() const = 0;
  [[nodiscard]] virtual std::optional<KeyValue> get(ByteView key) const = 0;
  // How many keys live in the range: no scan.
  [[nodiscard]] virtual int64_t count(const KeyRange& range) const = 0;
  // The oldest key of the range by create revision, among those created after `after`; of equal ones the first by key.
  // Claims of one name in the order of their tokens are oldest(range, 0), oldest(range, that one's create), ... With
  // zero it is a walk down the tree; otherwise it looks at one number for some 2,000 keys, and the first time it is
  // asked of a range, at each key.
  [[nodiscard]] virtual std::optional<KeyValue> oldest(const KeyRange& range, Revision after) const = 0;
  // The first `count` in that order, or all there are.
  [[nodiscard]] virtual std::vector<KeyValue> oldest_of(const KeyRange& range, size_t count) const = 0;
  // Visits live keys in order until `visit` says false or `keys_max` were looked at, ended ones included; the key to go
  // on from, or nothing at the end of the range.
  virtual std::optional<std::string> scan(const KeyRange& range, size_t keys_max,
                                          const std::function<bool(const KeyValue&)>& visit) const = 0;
  // System records, by their exact key; and those that begin with `prefix`, in order, from `from` on, at most `count`.
  [[nodiscard]] virtual const Record* record(ByteView key) const = 0;
  virtual void scan_records(ByteView prefix, ByteView from, size_t count,
                            const std::function<bool(ByteView key, const Record&)>& visit) const = 0;
  [[nodiscard]] virtual std::optional<LeaseInfo> lease(LeaseId id) const = 0;
  // Up to `count` keys attached to it, in order, from `from` on.
  [[nodiscard]] virtual std::vector<std::string> lease_keys(LeaseId id, ByteView from, size_t count) const = 0;
  // System records that end with it, in order, from `from` on, at most `count`.
  virtual void scan_lease_records(LeaseId id, ByteView from, size_t count,
                                  const std::function<bool(ByteView key, const Record&)>& visit) const = 0;
  [[nodiscard]] virtual const Session* session(SessionId id) const = 0;
};

// One entry's worth of change, as a layer sees it. Good during the call.
struct Applied {
  const Reply& reply;
  const Effects& effects;
  uint64_t event_count = 0;
  // Calls visit for every event of keys the entry caused, in order. A large entry has many: layers that cannot take
  // them in one turn read them from the store, pinned, in slices.
  std::function<void(const std::function<void(const Version&)>& visit)> events;
};

// Hears of each applied entry, in order.
class Observer {
 public:
  virtual ~Observer() = default;
  virtual void on_applied(const View& view, const Applied& applied) = 0;
};

class KeyspaceView final : public View {
 public:
  explicit KeyspaceView(const Keyspace& keyspace) : keyspace_(keyspace) {}
  [[nodiscard]] LogIndex index() const override { return keyspace_.applied(); }
  [[nodiscard]] Revision revision() const override { return keyspace_.revision(); }
  [[nodiscard]] std::optional<KeyValue> get(ByteView key) const override;
  [[nodiscard]] int64_t count(const KeyRange& range) const override;
  [[nodiscard]] std::optional<KeyValue> oldest(const KeyRange& range, Revision after) const override;
  [[nodiscard]] std::vector<KeyValue> oldest_of(const KeyRange& range, size_t count) const override;
  std::optional<std::string> scan(const KeyRange& range, size_t keys_max,
                                  const std::function<bool(const KeyValue&)>& visit) const override;
  [[nodiscard]] const Record* record(ByteView key) const override { return keyspace_.record(key); }
  void scan_records(ByteView prefix, ByteView from, size_t count,
                    const std::function<bool(ByteView key, const Record&)>& visit) const override;
  [[nodiscard]] std::optional<LeaseInfo> lease(LeaseId id) const override { return keyspace_.lease(id); }
  [[nodiscard]] std::vector<std::string> lease_keys(LeaseId id, ByteView from, size_t count) const override {
    return keyspace_.lease_keys(id, from, count);
  }
  void scan_lease_records(LeaseId id, ByteView from, size_t count,
                          const std::function<bool(ByteView key, const Record&)>& visit) const override;
  [[nodiscard]] const Session* session(SessionId id) const override { return keyspace_.session(id); }

 private:
  const Keyspace& keyspace_;
};

// What the last command did, for observers. The keyspace must not be busy.
[[nodiscard]] Applied applied_of(Keyspace& keyspace);

}  // namespace conclave::keyspace
