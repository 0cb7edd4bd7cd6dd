#include "raft/codec.h"

#include <algorithm>
#include <type_traits>
#include <utility>

#include "base/assert.h"

namespace conclave::raft {
namespace {

constexpr uint8_t kVersion = 1;

// Format numbers: the order of Body, never renumbered.
template <class T>
constexpr uint8_t kind_of() {
  return []<size_t... I>(std::index_sequence<I...>) {
    uint8_t kind = 0;
    ((std::is_same_v<T, std::variant_alternative_t<I, Body>> ? void(kind = I + 1) : void()), ...);
    return kind;
  }(std::make_index_sequence<std::variant_size_v<Body>>());
}

class Encoder {
 public:
  explicit Encoder(std::string& out) : writer_(out) {}
  template <class Tag, class Rep>
  void put(Ordinal<Tag, Rep> value) {
    writer_.varint(value.value());
  }
  template <class Tag, class Rep>
  void put(Identity<Tag, Rep> value) {
    writer_.varint(value.value());
  }
  void put(bool value) { writer_.fixed<uint8_t>(value ? 1 : 0); }
  void put(uint64_t value) { writer_.varint(value); }
  void put(Position place) {
    put(place.term);
    put(place.index);
  }
  void put(const Floor& floor) {
    put(floor.node);
    put(floor.boot);
    put(floor.incarnation);
    put(floor.term);
    put(floor.last);
  }
  // Indexes follow from the place before the first.
  void put(const EntrySlices& entries) {
    writer_.varint(entries.size());
    for (size_t i = 0; i < entries.size(); ++i) {
      put(entries[i].term);
      writer_.fixed<uint8_t>(static_cast<uint8_t>(entries[i].type));
      writer_.sized(entries[i].payload.view());
    }
  }
  void operator()(const Hello& body) {
    put(body.last);
    put(body.answer);
    put(body.floor);
  }
  void operator()(const VoteRequest& body) {
    put(body.pre);
    put(body.transfer);
    put(body.campaign_term);
    put(body.last);
  }
  void operator()(const VoteReply& body) {
    put(body.pre);
    put(body.campaign_term);
    put(body.granted);
    writer_.fixed<uint8_t>(static_cast<uint8_t>(body.refusal));
    put(body.last);
  }
  void operator()(const AppendRequest& body) {
    put(body.prev);
    put(body.commit);
    put(body.round);
    put(static_cast<uint64_t>(body.promise.count()));
    put(uint64_t{body.floors.size});
    for (const Floor& floor : body.floors.view()) put(floor);
    put(body.entries);
  }
  void operator()(const AppendReply& body) {
    put(body.ok);
    put(body.promised);
    put(body.round);
    put(body.match);
    put(body.rejected);
    put(body.hint);
  }
  void operator()(const SnapshotChunk& body) {
    put(body.pull);
    put(body.mark.last);
    std::string membership;
    body.mark.membership.encode(membership);
    writer_.sized(membership);
    put(body.commit);
    put(body.offset);
    put(body.total);
    writer_.sized(body.bytes);
  }
  void operator()(const SnapshotReply& body) {
    put(body.pull);
    put(body.last);
    put(body.offset);
    put(body.installed);
  }
  void operator()(const ReadRequest& body) { put(body.id); }
  void operator()(const ReadReply& body) {
    put(body.id);
    put(body.ok);
    put(body.index);
  }
  void operator()(const TimeoutNow&) {}
  void operator()(const PullRequest& body) {
    put(body.id);
    put(body.prev);
    put(body.proof);
  }
  void operator()(const PullReply& body) {
    put(body.id);
    put(body.ok);
    put(body.prev);
    put(body.last);
    put(body.entries);
  }

