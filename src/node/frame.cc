#include "node/frame.h"

namespace conclave::node {
namespace {

struct FrameEncoder {
  ByteWriter& writer;
  void head(FrameKind kind, GroupId group) const {
    writer.fixed<uint8_t>(static_cast<uint8_t>(kind));
    writer.varint(group.value());
  }
  void operator()(const Forward& frame) const {
    head(FrameKind::kForward, frame.group);
    writer.varint(frame.term.value());
    writer.varint(frame.boot.value());
    writer.varint(frame.first);
    writer.varint(frame.commands.size());
    for (const ByteView command : frame.commands) writer.sized(command);
  }
  void operator()(const ForwardReply& frame) const {
    head(FrameKind::kForwardReply, frame.group);
    writer.varint(frame.term.value());
    writer.varint(frame.boot.value());
    writer.varint(frame.next);
    writer.varint(frame.refused_first);
    writer.varint(frame.refused_count);
    writer.fixed<uint8_t>(frame.no_space ? 1 : 0);
  }
  void operator()(const KeepAlive& frame) const {
    head(FrameKind::kKeepAlive, frame.group);
    writer.varint(frame.term.value());
    writer.varint(frame.boot.value());
    writer.varint(frame.id);
    writer.fixed<uint8_t>(frame.renews ? 1 : 0);
    writer.varint(frame.leases.size());
    for (const LeaseId lease : frame.leases) writer.fixed<uint64_t>(static_cast<uint64_t>(lease.value()));
  }
  void operator()(const KeepAliveReply& frame) const {
    head(FrameKind::kKeepAliveReply, frame.group);
    writer.varint(frame.boot.value());
    writer.varint(frame.id);
    writer.fixed<uint8_t>(frame.ok ? 1 : 0);
    writer.varint(frame.ttl_ms.size());
    for (const int64_t ttl : frame.ttl_ms) writer.varint(static_cast<uint64_t>(ttl));
  }
  void operator()(const StateDigest& frame) const {
    head(FrameKind::kStateDigest, frame.group);
    writer.varint(frame.index.value());
    writer.fixed<uint64_t>(frame.digest);
  }
  void operator()(const ChangeRequest& frame) const {
    head(FrameKind::kChange, frame.group);
    writer.varint(frame.term.value());
    writer.varint(frame.boot.value());
    writer.varint(frame.id);
    writer.fixed<uint8_t>(static_cast<uint8_t>(frame.change.kind));
    writer.fixed<uint64_t>(frame.change.id.value());
    writer.fixed<uint64_t>(frame.change.replaced.value());
  }
  void operator()(const ChangeReply& frame) const {
    head(FrameKind::kChangeReply, frame.group);
    writer.varint(frame.boot.value());
    writer.varint(frame.id);
    writer.fixed<uint8_t>(static_cast<uint8_t>(frame.refusal));
  }
  void operator()(const FeatureQuery& frame) const {
    head(FrameKind::kFeatureQuery, frame.group);
    writer.varint(frame.term.value());
  }
  void operator()(const Features& frame) const {
    head(FrameKind::kFeatures, frame.group);
    writer.varint(frame.term.value());
    writer.varint(frame.level);
  }
  void operator()(const AppliedUpTo& frame) const {
    head(FrameKind::kAppliedUpTo, frame.group);
    writer.varint(frame.term.value());
    writer.varint(frame.index.value());
  }
};

bool read_flag(ByteReader& reader) {
  const auto byte = reader.fixed<uint8_t>();
  if (byte > 1) reader.reject();
  return byte == 1;
}

// A count of things that take at least `each` bytes: never more than can be there.
uint64_t read_count(ByteReader& reader, uint64_t max, uint64_t each) {
  const uint64_t count = reader.varint();
  if (count > max || count * each > reader.rest().size()) {
    reader.reject();
    return 0;
  }
  return count;
}

bool is_sound(const MemberChange& change) {
  const bool replaces = change.kind == MemberChangeKind::kReplace;
  return change.kind >= MemberChangeKind::kAddLearner && change.kind <= MemberChangeKind::kReplace &&
         change.id.is_set() && change.replaced.is_set() == replaces && change.replaced != change.id;
}

}  // namespace

std::string_view to_string(ChangeRefusal refusal) {
  switch (refusal) {
    case ChangeRefusal::kNone:
      return "none";
    case ChangeRefusal::kNoLeader:
      return "no leader";
    case ChangeRefusal::kOverloaded:
      return "overloaded";
    case ChangeRefusal::kAlreadyMember:
      return "already a member";
    case ChangeRefusal::kNotMember:
      return "not a member";
    case ChangeRefusal::kNotLearner:
      return "not a learner";
    case ChangeRefusal::kNotCaughtUp:
      return "not caught up";
    case ChangeRefusal::kLastVoter:
      return "the last voter";
    case ChangeRefusal::kTooFewActive:
      return "too few active voters would be left";
    case ChangeRefusal::kTooManyMembers:
      return "too many members";
    case ChangeRefusal::kTooManyLearners:
      return "too many learners";
    case ChangeRefusal::kChangePending:
      return "another change is under way";
  }
  return "unknown";
}

std::string encode(const Frame& frame) {
  std::string out;
  ByteWriter writer(out);
  std::visit(FrameEncoder{writer}, frame);
  return out;
}

Result<Frame> decode_frame(ByteView bytes) {
  ByteReader reader(bytes);
  const auto kind = reader.fixed<uint8_t>();
  const GroupId group(reader.varint());
  Frame frame;
  switch (static_cast<FrameKind>(kind)) {
    case FrameKind::kForward: {
      Forward forward{.group = group};
      forward.term = Term(reader.varint());
      forward.boot = Boot(reader.varint());
      forward.first = reader.varint();
      const uint64_t count = read_count(reader, kForwardCommandsMax, 1);
      forward.commands.reserve(count);
      for (uint64_t i = 0; i < count; ++i) forward.commands.push_back(reader.sized());
      if (forward.first == 0 || count == 0) reader.reject();
      frame = std::move(forward);
      break;
    }
    case FrameKind::kForwardReply: {
      ForwardReply reply{.group = group};
      reply.term = Term(reader.varint());
      reply.boot = Boot(reader.varint());
      reply.next = reader.varint();
      reply.refused_first = reader.varint();
      reply.refused_count = reader.varint();
      reply.no_space = read_flag(reader);
      frame = reply;
      break;
    }
    case FrameKind::kKeepAlive: {
      KeepAlive alive{.group = group};
      alive.term = Term(reader.varint());
      alive.boot = Boot(reader.varint());
      alive.id = reader.varint();
      alive.renews = read_flag(reader);
      const uint64_t count = read_count(reader, kKeepAliveLeasesMax, 8);
      alive.leases.reserve(count);
      for (uint64_t i = 0; i < count; ++i) alive.leases.emplace_back(static_cast<int64_t>(reader.fixed<uint64_t>()));
      frame = std::move(alive);
      break;
    }
    case FrameKind::kKeepAliveReply: {
      KeepAliveReply reply{.group = group};
      reply.boot = Boot(reader.varint());
      reply.id = reader.varint();
      reply.ok = read_flag(reader);
      const uint64_t count = read_count(reader, kKeepAliveLeasesMax, 1);
      reply.ttl_ms.reserve(count);
      for (uint64_t i = 0; i < count; ++i) {
        const uint64_t ttl = reader.varint();
        if (ttl > static_cast<uint64_t>(INT64_MAX)) reader.reject();
        reply.ttl_ms.push_back(static_cast<int64_t>(ttl));
      }
      frame = std::move(reply);
      break;
    }
    case FrameKind::kStateDigest: {
      StateDigest state{.group = group};
      state.index = LogIndex(reader.varint());
      state.digest = reader.fixed<uint64_t>();
      frame = state;
      break;
    }
    case FrameKind::kChange: {
      ChangeRequest request{.group = group};
      request.term = Term(reader.varint());
      request.boot = Boot(reader.varint());
      request.id = reader.varint();
      request.change.kind = static_cast<MemberChangeKind>(reader.fixed<uint8_t>());
      request.change.id = NodeId(reader.fixed<uint64_t>());
      request.change.replaced = NodeId(reader.fixed<uint64_t>());
      if (request.id == 0 || !is_sound(request.change)) reader.reject();
      frame = request;
      break;
    }
    case FrameKind::kChangeReply: {
      ChangeReply reply{.group = group};
      reply.boot = Boot(reader.varint());
      reply.id = reader.varint();
      const auto refusal = reader.fixed<uint8_t>();
      if (refusal > static_cast<uint8_t>(ChangeRefusal::kChangePending)) reader.reject();
      reply.refusal = static_cast<ChangeRefusal>(refusal);
      frame = reply;
      break;
    }
    case FrameKind::kFeatureQuery: {
      frame = FeatureQuery{.group = group, .term = Term(reader.varint())};
      break;
    }
    case FrameKind::kFeatures: {
      Features features{.group = group};
      features.term = Term(reader.varint());
      features.level = reader.varint();
      if (features.level == 0) reader.reject();
      frame = features;
      break;
    }
    case FrameKind::kAppliedUpTo: {
      AppliedUpTo told{.group = group};
      told.term = Term(reader.varint());
      told.index = LogIndex(reader.varint());
      frame = told;
      break;
    }
    default:
      return fail(ErrorCode::kMalformed, "frame of kind {}", kind);
  }
  if (!reader.finished()) return fail(ErrorCode::kMalformed, "frame of kind {}: bad body", kind);
  return frame;
}

}  // namespace conclave::node
