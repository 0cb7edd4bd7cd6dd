// TLS without sockets: two sessions whose bytes the test carries.
#include "net/tls.h"

#include <gtest/gtest.h>

#include <malloc.h>

#include "net/testing/test_certificates.h"

namespace conclave::net {
namespace {

using Phase = TlsSession::Phase;

struct Side {
  std::unique_ptr<TlsSession> session;
  std::string plain;  // what it received
  std::string wire;   // what it sent, not yet carried
};

class TlsTest : public testing::Test {
 protected:
  void make(const std::shared_ptr<const TlsContext>& accepting, const std::shared_ptr<const TlsContext>& connecting,
            const std::string& host) {
    server = {.session = TlsSession::accept(accepting), .plain = {}, .wire = {}};
    client = {.session = TlsSession::connect(connecting, host), .plain = {}, .wire = {}};
    client.session->receive({}, client.plain, client.wire);
  }
  // Until both are silent, in pieces of this many bytes.
  void carry(size_t piece_bytes = SIZE_MAX) {
    while (!client.wire.empty() || !server.wire.empty()) {
      give(client, server, piece_bytes);
      give(server, client, piece_bytes);
    }
  }
  static void give(Side& from, Side& to, size_t piece_bytes) {
    const std::string wire = std::exchange(from.wire, {});
    for (size_t at = 0; at < wire.size(); at += piece_bytes) {
      to.session->receive(ByteView(wire).substr(at, piece_bytes), to.plain, to.wire);
      if (piece_bytes == SIZE_MAX) break;
    }
  }
  void shake(const TlsFiles& server_files, const TlsFiles& client_files, const std::string& host) {
    make(load_tls(TlsRole::kServer, server_files, {"h2", "http/1.1"}), load_tls(TlsRole::kClient, client_files, {"h2"}),
         host);
    carry();
  }
  [[nodiscard]] bool both_open() const {
    return server.session->phase() == Phase::kOpen && client.session->phase() == Phase::kOpen;
  }
  [[nodiscard]] static TlsFiles trust(const TestAuthority& believed) { return {.ca = believed.ca()}; }
  // Shows a certificate and asks for none.
  [[nodiscard]] static TlsFiles alone(TlsFiles files) {
    files.ca.clear();
    return files;
  }

