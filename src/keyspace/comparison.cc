// Running scripts: the model and the implementation side by side, and the shrinking of what differs.
#include <algorithm>
#include <set>

#include <fmt/format.h>

#include "keyspace/internal_command.h"
#include "keyspace/scripts.h"
#include "keyspace/snapshot.h"
#include "keyspace/validate.h"
#include "keyspace/watch_stream.h"

namespace conclave::keyspace {
namespace {

constexpr size_t kOpenWatches = 3;

template <class Message>
std::string text_of(const std::string& bytes) {
  Message message;
  return message.ParseFromString(bytes) ? message.ShortDebugString() : "unreadable";
}

// Whether `body` means what the model's serialised `wanted` says; the field order may differ. Fills `texts` if not.
template <class Message>
bool same(const std::string& body, const std::string& wanted, std::string& texts) {
  Message message;
  if (message.ParseFromString(body) && message.SerializeAsString() == wanted) return true;
  texts = fmt::format("answer\n  {}\nthe model says\n  {}", text_of<Message>(body), text_of<Message>(wanted));
  return false;
}

std::optional<std::string> different_events(const std::vector<mvccpb::Event>& got,
                                            const std::vector<mvccpb::Event>& wanted) {
  for (size_t i = 0; i < std::max(got.size(), wanted.size()); ++i) {
    if (i < got.size() && i < wanted.size() && got[i].SerializeAsString() == wanted[i].SerializeAsString()) continue;
    return fmt::format("event {}\n  {}\nthe model says\n  {}", i,
                       i < got.size() ? got[i].ShortDebugString() : "nothing",
                       i < wanted.size() ? wanted[i].ShortDebugString() : "nothing");
  }
  return std::nullopt;
}

bool is_empty_range(const Step& step) {
  return !step.range_end.empty() && step.range_end != std::string(1, '\0') && step.key >= step.range_end;
}

bool same_reply(CommandKind kind, const std::string& body, const std::string& wanted, std::string& texts) {
  switch (kind) {
    case CommandKind::kPut:
      return same<etcdserverpb::PutResponse>(body, wanted, texts);
    case CommandKind::kDeleteRange:
      return same<etcdserverpb::DeleteRangeResponse>(body, wanted, texts);
    case CommandKind::kTxn:
      return same<etcdserverpb::TxnResponse>(body, wanted, texts);
    case CommandKind::kLeaseGrant:
      return same<etcdserverpb::LeaseGrantResponse>(body, wanted, texts);
    default:
      texts = "a body where none belongs";
      return body == wanted;
  }
}

}  // namespace

std::optional<SharedBytes> command_of(const Step& step, ErrorId& refused) {
  refused = ErrorId::kNone;
  std::string body;
  switch (step.header.kind) {
    case CommandKind::kLeaseExpire: {
      std::vector<LeaseId> leases;
      leases.reserve(step.leases.size());
      for (int64_t lease : step.leases) leases.emplace_back(lease);
      encode_expire(leases, body);
      return encode_command(step.header, body);
    }
    case CommandKind::kSessionOpen: {
      const model::Operation& open = step.operations[0];
      encode(SessionOpen{.session = SessionId(std::stoull(open.value)),
                         .lease = LeaseId(open.lease),
                         .ttl_ms = open.milliseconds,
                         .secret_hash = step.secret,
                         .description = "someone"},
             body);
      return encode_command(step.header, body);
    }
    case CommandKind::kInternal: {
      InternalCommand command;
      std::vector<std::string> compares;
      compares.reserve(step.guards.size());
      for (const model::Guard& guard : step.guards) {
        Guard& out = command.guards.emplace_back();
        out.kind = static_cast<Guard::Kind>(static_cast<int>(guard.kind) + 1);
        compares.push_back(guard.compare.SerializeAsString());
        out.key = guard.kind == model::Guard::kCompare ? compares.back() : guard.record;
        out.number = static_cast<uint64_t>(guard.number);
      }
      for (const model::Operation& operation : step.operations) {
        command.operations.push_back(
            {.kind = static_cast<InternalOperation::Kind>(static_cast<int>(operation.kind) + 1),
             .ignore_value = operation.ignore_value,
             .key = operation.key,
             .range_end = operation.range_end,
             .value = operation.value,
             .lease = LeaseId(operation.lease),
             .milliseconds = operation.milliseconds});
      }
      encode(command, body);
      return encode_command(step.header, body);
    }
    default: {
      std::string storage;
      ByteView canonical_bytes;
      refused = normalise(step.header.kind, step.request, storage, canonical_bytes);
      if (refused != ErrorId::kNone) return std::nullopt;
      return encode_command(step.header, canonical_bytes);
    }
  }
}

namespace {

// What decoding an internal command refuses before any state is looked at.
std::string internal_shape_error(const Step& step) {
  std::set<std::string> puts;
  for (const model::Operation& operation : step.operations) {
    if (operation.kind == model::Operation::kPut && !puts.insert(operation.key).second) {
      return "etcdserver: duplicate key given in txn request";
    }
  }
  for (const model::Operation& operation : step.operations) {
    if (operation.kind != model::Operation::kDelete) continue;
    for (const std::string& key : puts) {
      bool inside = operation.range_end.empty()                   ? key == operation.key
                    : operation.range_end == std::string(1, '\0') ? key >= operation.key
                                                                  : key >= operation.key && key < operation.range_end;
      if (inside) return "etcdserver: duplicate key given in txn request";
    }
  }
  return "";
}

}  // namespace

model::Answer Comparison::apply_to_model(const Step& step, int* failed_guard) {
  const CommandHeader& header = step.header;
  if (header.kind == CommandKind::kLeaseGrant) {
    etcdserverpb::LeaseGrantRequest request;
    request.ParseFromString(step.request);
    if (request.ttl() > 9'000'000'000) return {"etcdserver: too large lease TTL", ""};
  }
  if (header.term != Term() && header.term.value() != step.entry_term) return {"PAST_TERM", ""};
  model::SessionHeader session{header.session.value(), header.incarnation, header.sequence};
  if (session.session != 0) {
    std::string error = model_.before_session_command(session);
    if (!error.empty()) {
      if (error == "ALREADY_APPLIED") model_.after_session_command(session, false);
      return {error, ""};
    }
  }
  model::Answer answer;
  switch (header.kind) {
    case CommandKind::kPut: {
      etcdserverpb::PutRequest request;
      request.ParseFromString(step.request);
      answer = model_.put(request);
      break;
    }
    case CommandKind::kDeleteRange: {
      etcdserverpb::DeleteRangeRequest request;
      request.ParseFromString(step.request);
      answer = model_.delete_range(request);
      break;
    }
    case CommandKind::kTxn: {
      etcdserverpb::TxnRequest request;
      request.ParseFromString(step.request);
      answer = model_.txn(request);
      break;
    }
    case CommandKind::kCompact: {
      etcdserverpb::CompactionRequest request;
      request.ParseFromString(step.request);
      answer = model_.compact(request);
      break;
    }
    case CommandKind::kLeaseGrant:
      answer = model_.grant(header.lease.value(), header.ttl_ms);
      break;
    case CommandKind::kLeaseRevoke: {
      etcdserverpb::LeaseRevokeRequest request;
      request.ParseFromString(step.request);
      answer = model_.revoke(request.id());
      break;
    }
    case CommandKind::kLeaseExpire:
      answer = model_.expire(step.leases);
      break;
    case CommandKind::kSessionOpen: {
      const model::Operation& open = step.operations[0];
      answer = model_.open_session(std::stoull(open.value), open.lease, open.milliseconds, step.secret);
      break;
    }
    case CommandKind::kInternal:
      answer.error = internal_shape_error(step);
      if (answer.error.empty()) answer = model_.internal(step.guards, step.operations, index_, failed_guard);
      break;
  }
  if (session.session != 0) model_.after_session_command(session, answer.error.empty());
  return answer;
}

std::optional<std::string> Comparison::run(const Step& step) {
  switch (step.kind) {
    case Step::Kind::kCommand:
      return run_command(step);
    case Step::Kind::kRange:
      return run_range(step);
    case Step::Kind::kLook:
      return look(model_);
    case Step::Kind::kWatch:
      return watch(step);
    case Step::Kind::kBackground:
      (void)implementation_->run_background(step.units);
      return std::nullopt;
    case Step::Kind::kReload:
      return reload();
  }
  return std::nullopt;
}

std::optional<std::string> Comparison::run_command(const Step& step) {
  ++answers;
  ErrorId refused = ErrorId::kNone;
  std::optional<SharedBytes> command = command_of(step, refused);
  if (!command) {
    // Never proposed: the model must refuse it for the same reason, whatever the state. Its state must not change.
    ++errors;
    Step bare = step;
    bare.header.session = {};
    bare.header.term = {};
    int64_t revision = model_.revision;
    model::Answer expected = apply_to_model(bare, nullptr);
    if (expected.error != error_text(refused)) {
      return fmt::format("refused with '{}', the model says '{}'", error_text(refused), expected.error);
    }
    if (model_.revision != revision) return "refused, but the model wrote";
    return std::nullopt;
  }
  ++index_;
  std::optional<model::Model> before;
  if (step.units != 0) before = model_;
  int failed_guard = 0;
  model::Answer expected = apply_to_model(step, &failed_guard);
  uint32_t units = step.units != 0 ? step.units : kSliceUnits;
  bool done = implementation_->apply(LogIndex(index_), Term(step.entry_term), *command, units);
  int slices = 0;
  while (!done) {
    ++slices;
    if (before && slices % 8 == 1 && slices < 24) {
      const model::Model& seen = implementation_->tables().is_committed() ? model_ : *before;
      if (auto difference = look(seen)) return "between slices: " + *difference;
      (void)implementation_->run_background(3);
    }
    done = implementation_->run_slice(units);
  }
  const Reply& reply = implementation_->reply();
  if (error_text(reply.error) != expected.error) {
    return fmt::format("error '{}', the model says '{}'", error_text(reply.error), expected.error);
  }
  if (reply.error != ErrorId::kNone) ++errors;
  if (reply.error == ErrorId::kGuardFailed && static_cast<int>(reply.failed_guard) != failed_guard) {
    return fmt::format("guard {} failed, the model says {}", reply.failed_guard, failed_guard);
  }
  if (reply.revision.value() != model_.revision) {
    return fmt::format("revision {}, the model says {}", reply.revision, model_.revision);
  }
  std::string texts;
  if (!same_reply(step.header.kind, reply.body, expected.body, texts)) return texts;
  if (reply.error == ErrorId::kNone) count(step);
  return look_at_open_watches();
}

std::optional<std::string> Comparison::run_range(const Step& step) {
  ++answers;
  etcdserverpb::RangeRequest request;
  request.ParseFromString(step.request);
  model::Answer expected = model_.range(request);
  std::string storage;
  ByteView bytes;
  std::string body;
  ErrorId error = normalise_range(step.request, storage, bytes);
  if (error == ErrorId::kNone) {
    RangeRequest parsed;
    error = parse_and_validate(bytes, parsed);
    RangeRead read;
    if (error == ErrorId::kNone) error = read.begin(implementation_->store(), parsed);
    if (error == ErrorId::kNone) {
      uint32_t units = 3;
      while (!read.step(units, body)) units = 3;
    }
  }
  if (error_text(error) != expected.error) {
    return fmt::format("error '{}', the model says '{}'", error_text(error), expected.error);
  }
  if (error != ErrorId::kNone) {
    ++errors;
    return std::nullopt;
  }
  std::string texts;
  if (!same<etcdserverpb::RangeResponse>(body, expected.body, texts)) return texts;
  count(step);
  return std::nullopt;
}

// Everything that can be looked at without a command.
std::optional<std::string> Comparison::look(const model::Model& model) {
  if (implementation_->revision().value() != model.revision) {
    return fmt::format("revision {}, the model says {}", implementation_->revision(), model.revision);
  }
  etcdserverpb::RangeRequest all;
  all.set_key(std::string(1, '\0'));
  all.set_range_end(std::string(1, '\0'));
  std::string body;
  RangeRequest request{.key = all.key(), .range_end = all.range_end()};
  if (implementation_->range(request, body) != ErrorId::kNone) return "range of everything refused";
  std::string texts;
  if (!same<etcdserverpb::RangeResponse>(body, model.range(all).body, texts)) return "all keys: " + texts;
  std::string oldest;
  request = {.key = "lock/",
             .range_end = "lock0",
             .limit = 1,
             .sort_order = SortOrder::kAscend,
             .sort_target = SortTarget::kCreate};
  if (implementation_->range(request, oldest) != ErrorId::kNone) return "first by create refused";
  all.set_key("lock/");
  all.set_range_end("lock0");
  all.set_limit(1);
  all.set_sort_order(etcdserverpb::RangeRequest::ASCEND);
  all.set_sort_target(etcdserverpb::RangeRequest::CREATE);
  if (!same<etcdserverpb::RangeResponse>(oldest, model.range(all).body, texts)) return "first by create: " + texts;

  std::vector<LeaseInfo> leases = implementation_->leases(LeaseId(INT64_MIN), SIZE_MAX);
  if (leases.size() != model.leases.size()) {
    return fmt::format("{} leases, the model has {}", leases.size(), model.leases.size());
  }
  auto expected = model.leases.begin();
  for (const LeaseInfo& lease : leases) {
    if (lease.id.value() != expected->first || lease.ttl_ms != expected->second) {
      return fmt::format("lease {} ttl {}, the model has {} ttl {}", lease.id, lease.ttl_ms, expected->first,
                         expected->second);
    }
    if (implementation_->lease_keys(lease.id, {}, SIZE_MAX) != model.lease_keys(lease.id.value())) {
      return fmt::format("keys of lease {} differ", lease.id);
    }
    ++expected;
  }
  for (uint64_t id = 1; id <= 4; ++id) {
    const Session* session = implementation_->session(SessionId(id));
    auto known = model.sessions.find(id);
    if ((session != nullptr) != (known != model.sessions.end())) return fmt::format("session {} differs", id);
    if (session != nullptr &&
        (session->incarnation != known->second.incarnation || session->highest != known->second.highest)) {
      return fmt::format("session {}: incarnation {} highest {}, the model says {} {}", id, session->incarnation,
                         session->highest, known->second.incarnation, known->second.highest);
    }
  }
  for (int i = 0; i < 6; ++i) {
    std::string name = fmt::format("r{}", i);
    const Record* record = implementation_->record(name);
    auto known = model.records.find(name);
    if ((record != nullptr) != (known != model.records.end())) return fmt::format("record {} differs", name);
    if (record != nullptr && (record->value != known->second.value || record->lease.value() != known->second.lease ||
                              record->written_at.value() != known->second.index)) {
      return fmt::format("record {} differs in content", name);
    }
  }
  if (!implementation_->store().tree().is_sound()) return "the tree is not sound";
  return std::nullopt;
}

std::optional<std::string> Comparison::watch(const Step& step) {
  if (step.from == 0 || step.from > model_.revision) return open_watch(step);
  WatchStream stream(implementation_->watches());
  stream.create({.key = step.key,
                 .range_end = step.range_end,
                 .start_revision = step.from,
                 .watch_id = 7,
                 .no_put = step.no_put,
                 .no_delete = step.no_delete,
                 .prev_kv = step.with_previous});
  std::vector<mvccpb::Event> got;
  bool created = false;
  bool canceled = false;
  int64_t compact_revision = 0;
  int64_t last = 0;
  while (true) {
    bool worked = implementation_->watches().sweep(5);
    uint32_t units = 100;
    WatchResponse response;
    while (stream.next(units, response)) {
      worked = true;
      units = 100;
      etcdserverpb::WatchResponse message;
      if (!message.ParseFromString(response.body)) return "unreadable watch response";
      if (message.created()) created = true;
      if (message.canceled()) canceled = true;
      if (message.canceled()) compact_revision = message.compact_revision();
      if (message.events_size() > 0 && !created) return "events before created";
      for (const mvccpb::Event& event : message.events()) {
        if (event.kv().mod_revision() < last) return "events out of order";
        got.push_back(event);
      }
      // A revision's events are in one response: the next one is above.
      if (message.events_size() > 0) last = message.events(message.events_size() - 1).kv().mod_revision() + 1;
    }
    if (!worked && implementation_->watches().behind() == 0) break;
  }
  if (is_empty_range(step)) {
    return canceled && created && got.empty() ? std::nullopt : std::optional<std::string>("empty range");
  }
  if (step.from < model_.compacted) {
    if (!canceled || compact_revision != model_.compacted || !got.empty()) return "watch below the floor not canceled";
    return std::nullopt;
  }
  if (canceled) return "watch canceled";
  std::vector<mvccpb::Event> wanted =
      model_.watch(step.key, step.range_end, step.from, step.with_previous, step.no_put, step.no_delete);
  if (auto difference = different_events(got, wanted)) return difference;
  if (!got.empty()) count_watch(step, "watch.past");
  return std::nullopt;
}

std::optional<std::string> Comparison::open_watch(const Step& step) {
  if (open_watches_.size() == kOpenWatches) close_watch(0);
  auto stream = std::make_unique<WatchStream>(implementation_->watches());
  stream->create({.key = step.key,
                  .range_end = step.range_end,
                  .start_revision = step.from,
                  .no_put = step.no_put,
                  .no_delete = step.no_delete,
                  .prev_kv = step.with_previous});
  uint32_t units = 100;
  WatchResponse response;
  etcdserverpb::WatchResponse message;
  if (!stream->next(units, response) || !message.ParseFromString(response.body)) return "no answer to a watch";
  if (!message.created() || message.canceled() != is_empty_range(step)) return "watch refused, or an empty one not";
  if (response.revision.value() != model_.revision) return "watch created at another revision";
  if (message.canceled()) return std::nullopt;
  int64_t before = std::max(step.from - 1, model_.revision);
  open_watches_.push_back({.step = step, .told_through = before, .stream = std::move(stream)});
  return std::nullopt;
}

std::optional<std::string> Comparison::look_at_open_watches() {
  if (open_watches_.empty()) return std::nullopt;
  std::vector<std::vector<mvccpb::Event>> got(open_watches_.size());
  bool worked = true;
  while (worked) {
    worked = implementation_->watches().sweep(5);
    for (const WatchStream* ready : implementation_->watches().take_ready()) {
      for (size_t i = 0; i < open_watches_.size(); ++i) {
        WatchStream& stream = *open_watches_[i].stream;
        if (&stream != ready) continue;
        worked = true;
        WatchResponse response;
        for (uint32_t units = 100; stream.next(units, response) || units == 0; units = 100) {
          etcdserverpb::WatchResponse message;
          if (!message.ParseFromString(response.body)) return "unreadable watch response";
          if (message.canceled()) return "watch canceled";
          for (const mvccpb::Event& event : message.events()) got[i].push_back(event);
          response = {};
        }
      }
    }
  }
  for (size_t i = 0; i < open_watches_.size(); ++i) {
    OpenWatch& open = open_watches_[i];
    if (model_.revision <= open.told_through) {
      if (!got[i].empty()) return "events of a watch that nothing happened to";
      continue;
    }
    std::vector<mvccpb::Event> wanted = model_.watch(open.step.key, open.step.range_end, open.told_through + 1,
                                                     open.step.with_previous, open.step.no_put, open.step.no_delete);
    if (auto difference = different_events(got[i], wanted)) return describe(open.step) + ": " + *difference;
    open.told_through = model_.revision;
    open.events += static_cast<int64_t>(got[i].size());
  }
  return std::nullopt;
}

void Comparison::close_watch(size_t at) {
  const Step& step = open_watches_[at].step;
  if (open_watches_[at].events > 0) count_watch(step, step.from == 0 ? "watch.now" : "watch.future");
  open_watches_.erase(open_watches_.begin() + static_cast<ptrdiff_t>(at));
}

std::optional<std::string> Comparison::reload() {
  std::string bytes;
  SnapshotReader reader(*implementation_);
  while (!reader.read(bytes, 7)) {
  }
  auto fresh = std::make_unique<Keyspace>();
  SnapshotLoader loader(*fresh);
  for (size_t at = 0; at < bytes.size(); at += 100) {
    Status status = loader.feed(ByteView(bytes).substr(at, 100));
    if (!status) return "snapshot refused: " + status.error().message;
  }
  Status status = loader.finish();
  if (!status) return "snapshot refused: " + status.error().message;
  // Streams end with the state they are of.
  while (!open_watches_.empty()) close_watch(0);
  // The reader still stands on the old one; it ends first.
  if (fresh->digest() != implementation_->digest()) return "the digest differs after a reload";
  if (fresh->applied() != implementation_->applied()) return "the index differs after a reload";
  retired_ = std::move(implementation_);
  implementation_ = std::move(fresh);
  succeeded["reload"] += 1;
  return look(model_);
}

void Comparison::count_range_kind(const std::string& what, const std::string& key, const std::string& range_end) {
  if (range_end.empty()) return;
  const std::string zero(1, '\0');
  succeeded[what + (range_end != zero ? ".range_end" : (key == zero ? ".everything" : ".from_key"))] += 1;
}

void Comparison::count_watch(const Step& step, const std::string& start) {
  succeeded["watch"] += 1;
  succeeded[start] += 1;
  if (step.with_previous) succeeded["watch.prev_kv"] += 1;
  if (step.no_put) succeeded["watch.no_put"] += 1;
  if (step.no_delete) succeeded["watch.no_delete"] += 1;
  count_range_kind("watch", step.key, step.range_end);
}

void Comparison::count(const Step& step) {
  auto add = [this](const std::string& name) { succeeded[name] += 1; };
  auto count_range = [&](const etcdserverpb::RangeRequest& request) {
    count_range_kind("range", request.key(), request.range_end());
    if (request.limit() > 0) add("range.limit");
    if (request.revision() > 0) add("range.revision");
    if (request.serializable()) add("range.serializable");
    if (request.keys_only()) add("range.keys_only");
    if (request.count_only()) add("range.count_only");
    if (request.min_mod_revision() != 0) add("range.min_mod");
    if (request.max_mod_revision() != 0) add("range.max_mod");
    if (request.min_create_revision() != 0) add("range.min_create");
    if (request.max_create_revision() != 0) add("range.max_create");
    add(fmt::format("range.sort.{}.{}", static_cast<int>(request.sort_target()),
                    static_cast<int>(request.sort_order())));
  };
  auto count_put = [&](const etcdserverpb::PutRequest& request) {
    add("put");
    if (request.lease() != 0) add("put.lease");
    if (request.prev_kv()) add("put.prev_kv");
    if (request.ignore_value()) add("put.ignore_value");
    if (request.ignore_lease()) add("put.ignore_lease");
  };
  if (step.kind == Step::Kind::kRange) {
    etcdserverpb::RangeRequest request;
    request.ParseFromString(step.request);
    count_range(request);
    return;
  }
  if (step.header.session.is_set()) add("session.command");
  if (step.header.term != Term()) add("term");
  switch (step.header.kind) {
    case CommandKind::kPut: {
      etcdserverpb::PutRequest request;
      request.ParseFromString(step.request);
      count_put(request);
      break;
    }
    case CommandKind::kDeleteRange: {
      etcdserverpb::DeleteRangeRequest request;
      request.ParseFromString(step.request);
      add("delete");
      count_range_kind("delete", request.key(), request.range_end());
      if (request.prev_kv()) add("delete.prev_kv");
      break;
    }
    case CommandKind::kTxn: {
      etcdserverpb::TxnRequest request;
      request.ParseFromString(step.request);
      etcdserverpb::TxnResponse response;
      response.ParseFromString(implementation_->reply().body);
      add(response.succeeded() ? "txn.success" : "txn.failure");
      if (response.succeeded()) {
        for (const etcdserverpb::Compare& compare : request.compare()) {
          add(fmt::format("compare.{}.{}", static_cast<int>(compare.target()), static_cast<int>(compare.result())));
          if (!compare.range_end().empty()) add("compare.range");
        }
      }
      for (const etcdserverpb::RequestOp& operation : response.succeeded() ? request.success() : request.failure()) {
        if (operation.has_request_range()) add("txn.range");
        if (operation.has_request_put()) add("txn.put");
        if (operation.has_request_delete_range()) add("txn.delete");
        if (operation.has_request_txn()) add("txn.txn");
      }
      break;
    }
    case CommandKind::kCompact:
      add("compact");
      break;
    case CommandKind::kLeaseGrant:
      add("grant");
      break;
    case CommandKind::kLeaseRevoke:
      add("revoke");
      break;
    case CommandKind::kLeaseExpire:
      add("expire");
      break;
    case CommandKind::kSessionOpen:
      add("session.open");
      break;
    case CommandKind::kInternal: {
      add("internal");
      for (const model::Guard& guard : step.guards) add(fmt::format("guard.{}", static_cast<int>(guard.kind)));
      for (const model::Operation& operation : step.operations) {
        add(fmt::format("operation.{}", static_cast<int>(operation.kind)));
      }
      break;
    }
  }
}

std::vector<Step> shrink(std::vector<Step> steps) {
  auto fails = [](const std::vector<Step>& script) {
    Comparison comparison;
    for (const Step& step : script) {
      if (comparison.run(step)) return true;
    }
    return false;
  };
  for (size_t chunk = steps.size() / 2; chunk > 0; chunk /= 2) {
    for (size_t at = 0; at + chunk <= steps.size();) {
      std::vector<Step> fewer(steps.begin(), steps.begin() + static_cast<ptrdiff_t>(at));
      fewer.insert(fewer.end(), steps.begin() + static_cast<ptrdiff_t>(at + chunk), steps.end());
      if (fails(fewer)) {
        steps = std::move(fewer);
      } else {
        at += chunk;
      }
    }
  }
  return steps;
}

}  // namespace conclave::keyspace
