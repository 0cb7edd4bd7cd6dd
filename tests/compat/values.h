// What the golden files hold: commands of every kind, in an order in which each has its effect, and the memberships
// around them.
#pragma once

#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/membership.h"
#include "keyspace/command.h"
#include "keyspace/keyspace.h"

namespace conclave::compat {

struct WrittenCommand {
  std::string name;
  keyspace::CommandHeader header;
  std::string body;
  [[nodiscard]] SharedBytes bytes() const { return keyspace::encode_command(header, body); }
};
[[nodiscard]] std::vector<WrittenCommand> written_commands();
// The first is entry 2 of the log: a configuration stands before it. All are of this term.
inline constexpr Term kTerm{1};
inline constexpr LogIndex kFirstCommand{2};

// Applies commands begin..end of the list; each must succeed.
void apply_commands(keyspace::Keyspace& keyspace, size_t begin, size_t end);

// Three voters; and one with every role, in the middle of a change.
[[nodiscard]] Membership three_voters();
[[nodiscard]] Membership joint_membership();

}  // namespace conclave::compat