 private:
  ByteWriter writer_;
};

class Decoder {
 public:
  explicit Decoder(ByteView input) : reader_(input) {}
  template <class Tag, class Rep>
  void get(Ordinal<Tag, Rep>& value) {
    value = Ordinal<Tag, Rep>(reader_.varint());
  }
  template <class Tag, class Rep>
  void get(Identity<Tag, Rep>& value) {
    value = Identity<Tag, Rep>(reader_.varint());
  }
  void get(bool& value) {
    const auto byte = reader_.fixed<uint8_t>();
    if (byte > 1) reader_.reject();
    value = byte == 1;
  }
  void get(uint64_t& value) { value = reader_.varint(); }
  void get(Position& place) {
    get(place.term);
    get(place.index);
  }
  void get(Floor& floor) {
    get(floor.node);
    get(floor.boot);
    get(floor.incarnation);
    get(floor.term);
    get(floor.last);
  }
  // Into the decoder's entries, to which the message will point once it has come to rest.
  void get_entries(LogIndex prev) {
    const uint64_t count = reader_.varint();
    // Each takes three bytes at least: nothing is reserved for entries that are not there.
    if (count > kEntriesPerMessageMax || count * 3 > reader_.rest().size() || prev.value() > kProtocolNumberMax) {
      if (count > 0) reader_.reject();
      return;
    }
    entries.reserve(count);
    for (uint64_t i = 0; i < count && reader_.ok(); ++i) {
      Entry entry;
      entry.index = prev + (i + 1);
      get(entry.term);
      const auto type = reader_.fixed<uint8_t>();
      if (type > static_cast<uint8_t>(EntryType::kConfiguration)) reader_.reject();
      entry.type = static_cast<EntryType>(type);
      entry.payload = SharedBytes::copy_of(reader_.sized());
      entries.push_back(std::move(entry));
    }
  }
  void operator()(Hello& body) {
    get(body.last);
    get(body.answer);
    get(body.floor);
  }
  void operator()(VoteRequest& body) {
    get(body.pre);
    get(body.transfer);
    get(body.campaign_term);
    get(body.last);
  }
  void operator()(VoteReply& body) {
    get(body.pre);
    get(body.campaign_term);
    get(body.granted);
    const auto refusal = reader_.fixed<uint8_t>();
    if (refusal > static_cast<uint8_t>(VoteRefusal::kMayNotVote)) reader_.reject();
    body.refusal = static_cast<VoteRefusal>(refusal);
    get(body.last);
  }
  void operator()(AppendRequest& body) {
    get(body.prev);
    get(body.commit);
    get(body.round);
    uint64_t promise = 0;
    get(promise);
    if (promise > static_cast<uint64_t>(INT64_MAX)) {
      reader_.reject();
      return;
    }
    body.promise = Duration(static_cast<int64_t>(promise));
    uint64_t floors = 0;
    get(floors);
    if (floors > kMembersMax) {
      reader_.reject();
      return;
    }
    body.floors.size = static_cast<uint32_t>(floors);
    for (uint64_t i = 0; i < floors; ++i) get(body.floors.items[i]);
    get_entries(body.prev.index);
  }
  void operator()(AppendReply& body) {
    get(body.ok);
    get(body.promised);
    get(body.round);
    get(body.match);
    get(body.rejected);
    get(body.hint);
  }
  void operator()(SnapshotChunk& body) {
    get(body.pull);
    get(body.mark.last);
    Result<Membership> membership = Membership::decode(reader_.sized());
    if (!membership) {
      reader_.reject();
      return;
    }
    body.mark.membership = *membership;
    get(body.commit);
    get(body.offset);
    get(body.total);
    bytes = std::string(reader_.sized());
  }
  void operator()(SnapshotReply& body) {
    get(body.pull);
    get(body.last);
    get(body.offset);
    get(body.installed);
  }
  void operator()(ReadRequest& body) { get(body.id); }
  void operator()(ReadReply& body) {
    get(body.id);
    get(body.ok);
    get(body.index);
  }
  void operator()(TimeoutNow&) {}
  void operator()(PullRequest& body) {
    get(body.id);
    get(body.prev);
    get(body.proof);
  }
  void operator()(PullReply& body) {
    get(body.id);
    get(body.ok);
    get(body.prev);
    get(body.last);
    get_entries(body.prev.index);
  }
  // Makes the body of the kind's type and reads it; false for a kind that is none.
  bool get_body(uint8_t kind, Body& body) {
    return [&]<size_t... I>(std::index_sequence<I...>) {
      return ((kind == I + 1 ? ((*this)(body.emplace<I>()), true) : false) || ...);
    }(std::make_index_sequence<std::variant_size_v<Body>>());
  }
  [[nodiscard]] ByteReader& reader() { return reader_; }

