// A world for Sessions in tests: one keyspace, and a log whose entries are applied when the test says so. What goes out
// is kept for the test to look at.
#pragma once

#include <deque>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "keyspace/interface.h"
#include "keyspace/keyspace.h"
#include "keyspace/wire.h"
#include "layers/sessions.h"

namespace conclave::layers {

class TestWorld final : public SessionsWorld {
 public:
  explicit TestWorld(const SessionsOptions& options = {}) : sessions_(options, *this) { sessions_.work(now); }

  // ---- SessionsWorld ----
  const keyspace::View& view() const override { return view_; }
  bool is_settled() const override { return true; }
  void write(Ticket ticket, const keyspace::CommandHeader& header, ByteView body) override {
    if (refuses_writes) {
      refused_.push_back(ticket);
      return;
    }
    writes_.push_back({ticket, header, std::string(body)});
  }
  void read(Ticket ticket) override { reads_.push_back(ticket); }
  void keep_alive(Ticket ticket, LeaseId lease) override { keep_alives_.emplace_back(ticket, lease); }
  std::string hash_of(ByteView secret) const override {
    std::string hash(keyspace::kSecretHashBytes, '\0');
    for (size_t i = 0; i < secret.size(); ++i)
      hash[i % hash.size()] = static_cast<char>(hash[i % hash.size()] + secret[i]);
    return hash;
  }
  void send(StreamId stream, v1::SessionResponse&& response) override { sent[stream].push_back(std::move(response)); }

  // ---- The log ----
  // Applies all that is proposed, answers all that is asked, until nothing is left.
  void settle() {
    while (step()) {
    }
  }
  bool step() {
    if (!refused_.empty()) {
      const Ticket ticket = refused_.front();
      refused_.pop_front();
      sessions_.on_write_refused(now, ticket, NotDone::kNoQuorum);
      return true;
    }
    if (!writes_.empty()) {
      const Write write = std::move(writes_.front());
      writes_.pop_front();
      apply(write.header, write.body, write.ticket);
      return true;
    }
    if (!reads_.empty()) {
      const Ticket ticket = reads_.front();
      reads_.pop_front();
      sessions_.on_read(now, ticket);
      return true;
    }
    if (!keep_alives_.empty()) {
      const auto [ticket, lease] = keep_alives_.front();
      keep_alives_.pop_front();
      sessions_.on_kept_alive(ticket, keyspace_.lease(lease) ? keyspace_.lease(lease)->ttl_ms : 0);
      return true;
    }
    if (sessions_.has_work()) {
      sessions_.work(now);
      return true;
    }
    return false;
  }
  // The oldest write is lost on the way: nobody will know.
  void lose_write() {
    const Ticket ticket = writes_.front().ticket;
    writes_.pop_front();
    sessions_.on_write_unknown(now, ticket);
  }
  // It is applied, later than its answer.
  void delay_write() {
    late_.push_back(std::move(writes_.front()));
    writes_.pop_front();
    sessions_.on_write_unknown(now, late_.back().ticket);
  }
  void apply_late() {
    for (Write& write : std::exchange(late_, {})) apply(write.header, write.body, 0);
  }
  void apply(const keyspace::CommandHeader& header, const std::string& body, Ticket ticket = 0) {
    bool done = keyspace_.apply(LogIndex(++index_), Term(term), encode_command(header, body));
    while (!done) done = keyspace_.run_slice();
    if (ticket != 0) sessions_.on_written(now, ticket, keyspace_.reply());
    sessions_.on_applied(now, keyspace::applied_of(keyspace_));
  }
  // As etcd's clients do.
  void put(const std::string& key, LeaseId lease = {}, const std::string& value = {}) {
    std::string body;
    keyspace::append_bytes_field(body, 1, key);
    keyspace::append_bytes_field(body, 2, value);
    keyspace::append_int64_field(body, 3, lease.value());
    apply({.kind = keyspace::CommandKind::kPut}, body);
  }
  void erase(const std::string& key) {
    std::string body;
    keyspace::append_bytes_field(body, 1, key);
    apply({.kind = keyspace::CommandKind::kDeleteRange}, body);
  }
  void expire(int64_t lease) {
    std::string body;
    keyspace::encode_expire({LeaseId(lease)}, body);
    apply({.kind = keyspace::CommandKind::kLeaseExpire, .term = Term(term)}, body);
  }

