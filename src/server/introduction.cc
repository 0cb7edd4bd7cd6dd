#include "server/introduction.h"

#include <utility>

#include "base/limits.h"

namespace conclave::server {

std::string encode_introduction(const std::vector<net::PeerAddress>& members) {
  std::string frame(1, kIntroductionFrame);
  ByteWriter writer(frame);
  writer.varint(members.size());
  for (const net::PeerAddress& member : members) {
    writer.fixed<uint64_t>(member.id.value());
    writer.fixed<uint16_t>(member.port);
    writer.sized(member.host);
    writer.sized(member.name);
  }
  return frame;
}

Result<std::vector<net::PeerAddress>> decode_introduction(ByteView frame) {
  ByteReader reader(frame);
  if (reader.fixed<uint8_t>() != static_cast<uint8_t>(kIntroductionFrame)) reader.reject();
  const uint64_t count = reader.varint();
  if (count > kMembersMax) reader.reject();
  std::vector<net::PeerAddress> members;
  for (uint64_t i = 0; i < count && reader.ok(); ++i) {
    net::PeerAddress member;
    member.id = NodeId(reader.fixed<uint64_t>());
    member.port = reader.fixed<uint16_t>();
    member.host = std::string(reader.sized());
    member.name = std::string(reader.sized());
    if (!member.id.is_set() || member.port == 0 || member.host.empty()) reader.reject();
    members.push_back(std::move(member));
  }
  if (!reader.finished()) return fail(ErrorCode::kMalformed, "bad introduction");
  return members;
}

}  // namespace conclave::server
