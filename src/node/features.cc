#include "node/features.h"

#include <algorithm>
#include <utility>

#include "base/mark.h"
#include "keyspace/internal_command.h"
#include "node/replica.h"

namespace conclave::node {

std::string encode_feature_level(uint64_t level) {
  std::string value;
  ByteWriter(value).varint(level);
  return value;
}

std::optional<uint64_t> feature_level(const keyspace::Keyspace& keyspace) {
  const keyspace::Record* record = keyspace.record(kFeatureLevelRecord);
  if (record == nullptr) return 1;
  ByteReader reader(record->value);
  const uint64_t level = reader.varint();
  if (!reader.finished() || level == 0) return std::nullopt;
  return level;
}

// What is asked for is due as soon as its leader knows that all have it: it asks those it knows nothing of, again and
// again, and forgets all with its term, since a member may come back with an older build.
void Replica::raise_feature_level(Instant now) {
  const Term term = raft_.status().term;
  if (!leads() || applied_term_ != term || feature_level_ >= options_.feature_level_max) return;
  if (features_term_ != term) {
    features_term_ = term;
    features_.clear();
    features_asked_at_ = Instant::min();
  }
  if (features_asked_at_ != Instant::min() && now < features_asked_at_ + options_.forward_retry) return;
  features_asked_at_ = now;
  const Membership& membership = raft_.membership();
  uint64_t level = options_.feature_level_max;
  bool all_told = true;
  for (const Member& member : membership.members()) {
    if (member.id == options_.raft.self) continue;
    const auto told = features_.find(member.id);
    if (told != features_.end()) {
      level = std::min(level, told->second);
      continue;
    }
    all_told = false;
    world_.send(member.id, env::Lane::kForward, encode(FeatureQuery{.group = options_.raft.group, .term = term}));
  }
  if (!all_told) return;
  // Asked anew the next time: a build may be exchanged at any moment.
  features_.clear();
  if (level <= feature_level_) return;
  const keyspace::Record* record = keyspace_->record(kFeatureLevelRecord);
  const std::string value = encode_feature_level(level);
  keyspace::InternalCommand command;
  command.guards.push_back({.kind = keyspace::Guard::Kind::kRecordAt,
                            .key = kFeatureLevelRecord,
                            .number = record == nullptr ? 0 : record->written_at.value()});
  command.operations.push_back(
      {.kind = keyspace::InternalOperation::Kind::kRecordPut, .key = kFeatureLevelRecord, .value = value});
  std::string body;
  keyspace::encode(command, body);
  const SharedBytes bytes = keyspace::encode_command({.kind = keyspace::CommandKind::kInternal, .term = term}, body);
  step(now, raft::Propose{.commands = {&bytes, 1}});
  if (output_.proposal->refusal != raft::Refusal::kNone) return;
  REACHED(feature_level_raised);
  note_proposed(now, bytes.size());
}

Instant Replica::next_features_deadline() const {
  if (!leads() || applied_term_ != raft_.status().term || feature_level_ >= options_.feature_level_max) return kNever;
  if (features_term_ != raft_.status().term || features_asked_at_ == Instant::min()) return Instant::min();
  return features_asked_at_ + options_.forward_retry;
}

void Replica::on(Instant, NodeId from, const FeatureQuery& frame) {
  if (frame.term != raft_.status().term || from != raft_.status().leader) return;
  world_.send(from, env::Lane::kForward,
              encode(Features{.group = options_.raft.group, .term = frame.term, .level = options_.feature_level_max}));
}

void Replica::on(Instant, NodeId from, const Features& frame) {
  if (!leads() || frame.term != raft_.status().term || features_term_ != frame.term) return;
  if (!raft_.membership().contains(from)) return;
  features_[from] = frame.level;
  // Looked at with this turn once the last one has told.
  const bool all_told = std::ranges::all_of(raft_.membership().members(), [this](const Member& member) {
    return member.id == options_.raft.self || features_.contains(member.id);
  });
  if (all_told) features_asked_at_ = Instant::min();
}

}  // namespace conclave::node
