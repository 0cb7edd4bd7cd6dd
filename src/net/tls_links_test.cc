// The client port, the channel and the links between servers with TLS over loopback; and who does not keep to it.
#include <gtest/gtest.h>

#include <map>

#include "net/client.h"
#include "net/peer_links.h"
#include "net/server.h"
#include "net/testing/echo_service.h"
#include "net/testing/loop_test_base.h"
#include "net/testing/raw_peer.h"
#include "net/testing/test_certificates.h"
#include "net/tls_socket.h"

namespace conclave::net {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

class TlsServerTest : public LoopTest {
 protected:
  TlsServerTest() {
    loop.add_turn_end([this](Instant) {
      if (server) server->flush();
    });
    start({.tls = server_tls(certificate)});
  }
  void start(const ServerOptions& options) {
    auto made = Server::listen(loop, service, options);
    ASSERT_TRUE(made.has_value()) << made.error().message;
    server = std::move(*made);
  }
  // Asks clients for no certificate.
  [[nodiscard]] static std::shared_ptr<const TlsContext> server_tls(TlsFiles files) {
    files.ca.clear();
    return load_tls(TlsRole::kServer, files, server_protocols());
  }
  [[nodiscard]] std::unique_ptr<Channel> dial(const TlsFiles& files, const std::string& host = "127.0.0.1") {
    return Channel::make(loop, host, server->port(),
                         load_tls(TlsRole::kClient, files, {std::string(kChannelProtocol)}));
  }
  [[nodiscard]] std::unique_ptr<Channel> dial() { return dial({.ca = authority.ca()}); }

  struct Answer {
    bool done = false;
    GrpcStatus status;
    std::string response;
  };
  Answer call(Channel& channel, std::string_view request) {
    Answer answer;
    channel.call("/test.Echo/Unary", request, seconds(10), [&](const GrpcStatus& status, ByteView response) {
      answer = {.done = true, .status = status, .response = std::string(response)};
    });
    EXPECT_TRUE(run_until([&] { return answer.done; }));
    return answer;
  }

