// Links accepted from peers, and the table of those made to them (peer_sender.cc).
#include "net/peer_links.h"

#include <algorithm>
#include <utility>

#include "base/assert.h"
#include "base/mark.h"
#include "net/peer_sender.h"
#include "net/tcp.h"
#include "net/tls_socket.h"

namespace conclave::net {
namespace {

// Members are at most 16; the rest is room for connections that were not yet noticed to be dead, and for strangers.
// Beyond it the oldest that has not said hello makes room: who connects and says nothing keeps no member out.
constexpr size_t kAcceptedMax = 64;
constexpr Duration kHelloPatience = std::chrono::seconds(2);
constexpr Duration kSilencePatience = std::chrono::seconds(3);

class TcpPeerLinks;

// A link accepted from a peer: its hello, then its frames.
class PeerReader final : public TcpEvents {
 public:
  PeerReader(TcpPeerLinks& links, std::unique_ptr<TcpSocket> socket);
  PeerReader(const PeerReader&) = delete;
  PeerReader& operator=(const PeerReader&) = delete;
  ~PeerReader() override;

  void on_connected() override { is_secured_ = true; }
  void on_bytes(ByteView bytes) override;
  void on_writable() override {}
  void on_closed(TcpEnd end) override;

  void read_next() { socket_->read_next(); }
  // Nobody is told.
  void close();
  [[nodiscard]] NodeId from() const { return from_; }  // not set before its hello
  [[nodiscard]] Boot boot() const { return boot_; }
  [[nodiscard]] bool is_closed() const { return closed_; }
  // Null: plain.
  [[nodiscard]] const TlsSession* tls() const { return socket_->tls(); }

 private:
  // How many of the bytes were the hello's; the rest are frames.
  [[nodiscard]] size_t take_hello(ByteView bytes);
  void greet(const PeerHello& hello);
  [[nodiscard]] bool answer(PeerVerdict verdict, NodeId to);
  void break_link();

  TcpPeerLinks& links_;
  std::unique_ptr<TcpSocket> socket_;
  std::string hello_;
  PeerFrameReader frames_;
  NodeId from_;
  Boot boot_;
  TimerId timer_ = 0;
  bool is_secured_ = false;  // the handshake is done
  bool closed_ = false;
};

class TcpPeerLinks final : public PeerLinks {
 public:
  TcpPeerLinks(Loop& loop, env::NetworkReceiver& receiver, PeerLinksOptions options)
      : loop_(loop), receiver_(receiver), options_(std::move(options)) {}
  TcpPeerLinks(const TcpPeerLinks&) = delete;
  TcpPeerLinks& operator=(const TcpPeerLinks&) = delete;
  ~TcpPeerLinks() override { loop_.cancel(farewell_); }

  Status open() {
    ASSIGN_OR_RETURN(listener_,
                     TcpListener::listen(loop_, options_.address, options_.port,
                                         [this](std::unique_ptr<TcpSocket> socket) { accept(std::move(socket)); }));
    port_ = listener_->port();
    set_peers(std::exchange(options_.peers, {}));
    return {};
  }

  void send(NodeId to, env::Lane lane, std::string frame) override {
    PeerSender* sender = find(to);
    if (sender == nullptr) sender = find_leaving(to);
    if (sender != nullptr) sender->send(lane, std::move(frame));
  }
  [[nodiscard]] uint16_t port() const override { return port_; }
  void set_peers(std::vector<PeerAddress> peers) override;
  void flush() override;
  [[nodiscard]] std::vector<PeerLinkState> states() const override;
  void set_tls(std::shared_ptr<const TlsContext> tls) override;
  [[nodiscard]] uint64_t tls_failures() const override { return tls_failures_; }
  void count_tls_failure() { ++tls_failures_; }
  [[nodiscard]] PortCounts port_counts() const override {
    PortCounts counts = port_counts_;
    counts.failures = listener_->failures();
    return counts;
  }
  void count_timeout() { ++port_counts_.timeouts; }

