#include "sim/raft_server.h"

#include <algorithm>
#include <cstdio>

#include "base/assert.h"
#include "base/mark.h"
#include "raft/describe.h"
#include "sim/digest.h"
#include "sim/membership_changes.h"

namespace conclave::sim {
namespace {

using std::chrono::milliseconds;

bool is_verbose = false;

constexpr uint8_t kConsensusFrame = 0;
constexpr uint8_t kForwardFrame = 1;
constexpr uint8_t kReplyFrame = 2;

// A mark is written so long after a batch behind which nothing came.
constexpr Duration kMarkAfter = milliseconds(20);
// An ended process is started again after this.
constexpr Duration kRestartAfter = milliseconds(100);
// After a snapshot for which there was no space.
constexpr Duration kSpaceRetry = milliseconds(500);
constexpr size_t kScrubEntries = 8;
// Proposals and reads a server remembers for its clients.
constexpr size_t kWaitingMax = 4096;
// Messages that wait for the disk: what a hung one may keep. A core that piles up more has no bound.
constexpr size_t kHeldMax = 8192;

env::Lane lane_of(const raft::Body& body) {
  const bool bulk = std::holds_alternative<raft::SnapshotChunk>(body) ||
                    std::holds_alternative<raft::SnapshotReply>(body) ||
                    std::holds_alternative<raft::PullRequest>(body) || std::holds_alternative<raft::PullReply>(body);
  return bulk ? env::Lane::kBulk : env::Lane::kConsensus;
}

std::string frame_of(const raft::Message& message) {
  std::string frame(1, static_cast<char>(kConsensusFrame));
  raft::encode(message, frame);
  return frame;
}

std::string frame_of(const ClientReply& reply) {
  std::string frame(1, static_cast<char>(kReplyFrame));
  ByteWriter writer(frame);
  writer.varint(reply.client);
  writer.varint(reply.sequence);
  writer.fixed(static_cast<uint8_t>(reply.kind));
  writer.varint(reply.index.value());
  writer.fixed(static_cast<uint8_t>(reply.result.success));
  writer.fixed(reply.result.before);
  return frame;
}

// What a refused message may not have touched.
uint64_t fingerprint(const raft::Raft& raft) {
  Digest digest;
  digest.add_bytes(raft::describe(raft.status()));
  digest.add(raft.vote().term.value());
  digest.add(raft.vote().candidate.value());
  digest.add(raft.vote().incarnation.value());
  digest.add(raft.log().start().index.value());
  digest.add(raft.log().last_index().value());
  digest.add(raft.log().last().term.value());
  digest.add(raft.log().gaps().size());
  digest.add(raft.snapshot().last.index.value());
  digest.add_bytes(raft.membership().describe());
  digest.add(raft.next_deadline());
  for (const raft::Peer& peer : raft.peers()) {
    digest.add(peer.match.value());
    digest.add(peer.next.value());
  }
  return digest.value();
}

}  // namespace

RaftServer::RaftServer(World& world, RaftHost& host, RaftCheck& check, const RaftKnobs& knobs, size_t node, NodeId id,
                       Boot boot)
    : world_(world),
      host_(host),
      check_(check),
      knobs_(knobs),
      node_(node),
      id_(id),
      boot_(boot),
      snapshots_(world.machine(node).disk) {}

void RaftServer::set_verbose(bool verbose) {
  is_verbose = verbose;
}

void RaftServer::say(const std::string& what) const {
  const int64_t microseconds = (world_.now() - Scheduler::kStart).count() / 1000;
  const std::string line = fmt::format("{:>12} {}/{} {}\n", microseconds, id_, boot_, what);
  std::fputs(line.c_str(), stderr);
}

void RaftServer::say_step(const raft::Input& input) const {
  if (const auto* received = std::get_if<raft::Receive>(&input)) say("< " + raft::describe(received->message));
  if (output_.refused != raft::Refusal::kNone) say(fmt::format("refuses: {}", to_string(output_.refused)));
  if (output_.role_changed) say("is " + raft::describe(raft_->status()));
  if (output_.write) say(raft::describe(*output_.write));
  for (const raft::Outgoing& outgoing : output_.messages) {
    say(fmt::format("> after {} {}", outgoing.after, raft::describe(outgoing.message)));
  }
  if (output_.commit_changed) say(fmt::format("commits {}", raft_->status().commit));
}

void RaftServer::die() {
  if (dead_) return;
  dead_ = true;
  // As after a loss of power: when a write or sync has failed, the cache may show what is not on the platter.
  world_.request_crash(node_, CrashMode::kPowerLoss, kRestartAfter);
}

bool RaftServer::survives(const Error& error) {
  if (error.code == ErrorCode::kNoSpace) return true;
  if (error.code == ErrorCode::kForeign) {
    check_.violate(fmt::format("server {}: its own disk is foreign to it: {}", id_, error.message));
  }
  die();
  return false;
}

// --- Starting.

void RaftServer::start() {
  auto lock = disk().lock();
  if (!lock) {
    if (lock.error().code == ErrorCode::kLocked) check_.violate("the lock outlived its process");
    die();
    return;
  }
  lock_ = std::move(*lock);
  const auto marks = snapshots_.open();
  if (!marks) {
    die();
    return;
  }
  const MinimalLogOptions options{
      .group = kRaftGroup, .self = id_, .sectors = knobs_.ring_sectors, .runs_max = knobs_.runs_max};
  auto opened = MinimalLog::open(disk(), options, boot_, *marks);
  if (!opened) {
    // Also where there is no space to lay the log out: tried again.
    if (survives(opened.error())) die();
    return;
  }
  log_ = std::move(opened->log);
  recovered_ = std::move(opened->recovered);
  newest_ = recovered_.snapshot;
  for (const SnapshotMark& mark : *marks) {
    if (mark.last.index >= newest_.last.index) break;
    if (recovered_.entries.empty() || mark.last.index.next() < recovered_.entries.front().index) continue;
    older_ = mark;
  }
  if (newest_.last.index.value() > 0) {
    const Result<std::string> state = snapshots_.load(newest_.last);
    Result<RegisterMachine> machine = fail(ErrorCode::kMalformed, "not read");
    if (state) machine = RegisterMachine::decode_state(*state);
    if (!machine) {
      // Sound a moment ago: damaged since, or read astray. The next start sees.
      die();
      return;
    }
    machine_ = *machine;
  }
  world_.after_disk(node_, [this] { begin(); });
}

void RaftServer::begin() {
  if (is_verbose) {
    say(fmt::format("starts: {}, term {}, voted {}, identity {}, last {}, snapshot {}, {} entries",
                    to_string(recovered_.certainty), recovered_.vote.term, recovered_.vote.candidate,
                    recovered_.vote.incarnation, raft::describe(recovered_.last),
                    raft::describe(recovered_.snapshot.last), recovered_.entries.size()));
  }
  if (!knobs_.hostile) check_.note_recovered(id_, recovered_, disk().was_ever_damaged());
  raft::Options options = knobs_.options;
  options.group = kRaftGroup;
  options.self = id_;
  options.boot = boot_;
  options.seed = world_.decisions().generator("raft.seed", id_.value() * 1'000'000 + boot_.value()).next();
  if (newest_.last.index.value() > 0) check_.note_state(id_, newest_.last.index, machine_.digest());
  raft_ = std::make_unique<raft::Raft>(options, std::move(recovered_));
  world_.network().attach(node_, *this, world_.machine(node_).gate);
  step(raft::Start{});
  plan_scrub();
}

// --- The step.

void RaftServer::step(const raft::Input& input) {
  if (dead_ || raft_ == nullptr) return;
  step_once(input);
  while (!dead_ && lease_told_ != machine_.clock_lease()) {
    lease_told_ = machine_.clock_lease();
    step_once(raft::ClockLease{.enabled = lease_told_});
  }
  if (!dead_) arm();
}

void RaftServer::step_once(const raft::Input& input) {
  const raft::Invariants::State before = raft::Invariants::capture(*raft_);
  const bool watches_refusals = knobs_.hostile && std::holds_alternative<raft::Receive>(input);
  const uint64_t print = watches_refusals ? fingerprint(*raft_) : 0;
  raft_->step(now(), input, output_);
  if (watches_refusals && output_.refused != raft::Refusal::kNone) {
    host_.on_refused();
    if (fingerprint(*raft_) != print || output_.write || !output_.messages.empty()) {
      check_.violate(fmt::format("server {}: a message refused as '{}' changed it", id_, to_string(output_.refused)));
    }
  }
  if (is_verbose) say_step(input);
  check_step(before, !knobs_.hostile);
  if (held_.size() > kHeldMax || reads_.size() > kWaitingMax || proposals_.size() > kWaitingMax) {
    check_.violate(fmt::format("server {}: {} messages held, {} reads, {} proposals wait", id_, held_.size(),
                               reads_.size(), proposals_.size()));
  }
  send_outputs();
}

void RaftServer::check_step(const raft::Invariants::State& before, bool judged) {
  if (!judged) return;
  if (const std::string wrong = raft::Invariants::check(*raft_); !wrong.empty()) {
    check_.violate(fmt::format("server {}: {}", id_, wrong));
  }
  if (const std::string wrong = raft::Invariants::check_step(before, *raft_, output_); !wrong.empty()) {
    check_.violate(fmt::format("server {}: {}", id_, wrong));
  }
  check_.note_step(*raft_, output_);
}

void RaftServer::send_outputs() {
  std::optional<raft::ChunkToStore> chunk = output_.chunk;
  if (output_.install) {
    install_ = output_.install;
    install_after_ = output_.write->sequence;
  }
  if (output_.write) log_->submit(*output_.write, raft_->floors());
  for (raft::Outgoing& outgoing : output_.messages) {
    std::string bytes;
    if (auto* piece = std::get_if<raft::SnapshotChunk>(&outgoing.message.body)) {
      if (!fill_chunk(*piece, bytes)) {
        if (dead_) return;
        continue;
      }
    }
    const NodeId to = outgoing.message.header.to;
    const env::Lane lane = lane_of(outgoing.message.body);
    const bool votes = std::holds_alternative<raft::VoteRequest>(outgoing.message.body) ||
                       std::holds_alternative<raft::VoteReply>(outgoing.message.body);
    if (outgoing.after <= durable_) {
      if (votes) check_.note_sent(outgoing.message);
      send(to, lane, frame_of(outgoing.message));
    } else {
      held_.push_back({.after = outgoing.after, .to = to, .lane = lane, .frame = frame_of(outgoing.message)});
      if (votes) held_.back().vote = outgoing.message;
    }
  }
  answer_reads();
  if (output_.role_changed && raft_->status().role != raft::Role::kLeader && proposals_.size() > kWaitingMax) {
    proposals_.clear();
  }
  apply();
  if (chunk && !dead_) store_chunk(*chunk);
  if (!dead_) write_next();
}

void RaftServer::send(NodeId to, env::Lane lane, std::string frame) {
  const size_t machine = machine_of(to);
  // A peer that may not be trusted can name machines that do not exist.
  if (machine >= world_.size() || machine == node_) return;
  host_.on_sent(node_, machine, frame);
  world_.network().endpoint(node_).send(SimNetwork::id_of(machine), lane, std::move(frame));
}

void RaftServer::arm() {
  const Instant deadline = raft_->next_deadline();
  // Later than planned is the usual case, a heartbeat having come: the event that is there looks again.
  if (deadline >= deadline_at_) return;
  world_.cancel(deadline_event_);
  deadline_at_ = deadline;
  deadline_event_ = world_.at_local(node_, deadline, [this] {
    deadline_at_ = kNever;
    if (now() >= raft_->next_deadline()) {
      step(raft::Tick{});
    } else {
      arm();
    }
  });
}

// --- The network.

void RaftServer::on_frame(NodeId, ByteView frame) {
  if (dead_ || raft_ == nullptr || frame.empty()) return;
  const auto kind = static_cast<uint8_t>(frame.front());
  frame.remove_prefix(1);
  if (kind == kConsensusFrame) {
    const Result<raft::OwnedMessage> message = raft::OwnedMessage::decode(frame);
    if (message) {
      step(raft::Receive{message->message()});
    } else if (!knobs_.hostile) {
      check_.violate(fmt::format("server {}: a frame of a sound peer is {}", id_, message.error().message));
    }
    return;
  }
  ByteReader reader(frame);
  if (kind == kForwardFrame) {
    const NodeId origin(reader.varint());
    const Result<Command> command = decode_command(reader.rest());
    if (reader.ok() && command) propose(*command, origin);
  } else if (kind == kReplyFrame) {
    ClientReply reply;
    reply.client = static_cast<uint32_t>(reader.varint());
    reply.sequence = reader.varint();
    reply.kind = static_cast<ClientReply::Kind>(reader.fixed<uint8_t>());
    reply.index = LogIndex(reader.varint());
    reply.result.effective = true;
    reply.result.success = reader.fixed<uint8_t>() == 1;
    reply.result.before = reader.fixed<uint64_t>();
    if (reader.finished()) host_.on_reply(reply);
  }
}

void RaftServer::on_link_up(NodeId peer) {
  step(raft::LinkUp{.peer = host_.id_of(SimNetwork::index_of(peer))});
}

void RaftServer::on_link_broken(NodeId peer) {
  step(raft::LinkBroken{.peer = host_.id_of(SimNetwork::index_of(peer))});
}

// --- The log.

void RaftServer::write_next() {
  if (writing_ || dead_ || !log_->has_submitted()) return;
  const Result<WriteSequence> sequence = log_->write_batch();
  // Also where it failed: the disk may have taken it.
  check_.note_written(id_, log_->directory());
  if (!sequence) {
    if (survives(sequence.error())) check_.violate("a log laid out beforehand has no space");
    return;
  }
  writing_ = true;
  world_.after_disk(node_, [this, done = *sequence] { batch_done(done); });
}

void RaftServer::batch_done(WriteSequence sequence) {
  if (dead_) return;
  writing_ = false;
  ++batches_;
  marked_ = false;
  durable_ = sequence;
  check_.note_durable(id_);
  while (!held_.empty() && held_.front().after <= durable_) {
    Held held = std::move(held_.front());
    held_.pop_front();
    if (held.vote) check_.note_sent(*held.vote);
    send(held.to, held.lane, std::move(held.frame));
  }
  if (install_ && install_after_ <= durable_) install();
  if (dead_) return;
  if (compact_after_.value() > 0 && compact_after_ <= durable_) {
    compact_after_ = WriteSequence();
    const LogIndex keep = older_.last.index.value() > 0 ? older_.last.index : newest_.last.index;
    if (const Status removed = snapshots_.remove_before(keep); !removed && !survives(removed.error())) return;
  }
  step(raft::WriteDone{.sequence = sequence});
  if (!dead_ && !writing_) plan_mark();
}

void RaftServer::plan_mark() {
  if (marked_) return;
  marked_ = true;
  world_.at_local(node_, now() + kMarkAfter, [this, batches = batches_] {
    if (dead_ || writing_ || batches != batches_) return;
    if (const Status status = log_->write_mark(); !status) {
      (void)survives(status.error());
      return;
    }
    writing_ = true;
    world_.after_disk(node_, [this] {
      writing_ = false;
      if (!dead_) write_next();
    });
  });
}

void RaftServer::plan_scrub() {
  if (dead_) return;
  world_.at_local(node_, now() + knobs_.scrub_every, [this] {
    scrub();
    plan_scrub();
  });
}

// Damage is best found while others still hold what it took.
void RaftServer::scrub() {
  // What is on its way to the disk is not where it was.
  if (dead_ || writing_ || log_->has_submitted() || install_) return;
  const auto lost = log_->scrub(kScrubEntries);
  if (!lost) {
    (void)survives(lost.error());
    return;
  }
  for (LogIndex index : *lost) {
    if (raft_ == nullptr || dead_) return;
    if (!disk().was_ever_damaged()) check_.violate(fmt::format("server {}: a sound disk lost entry {}", id_, index));
    if (index >= raft_->log().first_index() && index <= raft_->log().last_index()) {
      step(raft::HoleFound{.from = index, .to = index});
    }
  }
}

bool RaftServer::suffer_holes(uint64_t count, bool found_at_work, Random& random) {
  if (dead_ || raft_ == nullptr || writing_ || log_->has_submitted() || install_) return false;
  const LogIndex first = raft_->log().first_index();
  const LogIndex last = raft_->log().contiguous_last();
  if (last < first) return false;
  const LogIndex from = first + random.below(last - first + 1);
  LogIndex to;
  for (LogIndex index = from; index <= last && index - from < count; ++index) {
    const uint64_t sector = log_->sector_of(index);
    if (sector == MinimalLog::kNowhere || !disk().corrupt("log", sector, random)) break;
    to = index;
  }
  if (to.value() == 0) return false;
  check_.note_struck(id_);
  if (found_at_work) {
    step(raft::HoleFound{.from = from, .to = to});
  } else {
    die();
  }
  return true;
}

bool RaftServer::suffer_loss_of_directory(Random& random) {
  if (dead_ || raft_ == nullptr || writing_) return false;
  const auto [head, tail] = log_->directory_sectors();
  if (!disk().corrupt("log", head, random) || !disk().corrupt("log", tail, random)) return false;
  check_.note_struck(id_);
  die();
  return true;
}

// --- Snapshots.

void RaftServer::take_snapshot() {
  if (dead_ || snapshotting_ || install_ || raft_ == nullptr || compact_after_.value() > 0) return;
  const LogIndex at = machine_.applied();
  if (at <= raft_->snapshot().last.index || at < raft_->log().first_index()) return;
  const bool due = at - raft_->snapshot().last.index >= knobs_.snapshot_every_of(node_);
  if ((!due && !snapshot_wanted_) || now() < snapshot_not_before_) return;
  // A place in a gap has a term, but not one that the leader confirmed.
  if (raft_->log().contiguous_last() < at) return;
  const SnapshotMark mark{.last = raft_->log().position_at(at), .membership = raft_->membership_at(at)};
  // A new server that was sent the log from its first entry: the members it began with stand in no entry, and until one
  // names members this server does not know what its snapshot would have to say.
  if (mark.membership.empty()) {
    REACHED(sim_raft_members_not_known_yet);
    return;
  }
  if (const Status written = snapshots_.write(mark, machine_.encode_state()); !written) {
    if (survives(written.error())) snapshot_not_before_ = now() + kSpaceRetry;
    return;
  }
  snapshotting_ = true;
  snapshot_wanted_ = false;
  world_.after_disk(node_, [this, mark] {
    if (dead_) return;
    snapshotting_ = false;
    snapshot_done(mark);
  });
}

void RaftServer::snapshot_done(const SnapshotMark& mark) {
  if (mark.last.index <= raft_->snapshot().last.index) {
    // One that was sent came first.
    if (mark.last != raft_->snapshot().last) {
      if (const Status removed = snapshots_.remove(mark.last); !removed) (void)survives(removed.error());
    }
    return;
  }
  older_ = newest_;
  newest_ = mark;
  const LogIndex keep_from = older_.last.index.next();
  step_once(raft::Compact{.mark = mark, .keep_from = keep_from});
  if (dead_) return;
  // Older files go once the log says that they are not needed.
  if (output_.write) compact_after_ = output_.write->sequence;
  arm();
}

void RaftServer::install() {
  const SnapshotMark mark = *install_;
  const Result<std::string> state = snapshots_.load(mark.last);
  Result<RegisterMachine> machine = fail(ErrorCode::kMalformed, "not read");
  if (state) machine = RegisterMachine::decode_state(*state);
  if (!machine) {
    die();
    return;
  }
  install_.reset();
  ASSERT_CMP(machine->applied(), ==, mark.last.index);
  machine_ = *machine;
  check_.note_state(id_, mark.last.index, machine_.digest());
  newest_ = mark;
  older_ = {};
  if (const Status removed = snapshots_.remove_before(mark.last.index); !removed && !survives(removed.error())) return;
  apply();
}

bool RaftServer::fill_chunk(raft::SnapshotChunk& chunk, std::string& bytes) {
  Result<SnapshotStore::Piece> piece = snapshots_.read(chunk.mark.last, chunk.offset, knobs_.chunk_bytes);
  if (!piece && piece.error().code == ErrorCode::kOutOfRange) {
    // The peer says that it has more than there is: from the start.
    chunk.offset = 0;
    piece = snapshots_.read(chunk.mark.last, 0, knobs_.chunk_bytes);
  }
  if (!piece) {
    if (piece.error().code == ErrorCode::kCrashed || piece.error().code == ErrorCode::kIo) {
      die();
      return false;
    }
    // Damaged here: a new one takes its place.
    REACHED(sim_raft_damaged_snapshot_asked_for);
    snapshot_wanted_ = true;
    world_.after_disk(node_, [this, mark = chunk.mark] {
      if (!dead_) step(raft::SnapshotUnreadable{.mark = mark});
    });
    return false;
  }
  bytes = std::move(piece->bytes);
  chunk.total = piece->total;
  chunk.bytes = bytes;
  return true;
}

void RaftServer::store_chunk(const raft::ChunkToStore& chunk) {
  if (install_) return;  // one at a time; what is lost is sent again
  Result<bool> whole = snapshots_.receive(chunk.mark, chunk.offset, chunk.total, chunk.bytes);
  if (!whole) {
    if (whole.error().code != ErrorCode::kMalformed && whole.error().code != ErrorCode::kUnreadable) {
      (void)survives(whole.error());
      return;
    }
    whole = false;
  }
  const uint64_t offset = *whole ? chunk.total : snapshots_.received(chunk.mark.last);
  world_.after_disk(node_, [this, from = chunk.from, mark = chunk.mark, offset, complete = *whole] {
    if (dead_) return;
    // A second transfer may have ended while this one's bytes were on their way to the disk.
    step(raft::ChunkStored{.from = from, .mark = mark, .offset = offset, .complete = complete && !install_});
    const bool kept = mark.last == newest_.last || mark.last == older_.last || snapshotting_ ||
                      (install_ && install_->last == mark.last);
    if (complete && !dead_ && !kept) {
      REACHED(sim_raft_transfer_too_late);
      if (const Status removed = snapshots_.remove(mark.last); !removed) (void)survives(removed.error());
    }
  });
}

// --- The state.

void RaftServer::apply() {
  if (install_) return;
  const raft::Log& log = raft_->log();
  const LogIndex end = std::min(raft_->status().commit, log.contiguous_last());
  while (machine_.applied() < end) {
    const LogIndex next = machine_.applied().next();
    ASSERT_CMP(next, >=, log.first_index());
    const Entry& entry = log.entry(next);
    const ApplyResult result = machine_.apply(entry);
    if (!knobs_.hostile) check_.note_state(id_, next, machine_.digest());
    applied(entry, result);
  }
  std::erase_if(reads_, [this](const WaitingRead& read) {
    if (read.index > machine_.applied()) return false;
    host_.on_reply({.client = read.client,
                    .sequence = read.sequence,
                    .index = machine_.applied(),
                    .value = machine_.value(read.place)});
    return true;
  });
  take_snapshot();
}

void RaftServer::applied(const Entry& entry, const ApplyResult& result) {
  while (!proposals_.empty() && proposals_.begin()->first <= entry.index) {
    const auto [index, proposal] = *proposals_.begin();
    proposals_.erase(proposals_.begin());
    if (index != entry.index) continue;  // covered by a snapshot: its fate was not seen
    ClientReply answer{.client = proposal.client, .sequence = proposal.sequence, .index = index, .result = result};
    if (proposal.term != entry.term) {
      // Another leader's entry stands there. Asked once and here, it can never take effect.
      if (proposal.origin.is_set()) continue;
      REACHED(sim_raft_proposal_overwritten);
      answer.kind = ClientReply::Kind::kRefused;
    } else if (!result.effective) {
      continue;  // a copy; the first one's reply is the one
    }
    reply(proposal.origin, answer);
  }
}

// --- Clients.

void RaftServer::write(const Command& command) {
  if (dead_ || raft_ == nullptr) return;
  const raft::Status status = raft_->status();
  if (status.role == raft::Role::kLeader) {
    propose(command, NodeId());
  } else if (status.leader.is_set()) {
    std::string frame(1, static_cast<char>(kForwardFrame));
    ByteWriter writer(frame);
    writer.varint(id_.value());
    writer.raw(encode(command));
    send(status.leader, env::Lane::kForward, std::move(frame));
  } else {
    host_.on_reply({.client = command.client, .sequence = command.sequence, .kind = ClientReply::Kind::kRefused});
  }
}

void RaftServer::propose(const Command& command, NodeId origin) {
  ClientReply refusal{.client = command.client, .sequence = command.sequence};
  refusal.kind = origin.is_set() ? ClientReply::Kind::kTryElsewhere : ClientReply::Kind::kRefused;
  if (log_->is_nearly_full()) {
    reply(origin, refusal);
    return;
  }
  const SharedBytes bytes = SharedBytes::copy_of(encode(command));
  step_once(raft::Propose{.commands = {&bytes, 1}});
  if (dead_) return;
  if (output_.proposal->refusal == raft::Refusal::kNone) {
    proposals_[output_.proposal->first] = {
        .term = output_.proposal->term, .client = command.client, .sequence = command.sequence, .origin = origin};
    // Alone in its cluster and on a fast disk it may have been applied already: not before its write is durable.
    ASSERT_CMP(machine_.applied(), <, output_.proposal->first);
  } else {
    reply(origin, refusal);
  }
  arm();
}

void RaftServer::reply(NodeId origin, const ClientReply& reply) {
  if (!origin.is_set() || origin == id_) {
    host_.on_reply(reply);
  } else {
    send(origin, env::Lane::kForward, frame_of(reply));
  }
}

void RaftServer::read(uint32_t client, uint64_t sequence, uint8_t place) {
  if (dead_ || raft_ == nullptr || asked_.size() >= kWaitingMax) return;
  const uint64_t context = ++last_context_;
  asked_[context] = {.client = client, .sequence = sequence, .place = place};
  step(raft::Read{.context = context});
}

void RaftServer::answer_reads() {
  for (const raft::ReadResult& result : output_.reads) {
    const auto asked = asked_.find(result.context);
    if (asked == asked_.end()) continue;
    WaitingRead read = asked->second;
    asked_.erase(asked);
    if (result.refusal != raft::Refusal::kNone) {
      host_.on_reply({.client = read.client, .sequence = read.sequence, .kind = ClientReply::Kind::kRefused});
      continue;
    }
    read.index = result.index;
    reads_.push_back(read);
  }
}

raft::Refusal RaftServer::transfer(NodeId to) {
  if (dead_ || raft_ == nullptr) return raft::Refusal::kNotLeader;
  step(raft::Transfer{.to = to});
  return dead_ ? raft::Refusal::kNotLeader : output_.refused;
}

raft::Refusal RaftServer::change_membership(const Membership& target) {
  if (dead_ || raft_ == nullptr) return raft::Refusal::kNotLeader;
  step_once(raft::ProposeMembership{.target = target});
  if (dead_) return raft::Refusal::kNotLeader;
  arm();
  return output_.proposal->refusal;
}

std::string RaftServer::describe() const {
  if (raft_ == nullptr) return fmt::format("{}: starting", id_);
  return fmt::format("{}: {} applied {} members {}{}", id_, raft::describe(raft_->status()), machine_.applied(),
                     raft_->membership().describe(), install_ ? " installing" : "");
}

}  // namespace conclave::sim