  TestDirectory directory;
  TestAuthority authority{directory, "ours"};
  TlsFiles certificate = authority.issue(CertificateUse::kServer, "one", {"127.0.0.1"});
  EchoService service;
  std::unique_ptr<Server> server;
};

TEST_F(TlsServerTest, CallsAndStreamsGoBothWays) {
  const auto channel = dial();
  const std::string large(kRequestBytesMax, 'x');
  const Answer answer = call(*channel, large);
  EXPECT_TRUE(answer.status.ok()) << answer.status.message;
  EXPECT_TRUE(answer.response == large);
  EXPECT_EQ(call(*channel, "small").response, "small");
  EXPECT_EQ(server->tls_counts().handshakes, 1U);
  EXPECT_EQ(server->tls_counts().failures, 0U);

  constexpr size_t kMebibytes = 20;
  size_t heard = 0;
  bool finished = false;
  auto stream = channel->open("/test.Echo/Flood", {.on_message = [&](ByteView message) { heard += message.size(); },
                                                   .on_finished =
                                                       [&](const GrpcStatus& status) {
                                                         EXPECT_TRUE(status.ok()) << status.message;
                                                         finished = true;
                                                       }});
  stream->send(std::string(kMebibytes, 'm'));
  stream->half_close();
  EXPECT_TRUE(run_until([&] { return finished; }));
  EXPECT_EQ(heard, kMebibytes << 20);
}

TEST_F(TlsServerTest, AHandshakeThatNobodyGoesOnWithMakesRoom) {
  start({.connections_max = 1, .tls = server_tls(certificate)});
  RawPeer silent(loop, server->port());
  EXPECT_TRUE(run_until([&] { return server->connections() == 1; }));
  const auto channel = dial();
  EXPECT_TRUE(call(*channel, "x").status.ok());
  EXPECT_TRUE(silent.is_closed());
  EXPECT_EQ(server->port_counts().evicted, 1U);
  EXPECT_EQ(server->tls_counts().failures, 1U);
}

TEST_F(TlsServerTest, Http1IsSpokenOverTlsToo) {
  class Browser final : public TcpEvents {
   public:
    void on_connected() override {
      const ByteView request = "GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
      EXPECT_EQ(socket->write({&request, 1}), request.size());
      socket->read_next();
    }
    void on_bytes(ByteView bytes) override {
      received.append(bytes);
      socket->read_next();
    }
    void on_writable() override {}
    void on_closed(TcpEnd how) override { end = how; }
    std::unique_ptr<TcpSocket> socket;
    std::string received;
    std::optional<TcpEnd> end;
  };
  for (const std::vector<std::string>& protocols : {std::vector<std::string>{"http/1.1"}, std::vector<std::string>{}}) {
    Browser browser;
    browser.socket = connect_tls(loop, browser, "127.0.0.1", server->port(),
                                 load_tls(TlsRole::kClient, {.ca = authority.ca()}, protocols), "127.0.0.1");
    EXPECT_TRUE(run_until([&] { return browser.end.has_value(); }));
    EXPECT_EQ(browser.end, TcpEnd::kClosed);
    EXPECT_TRUE(browser.received.starts_with("HTTP/1.1 200")) << browser.received;
    EXPECT_NE(browser.received.find("GET /health"), std::string::npos) << browser.received;
  }
  // Who agreed on h2 and speaks HTTP/1.1 is closed.
  Browser liar;
  liar.socket = connect_tls(loop, liar, "127.0.0.1", server->port(),
                            load_tls(TlsRole::kClient, {.ca = authority.ca()}, {"h2"}), "127.0.0.1");
  EXPECT_TRUE(run_until([&] { return liar.end.has_value(); }));
  EXPECT_EQ(liar.received, "");
}

TEST_F(TlsServerTest, ClientsSayWhyTheyRefuse) {
  const TestAuthority other(directory, "theirs");
  const auto stranger = dial({.ca = other.ca()});
  const Answer refused = call(*stranger, "x");
  EXPECT_EQ(refused.status.code, 14U);
  EXPECT_NE(refused.status.message.find("certificate is refused"), std::string::npos) << refused.status.message;
  const auto misled = dial({.ca = authority.ca()}, "localhost");
  const Answer wrong_name = call(*misled, "x");
  EXPECT_NE(wrong_name.status.message.find("mismatch"), std::string::npos) << wrong_name.status.message;
  EXPECT_TRUE(run_until([&] { return server->connections() == 0; }));
  EXPECT_EQ(server->tls_counts().failures, 2U);
  EXPECT_EQ(service.counts.opened, 0U);
}

TEST_F(TlsServerTest, ClientsMustShowCertificatesWhereTheServerHasAnAuthority) {
  start({.tls = load_tls(TlsRole::kServer, certificate, server_protocols())});
  const auto known = dial(authority.issue(CertificateUse::kClient, "me"));
  EXPECT_TRUE(call(*known, "x").status.ok());
  const auto nobody = dial();
  const Answer refused = call(*nobody, "x");
  EXPECT_EQ(refused.status.code, 14U);
  EXPECT_TRUE(refused.status.message.starts_with("TLS: ")) << refused.status.message;
  EXPECT_EQ(service.counts.opened, 1U);
}

TEST_F(TlsServerTest, PlaintextIsToldToUseTls) {
  RawPeer http1(loop, server->port());
  http1.send("GET /health HTTP/1.1\r\nhost: x\r\n\r\n");
  EXPECT_TRUE(run_until([&] { return http1.is_closed(); }));
  EXPECT_TRUE(http1.received().starts_with("HTTP/1.1 400")) << http1.received();
  EXPECT_NE(http1.received().find("speaks TLS only"), std::string::npos);
  // The channel reads the GOAWAY as what it is.
  const auto plain = Channel::make(loop, "127.0.0.1", server->port());
  const Answer refused = call(*plain, "x");
  EXPECT_EQ(refused.status.code, 14U) << refused.status.message;
  RawPeer noise(loop, server->port());
  noise.send(std::string("\0\1\2\3 no protocol at all", 23));
  EXPECT_TRUE(run_until([&] { return noise.is_closed(); }));
  EXPECT_TRUE(run_until([&] { return server->connections() == 0; }));
  EXPECT_EQ(server->tls_counts().failures, 3U);
  EXPECT_EQ(service.http_requests + service.counts.opened, 0U);
}

TEST_F(TlsServerTest, TlsToAPlainPortIsToldSo) {
  start({});
  const auto channel = dial();
  const Answer refused = call(*channel, "x");
  EXPECT_EQ(refused.status.code, 14U);
  EXPECT_EQ(refused.status.message, "TLS: the other side does not speak TLS");
}

TEST_F(TlsServerTest, ACutHandshakeLeavesNothing) {
  RawPeer cut(loop, server->port());
  cut.send(std::string("\x16\x03\x01\x02\x00\x01", 6));
  EXPECT_TRUE(run_until([&] { return cut.sent_all() && server->connections() == 1; }));
  cut.close();
  EXPECT_TRUE(run_until([&] { return server->connections() == 0; }));
  EXPECT_EQ(server->tls_counts().failures, 1U);
}

TEST_F(TlsServerTest, ASlowHandshakeEnds) {
  start({.tls = server_tls(certificate), .hello_patience = milliseconds(50)});
  RawPeer slow(loop, server->port());
  slow.send(std::string("\x16\x03\x01\x02\x00\x01", 6));
  EXPECT_TRUE(run_until([&] { return slow.is_closed(); }));
  EXPECT_EQ(server->tls_counts().failures, 1U);
}

TEST_F(TlsServerTest, HandshakesHeldOpenDoNotKeepOthersOut) {
  start({.tls = server_tls(certificate), .handshakes_max = 20});
  std::vector<std::unique_ptr<RawPeer>> silent;
  silent.reserve(100);
  for (int i = 0; i < 100; ++i) silent.push_back(std::make_unique<RawPeer>(loop, server->port()));
  EXPECT_TRUE(run_until([&] { return server->tls_counts().evictions == 80; }));
  EXPECT_EQ(server->connections(), 20U);
  const auto channel = dial();
  EXPECT_TRUE(call(*channel, "x").status.ok());
  EXPECT_EQ(server->tls_counts().handshakes, 1U);
  EXPECT_EQ(server->connections(), 20U);
}

TEST_F(TlsServerTest, AReloadIsForNewConnectionsAndTouchesNoStream) {
  const auto before = dial();
  std::vector<std::string> heard;
  auto stream =
      before->open("/test.Echo/Stream", {.on_message = [&](ByteView message) { heard.emplace_back(message); },
                                         .on_finished = [](const GrpcStatus& status) { FAIL() << status.message; }});
  stream->send("before");
  EXPECT_TRUE(run_until([&] { return heard.size() == 1; }));

  TestAuthority next(directory, "next");
  server->set_tls(server_tls(next.issue(CertificateUse::kServer, "one", {"127.0.0.1"})));
  const auto late = dial();
  EXPECT_FALSE(call(*late, "x").status.ok());
  const auto after = dial({.ca = next.ca()});
  EXPECT_TRUE(call(*after, "x").status.ok());
  stream->send("after");
  EXPECT_TRUE(run_until([&] { return heard.size() == 2; }));
  EXPECT_TRUE(call(*before, "x").status.ok());
}

TEST_F(TlsServerTest, AServerThatEndsCancelsWhatIsUnderWay) {
  const auto channel = dial();
  Answer answer;
  channel->call("/test.Echo/Never", "x", seconds(10),
                [&](const GrpcStatus& status, ByteView) { answer = {.done = true, .status = status, .response = {}}; });
  EXPECT_TRUE(run_until([&] { return service.counts.half_closed == 1; }));
  server.reset();
  EXPECT_TRUE(run_until([&] { return answer.done; }));
  EXPECT_EQ(answer.status.code, 14U);
  EXPECT_EQ(service.counts.cancelled, 1U);
}

// ---- Links between servers ----

struct Heard final : env::NetworkReceiver {
  void on_frame(NodeId, ByteView frame) override {
    ++frames;
    bytes += frame.size();
  }
  void on_link_up(NodeId) override { ++ups; }
  void on_link_broken(NodeId) override { ++breaks; }
  size_t frames = 0;
  size_t bytes = 0;
  int ups = 0;
  int breaks = 0;
};

class TlsPeersTest : public LoopTest {
 protected:
  TlsPeersTest() {
    loop.add_turn_end([this](Instant) {
      for (auto& [id, machine] : machines) {
        if (machine.links) machine.links->flush();
      }
    });
  }
  struct Machine {
    Heard heard;
    std::unique_ptr<PeerLinks> links;
  };
  static std::string name_of(uint64_t id) { return "n" + std::to_string(id); }
  void start(uint64_t id, const TlsFiles& files) { start(id, load_tls(TlsRole::kPeer, files)); }
  void start(uint64_t id, std::shared_ptr<const TlsContext> tls) {
    auto made =
        PeerLinks::listen(loop, machines[id].heard,
                          {.cluster = ClusterId(7), .self = NodeId(id), .boot = Boot(1), .tls = std::move(tls)});
    ASSERT_TRUE(made.has_value()) << made.error().message;
    machines[id].links = std::move(*made);
  }
  void introduce(uint64_t a, uint64_t b) {
    machines[a].links->set_peers(
        {{.id = NodeId(b), .host = "127.0.0.1", .port = machines[b].links->port(), .name = name_of(b)}});
  }
  void introduce_both() {
    introduce(1, 2);
    introduce(2, 1);
  }
  [[nodiscard]] TlsFiles issue(uint64_t id) { return authority.issue(CertificateUse::kPeer, name_of(id)); }
  [[nodiscard]] PeerLinkState state(uint64_t of) { return machines[of].links->states().at(0); }

