// Commands in the log, memberships and the keyspace's snapshot, as they were frozen.
#include <gtest/gtest.h>

#include "keyspace/interface.h"
#include "keyspace/internal_command.h"
#include "keyspace/snapshot.h"
#include "tests/compat/golden.h"
#include "tests/compat/values.h"

namespace conclave::compat {
namespace {

const std::string kCommands = "commands.txt";
const std::string kMemberships = "memberships.txt";
const std::string kSnapshot = "keyspace-snapshot";
constexpr std::string_view kCommandsAre = "Commands in the log: docs/internals/formats/command.md";
constexpr std::string_view kMembershipsAre = "Memberships: docs/internals/formats/membership.md";

TEST(Commands, AreWrittenAsTheyWere) {
  Named written;
  for (const WrittenCommand& command : written_commands()) {
    written.emplace_back(command.name, std::string(command.bytes().view()));
  }
  expect_golden_text(kCommands, kCommandsAre, written);
}

TEST(Commands, WhatWasWrittenIsRead) {
  const auto golden = read_golden_text(kCommands);
  for (const WrittenCommand& written : written_commands()) {
    keyspace::Command command;
    ASSERT_TRUE(keyspace::decode_command(golden.at(written.name), command)) << written.name;
    EXPECT_TRUE(command.header == written.header) << written.name;
    EXPECT_EQ(command.body, written.body) << written.name;
  }
}

TEST(Commands, BodiesOfOurOwnAreReadAsTheyWereMeant) {
  const auto golden = read_golden_text(kCommands);
  const auto body_of = [&](const std::string& name) {
    keyspace::Command command;
    EXPECT_TRUE(keyspace::decode_command(golden.at(name), command));
    return command.body;
  };
  keyspace::SessionOpen open;
  ASSERT_TRUE(keyspace::decode(body_of("session_open"), open));
  EXPECT_EQ(open.session, SessionId(5));
  EXPECT_EQ(open.lease, LeaseId(9));
  EXPECT_EQ(open.ttl_ms, 3'600'000);
  EXPECT_EQ(open.secret_hash, std::string(32, '\x5a'));
  EXPECT_EQ(open.description, "five");
  std::vector<LeaseId> leases;
  ASSERT_TRUE(keyspace::decode_expire(body_of("lease_expire"), leases));
  EXPECT_EQ(leases, (std::vector{LeaseId(13), LeaseId(-99)}));
  keyspace::InternalCommand internal;
  ASSERT_EQ(keyspace::decode(body_of("internal"), internal), keyspace::ErrorId::kNone);
  ASSERT_EQ(internal.guards.size(), 5U);
  for (size_t i = 0; i < internal.guards.size(); ++i) {
    EXPECT_EQ(static_cast<size_t>(internal.guards[i].kind), i + 1);
  }
  EXPECT_EQ(internal.guards[0].compare.key, "greeting");
  EXPECT_EQ(internal.guards[1].key, "setting/golden");
  EXPECT_EQ(internal.guards[4].number, 5U);
  ASSERT_EQ(internal.operations.size(), 9U);
  using Kind = keyspace::InternalOperation::Kind;
  EXPECT_EQ(internal.operations[0].kind, Kind::kLeaseGrant);
  EXPECT_EQ(internal.operations[0].milliseconds, 60'000);
  EXPECT_EQ(internal.operations[2].value, "written");
  EXPECT_EQ(internal.operations[2].lease, LeaseId(11));
  EXPECT_TRUE(internal.operations[3].ignore_value);
  EXPECT_EQ(internal.operations[4].range_end, "gone0");
  EXPECT_EQ(internal.operations[8].kind, Kind::kLeaseRevoke);
}

// Apply refuses it without effect, the same on every server.
TEST(Commands, ALaterVersionAKindAndAFlagNotKnownAreRefused) {
  for (const auto& [name, bytes] : read_golden_text(kCommands)) {
    for (const auto& [at, value] : {std::pair<size_t, char>{0, 2}, {1, 8}, {1, 11}, {2, 16}}) {
      std::string changed = bytes;
      changed[at] = value;
      keyspace::Command command;
      EXPECT_FALSE(keyspace::decode_command(changed, command)) << name << " at " << at;
      keyspace::Keyspace keyspace;
      EXPECT_TRUE(keyspace.apply(LogIndex(1), Term(1), SharedBytes::copy_of(changed)));
      EXPECT_EQ(keyspace.reply().error, keyspace::ErrorId::kUnknownCommand) << name;
      EXPECT_EQ(keyspace.revision(), Revision(1)) << name;
    }
  }
}

std::vector<std::pair<std::string, Membership>> written_memberships() {
  return {{"three_voters", three_voters()}, {"joint", joint_membership()}};
}

TEST(Memberships, AreWrittenAsTheyWereAndRead) {
  Named written;
  for (const auto& [name, membership] : written_memberships()) {
    membership.encode(written.emplace_back(name, "").second);
  }
  expect_golden_text(kMemberships, kMembershipsAre, written);
  const auto golden = read_golden_text(kMemberships);
  for (const auto& [name, membership] : written_memberships()) {
    const auto decoded = Membership::decode(golden.at(name));
    ASSERT_TRUE(decoded) << name << ": " << decoded.error().message;
    EXPECT_EQ(*decoded, membership) << name;
    std::string later = golden.at(name);
    ++later[0];
    const auto refused = Membership::decode(later);
    ASSERT_FALSE(refused) << name;
    EXPECT_EQ(refused.error().code, ErrorCode::kVersion);
    EXPECT_EQ(refused.error().message, "membership of version 2");
  }
}

std::string snapshot_of(keyspace::Keyspace& keyspace) {
  keyspace::SnapshotReader reader(keyspace);
  std::string bytes;
  while (!reader.read(bytes)) {
  }
  return bytes;
}

TEST(KeyspaceSnapshot, IsWrittenAsItWas) {
  keyspace::Keyspace keyspace;
  apply_commands(keyspace, 0, written_commands().size());
  expect_golden(kSnapshot, snapshot_of(keyspace));
}

TEST(KeyspaceSnapshot, WhatWasWrittenIsRead) {
  keyspace::Keyspace applied;
  apply_commands(applied, 0, written_commands().size());
  keyspace::Keyspace loaded;
  keyspace::SnapshotLoader loader(loaded);
  const Status fed = loader.feed(read_golden(kSnapshot));
  ASSERT_TRUE(fed) << fed.error().message;
  const Status finished = loader.finish();
  ASSERT_TRUE(finished) << finished.error().message;
  EXPECT_EQ(loaded.digest(), applied.digest());
  EXPECT_EQ(loaded.applied(), applied.applied());
  EXPECT_EQ(loaded.revision(), applied.revision());
  EXPECT_EQ(loaded.compacted(), 3);
  const keyspace::KeyspaceView view(loaded);
  ASSERT_TRUE(view.get("greeting"));
  EXPECT_EQ(view.get("greeting")->value, "hello again");
  EXPECT_EQ(view.get("session/a")->lease, LeaseId(7));
  EXPECT_FALSE(view.get("gone"));
  EXPECT_FALSE(view.get("internal")) << "its lease was revoked";
  ASSERT_NE(loaded.session(SessionId(5)), nullptr);
  EXPECT_EQ(loaded.session(SessionId(5))->description, "five");
  ASSERT_NE(loaded.record("setting/golden"), nullptr);
  EXPECT_EQ(loaded.record("setting/golden")->value, "one");
  EXPECT_TRUE(loaded.lease(LeaseId(-15)));
  EXPECT_FALSE(loaded.lease(LeaseId(13)));
}

TEST(KeyspaceSnapshot, ALaterVersionIsRefused) {
  std::string bytes = read_golden(kSnapshot);
  ASSERT_EQ(bytes.substr(2, 4), std::string("\x01\0\0\0", 4));
  ++bytes[2];
  keyspace::Keyspace keyspace;
  keyspace::SnapshotLoader loader(keyspace);
  const Status fed = loader.feed(bytes);
  ASSERT_FALSE(fed);
  EXPECT_EQ(fed.error().code, ErrorCode::kVersion);
  EXPECT_EQ(fed.error().message, "snapshot of a format not known here");
}

}  // namespace
}  // namespace conclave::compat
