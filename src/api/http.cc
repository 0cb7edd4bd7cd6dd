#include "api/http.h"

#include <algorithm>
#include <numeric>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <google/protobuf/descriptor.h>

namespace conclave::api {
namespace {

constexpr std::string_view kJson = "application/json";
// Prometheus' version of its own text format.
constexpr std::string_view kMetricsType = "text/plain; version=0.0.4; charset=utf-8";

// etcd's word.
constexpr std::string_view kNoLeader = "RAFT NO LEADER";

// Of a check that could not be made since too many are under way, which says nothing of the server's health.
bool is_overload(std::string_view reason) {
  return reason.ends_with(error_text(keyspace::ErrorId::kTooManyRequests));
}

net::HttpResponse health(bool healthy, std::string_view reason) {
  return {.status = healthy ? 200 : 503,
          .content_type = std::string(kJson),
          .body = fmt::format(R"({{"health":"{}","reason":"{}"}})", healthy, reason),
          .retry_after = is_overload(reason) ? net::kRetryAfter : Duration::zero()};
}

// Whether `query` has `name=value`, or `name` alone where value is empty.
bool asks(std::string_view query, std::string_view name, std::string_view value) {
  while (!query.empty()) {
    const std::string_view part = query.substr(0, query.find('&'));
    query.remove_prefix(std::min(part.size() + 1, query.size()));
    const std::string_view key = part.substr(0, part.find('='));
    const std::string_view given = key.size() < part.size() ? part.substr(key.size() + 1) : std::string_view();
    if (key == name && (value.empty() || given == value)) return true;
  }
  return false;
}

// The first alarm that stands and is not excluded by its name, as etcd words it; or nothing.
std::string alarm_besides(const Alarms& alarms, std::string_view query) {
  for (const Alarm& alarm : alarms.standing()) {
    const std::string_view name = to_string(alarm.kind);
    if (!asks(query, "exclude", name)) return fmt::format("ALARM {}", name);
  }
  return "";
}

// One of the checks behind /livez and /readyz.
struct Check {
  std::string_view name;
  std::string_view failure;  // empty: it holds
};

net::HttpResponse checked(const std::vector<Check>& checks, std::string_view query) {
  std::string lines;
  bool good = true;
  Duration retry_after{};
  for (const Check& check : checks) {
    if (asks(query, "exclude", check.name)) continue;
    good = good && check.failure.empty();
    if (is_overload(check.failure)) retry_after = net::kRetryAfter;
    lines += check.failure.empty() ? fmt::format("[+]{} ok\n", check.name)
                                   : fmt::format("[-]{} failed: {}\n", check.name, check.failure);
  }
  const std::string_view word = good ? "ok\n" : "";
  return {.status = good ? 200 : 503,
          .body = good && !asks(query, "verbose", "") ? std::string(word) : lines + std::string(word),
          .retry_after = retry_after};
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

Http::Http(Context& context, const SessionsHost& sessions) : context_(context), sessions_(sessions) {}

Http::~Http() = default;

void Http::probe(std::function<void(bool healthy, std::string_view reason)> done) {
  if (!context_.has_leader()) {
    done(false, kNoLeader);
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
    // Alive does not depend on the others.
    answer(checked({{.name = "serializable_read"}}, query));
  } else if (path == "/version") {
    answer({.content_type = std::string(kJson),
            .body = fmt::format(R"({{"etcdserver":"{0}","etcdcluster":"{1}","storage":"{1}"}})",
                                context_.options().version, context_.options().cluster_version())});
  } else if (path == "/metrics") {
    answer({.content_type = std::string(kMetricsType), .body = metrics_text(context_, sessions_)});
  } else if (path == "/health") {
    auto tell = [this, answer = std::move(answer)](bool healthy, std::string_view reason) {
      ++(healthy ? context_.metrics().health_successes : context_.metrics().health_failures);
      answer(health(healthy, reason));
    };
    // In etcd's order: an alarm, a leader, a read.
    const std::string alarm = alarm_besides(context_.alarms(), query);
    if (!alarm.empty() || asks(query, "serializable", "true")) {
      tell(alarm.empty(), alarm);
    } else if (!context_.has_leader()) {
      tell(false, kNoLeader);
    } else {
      probe([tell = std::move(tell)](bool healthy, std::string_view reason) {
        tell(healthy, healthy ? "" : fmt::format("RANGE ERROR:{}", reason));
      });
    }
  } else {
    auto tell = [this, answer = std::move(answer), query = std::string(query)](bool, std::string_view reason) {
      const bool learner = !context_.replica().raft().status().voter;
      const bool corrupt = context_.alarms().stands(AlarmKind::kCorrupt);
      answer(checked({{.name = "data_corruption", .failure = corrupt ? "alarm activated: CORRUPT" : ""},
                      {.name = "linearizable_read", .failure = reason},
                      {.name = "non_learner", .failure = learner ? "this server is a learner" : ""},
                      {.name = "serializable_read"}},
                     query));
    };
    if (asks(query, "exclude", "linearizable_read")) {
      tell(true, "");
    } else {
      probe(std::move(tell));
    }
  }
}

namespace {

// How gRPC's exporters name codes and shapes of methods.
constexpr std::string_view kCodeNames[] = {
    "OK",       "Canceled",       "Unknown",          "InvalidArgument",   "DeadlineExceeded",
    "NotFound", "AlreadyExists",  "PermissionDenied", "ResourceExhausted", "FailedPrecondition",
    "Aborted",  "OutOfRange",     "Unimplemented",    "Internal",          "Unavailable",
    "DataLoss", "Unauthenticated"};
static_assert(std::size(kCodeNames) == Metrics::kCodes);

double seconds(Duration duration) {
  return std::chrono::duration<double>(duration).count();
}

std::string method_labels(Method method) {
  const std::string_view path = path_of(method).substr(1);
  const size_t slash = path.find('/');
  std::string name(path);
  name[slash] = '.';
  const auto* descriptor = google::protobuf::DescriptorPool::generated_pool()->FindMethodByName(name);
  std::string_view type = "unary";
  if (descriptor != nullptr && descriptor->server_streaming()) {
    type = descriptor->client_streaming() ? "bidi_stream" : "server_stream";
  }
  return fmt::format("grpc_type=\"{}\",grpc_service=\"{}\",grpc_method=\"{}\"", type, path.substr(0, slash),
                     path.substr(slash + 1));
}

void add_calls(const Metrics& metrics, std::string& out) {
  std::string started = "# TYPE grpc_server_started_total counter\n";
  std::string handled = "# TYPE grpc_server_handled_total counter\n";
  for (size_t method = 0; method < kMethodCount; ++method) {
    if (metrics.started[method] == 0) continue;
    const std::string labels = method_labels(static_cast<Method>(method));
    started += fmt::format("grpc_server_started_total{{{}}} {}\n", labels, metrics.started[method]);
    for (size_t code = 0; code < Metrics::kCodes; ++code) {
      const uint64_t count = metrics.requests[method][code];
      if (count == 0) continue;
      handled += fmt::format("grpc_server_handled_total{{grpc_code=\"{}\",{}}} {}\n", kCodeNames[code], labels, count);
    }
  }
  out += started + handled;
  out += "# TYPE grpc_server_handling_seconds histogram\n";
  for (size_t method = 0; method < kMethodCount; ++method) {
    const Metrics::Handling& handling = metrics.handling[method];
    const uint64_t all = std::accumulate(handling.calls.begin(), handling.calls.end(), uint64_t{0});
    if (all == 0) continue;
    const std::string labels = method_labels(static_cast<Method>(method));
    uint64_t calls = 0;
    for (size_t i = 0; i < std::size(Metrics::kHandlingBounds); ++i) {
      calls += handling.calls[i];
      out += fmt::format("grpc_server_handling_seconds_bucket{{{},le=\"{}\"}} {}\n", labels,
                         seconds(Metrics::kHandlingBounds[i]), calls);
    }
    out += fmt::format(
        "grpc_server_handling_seconds_bucket{{{0},le=\"+Inf\"}} {1}\ngrpc_server_handling_seconds_sum{{{0}}} {2}\n"
        "grpc_server_handling_seconds_count{{{0}}} {1}\n",
        labels, all, seconds(handling.sum));
  }
}

void add_disk(const DiskMetrics& disk, std::string& out) {
  const auto add = [&out](std::string_view name, std::string_view help, auto value) {
    out += fmt::format("# HELP conclave_wal_{0} {1}\n# TYPE conclave_wal_{0} gauge\nconclave_wal_{0} {2}\n", name, help,
                       value);
  };
  add("live_bytes", "Log segments that hold something needed.", disk.live_bytes);
  add("spare_bytes", "Log segments ready to be written.", disk.spare_bytes);
  add("full", "1 if the disk has no space for another log segment.", disk.full ? 1 : 0);
  out += "# HELP conclave_wal_write_seconds Time of the last write of the log, and of the one under way (0: none).\n";
  out += "# TYPE conclave_wal_write_seconds gauge\n";
  out += fmt::format("conclave_wal_write_seconds{{write=\"last\"}} {}\n", disk.last_write_seconds);
  out += fmt::format("conclave_wal_write_seconds{{write=\"running\"}} {}\n", disk.running_write_seconds);
  // Under etcd's name, with its buckets: a write of the log is one with its sync.
  constexpr std::string_view kName = "etcd_disk_wal_fsync_duration_seconds";
  out += fmt::format("# TYPE {} histogram\n", kName);
  uint64_t writes = 0;
  for (size_t i = 0; i < DiskMetrics::kBounds; ++i) {
    writes += disk.writes[i];
    out += fmt::format("{}_bucket{{le=\"{}\"}} {}\n", kName, static_cast<double>(uint64_t{1} << i) / 1000, writes);
  }
  writes += disk.writes[DiskMetrics::kBounds];
  out +=
      fmt::format("{0}_bucket{{le=\"+Inf\"}} {1}\n{0}_sum {2}\n{0}_count {1}\n", kName, writes, disk.write_seconds_sum);
}

void add_peers(NodeId self, const std::vector<net::PeerLinkState>& peers, std::string& out) {
  const auto each = [&](std::string_view name, std::string_view kind, auto value) {
    out += fmt::format("# TYPE {} {}\n", name, kind);
    for (const net::PeerLinkState& peer : peers) {
      out += fmt::format("{}{{peer=\"{:x}\"}} {}\n", name, peer.id.value(), value(peer));
    }
  };
  using State = net::PeerLinkState;
  each("conclave_peer_connected", "gauge", [](const State& peer) { return peer.connected ? 1 : 0; });
  each("conclave_peer_frames_sent_total", "counter", [](const State& peer) { return peer.frames_sent; });
  each("conclave_peer_frames_dropped_total", "counter", [](const State& peer) { return peer.frames_dropped; });
  each("conclave_peer_refusals_total", "counter", [](const State& peer) { return peer.refusals; });
  each("conclave_peer_corruptions_total", "counter", [](const State& peer) { return peer.corruptions; });
  each("conclave_peer_impostors_total", "counter", [](const State& peer) { return peer.impostors; });
  // Under etcd's names and labels.
  out += "# TYPE etcd_network_peer_sent_bytes_total counter\n";
  for (const State& peer : peers) {
    out += fmt::format("etcd_network_peer_sent_bytes_total{{To=\"{:x}\"}} {}\n", peer.id.value(), peer.bytes_sent);
  }
  out += "# TYPE etcd_network_peer_received_bytes_total counter\n";
  for (const State& peer : peers) {
    out += fmt::format("etcd_network_peer_received_bytes_total{{From=\"{:x}\"}} {}\n", peer.id.value(),
                       peer.bytes_received);
  }
  out += "# TYPE etcd_network_peer_sent_failures_total counter\n";
  for (const State& peer : peers) {
    out +=
        fmt::format("etcd_network_peer_sent_failures_total{{To=\"{:x}\"}} {}\n", peer.id.value(), peer.frames_dropped);
  }
  out += "# TYPE etcd_network_peer_received_failures_total counter\n";
  for (const State& peer : peers) {
    out += fmt::format("etcd_network_peer_received_failures_total{{From=\"{:x}\"}} {}\n", peer.id.value(),
                       peer.corruptions);
  }
  const auto of_pair = [&](std::string_view name, std::string_view kind, auto value) {
    out += fmt::format("# TYPE {} {}\n", name, kind);
    for (const State& peer : peers) {
      out += fmt::format("{}{{Local=\"{:x}\",Remote=\"{:x}\"}} {}\n", name, self.value(), peer.id.value(), value(peer));
    }
  };
  of_pair("etcd_network_active_peers", "gauge", [](const State& peer) { return peer.connected ? 1 : 0; });
  of_pair("etcd_network_disconnected_peers_total", "counter", [](const State& peer) { return peer.breaks; });
}

void add_round_trips(const std::vector<RoundTripMetrics>& peers, std::string& out) {
  constexpr std::string_view kName = "etcd_network_peer_round_trip_time_seconds";
  out += fmt::format("# TYPE {} histogram\n", kName);
  for (const RoundTripMetrics& peer : peers) {
    uint64_t counted = 0;
    for (size_t i = 0; i < RoundTripMetrics::kBounds; ++i) {
      counted += peer.counts[i];
      out += fmt::format("{}_bucket{{To=\"{:x}\",le=\"{}\"}} {}\n", kName, peer.peer.value(),
                         seconds(RoundTripMetrics::kFirstBound * (int64_t{1} << i)), counted);
    }
    out += fmt::format(
        "{0}_bucket{{To=\"{1:x}\",le=\"+Inf\"}} {2}\n{0}_sum{{To=\"{1:x}\"}} {3}\n{0}_count{{To=\"{1:x}\"}} {2}\n",
        kName, peer.peer.value(), peer.count(), seconds(peer.sum));
  }
}

void add_network(NodeId self, const NetworkMetrics& network, std::string& out) {
  const auto head = [&out](std::string_view name, std::string_view kind, std::string_view help) {
    out += fmt::format("# HELP conclave_{0} {1}\n# TYPE conclave_{0} {2}\n", name, help, kind);
  };
  head("connections", "gauge", "Connections of clients.");
  out += fmt::format("conclave_connections {}\n", network.connections);
  head("connections_max", "gauge", "How many there may be.");
  out += fmt::format("conclave_connections_max {}\n", network.connections_max);
  const auto count = [&](std::string_view name, std::string_view help, uint64_t net::PortCounts::* value) {
    head(name, "counter", help);
    out += fmt::format("conclave_{0}{{port=\"client\"}} {1}\nconclave_{0}{{port=\"peer\"}} {2}\n", name,
                       network.client.*value, network.peer.*value);
  };
  count("connections_accepted_total", "Connections taken in.", &net::PortCounts::accepted);
  count("connections_refused_total", "Connections closed at once for being too many.", &net::PortCounts::refused);
  count("connections_evicted_total", "Silent connections closed for new ones.", &net::PortCounts::evicted);
  count("connections_timed_out_total", "Connections closed for what they did not say in time.",
        &net::PortCounts::timeouts);
  head("tls_handshakes_total", "counter", "TLS handshakes with clients, by how they ended.");
  out += fmt::format("conclave_tls_handshakes_total{{end=\"done\"}} {}\n", network.tls.handshakes);
  out += fmt::format("conclave_tls_handshakes_total{{end=\"failed\"}} {}\n", network.tls.failures);
  count("accept_failures_total", "Times no descriptor or memory was left for a connection.",
        &net::PortCounts::failures);
  out += fmt::format("# TYPE {0} counter\n{0} {1}\n", "etcd_network_client_grpc_received_bytes_total",
                     network.client.bytes_received);
  out += fmt::format("# TYPE {0} counter\n{0} {1}\n", "etcd_network_client_grpc_sent_bytes_total",
                     network.client.bytes_sent);
  add_peers(self, network.peers, out);
  add_round_trips(network.round_trips, out);
}

void add_sessions(const SessionsHost& host, std::string& out) {
  const auto add = [&out](std::string_view name, std::string_view help, auto value) {
    out += fmt::format("# HELP conclave_{0} {1}\n# TYPE conclave_{0} gauge\nconclave_{0} {2}\n", name, help, value);
  };
  add("session_streams", "Streams that speak for sessions, single calls among them.", host.sessions().streams());
  add("sessions_attached", "Sessions that a stream here speaks for.", host.sessions().attached());
  add("claims_waiting", "Claims and candidacies of these sessions that wait.", host.sessions().waiters());
  out +=
      "# HELP conclave_sessions_handed_over_total Sessions asked to go to another server, because this one lagged.\n";
  out += fmt::format("# TYPE {0} counter\n{0} {1}\n", "conclave_sessions_handed_over_total",
                     host.sessions().handed_over());
  add("session_held_bytes", "Answers that clients of session streams have not read, where they are many.",
      host.held_bytes());
  out += "# HELP conclave_session_operations_total Operations of sessions answered here, by kind and outcome.\n";
  out += "# TYPE conclave_session_operations_total counter\n";
  for (size_t i = 0; i < kSessionOperationCount; ++i) {
    for (const auto& [outcome, count] : host.outcomes()[i]) {
      out += fmt::format("conclave_session_operations_total{{operation=\"{}\",outcome=\"{}\"}} {}\n",
                         to_string(static_cast<SessionOperation>(i)), outcome, count);
    }
  }
}

// Under the names that Prometheus' client libraries use; `etcdctl check datascale` reads the resident memory.
void add_process(const ProcessMetrics& process, std::string& out) {
  const auto add = [&out](std::string_view name, std::string_view kind, auto value) {
    out += fmt::format("# TYPE {0} {1}\n{0} {2}\n", name, kind, value);
  };
  add("process_cpu_seconds_total", "counter", process.cpu_seconds);
  add("process_resident_memory_bytes", "gauge", process.resident_bytes);
  add("process_virtual_memory_bytes", "gauge", process.virtual_bytes);
  add("process_start_time_seconds", "gauge", process.start_seconds);
  add("process_max_fds", "gauge", process.descriptors_max);
  add("os_fd_limit", "gauge", process.descriptors_max);
  add("process_open_fds", "gauge", process.descriptors_open);
  add("os_fd_used", "gauge", process.descriptors_open);
  add("conclave_log_lines_dropped_total", "counter", process.log_lines_dropped);
}

// What etcd's dashboards and alerts look for, where it means the same here.
void add_etcd_names(Context& context, std::string& out) {
  const auto add = [&out](std::string_view name, std::string_view kind, auto value) {
    out += fmt::format("# TYPE etcd_{0} {1}\netcd_{0} {2}\n", name, kind, value);
  };
  const node::Replica& replica = context.replica();
  keyspace::Keyspace& keyspace = context.keyspace();
  const Metrics& metrics = context.metrics();
  add("server_has_leader", "gauge", context.has_leader() ? 1 : 0);
  add("server_is_leader", "gauge", context.is_leader() ? 1 : 0);
  add("server_is_learner", "gauge", replica.raft().status().voter ? 0 : 1);
  add("server_leader_changes_seen_total", "counter", metrics.leader_changes);
  add("server_proposals_committed_total", "gauge", replica.raft().status().commit.value());
  add("server_proposals_applied_total", "gauge", replica.applied().value());
  add("server_proposals_pending", "gauge", replica.writes_pending());
  add("server_proposals_failed_total", "counter", metrics.writes_failed);
  add("server_learner_promote_successes", "counter", metrics.promotions);
  out += "# TYPE etcd_server_learner_promote_failures counter\n";
  for (const auto& [error, count] : metrics.promotions_refused) {
    out += fmt::format("etcd_server_learner_promote_failures{{Reason=\"{}\"}} {}\n", error_text(error), count);
  }
  add("server_health_success", "counter", metrics.health_successes);
  add("server_health_failures", "counter", metrics.health_failures);
  out += fmt::format("# TYPE etcd_server_version gauge\netcd_server_version{{server_version=\"{}\"}} 1\n",
                     context.options().version);
  out += fmt::format("# TYPE etcd_server_id gauge\netcd_server_id{{server_id=\"{:x}\"}} 1\n",
                     context.options().self.value());
  add("mvcc_db_total_size_in_bytes", "gauge", keyspace.store().used_bytes());
  add("mvcc_db_total_size_in_use_in_bytes", "gauge", live_bytes(keyspace));
  add("server_quota_backend_bytes", "gauge", context.alarms().quota_bytes());
  const keyspace::KeyRange everything{.kind = keyspace::KeyRange::Kind::kFrom};
  add("debugging_mvcc_keys_total", "gauge", keyspace.store().tree().totals(everything).lives);
  add("debugging_mvcc_watcher_total", "gauge", keyspace.watches().synced() + keyspace.watches().behind());
  add("debugging_mvcc_watch_stream_total", "gauge", context.streams().size());
  add("debugging_mvcc_slow_watcher_total", "gauge", keyspace.watches().behind());
  add("debugging_mvcc_current_revision", "gauge", keyspace.revision().value());
  add("debugging_mvcc_compact_revision", "gauge", keyspace.compacted());
  add("debugging_server_lease_expired_total", "counter", replica.counters().leases_expired);
  add_calls(metrics, out);
}

}  // namespace

std::string metrics_text(Context& context, const SessionsHost& sessions) {
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
  add("raft_is_lagging", "gauge", "1 if what the leader had applied a second ago is not applied here.",
      replica.is_lagging(context.now()) ? 1 : 0);
  add("writes_pending", "gauge", "Writes that wait for a leader or their entry.", replica.writes_pending());
  const node::ReplicaCounters& counters = replica.counters();
  add("entries_applied_total", "counter", "Entries applied here.", counters.entries_applied);
  add("writes_proposed_total", "counter", "Writes of clients proposed here.", counters.writes_proposed);
  add("writes_forwarded_total", "counter", "Writes of clients sent to the leader.", counters.writes_forwarded);
  add("frames_refused_total", "counter", "Frames of peers refused as malformed.", counters.frames_refused);
  out += "# HELP conclave_messages_refused_total Messages of consensus refused, by reason.\n";
  out += "# TYPE conclave_messages_refused_total counter\n";
  for (const auto& [refusal, count] : counters.messages_refused) {
    out += fmt::format("conclave_messages_refused_total{{reason=\"{}\"}} {}\n", raft::to_string(refusal), count);
  }
  add("feature_level", "gauge", "What all members know, of the formats and commands.", replica.feature_level());
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
  out += "# HELP conclave_alarms Alarms that stand, by kind.\n# TYPE conclave_alarms gauge\n";
  for (const AlarmKind kind : {AlarmKind::kNoSpace, AlarmKind::kCorrupt}) {
    const auto count = std::ranges::count(context.alarms().standing(), kind, &Alarm::kind);
    out += fmt::format("conclave_alarms{{kind=\"{}\"}} {}\n", to_string(kind), count);
  }
  add("watchers", "gauge", "Watchers, all streams together.",
      keyspace.watches().synced() + keyspace.watches().behind());
  add("watchers_behind", "gauge", "Watchers that catch up from history.", keyspace.watches().behind());
  add("watch_streams", "gauge", "Streams that watch.", context.streams().size());
  add("calls_open", "gauge", "Calls under way.", context.metrics().calls_open);
  add("snapshots_open", "gauge", "Snapshots being sent to clients.", context.metrics().snapshots_open);
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
  add_sessions(sessions, out);
  if (context.options().disk) add_disk(context.options().disk(), out);
  if (context.options().network) add_network(context.options().self, context.options().network(), out);
  if (context.options().process) add_process(context.options().process(), out);
  add_etcd_names(context, out);
  return out;
}

}  // namespace conclave::api
