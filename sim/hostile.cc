#include "sim/hostile.h"

#include <functional>
#include <vector>

namespace conclave::sim {
namespace {

uint64_t other_number(uint64_t number, Random& random) {
  switch (random.below(6)) {
    case 0:
      return number + 1;
    case 1:
      return number == 0 ? 0 : number - 1;
    case 2:
      return number + random.below(1000);
    case 3:
      return random.below(number + 1);
    case 4:
      return 0;
    default:
      return random.next() >> random.below(64);
  }
}

using Change = std::function<void(Random&)>;

template <class Number>
void add(std::vector<Change>& changes, Number& number) {
  changes.push_back([&number](Random& random) { number = Number(other_number(number.value(), random)); });
}
void add(std::vector<Change>& changes, uint64_t& number) {
  changes.push_back([&number](Random& random) { number = other_number(number, random); });
}
void add(std::vector<Change>& changes, bool& flag) {
  changes.push_back([&flag](Random&) { flag = !flag; });
}
void add(std::vector<Change>& changes, Position& place) {
  add(changes, place.term);
  add(changes, place.index);
}
void add(std::vector<Change>& changes, Floor& floor) {
  add(changes, floor.node);
  add(changes, floor.boot);
  add(changes, floor.incarnation);
  add(changes, floor.term);
  add(changes, floor.last);
}

void change_entry(Entry& entry, Random& random) {
  switch (random.below(4)) {
    case 0:
      entry.index = LogIndex(other_number(entry.index.value(), random));
      return;
    case 1:
      entry.term = Term(other_number(entry.term.value(), random));
      return;
    case 2:
      entry.type = static_cast<EntryType>(random.below(5));
      return;
    default:
      // A configuration mostly: its bytes are looked into.
      std::string bytes(entry.payload.view());
      if (!bytes.empty()) bytes[random.below(bytes.size())] = static_cast<char>(random.below(256));
      entry.payload = SharedBytes::copy_of(bytes);
  }
}

struct Collect {
  std::vector<Change>& changes;
  std::vector<Entry>& entries;  // those of the message, once one of them is changed
  // One changed, some left out at the end, or all of one other term: as a leader of another log would say.
  void add_entries(raft::EntrySlices& slices) const {
    if (slices.empty()) return;
    changes.push_back([this_entries = &entries, &slices](Random& random) {
      std::vector<Entry> changed;
      changed.reserve(slices.size());
      for (size_t i = 0; i < slices.size(); ++i) changed.push_back(slices[i]);
      const uint64_t how = random.below(4);
      if (how == 0) {
        changed.resize(1 + random.below(changed.size()));
      } else if (how == 1) {
        const Term term(other_number(changed.front().term.value(), random));
        for (Entry& entry : changed) entry.term = term;
      } else {
        change_entry(changed[random.below(changed.size())], random);
      }
      *this_entries = std::move(changed);
      slices = raft::EntrySlices(*this_entries);
    });
  }
  void operator()(raft::Hello& body) const {
    add(changes, body.last);
    add(changes, body.answer);
    add(changes, body.floor);
  }
  void operator()(raft::VoteRequest& body) const {
    add(changes, body.pre);
    add(changes, body.transfer);
    add(changes, body.campaign_term);
    add(changes, body.last);
  }
  void operator()(raft::VoteReply& body) const {
    add(changes, body.pre);
    add(changes, body.campaign_term);
    add(changes, body.granted);
    add(changes, body.last);
  }
  void operator()(raft::AppendRequest& body) const {
    add(changes, body.prev);
    add(changes, body.commit);
    add(changes, body.round);
    changes.push_back(
        [&body](Random& random) { body.promise = Duration(static_cast<int64_t>(random.below(4'000'000'000))); });
    for (Floor& floor : std::span(body.floors.items).first(body.floors.size)) add(changes, floor);
    add_entries(body.entries);
  }
  void operator()(raft::AppendReply& body) const {
    add(changes, body.ok);
    add(changes, body.promised);
    add(changes, body.round);
    add(changes, body.match);
    add(changes, body.rejected);
    add(changes, body.hint);
  }
  void operator()(raft::SnapshotChunk& body) const {
    add(changes, body.pull);
    add(changes, body.mark.last);
    add(changes, body.commit);
    add(changes, body.offset);
    add(changes, body.total);
  }
  void operator()(raft::SnapshotReply& body) const {
    add(changes, body.pull);
    add(changes, body.last);
    add(changes, body.offset);
    add(changes, body.installed);
  }
  void operator()(raft::ReadRequest& body) const { add(changes, body.id); }
  void operator()(raft::ReadReply& body) const {
    add(changes, body.id);
    add(changes, body.ok);
    add(changes, body.index);
  }
  void operator()(raft::TimeoutNow&) const {}
  void operator()(raft::PullRequest& body) const {
    add(changes, body.id);
    add(changes, body.prev);
    add(changes, body.proof);
  }
  void operator()(raft::PullReply& body) const {
    add(changes, body.id);
    add(changes, body.ok);
    add(changes, body.prev);
    add(changes, body.last);
    add_entries(body.entries);
  }
};

}  // namespace

void make_hostile(raft::Message& message, std::vector<Entry>& entries, Random& random) {
  std::vector<Change> changes;
  add(changes, message.header.term);
  add(changes, message.header.boot);
  add(changes, message.header.to_boot);
  add(changes, message.header.incarnation);
  add(changes, message.header.proven);
  std::visit(Collect{.changes = changes, .entries = entries}, message.body);
  const uint64_t count = 1 + random.below(3);
  for (uint64_t i = 0; i < count; ++i) changes[random.below(changes.size())](random);
}

}  // namespace conclave::sim
