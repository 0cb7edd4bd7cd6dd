#include "sim/session_operator.h"

#include <fmt/format.h>

#include <utility>

#include "layers/recipe.h"
#include "sim/node_cluster.h"

namespace conclave::sim {
namespace {

using keyspace::CommandKind;

void pass_over(const NodeAnswer&) {}

bool is_done(const NodeAnswer& answer) {
  return answer.outcome == NodeOutcome::kDone && answer.error == keyspace::ErrorId::kNone;
}

}  // namespace

std::string SessionOperator::next_note() {
  return fmt::format("note {}", ++notes_);
}

void SessionOperator::act(SessionOwner& owner) {
  const uint64_t draw = random_.below(16);
  if (draw == 0) {
    kill(owner.id());
  } else if (const std::optional<client::HeldClaim> held = owner.draw_held(); held && draw < 9) {
    // Of a token that is over, or was never, nothing comes.
    const int64_t token = random_.chance(1, 10) ? held->token - 1 : held->token;
    force_release({.name = held->name,
                   .token = token,
                   .reason = next_note(),
                   .now = random_.coin(),
                   .is_given_up = random_.chance(1, 4)});
  } else if (held) {
    request(held->name);
  }
}

// By the command that ends sessions whose time is over.
void SessionOperator::kill(int64_t session) {
  ++scene_.result.counts["kills of sessions asked for"];
  scene_.say(fmt::format("{:x} is to be killed", session));
  scene_.primitives.operators().note_kill(session);
  const size_t node = scene_.cluster.pick_server();
  scene_.cluster.call(node, [this, session](NodeServer& server) {
    server.inspect([this, session, &server](const keyspace::View& view) {
      const keyspace::Session* known = view.session(SessionId(static_cast<uint64_t>(session)));
      if (known == nullptr) return;
      std::string body;
      keyspace::encode_expire({known->lease}, body);
      server.command({.kind = CommandKind::kLeaseExpire}, body,
                     scene_.cluster.reply_to([this, session](const NodeAnswer& answer) {
                       if (is_done(answer)) scene_.primitives.note_killed(session);
                     }));
    });
  });
}

void SessionOperator::request(const std::string& name) {
  ++scene_.result.counts["releases asked for"];
  const std::string note = next_note();
  scene_.say(fmt::format("{} is to be released: {}", name, note));
  scene_.primitives.operators().note_request(name, note);
  const size_t node = scene_.cluster.pick_server();
  scene_.cluster.call(node, [name, note](NodeServer& server) {
    server.inspect([name, note, &server](const keyspace::View& view) {
      const std::optional<layers::OwnedClaim> claim = layers::owned_claim_of(view, name);
      if (!claim || !claim->is_session) return;
      server.command({.kind = CommandKind::kInternal}, layers::encode_release_request(*claim, note), pass_over);
    });
  });
}

void SessionOperator::force_release(Force force) {
  ++scene_.result.counts["forced releases asked for"];
  scene_.say(fmt::format("{} with token {} is to be forced{}: {}", force.name, force.token, force.now ? " now" : "",
                         force.reason));
  scene_.primitives.operators().note_force(force.name, force.token, force.reason);
  const size_t node = scene_.cluster.pick_server();
  scene_.cluster.call(node, [this, node, force = std::move(force)](NodeServer& server) {
    server.inspect(
        [this, node, force, &server](const keyspace::View& view) { look_at_owner(force, server, node, view); });
  });
}

void SessionOperator::look_at_owner(const Force& force, NodeServer& server, size_t node, const keyspace::View& view) {
  const std::optional<layers::OwnedClaim> claim = layers::owned_claim_of(view, force.name);
  if (!claim || claim->create.value() != force.token) return;
  const std::optional<keyspace::LeaseInfo> lease = view.lease(claim->lease);
  if (force.now || !lease) {
    write_force(force, server, *claim);
    return;
  }
  const Duration time = std::chrono::milliseconds(lease->ttl_ms);
  if (!claim->is_session) {
    wait(force, node, *claim, time);
    return;
  }
  server.command({.kind = CommandKind::kInternal}, layers::encode_release_request(*claim, force.reason),
                 [this, force, node, claim = *claim, time](const NodeAnswer& answer) {
                   if (is_done(answer)) wait(force, node, claim, time);
                 });
}

// At the server, which forgets it where it ends.
void SessionOperator::wait(const Force& force, size_t node, const layers::OwnedClaim& claim, Duration time) {
  if (force.is_given_up) return;
  scene_.world.scheduler().schedule(scene_.world.machine(node).gate, scene_.world.now() + time,
                                    [this, force, node, claim] {
                                      if (!scene_.closing) write_force(force, *scene_.cluster.server(node), claim);
                                    });
}

void SessionOperator::write_force(const Force& force, NodeServer& server, const layers::OwnedClaim& claim) {
  server.command({.kind = CommandKind::kInternal}, layers::encode_forced_release(claim, force.reason),
                 scene_.cluster.reply_to([this, claim](const NodeAnswer& answer) {
                   if (is_done(answer)) scene_.primitives.note_forced(claim.key, claim.create.value());
                 }));
}

}  // namespace conclave::sim