  std::vector<Entry> entries;
  std::string bytes;

 private:
  ByteReader reader_;
};

}  // namespace

void encode(const Message& message, std::string& out) {
  ByteWriter writer(out);
  writer.fixed<uint8_t>(kVersion);
  writer.fixed<uint8_t>(std::visit([]<class T>(const T&) { return kind_of<T>(); }, message.body));
  Encoder encoder(out);
  encoder.put(message.header.group);
  encoder.put(message.header.from);
  encoder.put(message.header.to);
  encoder.put(message.header.term);
  encoder.put(message.header.boot);
  encoder.put(message.header.to_boot);
  encoder.put(message.header.incarnation);
  encoder.put(message.header.proven);
  std::visit(encoder, message.body);
}

Result<OwnedMessage> OwnedMessage::decode(ByteView bytes) {
  Decoder decoder(bytes);
  const auto version = decoder.reader().fixed<uint8_t>();
  if (decoder.reader().ok() && version != kVersion)
    return fail(ErrorCode::kVersion, "peer message of version {}", version);
  const auto kind = decoder.reader().fixed<uint8_t>();
  OwnedMessage owned;
  Header& header = owned.message_.header;
  decoder.get(header.group);
  decoder.get(header.from);
  decoder.get(header.to);
  decoder.get(header.term);
  decoder.get(header.boot);
  decoder.get(header.to_boot);
  decoder.get(header.incarnation);
  decoder.get(header.proven);
  if (!decoder.reader().ok()) return fail(ErrorCode::kMalformed, "peer message: bad header");
  if (!decoder.get_body(kind, owned.message_.body)) return fail(ErrorCode::kMalformed, "peer message of kind {}", kind);
  if (!decoder.reader().finished()) return fail(ErrorCode::kMalformed, "peer message of kind {}: bad body", kind);
  owned.entries_ = std::move(decoder.entries);
  owned.bytes_ = std::move(decoder.bytes);
  if (auto* append = std::get_if<AppendRequest>(&owned.message_.body)) append->entries = EntrySlices(owned.entries_);
  if (auto* pulled = std::get_if<PullReply>(&owned.message_.body)) pulled->entries = EntrySlices(owned.entries_);
  if (auto* chunk = std::get_if<SnapshotChunk>(&owned.message_.body)) {
    // A short string lives inside the object and would move with it: keep the bytes on the heap.
    owned.bytes_.reserve(64);
    chunk->bytes = owned.bytes_;
  }
  return owned;
}

OwnedMessage OwnedMessage::copy_of(const Message& message) {
  OwnedMessage owned;
  owned.message_ = message;
  if (auto* append = std::get_if<AppendRequest>(&owned.message_.body)) {
    owned.own_entries(append->entries);
    append->entries = EntrySlices(owned.entries_);
  }
  if (auto* pulled = std::get_if<PullReply>(&owned.message_.body)) {
    owned.own_entries(pulled->entries);
    pulled->entries = EntrySlices(owned.entries_);
  }
  if (auto* chunk = std::get_if<SnapshotChunk>(&owned.message_.body)) {
    owned.bytes_.reserve(std::max<size_t>(64, chunk->bytes.size()));
    owned.bytes_ = chunk->bytes;
    chunk->bytes = owned.bytes_;
  }
  return owned;
}

void OwnedMessage::own_entries(const EntrySlices& entries) {
  entries_.reserve(entries.size());
  for (size_t i = 0; i < entries.size(); ++i) entries_.push_back(entries[i]);
}

}  // namespace conclave::raft
