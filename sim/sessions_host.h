// SessionsHost: the product's Sessions on one simulated server: what it asks goes to the server's replica, what comes
// of it goes back, and its streams end at those who opened them. Built with the replica and gone with it; the streams
// are lost then, and whoever opened one is told.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "layers/sessions.h"
#include "node/replica.h"

namespace conclave::sim {

// The client's end of a stream.
class SessionSink {
 public:
  virtual ~SessionSink() = default;
  // From within the server's turn.
  virtual void on_response(v1::SessionResponse&& response) = 0;
  // The stream is gone.
  virtual void on_stream_lost() = 0;
};

class SessionsHost final : private layers::SessionsWorld {
 public:
  SessionsHost(const layers::SessionsOptions& options, node::Replica& replica);
  ~SessionsHost() override;

  // --- From clients.
  [[nodiscard]] layers::StreamId open(std::shared_ptr<SessionSink> sink);
  void close(layers::StreamId stream);
  void request(Instant now, layers::StreamId stream, const v1::SessionRequest& request);
  void introduce(Instant now, layers::StreamId stream, const v1::SessionIdentity& identity);
  void withdraw(Instant now, layers::StreamId stream, SessionId session, uint64_t sequence);

  // --- From the replica. Tickets of its own are told apart from those of the server.
  [[nodiscard]] static bool is_own(node::Ticket ticket) { return (ticket & kOwn) != 0; }
  void on_written(Instant now, node::Ticket ticket, const keyspace::Reply& reply);
  void on_write_refused(Instant now, node::Ticket ticket, node::RequestRefusal refusal);
  void on_write_unknown(Instant now, node::Ticket ticket);
  void on_read(Instant now, node::Ticket ticket);
  void on_read_refused(Instant now, node::Ticket ticket, node::RequestRefusal refusal);
  void on_kept_alive(Instant now, node::Ticket ticket, int64_t ttl_ms);
  void on_keep_alive_refused(Instant now, node::Ticket ticket, node::RequestRefusal refusal);
  void on_applied(Instant now);
  // The state is about to be replaced.
  void on_state_replaced() { is_replaced_ = true; }
  // The replica is done with what was handed to it.
  void take_replacement(Instant now);

  // The end of a turn. True if there is more to do at once.
  [[nodiscard]] bool work(Instant now);
  [[nodiscard]] Instant next_deadline() const { return sessions_.next_deadline(); }

 private:
  static constexpr node::Ticket kOwn = node::Ticket{1} << 63;

  // The state as the replica has it, whichever that is.
  class State final : public keyspace::View {
   public:
    explicit State(const node::Replica& replica) : replica_(replica) {}
    [[nodiscard]] LogIndex index() const override { return view().index(); }
    [[nodiscard]] Revision revision() const override { return view().revision(); }
    [[nodiscard]] std::optional<keyspace::KeyValue> get(ByteView key) const override { return view().get(key); }
    [[nodiscard]] int64_t count(const keyspace::KeyRange& range) const override { return view().count(range); }
    [[nodiscard]] std::optional<keyspace::KeyValue> oldest(const keyspace::KeyRange& range,
                                                           Revision after) const override {
      return view().oldest(range, after);
    }
    [[nodiscard]] std::vector<keyspace::KeyValue> oldest_of(const keyspace::KeyRange& range,
                                                            size_t count) const override {
      return view().oldest_of(range, count);
    }
    std::optional<std::string> scan(const keyspace::KeyRange& range, size_t keys_max,
                                    const std::function<bool(const keyspace::KeyValue&)>& visit) const override {
      return view().scan(range, keys_max, visit);
    }
    [[nodiscard]] const keyspace::Record* record(ByteView key) const override { return view().record(key); }
    void scan_records(ByteView prefix, ByteView from, size_t count,
                      const std::function<bool(ByteView key, const keyspace::Record&)>& visit) const override {
      view().scan_records(prefix, from, count, visit);
    }
    [[nodiscard]] std::optional<keyspace::LeaseInfo> lease(LeaseId id) const override { return view().lease(id); }
    [[nodiscard]] std::vector<std::string> lease_keys(LeaseId id, ByteView from, size_t count) const override {
      return view().lease_keys(id, from, count);
    }
    void scan_lease_records(LeaseId id, ByteView from, size_t count,
                            const std::function<bool(ByteView key, const keyspace::Record&)>& visit) const override {
      view().scan_lease_records(id, from, count, visit);
    }
    [[nodiscard]] const keyspace::Session* session(SessionId id) const override { return view().session(id); }

   private:
    [[nodiscard]] keyspace::KeyspaceView view() const { return keyspace::KeyspaceView(replica_.keyspace()); }
    const node::Replica& replica_;
  };

  // layers::SessionsWorld
  [[nodiscard]] const keyspace::View& view() const override { return state_; }
  [[nodiscard]] bool is_settled() const override { return !replica_.keyspace().is_busy(); }
  void write(layers::Ticket ticket, const keyspace::CommandHeader& header, ByteView body) override;
  void read(layers::Ticket ticket) override;
  void keep_alive(layers::Ticket ticket, LeaseId lease) override;
  [[nodiscard]] std::string hash_of(ByteView secret) const override;
  void send(layers::StreamId stream, v1::SessionResponse&& response) override;

  node::Replica& replica_;
  const State state_;
  Instant now_{};  // of what it was called for last
  bool is_replaced_ = false;
  Term leads_in_;
  std::map<layers::StreamId, std::shared_ptr<SessionSink>> sinks_;
  layers::Sessions sessions_;
};

}  // namespace conclave::sim
