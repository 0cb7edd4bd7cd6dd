#include "net/request_fields.h"

#include <gtest/gtest.h>

#include <initializer_list>
#include <utility>

namespace conclave::net {
namespace {

using Fields = std::initializer_list<std::pair<std::string_view, std::string_view>>;

bool are_good(Fields fields) {
  RequestFields rules;
  for (const auto& [name, value] : fields) {
    if (!rules.take(name, value)) return false;
  }
  return rules.end_of_headers();
}

// With all that must be there before it.
bool is_good(std::string_view name, std::string_view value) {
  return are_good({{":method", "POST"}, {":scheme", "http"}, {":path", "/a"}, {name, value}});
}

TEST(RequestFields, ARequestNeedsItsThreePseudoHeaders) {
  EXPECT_TRUE(are_good({{":path", "/a"}, {":method", "POST"}, {":scheme", "http"}}));
  EXPECT_FALSE(are_good({{":path", "/a"}, {":method", "POST"}}));
  EXPECT_FALSE(are_good({{":scheme", "http"}, {":method", "POST"}}));
  EXPECT_FALSE(are_good({{":scheme", "http"}, {":path", "/a"}}));
  EXPECT_FALSE(are_good({{":path", ""}, {":method", "POST"}, {":scheme", "http"}}));
  EXPECT_FALSE(are_good({}));
}

TEST(RequestFields, PseudoHeadersComeOnceAndFirst) {
  EXPECT_FALSE(is_good(":path", "/a"));
  EXPECT_FALSE(is_good(":status", "200"));
  EXPECT_FALSE(is_good(":", ""));
  EXPECT_FALSE(are_good({{":path", "/a"}, {":method", "POST"}, {"x", "y"}, {":scheme", "http"}}));
}

TEST(RequestFields, AnAuthorityIsAnyText) {
  EXPECT_TRUE(is_good(":authority", "here:2379"));
  EXPECT_TRUE(is_good(":authority", "http://127.0.0.1:2379"));
  EXPECT_TRUE(is_good(":authority", ""));
  EXPECT_FALSE(is_good(":authority", "here\n"));
}

TEST(RequestFields, NamesAreTokensWithoutCapitals) {
  EXPECT_TRUE(is_good("x-test.1_bin", "y"));
  for (const std::string_view name : {"", "X", "x y", "x:", "x\n", "x\x80"}) EXPECT_FALSE(is_good(name, "y")) << name;
}

TEST(RequestFields, ValuesHaveNoControlCharacters) {
  EXPECT_TRUE(is_good("x", " \tany text, \xc3\xa4 too "));
  EXPECT_TRUE(is_good("x", ""));
  for (const char c : {'\0', '\n', '\r', '\x1f', '\x7f'}) {
    EXPECT_FALSE(is_good("x", std::string_view(&c, 1))) << static_cast<int>(c);
  }
}

TEST(RequestFields, WhatSpeaksOfAConnectionIsRefused) {
  for (const std::string_view name : {"connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"}) {
    EXPECT_FALSE(is_good(name, "x")) << name;
  }
  EXPECT_TRUE(is_good("te", "Trailers"));
  EXPECT_FALSE(is_good("te", "gzip"));
  EXPECT_FALSE(is_good("te", "trailers, gzip"));
}

TEST(RequestFields, TrailersHaveNoPseudoHeaders) {
  RequestFields rules;
  EXPECT_TRUE(rules.take(":method", "POST") && rules.take(":scheme", "http") && rules.take(":path", "/a"));
  EXPECT_TRUE(rules.end_of_headers());
  EXPECT_TRUE(rules.take("x", "y"));
  EXPECT_FALSE(rules.take(":authority", "here"));
}

}  // namespace
}  // namespace conclave::net
