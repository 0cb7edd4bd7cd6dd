#include "server/introduction.h"

#include <gtest/gtest.h>

#include "base/limits.h"

namespace conclave::server {
namespace {

TEST(IntroductionTest, ComesBackAsItWasAndABrokenOneIsRefused) {
  const std::vector<net::PeerAddress> members{{.id = NodeId(7), .host = "127.0.0.1", .port = 2380, .name = "n1"},
                                              {.id = NodeId(9), .host = "localhost", .port = 1, .name = ""}};
  const std::string frame = encode_introduction(members);
  const auto decoded = decode_introduction(frame);
  ASSERT_TRUE(decoded.has_value());
  ASSERT_EQ(decoded->size(), 2U);
  EXPECT_EQ((*decoded)[0].id, NodeId(7));
  EXPECT_EQ((*decoded)[0].host, "127.0.0.1");
  EXPECT_EQ((*decoded)[0].port, 2380);
  EXPECT_EQ((*decoded)[0].name, "n1");
  EXPECT_EQ(encode_introduction(*decoded), frame);
  for (size_t cut = 0; cut < frame.size(); ++cut) EXPECT_FALSE(decode_introduction(ByteView(frame).substr(0, cut)));
  EXPECT_FALSE(decode_introduction(frame + "x"));
  EXPECT_FALSE(decode_introduction(encode_introduction({{.id = NodeId(7), .host = "h", .port = 0}})));
  EXPECT_FALSE(decode_introduction(encode_introduction({{.host = "h", .port = 1}})));
  EXPECT_FALSE(decode_introduction(encode_introduction({{.id = NodeId(7), .port = 1}})));
  const std::vector<net::PeerAddress> many(kMembersMax + 1, members[0]);
  EXPECT_FALSE(decode_introduction(encode_introduction(many)));
}

}  // namespace
}  // namespace conclave::server