  TestDirectory directory;
  TestAuthority authority{directory, "ours"};
  Side server;
  Side client;
};

TEST_F(TlsTest, BytesArriveBothWays) {
  shake(alone(authority.issue(CertificateUse::kServer, "one", {"one.example"})), trust(authority), "one.example");
  ASSERT_TRUE(both_open()) << client.session->failure() << server.session->failure();
  EXPECT_EQ(server.session->protocol(), "h2");
  EXPECT_EQ(client.session->protocol(), "h2");
  std::string large(300'000, 'x');
  for (size_t i = 0; i < large.size(); ++i) large[i] = static_cast<char>(i * 7 >> 3);
  ASSERT_TRUE(client.session->send(large, client.wire));
  ASSERT_TRUE(server.session->send("back", server.wire));
  EXPECT_EQ(client.wire.find(large.substr(0, 32)), std::string::npos);
  carry();
  EXPECT_TRUE(server.plain == large);
  EXPECT_EQ(client.plain, "back");
}

TEST_F(TlsTest, BytesMayArriveOneByOne) {
  make(load_tls(TlsRole::kServer, alone(authority.issue(CertificateUse::kServer, "one", {"127.0.0.1"}))),
       load_tls(TlsRole::kClient, trust(authority)), "127.0.0.1");
  carry(1);
  ASSERT_TRUE(both_open());
  EXPECT_EQ(server.session->protocol(), "");
  ASSERT_TRUE(client.session->send("one by one", client.wire));
  ASSERT_TRUE(client.session->send("!", client.wire));
  carry(1);
  EXPECT_EQ(server.plain, "one by one!");
}

TEST_F(TlsTest, TheEndIsTold) {
  shake(alone(authority.issue(CertificateUse::kServer, "one", {"one.example"})), trust(authority), "one.example");
  ASSERT_TRUE(client.session->send("last", client.wire));
  client.session->end(client.wire);
  carry();
  EXPECT_EQ(server.plain, "last");
  EXPECT_EQ(server.session->phase(), Phase::kEnded);
}

TEST_F(TlsTest, AnUnknownAuthorityIsRefused) {
  const TestAuthority other(directory, "theirs");
  shake(alone(authority.issue(CertificateUse::kServer, "one", {"one.example"})), trust(other), "one.example");
  EXPECT_EQ(client.session->phase(), Phase::kFailed);
  EXPECT_NE(client.session->failure().find("certificate is refused"), std::string::npos) << client.session->failure();
  EXPECT_EQ(server.session->phase(), Phase::kFailed);
  EXPECT_NE(server.session->failure(), "");
}

TEST_F(TlsTest, AnExpiredCertificateIsRefused) {
  shake(alone(authority.issue(CertificateUse::kServer, "one", {"one.example"}, -60)), trust(authority), "one.example");
  EXPECT_EQ(client.session->phase(), Phase::kFailed);
  EXPECT_NE(client.session->failure().find("expired"), std::string::npos) << client.session->failure();
}

TEST_F(TlsTest, AnotherNameOrAddressIsRefused) {
  const TlsFiles files = alone(authority.issue(CertificateUse::kServer, "one", {"one.example", "127.0.0.1"}));
  for (const std::string host : {"two.example", "127.0.0.2", "::1"}) {
    shake(files, trust(authority), host);
    EXPECT_EQ(client.session->phase(), Phase::kFailed) << host;
    EXPECT_NE(client.session->failure().find("mismatch"), std::string::npos) << client.session->failure();
  }
  for (const std::string host : {"one.example", "127.0.0.1"}) {
    shake(files, trust(authority), host);
    EXPECT_TRUE(both_open()) << host << client.session->failure();
  }
}

TEST_F(TlsTest, ACertificateIsGoodForItsUseOnly) {
  // Of a client, shown by a server; and the other way round.
  shake(alone(authority.issue(CertificateUse::kClient, "one", {"one.example"})), trust(authority), "one.example");
  EXPECT_EQ(client.session->phase(), Phase::kFailed);
  const TlsFiles good = authority.issue(CertificateUse::kServer, "one", {"one.example"});
  shake(good, good, "one.example");
  EXPECT_EQ(server.session->phase(), Phase::kFailed);
}

TEST_F(TlsTest, AServerWithAnAuthorityDemandsCertificatesOfClients) {
  const TlsFiles files = authority.issue(CertificateUse::kServer, "one", {"one.example"});
  shake(files, authority.issue(CertificateUse::kClient, "me"), "one.example");
  EXPECT_TRUE(both_open()) << server.session->failure();
  shake(files, trust(authority), "one.example");
  EXPECT_EQ(server.session->phase(), Phase::kFailed);
  EXPECT_NE(client.session->failure(), "");
  TestAuthority other(directory, "theirs");
  TlsFiles stranger = other.issue(CertificateUse::kClient, "me");
  stranger.ca = authority.ca();
  shake(files, stranger, "one.example");
  EXPECT_EQ(server.session->phase(), Phase::kFailed);
  EXPECT_NE(server.session->failure().find("certificate is refused"), std::string::npos) << server.session->failure();
}

TEST_F(TlsTest, WhoOffersOnlyOtherProtocolsIsRefused) {
  make(load_tls(TlsRole::kServer, alone(authority.issue(CertificateUse::kServer, "one", {"one.example"})), {"h2"}),
       load_tls(TlsRole::kClient, trust(authority), {"spdy/1"}), "one.example");
  carry();
  EXPECT_EQ(server.session->phase(), Phase::kFailed);
  EXPECT_EQ(client.session->phase(), Phase::kFailed);
}

TEST_F(TlsTest, WhatIsNotTlsIsToldSo) {
  const auto context =
      load_tls(TlsRole::kServer, alone(authority.issue(CertificateUse::kServer, "one", {"one.example"})));
  for (const std::string text : {"GET / HTTP/1.1\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"}) {
    make(context, load_tls(TlsRole::kClient, trust(authority)), "one.example");
    server.session->receive(text, server.plain, server.wire);
    EXPECT_EQ(server.session->phase(), Phase::kFailed);
    EXPECT_EQ(server.session->failure(), "the other side does not speak TLS");
    client.session->receive(text, client.plain, client.wire);
    EXPECT_EQ(client.session->failure(), "the other side does not speak TLS");
  }
}

TEST_F(TlsTest, AChangedByteEndsIt) {
  shake(alone(authority.issue(CertificateUse::kServer, "one", {"one.example"})), trust(authority), "one.example");
  ASSERT_TRUE(client.session->send("as it was sent", client.wire));
  client.wire.back() = static_cast<char>(client.wire.back() ^ 1);
  carry();
  EXPECT_EQ(server.plain, "");
  EXPECT_EQ(server.session->phase(), Phase::kFailed);
  EXPECT_FALSE(server.session->send("never", server.wire));
}

TEST_F(TlsTest, AMemberIsNamedByUriOrElseByDnsName) {
  const auto shake_peers = [&](const TlsFiles& files) {
    const auto context = load_tls(TlsRole::kPeer, files);
    make(context, context, "");
    carry();
    ASSERT_TRUE(both_open()) << server.session->failure() << client.session->failure();
  };
  shake_peers(authority.issue(CertificateUse::kPeer, "n1", {"n2", "127.0.0.1"}));
  EXPECT_TRUE(client.session->names_member("n1"));
  EXPECT_TRUE(server.session->names_member("n1"));
  // It says by URI who it is; its DNS names are only where it can be reached.
  EXPECT_FALSE(client.session->names_member("n2"));
  EXPECT_FALSE(client.session->names_member("n"));
  EXPECT_FALSE(client.session->names_member(""));
  // Without a URI of ours the DNS names count; such as other tools issue. Both usages are in none that we issue
  // without the URI, so each end shows its own kind.
  make(load_tls(TlsRole::kServer, authority.issue(CertificateUse::kServer, "any", {"n2", "N3", "10.0.0.1"})),
       load_tls(TlsRole::kClient, authority.issue(CertificateUse::kClient, "any", {"n4"})), "");
  carry();
  ASSERT_TRUE(both_open()) << server.session->failure();
  EXPECT_TRUE(client.session->names_member("n2"));
  EXPECT_FALSE(client.session->names_member("n3"));
  EXPECT_FALSE(client.session->names_member("10.0.0.1"));
  EXPECT_FALSE(client.session->names_member("any"));
  EXPECT_TRUE(server.session->names_member("n4"));
}

TEST_F(TlsTest, BadFilesAreRefusedWithAReason) {
  const TlsFiles good = authority.issue(CertificateUse::kServer, "one", {"one.example"});
  const TlsFiles other = authority.issue(CertificateUse::kServer, "two");
  const auto refusal = [](TlsRole role, const TlsFiles& files) {
    const auto loaded = TlsContext::load(role, files, {});
    EXPECT_FALSE(loaded.has_value());
    return loaded ? "" : loaded.error().message;
  };
  EXPECT_NE(refusal(TlsRole::kServer, {.certificate = good.certificate, .key = other.key}).find(other.key),
            std::string::npos);
  EXPECT_NE(refusal(TlsRole::kServer, {.certificate = good.key, .key = good.key}).find("certificate "),
            std::string::npos);
  EXPECT_NE(refusal(TlsRole::kServer, {.certificate = good.certificate, .key = "/nowhere"}).find("/nowhere"),
            std::string::npos);
  EXPECT_NE(refusal(TlsRole::kClient, {.ca = directory.write("empty.pem", "")}).find("empty.pem"), std::string::npos);
  EXPECT_NE(refusal(TlsRole::kServer, {}), "");
  EXPECT_NE(refusal(TlsRole::kServer, {.certificate = good.certificate}), "");
  EXPECT_NE(refusal(TlsRole::kPeer, {.certificate = good.certificate, .key = good.key}), "");
  ASSERT_EQ(::chmod(good.key.c_str(), 0644), 0);
  EXPECT_NE(refusal(TlsRole::kServer, good).find("everybody"), std::string::npos);
}

TEST_F(TlsTest, OnlyAnAuthorityIssues) {
  const int64_t now = std::time(nullptr);
  const Validity validity{.from = now, .until = now + 60};
  auto ca = make_authority("ca", validity);
  ASSERT_TRUE(ca.has_value());
  auto leaf = issue_certificate(*ca, {.name = "leaf", .use = CertificateUse::kPeer, .validity = validity});
  ASSERT_TRUE(leaf.has_value()) << leaf.error().message;
  EXPECT_FALSE(issue_certificate(*leaf, {.name = "x", .validity = validity}).has_value());
  auto other = make_authority("other", validity);
  EXPECT_FALSE(issue_certificate({ca->certificate, other->key}, {.name = "x", .validity = validity}).has_value());
  EXPECT_FALSE(issue_certificate({"", ""}, {.name = "x", .validity = validity}).has_value());
  EXPECT_FALSE(issue_certificate(*ca, {.name = "", .validity = validity}).has_value());
  EXPECT_FALSE(issue_certificate(*ca, {.name = "a b", .validity = validity}).has_value());
  EXPECT_FALSE(issue_certificate(*ca, {.name = "x", .hosts = {"a\nb"}, .validity = validity}).has_value());
  EXPECT_FALSE(issue_certificate(*ca, {.name = "x", .validity = {.from = now, .until = now}}).has_value());
}

// What a connection costs while nothing is under way: the reason for released buffers and no memory BIOs.
TEST_F(TlsTest, AnIdleSessionIsSmall) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "the sanitizer's allocator is not the one to measure";
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
  GTEST_SKIP() << "the sanitizer's allocator is not the one to measure";
#endif
#endif
  const auto accepting =
      load_tls(TlsRole::kServer, authority.issue(CertificateUse::kServer, "one", {"one.example"}), {"h2"});
  const auto connecting = load_tls(TlsRole::kClient, authority.issue(CertificateUse::kClient, "me"), {"h2"});
  constexpr size_t kSessions = 100;
  std::vector<Side> servers;
  std::vector<Side> clients;
  const auto used = [] { return ::mallinfo2().uordblks; };
  const size_t before = used();
  for (size_t i = 0; i < kSessions; ++i) {
    make(accepting, connecting, "one.example");
    carry();
    ASSERT_TRUE(both_open());
    ASSERT_TRUE(client.session->send(std::string(20'000, 'x'), client.wire));
    ASSERT_TRUE(server.session->send(std::string(20'000, 'x'), server.wire));
    carry();
    servers.push_back({.session = std::move(server.session), .plain = {}, .wire = {}});
    clients.push_back({.session = std::move(client.session), .plain = {}, .wire = {}});
  }
  server = {};
  client = {};
  const size_t both = (used() - before) / kSessions;
  clients.clear();
  const size_t one = (used() - before) / kSessions;
  std::printf("an idle session: %zu bytes accepted, %zu connected\n", one, both - one);
  EXPECT_LT(one, 32U << 10);
  EXPECT_LT(both - one, 32U << 10);
}

}  // namespace
}  // namespace conclave::net
