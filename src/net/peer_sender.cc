#include "net/peer_sender.h"

#include <algorithm>
#include <utility>

#include "base/mark.h"
#include "net/tls_socket.h"

namespace conclave::net {
namespace {

constexpr size_t kUrgentBytesMax = size_t{64} << 20;
constexpr size_t kBulkBytesMax = size_t{64} << 20;
// Frames chosen, and bytes in the kernel that have not left: what a heartbeat waits behind.
constexpr size_t kChosenBytes = size_t{256} << 10;
constexpr size_t kFlushBytesMax = size_t{4} << 20;
constexpr Duration kWaitMin = std::chrono::milliseconds(10);
constexpr Duration kWaitMax = std::chrono::seconds(1);
// Where waiting changes nothing: the address or the cluster is wrong.
constexpr Duration kRefusedWait = std::chrono::seconds(5);
constexpr Duration kConnectPatience = std::chrono::seconds(2);
// A partition that heals is noticed by the next attempt, not by TCP's next retransmission, which may be minutes away.
constexpr Duration kSilencePatience = std::chrono::seconds(3);

bool is_bulk(env::Lane lane) {
  return lane == env::Lane::kBulk;
}

}  // namespace

PeerSender::PeerSender(Loop& loop, env::NetworkReceiver& receiver, const Self& self, PeerAddress address,
                       std::shared_ptr<const TlsContext> tls)
    : loop_(loop),
      receiver_(receiver),
      self_(self),
      address_(std::move(address)),
      tls_(std::move(tls)),
      random_(self.id.value() ^ (address_.id.value() << 20) ^ (self.boot.value() << 40)) {
  counts_.id = address_.id;
}

PeerSender::~PeerSender() {
  stop();
}

void PeerSender::stop() {
  phase_ = Phase::kStopped;
  loop_.cancel(std::exchange(timer_, 0));
  if (socket_) socket_->close();
  drop_queued();
}

PeerLinkState PeerSender::state() const {
  PeerLinkState state = counts_;
  state.connected = phase_ == Phase::kStanding;
  return state;
}

void PeerSender::set_timer(Duration in, void (PeerSender::*call)()) {
  loop_.cancel(timer_);
  timer_ = loop_.call_at(loop_.now() + in, [this, call] {
    timer_ = 0;
    (this->*call)();
  });
}

Duration PeerSender::next_wait() {
  wait_ = wait_ == Duration::zero() ? kWaitMin : std::min(2 * wait_, kWaitMax);
  return random_.between(wait_ / 2, wait_);
}

void PeerSender::connect() {
  phase_ = Phase::kConnecting;
  answer_.clear();
  socket_ = tls_ ? connect_tls(loop_, *this, address_.host, address_.port, tls_, "")
                 : TcpSocket::connect(loop_, *this, address_.host, address_.port);
  set_timer(kConnectPatience, &PeerSender::on_patience_ended);
}

void PeerSender::on_patience_ended() {
  give_up(next_wait());
}

void PeerSender::on_connected() {
  if (socket_->tls() != nullptr && !socket_->tls()->names_member(address_.name)) {
    return refuse(PeerVerdict::kUntrusted);
  }
  phase_ = Phase::kGreeting;
  socket_->set_patience(kSilencePatience);
  socket_->set_unsent_max(kChosenBytes);
  const std::string hello = encode(PeerHello{.cluster = self_.cluster,
                                             .member = self_.id,
                                             .boot = self_.boot,
                                             .receiver = address_.id,
                                             .features = self_.features});
  const ByteView piece = hello;
  if (socket_->write({&piece, 1}) != hello.size()) return give_up(next_wait());
  socket_->read_next();
}

void PeerSender::on_bytes(ByteView bytes) {
  // Nothing follows the answer on this link.
  if (phase_ != Phase::kGreeting || answer_.size() + bytes.size() > kPeerHelloBytes) {
    const bool stood = phase_ == Phase::kStanding;
    give_up(next_wait());
    if (stood) receiver_.on_link_broken(address_.id);
    return;
  }
  answer_.append(bytes);
  if (answer_.size() < kPeerHelloBytes) return socket_->read_next();
  const Result<PeerHello> hello = decode_peer_hello(answer_);
  if (hello && hello->is_answer) return on_answer(*hello);
  refuse(!hello && hello.error().code == ErrorCode::kVersion ? PeerVerdict::kVersion : PeerVerdict::kWrongReceiver);
}

void PeerSender::on_answer(const PeerHello& hello) {
  if (hello.verdict != PeerVerdict::kWelcome) return refuse(hello.verdict);
  if (hello.cluster != self_.cluster) return refuse(PeerVerdict::kWrongCluster);
  if (hello.member != address_.id || hello.receiver != self_.id) return refuse(PeerVerdict::kWrongReceiver);
  if (!hello.features.meets(self_.features)) return refuse(PeerVerdict::kFeatures);
  loop_.cancel(std::exchange(timer_, 0));
  phase_ = Phase::kStanding;
  peer_boot_ = hello.boot;
  wait_ = Duration::zero();
  just_broke_ = false;
  writable_ = true;
  socket_->read_next();  // only its end can come
  receiver_.on_link_up(address_.id);
}

void PeerSender::refuse(PeerVerdict verdict) {
  REACHED(net_peer_refused);
  ++counts_.refusals;
  counts_.refusal = verdict;
  // Who is not known yet may be in a moment: a peer that is behind learns of a new member late.
  const bool for_long =
      verdict != PeerVerdict::kFull && verdict != PeerVerdict::kOldBoot && verdict != PeerVerdict::kStranger;
  give_up(for_long ? kRefusedWait : next_wait());
}

void PeerSender::on_closed(TcpEnd end) {
  const bool stood = phase_ == Phase::kStanding;
  if (end == TcpEnd::kTls && !stood) return refuse(PeerVerdict::kUntrusted);
  // Nobody listens there any more: now it is sure that the process ended.
  const bool gone = just_broke_ && end == TcpEnd::kRefused;
  give_up(next_wait());
  just_broke_ = stood;
  if (stood || gone) receiver_.on_link_broken(address_.id);
}

void PeerSender::give_up(Duration wait) {
  if (phase_ == Phase::kStanding) ++counts_.breaks;
  phase_ = Phase::kWaiting;
  just_broke_ = false;
  socket_->close();
  drop_queued();
  set_timer(wait, &PeerSender::connect);
}

void PeerSender::on_heard(Boot boot) {
  if (phase_ == Phase::kStanding && peer_boot_ < boot) {
    // The process this link went to is gone; TCP does not know yet.
    REACHED(net_peer_heard_in_new_boot);
    give_up(Duration::zero());
    receiver_.on_link_broken(address_.id);
  }
  if (phase_ == Phase::kWaiting) {
    wait_ = Duration::zero();
    connect();
  }
}

void PeerSender::send(env::Lane lane, std::string frame) {
  size_t& queued = is_bulk(lane) ? bulk_bytes_ : urgent_bytes_;
  const size_t queued_max = is_bulk(lane) ? kBulkBytesMax : kUrgentBytesMax;
  // While an attempt is under way frames wait for it: the first messages of a starting cluster are not lost.
  if (phase_ == Phase::kWaiting || phase_ == Phase::kStopped || frame.size() > kPeerFrameBytesMax ||
      queued + frame.size() > queued_max) {
    ++counts_.frames_dropped;
    return;
  }
  queued += frame.size();
  lanes_[static_cast<size_t>(lane)].push_back(std::move(frame));
}

void PeerSender::drop_queued() {
  for (auto& lane : lanes_) {
    counts_.frames_dropped += lane.size();
    lane.clear();
  }
  counts_.frames_dropped += chosen_.size();
  chosen_.clear();
  urgent_bytes_ = bulk_bytes_ = chosen_bytes_ = written_ = 0;
}

// The next frames to go, in the order of lanes. Only when all chosen before are with the kernel.
void PeerSender::choose() {
  for (size_t i = 0; i < kLanes; ++i) {
    Ring<std::string>& lane = lanes_[i];
    const auto which = static_cast<env::Lane>(i);
    while (!lane.empty() && chosen_bytes_ < kChosenBytes) {
      std::string payload = std::move(lane.front());
      lane.pop_front();
      (is_bulk(which) ? bulk_bytes_ : urgent_bytes_) -= payload.size();
      chosen_bytes_ += kPeerFrameHeadBytes + payload.size();
      const auto head = encode_peer_frame_head(which, payload);
      chosen_.push_back({.head = head, .payload = std::move(payload)});
    }
  }
}

// False: the socket takes no more for now.
bool PeerSender::write_chosen() {
  while (!chosen_.empty()) {
    std::array<ByteView, 64> pieces;
    size_t count = 0;
    size_t wanted = 0;
    size_t skip = written_;
    for (size_t i = 0; i < chosen_.size() && count + 2 <= pieces.size(); ++i) {
      for (ByteView piece : {ByteView(chosen_[i].head.data(), kPeerFrameHeadBytes), ByteView(chosen_[i].payload)}) {
        const size_t skipped = std::min(skip, piece.size());
        skip -= skipped;
        piece.remove_prefix(skipped);
        if (!piece.empty()) pieces[count++] = piece;
        wanted += piece.size();
      }
    }
    const size_t taken = socket_->write({pieces.data(), count});
    counts_.bytes_sent += taken;
    written_ += taken;
    while (!chosen_.empty() && written_ >= kPeerFrameHeadBytes + chosen_.front().payload.size()) {
      const size_t size = kPeerFrameHeadBytes + chosen_.front().payload.size();
      written_ -= size;
      chosen_bytes_ -= size;
      chosen_.pop_front();
      ++counts_.frames_sent;
    }
    if (taken < wanted) return false;
  }
  return true;
}

bool PeerSender::flush() {
  if (phase_ != Phase::kStanding || !writable_) return false;
  const uint64_t before = counts_.bytes_sent;
  for (;;) {
    if (chosen_.empty()) choose();
    if (chosen_.empty()) return false;
    if (!write_chosen()) {
      writable_ = false;
      return false;
    }
    if (counts_.bytes_sent - before > kFlushBytesMax) return true;
  }
}

}  // namespace conclave::net
