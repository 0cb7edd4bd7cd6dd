// PeerSender: the link this server makes to one peer: connecting, hello, lanes, trying again. Owns what waits to be
// sent. On the loop's thread.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <utility>

#include "base/random.h"
#include "base/ring.h"
#include "net/peer_links.h"
#include "net/tcp.h"

namespace conclave::net {

class PeerSender final : public TcpEvents {
 public:
  // Who greets.
  struct Self {
    ClusterId cluster;
    NodeId id;
    Boot boot;
    FeatureRange features;
  };

  PeerSender(Loop& loop, env::NetworkReceiver& receiver, const Self& self, PeerAddress address,
             std::shared_ptr<const TlsContext> tls);
  PeerSender(const PeerSender&) = delete;
  PeerSender& operator=(const PeerSender&) = delete;
  ~PeerSender() override;

  void start() { connect(); }
  // For good; nobody is told.
  void stop();
  // For the next attempt.
  void set_tls(std::shared_ptr<const TlsContext> tls) { tls_ = std::move(tls); }
  void send(env::Lane lane, std::string frame);
  // True if there is more than one turn's share.
  bool flush();
  // The peer was heard: it is there, in this boot.
  void on_heard(Boot boot);

  [[nodiscard]] const PeerAddress& address() const { return address_; }
  [[nodiscard]] PeerLinkState state() const;

  void on_connected() override;
  void on_bytes(ByteView bytes) override;
  void on_writable() override { writable_ = true; }
  void on_closed(TcpEnd end) override;

 private:
  enum class Phase : uint8_t { kWaiting, kConnecting, kGreeting, kStanding, kStopped };
  struct Chosen {
    std::array<char, kPeerFrameHeadBytes> head{};
    std::string payload;
  };

  void connect();
  void on_answer(const PeerHello& hello);
  void refuse(PeerVerdict verdict);
  // Back to waiting, then connect again.
  void give_up(Duration wait);
  void drop_queued();
  void choose();
  [[nodiscard]] bool write_chosen();
  void set_timer(Duration in, void (PeerSender::*call)());
  void on_patience_ended();
  [[nodiscard]] Duration next_wait();

  Loop& loop_;
  env::NetworkReceiver& receiver_;
  const Self self_;
  const PeerAddress address_;
  std::shared_ptr<const TlsContext> tls_;  // null: plain
  Random random_;                          // for the waits

  Phase phase_ = Phase::kWaiting;
  std::unique_ptr<TcpSocket> socket_;
  std::string answer_;  // what there is of the peer's hello
  Boot peer_boot_;      // while it stands
  TimerId timer_ = 0;   // one thing at a time: the end of a wait, or of patience
  Duration wait_{};
  bool just_broke_ = false;  // it stood, and no attempt ended since

  static constexpr size_t kLanes = 3;
  std::array<Ring<std::string>, kLanes> lanes_;
  size_t urgent_bytes_ = 0;  // of the first two lanes
  size_t bulk_bytes_ = 0;
  Ring<Chosen> chosen_;  // on their way: the first `written_` bytes of the front one are gone
  size_t chosen_bytes_ = 0;
  size_t written_ = 0;
  bool writable_ = false;
  PeerLinkState counts_;
};

}  // namespace conclave::net
