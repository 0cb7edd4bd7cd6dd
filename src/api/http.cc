#include "api/http.h"

#include <utility>

#include <fmt/format.h>

namespace conclave::api {
namespace {

constexpr std::string_view kJson = "application/json";
// Prometheus' version of its own text format.
constexpr std::string_view kMetricsType = "text/plain; version=0.0.4; charset=utf-8";

net::HttpResponse health(bool healthy, std::string_view reason) {
  return {.status = healthy ? 200 : 503,
          .content_type = std::string(kJson),
          .body = fmt::format(R"({{"health":"{}","reason":"{}"}})", healthy, reason)};
}

net::HttpResponse ready(bool healthy, std::string_view reason) {
  return {.status = healthy ? 200 : 503,
          .body = healthy ? std::string("ok\n") : fmt::format("not ready: {}\n", reason)};
}

}  // namespace

// One linearizable read.
class Http::Probe final : public Waiter {
 public:
  Probe(Http& http, uint64_t id, std::function<void(bool, std::string_view)> done)
      : http_(http), id_(id), done_(std::move(done)) {}
  ~Probe() override { http_.context_.forget(ticket_); }

  void begin() {
    ticket_ = http_.context_.issue(*this);
    http_.context_.read(ticket_);
  }
  void on_ready(node::Ticket) override { finish(true, ""); }
  void on_refused(node::Ticket, keyspace::ErrorId error) override { finish(false, error_text(error)); }

 private:
  void finish(bool healthy, std::string_view reason) {
    ticket_ = 0;
    const auto self = http_.probes_.extract(id_);
    done_(healthy, reason);
  }
  Http& http_;
  uint64_t id_;
  std::function<void(bool, std::string_view)> done_;
  node::Ticket ticket_ = 0;
};

Http::Http(Context& context) : context_(context) {}

Http::~Http() = default;

void Http::probe(std::function<void(bool healthy, std::string_view reason)> done) {
  if (!context_.has_leader()) {
    done(false, "RAFT NO LEADER");
    return;
  }
  if (probes_.size() >= kHttpReadsMax) {
    done(false, error_text(keyspace::ErrorId::kTooManyRequests));
    return;
  }
  const uint64_t id = ++last_;
  probes_.emplace(id, std::make_unique<Probe>(*this, id, std::move(done))).first->second->begin();
}

void Http::serve(const net::HttpRequest& request, std::function<void(net::HttpResponse)> answer) {
  const std::string_view target = request.target;
  const std::string_view path = target.substr(0, target.find('?'));
  const std::string_view query = path.size() < target.size() ? target.substr(path.size() + 1) : std::string_view();
  const bool known =
      path == "/health" || path == "/livez" || path == "/readyz" || path == "/version" || path == "/metrics";
  if (!known) {
    answer({.status = 404, .body = "not found\n"});
  } else if (request.method != "GET" && request.method != "HEAD") {
    answer({.status = 405, .body = "only GET\n"});
  } else if (path == "/livez") {
    answer({.body = "ok\n"});
  } else if (path == "/version") {
    const std::string& version = context_.options().version;
    answer({.content_type = std::string(kJson),
            .body = fmt::format(R"({{"etcdserver":"{0}","etcdcluster":"{0}","storage":"{0}"}})", version)});
  } else if (path == "/metrics") {
    answer({.content_type = std::string(kMetricsType), .body = metrics_text(context_)});
  } else if (path == "/health" && query.find("serializable=true") != std::string_view::npos) {
    answer(health(true, ""));
  } else {
    const auto form = path == "/health" ? health : ready;
    probe([answer = std::move(answer), form](bool healthy, std::string_view reason) { answer(form(healthy, reason)); });
  }
}

std::string metrics_text(Context& context) {
  std::string out;
  const auto add = [&out](std::string_view name, std::string_view kind, std::string_view help, auto value) {
    out += fmt::format("# HELP conclave_{0} {1}\n# TYPE conclave_{0} {2}\nconclave_{0} {3}\n", name, help, kind, value);
  };
  const node::Replica& replica = context.replica();
  const raft::Status status = replica.raft().status();
  keyspace::Keyspace& keyspace = context.keyspace();
  add("raft_term", "gauge", "Newest term known.", status.term.value());
  add("raft_commit_index", "gauge", "Last entry known as committed.", status.commit.value());
  add("raft_applied_index", "gauge", "Last entry applied here.", replica.applied().value());
  add("raft_is_leader", "gauge", "1 if this server leads.", context.is_leader() ? 1 : 0);
  add("raft_has_leader", "gauge", "1 if a leader is known.", context.has_leader() ? 1 : 0);
  add("writes_pending", "gauge", "Writes that wait for a leader or their entry.", replica.writes_pending());
  const node::ReplicaCounters& counters = replica.counters();
  add("entries_applied_total", "counter", "Entries applied here.", counters.entries_applied);
  add("writes_proposed_total", "counter", "Writes of clients proposed here.", counters.writes_proposed);
  add("writes_forwarded_total", "counter", "Writes of clients sent to the leader.", counters.writes_forwarded);
  add("frames_refused_total", "counter", "Frames of peers refused as malformed.", counters.frames_refused);
  add("snapshots_taken_total", "counter", "Snapshots written here.", counters.snapshots_taken);
  add("snapshots_installed_total", "counter", "Snapshots received from a peer.", counters.snapshots_installed);
  add("leases_expired_total", "counter", "Leases this server ended as leader.", counters.leases_expired);
  const keyspace::KeyRange everything{.kind = keyspace::KeyRange::Kind::kFrom};
  add("keys", "gauge", "Keys that live.", keyspace.store().tree().totals(everything).lives);
  add("revision", "gauge", "Newest revision.", keyspace.revision().value());
  add("compacted_revision", "gauge", "Revisions below are compacted; -1: none.", keyspace.compacted());
  add("store_bytes", "gauge", "Memory of keys, values and history.", keyspace.store().used_bytes());
  add("history_bytes", "gauge", "Part of it that is kept for the past only.", keyspace.store().history_bytes());
  add("leases", "gauge", "Leases that stand.", keyspace.tables().leases().size());
  add("watchers", "gauge", "Watchers, all streams together.",
      keyspace.watches().synced() + keyspace.watches().behind());
  add("watchers_behind", "gauge", "Watchers that catch up from history.", keyspace.watches().behind());
  add("watch_streams", "gauge", "Streams that watch.", context.streams().size());
  add("calls_open", "gauge", "Calls under way.", context.metrics().calls_open);
  add("calls_cancelled_total", "counter", "Calls ended by their client.", context.metrics().calls_cancelled);
  out += "# HELP conclave_requests_total Calls ended by this server, by method and gRPC code.\n";
  out += "# TYPE conclave_requests_total counter\n";
  for (size_t method = 0; method < kMethodCount; ++method) {
    for (size_t code = 0; code < Metrics::kCodes; ++code) {
      const uint64_t count = context.metrics().requests[method][code];
      if (count == 0) continue;
      out += fmt::format("conclave_requests_total{{method=\"{}\",code=\"{}\"}} {}\n",
                         path_of(static_cast<Method>(method)).substr(1), code, count);
    }
  }
  return out;
}

}  // namespace conclave::api
