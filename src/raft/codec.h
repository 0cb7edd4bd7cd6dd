// Messages as bytes. Version 1; documented byte by byte in docs/internals/formats/peer.md. What decodes is well-formed;
// whether it is believable is for Raft::step to say.
#pragma once

#include <string>
#include <vector>

#include "base/error.h"
#include "raft/message.h"

namespace conclave::raft {

// Appends the message to `out`.
void encode(const Message& message, std::string& out);

// A message with the memory it points into. Moving keeps it valid; copying is by copy_of.
class OwnedMessage {
 public:
  OwnedMessage() = default;
  OwnedMessage(OwnedMessage&&) = default;
  OwnedMessage& operator=(OwnedMessage&&) = default;
  [[nodiscard]] static OwnedMessage copy_of(const Message& message);
  // kMalformed or kVersion with the reason; nothing is allocated beyond the bytes present.
  [[nodiscard]] static Result<OwnedMessage> decode(ByteView bytes);

  [[nodiscard]] const Message& message() const { return message_; }

 private:
  void own_entries(const EntrySlices& entries);

  Message message_;
  std::vector<Entry> entries_;
  std::string bytes_;
};

}  // namespace conclave::raft