  Sessions& sessions() { return sessions_; }
  keyspace::Keyspace& keyspace() { return keyspace_; }
  size_t writes_waiting() const { return writes_.size(); }
  size_t reads_waiting() const { return reads_.size(); }
  size_t keep_alives_waiting() const { return keep_alives_.size(); }
  uint64_t index() const { return index_; }

  Instant now{std::chrono::hours(1)};
  uint64_t term = 1;
  bool refuses_writes = false;
  std::map<StreamId, std::deque<v1::SessionResponse>> sent;

 private:
  struct Write {
    Ticket ticket = 0;
    keyspace::CommandHeader header;
    std::string body;
  };
  keyspace::Keyspace keyspace_;
  keyspace::KeyspaceView view_{keyspace_};
  uint64_t index_ = 0;
  std::deque<Write> writes_;
  std::vector<Write> late_;
  std::deque<Ticket> refused_;
  std::deque<Ticket> reads_;
  std::deque<std::pair<Ticket, LeaseId>> keep_alives_;
  Sessions sessions_;
};

// One line for what a response says: "7 granted orders@12", "7#3 error WOULD_BLOCK".
inline std::string describe(const v1::SessionResponse& response) {
  std::string out = fmt::format("{}", response.session());
  if (response.sequence() != 0) out += fmt::format("#{}", response.sequence());
  if (response.has_error()) return out + " error " + response.error().reason();
  using What = v1::SessionResponse::WhatCase;
  switch (response.what_case()) {
    case What::kOpened:
      return out + fmt::format(" opened {}", response.opened().ttl_ms());
    case What::kAttached:
      out += " attached";
      for (const v1::Claim& claim : response.attached().claims()) {
        out += fmt::format(" {}@{}{}", claim.name(), claim.token(), claim.granted() ? "+" : "");
      }
      return out;
    case What::kKept:
      return out + fmt::format(" kept {} gone {} failed {}", response.kept().id(), response.kept().gone_size(),
                               response.kept().failed_size());
    case What::kClosed:
      return out + " closed";
    case What::kEnded:
      return out + " ended " + v1::SessionEnded::Reason_Name(response.ended().reason());
    case What::kClaimed:
      out += " claimed";
      for (const v1::ClaimState& claim : response.claimed().claims()) {
        out += fmt::format(" {}@{}{}", claim.name(), claim.token(), claim.granted() ? "+" : "");
      }
      return out;
    case What::kCancelled:
      return out + " cancelled";
    case What::kReleased:
      return out + (response.released().held() ? " released" : " was lost");
    case What::kGranted:
      return out + fmt::format(" granted {}@{}", response.granted().name(), response.granted().token());
    case What::kLost:
      return out + fmt::format(" lost {}@{} {}{}", response.lost().name(), response.lost().token(),
                               v1::Lost::Reason_Name(response.lost().reason()),
                               response.lost().note().empty() ? "" : " " + response.lost().note());
    case What::kReleaseRequested:
      return out + fmt::format(" asked for {}@{} {}", response.release_requested().name(),
                               response.release_requested().token(), response.release_requested().note());
    case What::kProclaimed:
      return out + fmt::format(" proclaimed {}", response.proclaimed().revision());
    case What::kLeadership:
      out += fmt::format(" leads {}@{} {}{}", response.leadership().name(), response.leadership().token(),
                         response.leadership().value(), response.leadership().skipped() ? " skipped" : "");
      if (!response.leadership().has_candidates()) return out;
      out += fmt::format(", {} wait:", response.leadership().candidates().waiting());
      for (const v1::Candidate& candidate : response.leadership().candidates().best()) {
        out += fmt::format(" {}({})", candidate.session(), candidate.priority());
      }
      return out;
    case What::WHAT_NOT_SET:
      return out + " nothing";
  }
  return out;
}

}  // namespace conclave::layers
