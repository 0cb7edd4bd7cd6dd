#include "layers/owned_claim.h"

#include "layers/claim_record.h"
#include "layers/command_builder.h"
#include "layers/listing.h"

namespace conclave::layers {
namespace {

void add_request(CommandBuilder& command, const OwnedClaim& claim, bool forced, const std::string& note) {
  const RequestRecord record{.token = claim.create.value(), .forced = forced, .note = note};
  command.put_record(request_record_key(claim.key), encode(record), claim.lease);
}

}  // namespace

std::optional<OwnedClaim> owned_claim_of(const keyspace::View& view, ByteView name) {
  const std::optional<keyspace::KeyValue> owner = owner_of(view, name);
  if (!owner) return std::nullopt;
  return OwnedClaim{.key = std::string(owner->key),
                    .create = owner->create,
                    .lease = owner->lease,
                    .is_session = lock_claim_of(view, *owner).is_session()};
}

std::string encode_release_request(const OwnedClaim& claim, const std::string& note) {
  CommandBuilder command;
  command.if_created(claim.key, claim.create);
  add_request(command, claim, false, note);
  return command.build();
}

std::string encode_forced_release(const OwnedClaim& claim, const std::string& reason) {
  CommandBuilder command;
  command.if_created(claim.key, claim.create);
  if (claim.is_session) add_request(command, claim, true, reason);
  command.erase_record(claim_record_key(claim.key)).erase(claim.key);
  return command.build();
}

}  // namespace conclave::layers