  Loop& loop() { return loop_; }
  env::NetworkReceiver& receiver() { return receiver_; }
  const PeerLinksOptions& options() { return options_; }
  // What to answer to this hello; replaces an earlier link of the same peer.
  [[nodiscard]] PeerVerdict judge(const PeerHello& hello, PeerReader& reader);
  void on_heard(NodeId from, Boot boot) {
    if (PeerSender* sender = find(from)) sender->on_heard(boot);
  }
  void count_corruption(NodeId from) { count(corruptions_, from); }
  void count_received(NodeId from, size_t bytes) {
    port_counts_.bytes_received += bytes;
    count(received_, from, bytes);
  }

 private:
  using Counts = std::vector<std::pair<NodeId, uint64_t>>;
  static void count(Counts& counts, NodeId of, uint64_t by = 1);
  [[nodiscard]] static uint64_t count_of(const Counts& counts, NodeId of);
  PeerSender* find(NodeId id) {
    for (const auto& sender : senders_) {
      if (sender->address().id == id) return sender.get();
    }
    return nullptr;
  }
  PeerSender* find_leaving(NodeId id) {
    for (const Leaving& leaving : leaving_) {
      if (leaving.sender->address().id == id) return leaving.sender.get();
    }
    return nullptr;
  }
  void accept(std::unique_ptr<TcpSocket> socket);
  [[nodiscard]] bool make_room();
  void retire(std::unique_ptr<PeerSender> sender);
  void end_leaving();

  struct Leaving {
    std::unique_ptr<PeerSender> sender;
    Instant until;
  };

