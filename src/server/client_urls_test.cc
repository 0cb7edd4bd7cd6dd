#include "server/client_urls.h"

#include <gtest/gtest.h>

namespace conclave::server {
namespace {

TEST(ClientUrlsTest, AreParsed) {
  EXPECT_TRUE(parse_client_urls("")->empty());
  EXPECT_EQ(parse_client_urls("http://n1.example.org:2379").value(),
            (std::vector<std::string>{"http://n1.example.org:2379"}));
  EXPECT_EQ(parse_client_urls("https://[2001:db8::7]:2379,http://192.0.2.7:80").value(),
            (std::vector<std::string>{"https://[2001:db8::7]:2379", "http://192.0.2.7:80"}));
}

TEST(ClientUrlsTest, WhatCannotBeDialledIsRefusedWithTheReason) {
  const auto why = [](std::string_view text) {
    const auto parsed = parse_client_urls(text);
    EXPECT_FALSE(parsed) << text;
    if (parsed) return std::string();
    EXPECT_EQ(parsed.error().code, ErrorCode::kInvalidArgument);
    return parsed.error().message;
  };
  for (const std::string odd : {"n1:2379", "n1", "http://n1", "http://:2379", "http://n1:0", "http://n1:65536",
                                "http://n1:2379/", "ftp://n1:2379", "unix://socket:1", "http://a b:1"}) {
    EXPECT_EQ(why(odd), "--client-advertise: '" + odd + "' is not http://HOST:PORT or https://HOST:PORT");
  }
  EXPECT_EQ(why("http://n1:1,,http://n2:1"), "--client-advertise: '' is not http://HOST:PORT or https://HOST:PORT");
  EXPECT_EQ(why("http://n1:2379,http://0.0.0.0:2379"),
            "--client-advertise: 'http://0.0.0.0:2379' names no machine that a client could dial; say a name or an "
            "address of it");
  EXPECT_NE(why("http://[::]:2379").find("names no machine"), std::string::npos);
  EXPECT_EQ(why("http://n1:1,http://n1:1"), "--client-advertise: 'http://n1:1' is there twice");
  std::string many = "http://n0:1";
  for (size_t i = 1; i <= kClientUrlsMax; ++i) many += ",http://n" + std::to_string(i) + ":1";
  EXPECT_EQ(why(many), "--client-advertise: 17 URLs are more than the 16 there may be");
}

TEST(ClientUrlsTest, WhereNobodySaysItIsTheAddressListenedOn) {
  const ClientUrl plain =
      default_client_url({.host = "192.0.2.7", .port = 2379, .peer_host = "10.0.0.1", .machine_name = "m"});
  EXPECT_EQ(plain.url, "http://192.0.2.7:2379");
  EXPECT_FALSE(plain.is_guessed);
  const ClientUrl tls = default_client_url({.is_tls = true, .host = "2001:db8::7", .port = 2379});
  EXPECT_EQ(tls.url, "https://[2001:db8::7]:2379");
  EXPECT_FALSE(tls.is_guessed);
}

TEST(ClientUrlsTest, AWildcardIsGuessed) {
  const auto guess = [](std::string_view host, std::string_view peer, std::string_view machine) {
    const ClientUrl guessed =
        default_client_url({.host = host, .port = 2379, .peer_host = peer, .machine_name = machine});
    EXPECT_TRUE(guessed.is_guessed);
    return guessed.url;
  };
  EXPECT_EQ(guess("0.0.0.0", "n1.example.org", "machine"), "http://n1.example.org:2379");
  EXPECT_EQ(guess("[::]", "2001:db8::7", "machine"), "http://[2001:db8::7]:2379");
  EXPECT_EQ(guess("::", "127.0.0.1", "machine"), "http://machine:2379") << "loopback is no way from elsewhere";
  EXPECT_EQ(guess("0.0.0.0", "localhost", "machine"), "http://machine:2379");
  EXPECT_EQ(guess("0.0.0.0", "0.0.0.0", "machine"), "http://machine:2379");
  EXPECT_EQ(guess("0.0.0.0", "::1", ""), "http://127.0.0.1:2379") << "a machine without a name";
}

TEST(ClientUrls, LoopbackIsAnAddressAndNotANameThatBeginsAsOne) {
  for (const char* host : {"localhost", "127.0.0.1", "127.9.9.9", "::1"}) EXPECT_TRUE(is_loopback(host)) << host;
  for (const char* host : {"127.example.com", "10.0.0.1", "0.0.0.0", "::", "", "localhost.example.com"}) {
    EXPECT_FALSE(is_loopback(host)) << host;
  }
}

}  // namespace
}  // namespace conclave::server
