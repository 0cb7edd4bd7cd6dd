#include "sim/sessions_host.h"

#include <array>
#include <cstring>
#include <utility>

namespace conclave::sim {
namespace {

layers::NotDone not_done(node::RequestRefusal refusal) {
  if (refusal == node::RequestRefusal::kNoSpace) return layers::NotDone::kNoSpace;
  const bool waits = refusal == node::RequestRefusal::kNoLeader || refusal == node::RequestRefusal::kTimedOut;
  return waits ? layers::NotDone::kNoQuorum : layers::NotDone::kOverloaded;
}

}  // namespace

SessionsHost::SessionsHost(const layers::SessionsOptions& options, node::Replica& replica)
    : replica_(replica), state_(replica), sessions_(options, *this) {}

SessionsHost::~SessionsHost() {
  for (const auto& [stream, sink] : sinks_) sink->on_stream_lost();
}

// --- Clients.

layers::StreamId SessionsHost::open(std::shared_ptr<SessionSink> sink) {
  const layers::StreamId stream = sessions_.open_stream();
  sinks_[stream] = std::move(sink);
  return stream;
}

void SessionsHost::close(layers::StreamId stream) {
  if (sinks_.erase(stream) == 1) sessions_.close_stream(stream);
}

void SessionsHost::request(Instant now, layers::StreamId stream, const v1::SessionRequest& request) {
  now_ = now;
  if (sinks_.contains(stream)) sessions_.request(now, stream, request);
}

void SessionsHost::introduce(Instant now, layers::StreamId stream, const v1::SessionIdentity& identity) {
  now_ = now;
  if (sinks_.contains(stream)) sessions_.introduce(now, stream, identity);
}

void SessionsHost::withdraw(Instant now, layers::StreamId stream, SessionId session, uint64_t sequence) {
  now_ = now;
  if (sinks_.contains(stream)) sessions_.withdraw(now, stream, session, sequence);
}

// --- What it asks of the replica.

void SessionsHost::write(layers::Ticket ticket, const keyspace::CommandHeader& header, ByteView body) {
  replica_.write(now_, ticket | kOwn, header, body);
}

void SessionsHost::read(layers::Ticket ticket) {
  replica_.read(now_, ticket | kOwn);
}

void SessionsHost::keep_alive(layers::Ticket ticket, LeaseId lease) {
  replica_.keep_alive(now_, ticket | kOwn, lease);
}

// No secret is kept from anybody here: as many bytes as a hash has, that depend on all of it.
std::string SessionsHost::hash_of(ByteView secret) const {
  std::array<uint64_t, keyspace::kSecretHashBytes / sizeof(uint64_t)> words{};
  for (size_t i = 0; i < words.size(); ++i) {
    uint64_t word = 0x9e3779b97f4a7c15ULL * (i + 1);
    for (const char byte : secret) {
      word = (word ^ static_cast<uint8_t>(byte)) * 0xbf58476d1ce4e5b9ULL;
      word ^= word >> 29;
    }
    words[i] = word;
  }
  std::string hash(keyspace::kSecretHashBytes, '\0');
  std::memcpy(hash.data(), words.data(), hash.size());
  return hash;
}

void SessionsHost::send(layers::StreamId stream, v1::SessionResponse&& response) {
  const auto sink = sinks_.find(stream);
  if (sink != sinks_.end()) sink->second->on_response(std::move(response));
}

// --- What the replica answers.

void SessionsHost::on_written(Instant now, node::Ticket ticket, const keyspace::Reply& reply) {
  now_ = now;
  take_replacement(now);
  sessions_.on_written(now, ticket & ~kOwn, reply);
}

void SessionsHost::on_write_refused(Instant now, node::Ticket ticket, node::RequestRefusal refusal) {
  now_ = now;
  take_replacement(now);
  sessions_.on_write_refused(now, ticket & ~kOwn, not_done(refusal));
}

void SessionsHost::on_write_unknown(Instant now, node::Ticket ticket) {
  now_ = now;
  take_replacement(now);
  sessions_.on_write_unknown(now, ticket & ~kOwn);
}

void SessionsHost::on_read(Instant now, node::Ticket ticket) {
  now_ = now;
  take_replacement(now);
  sessions_.on_read(now, ticket & ~kOwn);
}

void SessionsHost::on_read_refused(Instant now, node::Ticket ticket, node::RequestRefusal refusal) {
  now_ = now;
  take_replacement(now);
  sessions_.on_read_refused(now, ticket & ~kOwn, not_done(refusal));
}

void SessionsHost::on_kept_alive(Instant now, node::Ticket ticket, int64_t ttl_ms) {
  now_ = now;
  take_replacement(now);
  sessions_.on_kept_alive(ticket & ~kOwn, ttl_ms);
}

void SessionsHost::on_keep_alive_refused(Instant now, node::Ticket ticket, node::RequestRefusal refusal) {
  now_ = now;
  take_replacement(now);
  sessions_.on_keep_alive_refused(ticket & ~kOwn, not_done(refusal));
}

void SessionsHost::on_applied(Instant now) {
  now_ = now;
  take_replacement(now);
  sessions_.on_applied(now, keyspace::applied_of(replica_.keyspace()));
}

// Before anything else of the new state is said.
void SessionsHost::take_replacement(Instant now) {
  if (!std::exchange(is_replaced_, false)) return;
  now_ = now;
  sessions_.on_state_replaced(now);
}

bool SessionsHost::work(Instant now) {
  now_ = now;
  const raft::Status status = replica_.raft().status();
  const bool leads = status.role == raft::Role::kLeader && replica_.applied_term() == status.term;
  const Term term = leads ? status.term : Term();
  if (term != leads_in_) {
    leads_in_ = term;
    sessions_.set_leading(term);
  }
  sessions_.set_lagging(now, replica_.is_lagging(now));
  if (now >= sessions_.next_deadline()) sessions_.tick(now);
  if (sessions_.has_work()) sessions_.work(now);
  return sessions_.has_work();
}

}  // namespace conclave::sim