  TestDirectory directory;
  TestAuthority authority{directory, "peers"};
  std::map<uint64_t, Machine> machines;
};

TEST_F(TlsPeersTest, MembersLinkAndFramesArrive) {
  start(1, issue(1));
  start(2, issue(2));
  introduce_both();
  EXPECT_TRUE(run_until([&] { return state(1).connected && state(2).connected; }));
  // More than the kernel takes at once, small and large together.
  const std::string large(size_t{3} << 20, 'l');
  for (int i = 0; i < 10; ++i) {
    machines[1].links->send(NodeId(2), env::Lane::kBulk, large);
    machines[1].links->send(NodeId(2), env::Lane::kConsensus, "small");
    machines[1].links->send(NodeId(2), env::Lane::kConsensus, "");
  }
  EXPECT_TRUE(run_until([&] { return machines[2].heard.frames == 30; }));
  EXPECT_EQ(machines[2].heard.bytes, 10 * (large.size() + 5));
  EXPECT_EQ(state(1).frames_dropped, 0U);
  EXPECT_EQ(machines[1].heard.breaks + machines[2].heard.breaks, 0);
}

TEST_F(TlsPeersTest, AnEndIsToldAtOnce) {
  start(1, issue(1));
  start(2, issue(2));
  introduce_both();
  EXPECT_TRUE(run_until([&] { return state(1).connected && state(2).connected; }));
  machines[2].links.reset();
  EXPECT_TRUE(run_until([&] { return machines[1].heard.breaks > 0; }, seconds(1)));
}

TEST_F(TlsPeersTest, WhoCannotShowThatItIsTheMemberIsRefused) {
  start(1, issue(1));
  start(2, issue(3));  // of the same CA, and another's
  introduce_both();
  // Neither what it accepts nor what it makes.
  EXPECT_TRUE(run_until([&] { return state(1).refusals > 0 && state(1).impostors > 0 && state(2).refusals > 0; }));
  EXPECT_EQ(state(1).refusal, PeerVerdict::kUntrusted);
  EXPECT_EQ(state(2).refusal, PeerVerdict::kUntrusted);
  EXPECT_EQ(state(2).impostors, 0U);
  EXPECT_EQ(machines[1].heard.ups + machines[2].heard.ups, 0);
}

TEST_F(TlsPeersTest, AMemberThatIsNotKnownIsRefused) {
  start(1, issue(1));
  start(2, issue(2));
  introduce(2, 1);
  machines[1].links->set_peers({});
  EXPECT_TRUE(run_until([&] { return state(2).refusals > 0; }));
  EXPECT_EQ(state(2).refusal, PeerVerdict::kUntrusted);
  EXPECT_EQ(machines[2].heard.ups, 0);
}

TEST_F(TlsPeersTest, AnotherAuthoritysMembersAreRefused) {
  TestAuthority other(directory, "others");
  start(1, issue(1));
  start(2, other.issue(CertificateUse::kPeer, "n2"));
  introduce_both();
  EXPECT_TRUE(run_until(
      [&] { return state(1).refusals > 0 && state(2).refusals > 0 && machines[1].links->tls_failures() > 0; }));
  EXPECT_EQ(state(1).refusal, PeerVerdict::kUntrusted);
  EXPECT_EQ(machines[1].heard.ups + machines[2].heard.ups, 0);
}

TEST_F(TlsPeersTest, PlainPeersAreRefused) {
  start(1, issue(1));
  start(2, nullptr);
  introduce_both();
  // Twice: that it tried again shows that the first attempt came to nothing.
  EXPECT_TRUE(run_until([&] { return machines[1].links->tls_failures() > 1; }));
  EXPECT_FALSE(state(1).connected || state(2).connected);
  EXPECT_EQ(machines[1].heard.ups + machines[2].heard.ups, 0);
}

TEST_F(TlsPeersTest, AReloadIsForNewLinks) {
  start(1, issue(1));
  start(2, issue(2));
  introduce_both();
  EXPECT_TRUE(run_until([&] { return state(1).connected && state(2).connected; }));
  TestAuthority next(directory, "next");
  for (const uint64_t id : {1, 2}) {
    machines[id].links->set_tls(load_tls(TlsRole::kPeer, next.issue(CertificateUse::kPeer, name_of(id))));
  }
  machines[1].links->send(NodeId(2), env::Lane::kConsensus, "the old link stands");
  EXPECT_TRUE(run_until([&] { return machines[2].heard.frames == 1; }));
  EXPECT_EQ(machines[1].heard.breaks + machines[2].heard.breaks, 0);
  // A new one is made with what was loaded.
  machines[2].links.reset();
  start(2, load_tls(TlsRole::kPeer, next.issue(CertificateUse::kPeer, "n2")));
  introduce_both();
  EXPECT_TRUE(run_until([&] { return state(1).connected && state(2).connected; }));
  EXPECT_EQ(state(1).refusals, 0U);
}

}  // namespace
}  // namespace conclave::net
