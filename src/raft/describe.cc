#include "raft/describe.h"

#include <fmt/format.h>

namespace conclave::raft {

std::string describe(Position place) {
  return fmt::format("{}:{}", place.term, place.index);
}

std::string describe(const EntrySlices& entries) {
  std::string text = "[";
  // Runs of one term and type.
  for (size_t i = 0; i < entries.size();) {
    size_t end = i + 1;
    while (end < entries.size() && entries[end].term == entries[i].term && entries[end].type == entries[i].type) ++end;
    if (i > 0) text += ", ";
    text += fmt::format("{}", entries[i].index);
    if (end - i > 1) text += fmt::format("..{}", entries[end - 1].index);
    text += fmt::format(" t{}", entries[i].term);
    if (entries[i].type != EntryType::kCommand) text += fmt::format(" {}", to_string(entries[i].type));
    i = end;
  }
  return text + "]";
}

namespace {

struct BodyDescriber {
  std::string operator()(const Hello& body) const {
    std::string text = fmt::format("{} last {}", body.answer ? "hello-answer" : "hello", describe(body.last));
    if (body.floor.term.value() > 0) {
      text += fmt::format(" floor t{} {} incarnation {}", body.floor.term, describe(body.floor.last),
                          body.floor.incarnation);
    }
    return text;
  }
  std::string operator()(const VoteRequest& body) const {
    return fmt::format("{}{} for t{} last {}", body.pre ? "pre-vote" : "vote", body.transfer ? " by transfer" : "",
                       body.campaign_term, describe(body.last));
  }
  std::string operator()(const VoteReply& body) const {
    std::string text = fmt::format("{} for t{} ", body.pre ? "pre-vote-reply" : "vote-reply", body.campaign_term);
    if (body.granted) return text + "granted";
    return text + fmt::format("refused ({}) last {}", to_string(body.refusal), describe(body.last));
  }
  std::string operator()(const AppendRequest& body) const {
    std::string text = fmt::format("append prev {} commit {} round {}", describe(body.prev), body.commit, body.round);
    if (!body.entries.empty()) text += " " + describe(body.entries);
    if (body.promise > Duration::zero()) text += " wants-promise";
    return text;
  }
  std::string operator()(const AppendReply& body) const {
    std::string text = body.ok ? fmt::format("append-reply match {} round {}", body.match, body.round)
                               : fmt::format("append-reply rejected {} hint {} round {}", body.rejected,
                                             describe(body.hint), body.round);
    if (body.promised) text += " promised";
    return text;
  }
  std::string operator()(const SnapshotChunk& body) const {
    return fmt::format("snapshot {} offset {} bytes {} of {}{}", describe(body.mark.last), body.offset,
                       body.bytes.size(), body.total, body.pull > 0 ? fmt::format(" for pull {}", body.pull) : "");
  }
  std::string operator()(const SnapshotReply& body) const {
    return fmt::format("snapshot-reply {} offset {}{}", describe(body.last), body.offset,
                       body.installed ? " installed" : "");
  }
  std::string operator()(const ReadRequest& body) const { return fmt::format("read {}", body.id); }
  std::string operator()(const ReadReply& body) const {
    return body.ok ? fmt::format("read-reply {} index {}", body.id, body.index)
                   : fmt::format("read-reply {} failed", body.id);
  }
  std::string operator()(const TimeoutNow&) const { return "timeout-now"; }
  std::string operator()(const PullRequest& body) const {
    return fmt::format("pull {} after {}", body.id, describe(body.prev)) +
           (body.proof.index.value() > 0 ? fmt::format(" proof {}", describe(body.proof)) : "");
  }
  std::string operator()(const PullReply& body) const {
    return fmt::format("pull-reply {} {} {} last {} {}", body.id, body.ok ? "after" : "disagrees, at or before",
                       describe(body.prev), describe(body.last), describe(body.entries));
  }
};

}  // namespace

std::string describe(const Message& message) {
  return fmt::format("{}->{} t{} {}", message.header.from, message.header.to, message.header.term,
                     std::visit(BodyDescriber{}, message.body));
}

std::string describe(const Write& write) {
  std::string text = fmt::format("write {}", write.sequence);
  if (write.vote) {
    text += fmt::format(" vote t{} for {}", write.vote->term, write.vote->candidate);
    if (write.vote->incarnation != Incarnation(1)) text += fmt::format(" incarnation {}", write.vote->incarnation);
  }
  if (!write.entries.empty()) text += " " + describe(write.entries);
  if (!write.fills.empty()) text += " fills " + describe(write.fills);
  if (write.snapshot) text += fmt::format(" snapshot {} keep {}", describe(write.snapshot->last), write.keep_from);
  if (write.discard_log) text += " discarding the log";
  return text;
}

std::string describe(const Status& status) {
  std::string text = fmt::format("{} t{} leader {} last {} commit {} durable {}", to_string(status.role), status.term,
                                 status.leader, describe(status.last), status.commit, status.durable);
  if (!status.voter)
    text += fmt::format(" no voter (incarnation {}, {})", status.incarnation, to_string(status.certainty));
  if (!status.proven) text += " unproven";
  if (status.has_gap) text += " gap";
  if (status.transferring) text += " transferring";
  if (status.quorum_lost) text += " quorum lost";
  return text;
}

}  // namespace conclave::raft
