// What the verbs are made of, where it needs no server: durations, endpoints, JSON, tables.
#include <gtest/gtest.h>

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cli/claim.h"
#include "cli/durations.h"
#include "cli/endpoints.h"
#include "cli/json.h"
#include "cli/table.h"

namespace conclave::cli {
namespace {

using namespace std::chrono_literals;

TEST(Durations, AreRead) {
  const std::pair<std::string_view, Duration> good[] = {
      {"0", 0s},         {"0s", 0s},       {"250ms", 250ms}, {"10s", 10s}, {"1m30s", 90s},  {"2h", 2h},
      {"1h0m5s", 3605s}, {"500us", 500us}, {"7ns", 7ns},     {"1d", 24h},  {"366d", 8784h}, {"1s500ms", 1500ms}};
  for (const auto& [text, duration] : good) {
    const auto parsed = parse_duration(text);
    ASSERT_TRUE(parsed.has_value()) << text;
    EXPECT_EQ(*parsed, duration) << text;
    EXPECT_EQ(parse_duration(flag_text(duration)).value(), duration) << text;
  }
  EXPECT_EQ(flag_text(60min), "1h");
  EXPECT_EQ(flag_text(90s), "90s");
  EXPECT_EQ(flag_text(0s), "0s");
}

TEST(Durations, AreRefused) {
  for (const std::string_view text : {"", "10", "s", "-1s", "+1s", "1.5s", "10 s", "10s ", "1x", "1ss", "ten", "5S",
                                      "99999999999999999999s", "400d", "366d1s", "18446744073709551615h"}) {
    const auto parsed = parse_duration(text);
    ASSERT_FALSE(parsed.has_value()) << text;
    EXPECT_EQ(parsed.error().code, ErrorCode::kInvalidArgument);
    EXPECT_NE(parsed.error().message.find(text), std::string::npos) << parsed.error().message;
  }
}

TEST(EndpointLists, AreRead) {
  const auto parsed = parse_endpoints("127.0.0.1:2379,http://node-2.example:80,[::1]:65535,https://[::1]:1");
  ASSERT_TRUE(parsed.has_value());
  ASSERT_EQ(parsed->size(), 4U);
  EXPECT_EQ((*parsed)[0].host, "127.0.0.1");
  EXPECT_EQ((*parsed)[0].port, 2379);
  EXPECT_EQ((*parsed)[1].text(), "node-2.example:80");
  EXPECT_EQ((*parsed)[2].host, "::1");
  EXPECT_EQ((*parsed)[2].text(), "[::1]:65535");
  EXPECT_EQ((*parsed)[0].wants_tls, std::nullopt);
  EXPECT_EQ((*parsed)[1].wants_tls, false);
  EXPECT_EQ((*parsed)[3].wants_tls, true);
  const auto loaded = load_endpoints("a:1,http://a:2,https://a:3", {});
  ASSERT_TRUE(loaded.has_value());
  EXPECT_FALSE((*loaded)[0].tls || (*loaded)[1].tls);
  EXPECT_TRUE((*loaded)[2].tls);
  EXPECT_FALSE(load_endpoints("a:1", {.ca = "/nowhere"}).has_value());
  EXPECT_TRUE(load_endpoints("http://a:1", {.ca = "/nowhere"}).has_value());
}

TEST(EndpointLists, AreRefused) {
  for (const std::string_view text : {"", ",", "host", "host:", ":2379", "host:0", "host:65536", "host:23x", "a:1,",
                                      "a:1,,b:2", "https://a", "ftp://a:1x", "host:-1", "http://host"}) {
    const auto parsed = parse_endpoints(text);
    EXPECT_FALSE(parsed.has_value()) << text;
  }
}

TEST(Json, TextIsEscaped) {
  EXPECT_EQ(json_text("a\"b\\c\n"), "\"a\\\"b\\\\c\\u000a\"");
  EXPECT_EQ(json_text("\xc3\xa9"), "\"\xc3\xa9\"");
}

TEST(Json, BytesThatAreNoTextAreInBase64) {
  JsonList fields;
  fields.bytes_field("key", "plain");
  fields.bytes_field("value", std::string_view("\xff\x00z", 3));
  EXPECT_EQ(fields.object(), R"({"key":"plain","value_base64":"/wB6"})");
}

TEST(Json, Base64) {
  EXPECT_EQ(base64(""), "");
  EXPECT_EQ(base64("f"), "Zg==");
  EXPECT_EQ(base64("fo"), "Zm8=");
  EXPECT_EQ(base64("foo"), "Zm9v");
  EXPECT_EQ(base64("foobar"), "Zm9vYmFy");
}

TEST(Tables, ColumnsAreAsWideAsTheirWidestCell) {
  Table table({"NAME", ">COUNT", "NOTE"});
  table.add({"a", "7", "x"});
  table.add({"longer", "12345", ""});
  EXPECT_EQ(table.text(),
            "NAME    COUNT  NOTE\n"
            "a           7  x\n"
            "longer  12345\n");
}

TEST(Prefixes, EndAfterTheirLastKey) {
  EXPECT_EQ(end_of_prefix("a/"), "a0");
  EXPECT_EQ(end_of_prefix("a\xff"), "b");
  EXPECT_EQ(end_of_prefix("\xff\xff"), std::string(1, '\0'));
}

// A port where nobody listens, for as long as the object lives: bound, and never listened on.
class DeadPort {
 public:
  DeadPort() : socket_(socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(bind(socket_, reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
    socklen_t size = sizeof(address);
    EXPECT_EQ(getsockname(socket_, reinterpret_cast<sockaddr*>(&address), &size), 0);
    port_ = ntohs(address.sin_port);
  }
  DeadPort(const DeadPort&) = delete;
  DeadPort& operator=(const DeadPort&) = delete;
  ~DeadPort() { close(socket_); }
  [[nodiscard]] uint16_t port() const { return port_; }

 private:
  int socket_;
  uint16_t port_ = 0;
};

TEST(Calls, ToNobodyAreKnownNotToHaveHappened) {
  const DeadPort one;
  const DeadPort two;
  Endpoints endpoints({{"127.0.0.1", one.port()}, {"127.0.0.1", two.port()}});
  for (const Repeat repeat : {Repeat::kHarmless, Repeat::kChange}) {
    const Answer answer = endpoints.call("/etcdserverpb.KV/Put", "", repeat, 5s);
    EXPECT_FALSE(answer.status.ok());
    EXPECT_FALSE(answer.may_have_happened);
    EXPECT_EQ(endpoints.failure_of(answer).code, kUnavailable);
  }
}

}  // namespace
}  // namespace conclave::cli