  Loop& loop_;
  env::NetworkReceiver& receiver_;
  PeerLinksOptions options_;
  std::unique_ptr<TcpListener> listener_;
  uint16_t port_ = 0;
  std::vector<std::unique_ptr<PeerSender>> senders_;  // few: searched in order
  std::vector<Leaving> leaving_;                      // named no more, until their time is over
  TimerId farewell_ = 0;
  std::vector<std::unique_ptr<PeerSender>> stopped_;  // until the next flush(): its functions may be running
  std::vector<std::unique_ptr<PeerReader>> readers_;
  Counts corruptions_;
  Counts impostors_;
  Counts received_;  // bytes
  uint64_t tls_failures_ = 0;
  PortCounts port_counts_;
};

PeerReader::PeerReader(TcpPeerLinks& links, std::unique_ptr<TcpSocket> socket)
    : links_(links), socket_(std::move(socket)) {
  socket_->set_events(*this);
  socket_->set_patience(kSilencePatience);
  timer_ = links_.loop().call_at(links_.loop().now() + kHelloPatience, [this] {
    timer_ = 0;
    if (!closed_) links_.count_timeout();
    close();
  });
}

PeerReader::~PeerReader() {
  links_.loop().cancel(timer_);
}

void PeerReader::close() {
  if (std::exchange(closed_, true)) return;
  if (socket_->tls() != nullptr && !is_secured_) links_.count_tls_failure();
  socket_->close();
}

void PeerReader::break_link() {
  if (closed_) return;
  close();
  if (from_.is_set()) links_.receiver().on_link_broken(from_);
}

void PeerReader::on_closed(TcpEnd) {
  break_link();
}

void PeerReader::on_bytes(ByteView bytes) {
  if (!from_.is_set()) {
    bytes.remove_prefix(take_hello(bytes));
    if (!from_.is_set()) return;
  }
  links_.count_received(from_, bytes.size());
  frames_.feed(bytes);
  while (!closed_) {
    PeerFrame frame;
    switch (frames_.next(frame)) {
      case PeerFrameReader::Next::kFrame:
        links_.receiver().on_frame(from_, frame.payload);
        break;
      case PeerFrameReader::Next::kMore:
        return;
      case PeerFrameReader::Next::kBad:
        REACHED(net_peer_frame_corrupt);
        links_.count_corruption(from_);
        return break_link();
    }
  }
}

size_t PeerReader::take_hello(ByteView bytes) {
  const size_t count = std::min(kPeerHelloBytes - hello_.size(), bytes.size());
  hello_.append(bytes.substr(0, count));
  if (hello_.size() < kPeerHelloBytes) return count;
  const Result<PeerHello> hello = decode_peer_hello(hello_);
  if (hello && !hello->is_answer) {
    greet(*hello);
  } else {
    if (!hello && hello.error().code == ErrorCode::kVersion) (void)answer(PeerVerdict::kVersion, NodeId());
    close();
  }
  return count;
}

void PeerReader::greet(const PeerHello& hello) {
  const PeerVerdict verdict = links_.judge(hello, *this);
  if (!answer(verdict, hello.member) || verdict != PeerVerdict::kWelcome) {
    // Ended in order, so that the answer arrives.
    socket_->end_writing();
    closed_ = true;
    return;
  }
  links_.loop().cancel(std::exchange(timer_, 0));
  from_ = hello.member;
  boot_ = hello.boot;
  links_.on_heard(from_, boot_);
}

bool PeerReader::answer(PeerVerdict verdict, NodeId to) {
  const PeerLinksOptions& self = links_.options();
  const std::string answer = encode(PeerHello{.is_answer = true,
                                              .verdict = verdict,
                                              .cluster = self.cluster,
                                              .member = self.self,
                                              .boot = self.boot,
                                              .receiver = to,
                                              .features = self.features});
  const ByteView piece = answer;
  return socket_->write({&piece, 1}) == answer.size();
}

PeerVerdict TcpPeerLinks::judge(const PeerHello& hello, PeerReader& reader) {
  if (hello.cluster != options_.cluster) return PeerVerdict::kWrongCluster;
  if (hello.receiver != options_.self || hello.member == options_.self || !hello.member.is_set()) {
    return PeerVerdict::kWrongReceiver;
  }
  if (!hello.features.meets(options_.features)) {
    REACHED(net_peer_features_apart);
    return PeerVerdict::kFeatures;
  }
  if (const TlsSession* const tls = reader.tls(); tls != nullptr) {
    PeerSender* const known = find(hello.member);
    if (known == nullptr || !tls->names_member(known->address().name)) {
      REACHED(net_peer_impostor);
      if (known != nullptr) count(impostors_, hello.member);
      return PeerVerdict::kUntrusted;
    }
  } else if (options_.is_known && !options_.is_known(hello.member)) {
    REACHED(net_peer_stranger);
    return PeerVerdict::kStranger;
  }
  for (const auto& other : readers_) {
    if (other.get() == &reader || other->is_closed() || other->from() != hello.member) continue;
    if (other->boot() > hello.boot) return PeerVerdict::kOldBoot;
    // The same life connects again before we noticed that its last link broke: nothing to tell. A newer one: the old
    // process is gone.
    const bool is_newer = other->boot() < hello.boot;
    other->close();
    if (is_newer) receiver_.on_link_broken(hello.member);
  }
  return PeerVerdict::kWelcome;
}

// Those closed stay in the list until the next flush(): as many come in one turn as the listener takes.
bool TcpPeerLinks::make_room() {
  const auto is_open = [](const auto& reader) { return !reader->is_closed(); };
  if (std::ranges::count_if(readers_, is_open) < static_cast<std::ptrdiff_t>(kAcceptedMax)) return true;
  const auto silent = std::ranges::find_if(
      readers_, [](const auto& reader) { return !reader->is_closed() && !reader->from().is_set(); });
  if (silent == readers_.end()) return false;
  REACHED(net_peer_link_evicted);
  ++port_counts_.evicted;
  (*silent)->close();
  return true;
}

void TcpPeerLinks::accept(std::unique_ptr<TcpSocket> socket) {
  if (!make_room()) {
    REACHED(net_peer_links_full);
    ++port_counts_.refused;
    return;  // destroys, and so closes it
  }
  ++port_counts_.accepted;
  if (options_.tls) socket = accept_tls(std::move(socket), options_.tls);
  readers_.push_back(std::make_unique<PeerReader>(*this, std::move(socket)));
}

void TcpPeerLinks::set_peers(std::vector<PeerAddress> peers) {
  std::vector<std::unique_ptr<PeerSender>> before = std::exchange(senders_, {});
  // Who comes back in its time finds its link.
  for (Leaving& leaving : leaving_) before.push_back(std::move(leaving.sender));
  leaving_.clear();
  for (PeerAddress& peer : peers) {
    if (peer.id == options_.self || !peer.id.is_set() || find(peer.id) != nullptr) continue;
    const auto same = std::find_if(before.begin(), before.end(), [&](const auto& sender) {
      return sender && sender->address().id == peer.id && sender->address().host == peer.host &&
             sender->address().port == peer.port && sender->address().name == peer.name;
    });
    if (same != before.end()) {
      senders_.push_back(std::move(*same));
      continue;
    }
    senders_.push_back(std::make_unique<PeerSender>(
        loop_, receiver_,
        PeerSender::Self{
            .cluster = options_.cluster, .id = options_.self, .boot = options_.boot, .features = options_.features},
        std::move(peer), options_.tls));
    senders_.back()->start();
  }
  for (auto& sender : before) {
    if (sender) retire(std::move(sender));
  }
}

void TcpPeerLinks::retire(std::unique_ptr<PeerSender> sender) {
  if (find(sender->address().id) != nullptr) {
    // Its address is another one now: nothing is lost that would not be said again.
    sender->stop();
    stopped_.push_back(std::move(sender));
    return;
  }
  leaving_.push_back({.sender = std::move(sender), .until = loop_.now() + kPeerFarewell});
  if (farewell_ == 0) farewell_ = loop_.call_at(leaving_.back().until, [this] { end_leaving(); });
}

void TcpPeerLinks::end_leaving() {
  farewell_ = 0;
  for (Leaving& leaving : leaving_) {
    if (leaving.until > loop_.now()) continue;
    for (const auto& reader : readers_) {
      if (reader->from() == leaving.sender->address().id) reader->close();
    }
    leaving.sender->stop();
    stopped_.push_back(std::move(leaving.sender));
  }
  std::erase_if(leaving_, [](const Leaving& leaving) { return leaving.sender == nullptr; });
  if (!leaving_.empty()) farewell_ = loop_.call_at(leaving_.front().until, [this] { end_leaving(); });
}

void TcpPeerLinks::flush() {
  stopped_.clear();
  std::erase_if(readers_, [](const auto& reader) { return reader->is_closed(); });
  for (const auto& reader : readers_) reader->read_next();
  bool more = false;
  for (const auto& sender : senders_) more = sender->flush() || more;
  for (const Leaving& leaving : leaving_) more = leaving.sender->flush() || more;
  if (more) loop_.post([] {});
}

void TcpPeerLinks::set_tls(std::shared_ptr<const TlsContext> tls) {
  ASSERT(options_.tls != nullptr && tls != nullptr);
  for (const auto& sender : senders_) sender->set_tls(tls);
  options_.tls = std::move(tls);
}

void TcpPeerLinks::count(Counts& counts, NodeId of, uint64_t by) {
  for (auto& [id, count] : counts) {
    if (id == of) {
      count += by;
      return;
    }
  }
  if (counts.size() < kAcceptedMax) counts.emplace_back(of, by);
}

uint64_t TcpPeerLinks::count_of(const Counts& counts, NodeId of) {
  for (const auto& [id, count] : counts) {
    if (id == of) return count;
  }
  return 0;
}

std::vector<PeerLinkState> TcpPeerLinks::states() const {
  std::vector<PeerLinkState> states;
  for (const auto& sender : senders_) {
    states.push_back(sender->state());
    states.back().bytes_received = count_of(received_, states.back().id);
    states.back().corruptions = count_of(corruptions_, states.back().id);
    states.back().impostors = count_of(impostors_, states.back().id);
  }
  return states;
}

}  // namespace

Result<std::unique_ptr<PeerLinks>> PeerLinks::listen(Loop& loop, env::NetworkReceiver& receiver,
                                                     const PeerLinksOptions& options) {
  auto links = std::make_unique<TcpPeerLinks>(loop, receiver, options);
  RETURN_IF_ERROR(links->open());
  return links;
}

}  // namespace conclave::net
