#include "server/server.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <charconv>
#include <cstdlib>
#include <optional>
#include <utility>

#include <sys/stat.h>
#include <unistd.h>

#include "api/members.h"
#include "api/service.h"
#include "api/status.h"
#include "base/assert.h"
#include "conclave/v1/cluster.pb.h"
#include "env/posix/clock.h"
#include "env/posix/disk.h"
#include "env/posix/random.h"
#include "net/peer_links.h"
#include "net/server.h"
#include "server/bootstrap.h"
#include "server/client_urls.h"
#include "server/crowded_ports.h"
#include "server/descriptors.h"
#include "server/identity.h"
#include "server/introduction.h"
#include "server/log.h"
#include "server/process.h"
#include "server/recover.h"
#include "server/round_trips.h"
#include "server/slow_writes.h"
#include "server/storage_thread.h"

namespace conclave::server {
namespace {

constexpr GroupId kGroup{1};
constexpr std::string_view kInitPath = "/conclave.v1.Cluster/Init";
// After a leader was heard of by a server that waits for init: should init be under way, its frame comes first.
constexpr Duration kJoinDelay = std::chrono::seconds(1);
// At the end: for the next leader to be found.
constexpr Duration kHandOverMax = std::chrono::seconds(2);

// After the beginning, for the first leader: then init is answered all the same.
constexpr Duration kFirstLeaderMax = std::chrono::seconds(5);

constexpr uint32_t kGrpcUnavailable = 14;
// How often the loop looks whether a write of the log hangs, and whether connections are too many.
constexpr Duration kWatchInterval = std::chrono::milliseconds(500);

// After a configuration without this server was applied: its last messages and answers leave. And should it have been
// added again under the same id while it reads the log, that comes up by then.
constexpr Duration kRemovedPatience = net::kPeerFarewell;
// Without a leader: whether others refuse this server is looked at this often.
constexpr Duration kRefusalCheck = std::chrono::seconds(2);

// An internal error (sysexits).
constexpr int kDivergedExit = 70;
constexpr int kOutdatedExit = 69;

// Three numbers.
bool is_version(std::string_view text) {
  return std::ranges::count(text, '.') == 2 && text.find("..") == std::string_view::npos && text.front() != '.' &&
         text.back() != '.' && text.find_first_not_of("0123456789.") == std::string_view::npos;
}

Status make_directory(const std::string& path) {
  if (::mkdir(path.c_str(), 0700) == 0 || errno == EEXIST) return {};
  return fail(ErrorCode::kIo, "cannot make the directory {}: {}", path, std::generic_category().message(errno));
}

// Answers one call with one status.
class Refuse final : public net::CallHandler {
 public:
  Refuse(net::ServerCall& call, net::GrpcStatus status) : call_(call), status_(std::move(status)) {}
  // At its first message: who streams may never end his half.
  void on_message(ByteView) override { call_.finish(status_); }
  void on_half_close() override { call_.finish(status_); }
  void on_cancel() override {}

 private:
  net::ServerCall& call_;
  net::GrpcStatus status_;
};

class Init;

class Wired final : public Server, private env::NetworkReceiver, private node::ReplicaWorld, private net::Service {
 public:
  explicit Wired(const ServerOptions& options) : options_(options), loop_(clock_) {}
  ~Wired() override = default;

  Status open();
  [[nodiscard]] ReadyInfo info() const override;
  void run() override;
  void stop() override;
  void reload(const Reload& reload) override;

 private:
  friend class Init;

  // Null where there is no certificate.
  struct Tls {
    std::shared_ptr<const net::TlsContext> client;
    std::shared_ptr<const net::TlsContext> peer;
  };
  [[nodiscard]] Result<Tls> load_tls() const;

  // env::NetworkReceiver
  void on_frame(NodeId from, ByteView frame) override;
  void on_link_up(NodeId peer) override;
  void on_link_broken(NodeId peer) override;
  // node::ReplicaWorld
  void store(node::StorageJob job) override { storage_->add(std::move(job)); }
  void send(NodeId to, env::Lane lane, std::string frame) override { links_->send(to, lane, std::move(frame)); }
  void on_diverged(LogIndex index) override;
  void on_outdated(uint64_t level) override;
  // net::Service
  std::unique_ptr<net::CallHandler> open(net::ServerCall& call) override;
  std::unique_ptr<net::HttpHandler> open_http(const net::HttpRequest& request, net::HttpAnswer& answer) override {
    return service_ != nullptr ? service_->open_http(request, answer) : nullptr;
  }
  void on_http(const net::HttpRequest& request, std::function<void(net::HttpResponse)> answer) override;

  Status check_options();
  Status find_identity();
  Status open_storage();
  Status listen();
  void start_replica(node::FoundReplica found);
  void deliver(std::vector<node::StorageResult> results);
  void end_turn(Instant now);
  void work_at_leisure();
  [[nodiscard]] Instant next_deadline() const;
  [[nodiscard]] BootstrapState bootstrap_state() const;
  // It has a leader, and all members have published their addresses.
  [[nodiscard]] bool is_complete() const;
  // Members have a leader, and this server is one of them: what --join says does not count any more.
  [[nodiscard]] bool is_settled() const;
  [[nodiscard]] const Membership& applied_membership() const;
  [[nodiscard]] std::string name_of(NodeId id) const;
  [[nodiscard]] const JoinEntry* join_entry_of(NodeId id) const;
  [[nodiscard]] std::optional<net::PeerAddress> address_of(NodeId id) const;
  [[nodiscard]] std::vector<net::PeerAddress> wanted_peers() const;
  // Whether a server without TLS may link to this one.
  [[nodiscard]] bool is_known(NodeId id) const;
  void follow_members(Instant now);
  void tell_changes(Instant now);
  void introduce(NodeId to);
  void on_introduction(ByteView frame);
  void leave_if_removed();
  void look_for_refusals();
  void begin_cluster();
  void join_after_a_while();
  void hand_over(Instant give_up);
  void watch();
  [[nodiscard]] api::DiskMetrics disk_metrics();
  [[nodiscard]] api::NetworkMetrics network_metrics() const;
  [[nodiscard]] std::vector<std::string> client_urls() const;

  ServerOptions options_;
  env::PosixClock clock_;
  env::PosixRandom random_;
  std::vector<JoinEntry> servers_;       // sorted by name
  std::vector<std::string> advertised_;  // where clients are told to come; empty: where it listens
  Membership first_membership_;
  Identity identity_;
  std::unique_ptr<env::PosixDisk> disk_;
  std::optional<node::FoundReplica> found_;
  bool lost_ = false;     // the directory had something and cannot tell what: never a new cluster's member
  bool waiting_ = false;  // empty: for init, or to be re-admitted
  bool beginning_ = false;
  bool joining_ = false;
  bool disk_full_ = false;  // as last told, for a replica that begins later
  SlowWrites slow_writes_;
  CrowdedPorts crowded_ports_;
  // As last told in the log.
  struct Logged {
    NodeId leader;
    Term term;
    std::vector<api::Alarm> alarms;
    uint64_t snapshots_installed = 0;
    bool lags = false;
  };
  Logged logged_;
  uint64_t descriptors_max_ = 0;
  size_t connections_max_ = 0;
  DescriptorCount descriptors_;
  const int64_t started_at_ms_ = clock_.wall_milliseconds();
  std::optional<ClusterId> cluster_;  // by --cluster
  bool is_added_ = false;             // to a running cluster: never begins one
  bool is_one_of_many_ = false;       // by what its log says

  // What the links were made of.
  struct Linked {
    Membership newest;
    Membership applied;
    uint64_t records = 0;
    bool settled = false;
  };
  Linked linked_;
  std::vector<net::PeerAddress> told_;  // by the newest introduction, while it has no leader
  bool heard_leader_ = false;           // in this life
  bool works_at_leisure_ = false;       // a call to the service is under way in the loop
  bool was_member_ = false;             // in this life, by what is applied
  Instant removed_until_ = kNever;      // not a member any more; ends then
  bool told_refusal_ = false;
  bool told_features_ = false;

  net::Loop loop_;
  // Ends of a turn use all of these; they are destroyed in the opposite order.
  std::unique_ptr<StorageThread> storage_;
  std::unique_ptr<net::PeerLinks> links_;
  std::unique_ptr<Bootstrap> bootstrap_;
  std::optional<RoundTrips> round_trips_;
  std::unique_ptr<node::Replica> replica_;
  std::unique_ptr<api::Service> service_;
  std::unique_ptr<net::Server> server_;
  std::atomic<int> stops_{0};
};

// /conclave.v1.Cluster/Init.
class Init final : public net::CallHandler {
 public:
  Init(Wired& server, net::ServerCall& call) : server_(server), call_(&call) {}
  ~Init() override { *alive_ = false; }
  void on_message(ByteView) override {}
  void on_half_close() override {
    server_.bootstrap_->init(server_.loop_.now(), [this, alive = alive_](const Bootstrap::Outcome& outcome) {
      if (*alive && call_ != nullptr) answer(outcome);
    });
  }
  void on_cancel() override { call_ = nullptr; }

 private:
  void answer(const Bootstrap::Outcome& outcome) {
    if (!outcome.error.empty()) {
      call_->finish({.code = kGrpcUnavailable, .message = outcome.error});
      return;
    }
    wait_for_leader(outcome.already, server_.loop_.now() + kFirstLeaderMax);
  }
  // Whoever began a cluster wants to use it: the answer comes when it can be, and every server has told its addresses.
  void wait_for_leader(bool already, Instant give_up) {
    const Instant now = server_.loop_.now();
    if (!server_.is_complete() && now < give_up) {
      server_.loop_.call_at(now + std::chrono::milliseconds(10), [this, already, give_up, alive = alive_] {
        if (*alive && call_ != nullptr) wait_for_leader(already, give_up);
      });
      return;
    }
    v1::InitResponse response;
    response.set_cluster_id(server_.identity_.cluster.value());
    response.set_already(already);
    call_->send(response.SerializeAsString());
    call_->finish({});
  }

  Wired& server_;
  net::ServerCall* call_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

// ---- Starting ----

Status Wired::check_options() {
  if (options_.name.empty() || options_.name.find_first_of(" \n,=") != std::string::npos) {
    return fail(ErrorCode::kInvalidArgument, "'{}' cannot be a server's name", options_.name);
  }
  if (!is_version(options_.etcd_version)) {
    return fail(ErrorCode::kInvalidArgument, "'{}' is no version like 3.6.0", options_.etcd_version);
  }
  if (!options_.cluster.empty()) {
    uint64_t number = 0;
    const char* const end = options_.cluster.data() + options_.cluster.size();
    const auto parsed = std::from_chars(options_.cluster.data(), end, number, 16);
    if (parsed.ec != std::errc() || parsed.ptr != end || number == 0) {
      return fail(ErrorCode::kInvalidArgument, "'{}' is no cluster's id: 16 hex digits as `conclave init` prints them",
                  options_.cluster);
    }
    if (options_.join.empty()) {
      return fail(ErrorCode::kInvalidArgument, "--cluster needs --join: where its servers are, and this one");
    }
    cluster_ = ClusterId(number);
  }
  ASSIGN_OR_RETURN(advertised_, parse_client_urls(options_.client_advertise));
  ASSIGN_OR_RETURN(servers_, parse_join(options_.join));
  if (servers_.empty()) {
    servers_.push_back({.name = options_.name, .host = options_.peer_listen.host, .port = options_.peer_listen.port});
  } else {
    const auto own = std::ranges::find(servers_, options_.name, &JoinEntry::name);
    if (own == servers_.end()) {
      return fail(ErrorCode::kInvalidArgument, "--join does not name this server, '{}'", options_.name);
    }
    options_.peer_listen = {.host = own->host, .port = own->port};
  }
  const auto is_open = [](const Address& listens, const net::TlsFiles& tls) {
    return !is_loopback(listens.host) && tls == net::TlsFiles();
  };
  if (!options_.insecure_plaintext &&
      (is_open(options_.client_listen, options_.client_tls) || is_open(options_.peer_listen, options_.peer_tls))) {
    return fail(
        ErrorCode::kInvalidArgument,
        "listening beyond loopback without TLS needs --insecure-plaintext: anybody who reaches the port may read "
        "and write everything");
  }
  return {};
}

Status Wired::find_identity() {
  identity_ = {.node = node_id_of(options_.name), .name = options_.name};
  if (cluster_) {
    identity_.cluster = *cluster_;
    identity_.node = address_id_of(*std::ranges::find(servers_, options_.name, &JoinEntry::name));
  } else {
    // Alone, a cluster has nobody to agree with on a name; two of them must still be told apart.
    identity_.cluster = options_.join.empty() ? ClusterId(random_.next() | 1) : cluster_id_of(servers_);
  }
  RETURN_IF_ERROR(make_directory(options_.data));
  ASSIGN_OR_RETURN(disk_, env::PosixDisk::open_directory(options_.data));
  ASSIGN_OR_RETURN(identity_, begin_life(*disk_, identity_, cluster_, clock_.wall_milliseconds()));
  is_added_ = identity_.node != node_id_of(options_.name);
  std::vector<NodeId> voters;
  voters.reserve(servers_.size());
  for (const JoinEntry& server : servers_) voters.push_back(node_id_of(server.name));
  std::ranges::sort(voters);
  first_membership_ = Membership::of_voters(voters);
  return {};
}

Status Wired::open_storage() {
  auto opened = node::Storage::open(
      *disk_, clock_,
      {.owner = {.cluster = identity_.cluster, .node = identity_.node}, .write_path = wal::WritePath::kProbe});
  if (!opened) return std::unexpected(opened.error());
  log_info("log_opened", "the log is read",
           {{"segments", fmt::to_string(opened->recovery.segments)},
            {"records", fmt::to_string(opened->recovery.records)},
            {"writes_by", fmt::format("{}", opened->recovery.write_path)}});
  for (const wal::Finding& finding : opened->recovery.findings) {
    log_warning("log_finding", fmt::format("{}", finding.what),
                {{"segment", fmt::to_string(finding.sequence)},
                 {"slot", fmt::to_string(finding.slot)},
                 {"sectors", fmt::format("{}-{}", finding.from_sector, finding.to_sector)}});
  }
  if (opened->discarded) {
    log_error("data_discarded", "the data is beyond use: this server begins empty and asks to be re-admitted",
              {{"reason", opened->discard_reason}});
  }
  const auto found = opened->replicas.find(kGroup);
  if (found != opened->replicas.end()) {
    found_ = std::move(found->second);
    is_one_of_many_ = membership_of(found_->recovered).members().size() > 1;
  } else {
    waiting_ = true;
    lost_ = opened->discarded || !opened->recovery.created;
  }
  storage_ = std::make_unique<StorageThread>(
      std::move(opened->storage), clock_, loop_,
      [this](std::vector<node::StorageResult> results) { deliver(std::move(results)); });
  return {};
}

Result<Wired::Tls> Wired::load_tls() const {
  Tls loaded;
  if (options_.client_tls != net::TlsFiles()) {
    ASSIGN_OR_RETURN(loaded.client,
                     net::TlsContext::load(net::TlsRole::kServer, options_.client_tls, net::server_protocols()));
  }
  if (options_.peer_tls != net::TlsFiles()) {
    ASSIGN_OR_RETURN(loaded.peer, net::TlsContext::load(net::TlsRole::kPeer, options_.peer_tls, {}));
  }
  return loaded;
}

Status Wired::listen() {
  ASSIGN_OR_RETURN(const Tls tls, load_tls());
  std::vector<std::pair<NodeId, std::string>> names;
  for (const JoinEntry& server : servers_) {
    const NodeId id = node_id_of(server.name);
    if (id != identity_.node && server.name != options_.name) names.emplace_back(id, server.name);
  }
  ASSIGN_OR_RETURN(links_, net::PeerLinks::listen(loop_, *this,
                                                  {.cluster = identity_.cluster,
                                                   .self = identity_.node,
                                                   .boot = identity_.boot,
                                                   .features = {.highest = uint16_t{node::kFeatureLevelMax}},
                                                   .address = options_.peer_listen.host,
                                                   .port = options_.peer_listen.port,
                                                   .peers = wanted_peers(),
                                                   .tls = tls.peer,
                                                   .is_known = [this](NodeId id) { return is_known(id); }}));
  descriptors_max_ = raise_descriptor_limit();
  connections_max_ = connections_max_of(descriptors_max_);
  ASSIGN_OR_RETURN(server_, net::Server::listen(loop_, *this,
                                                {.address = options_.client_listen.host,
                                                 .port = options_.client_listen.port,
                                                 .connections_max = connections_max_,
                                                 .keep_alive = options_.keep_alive,
                                                 .tls = tls.client}));
  bootstrap_ = std::make_unique<Bootstrap>(
      identity_.node, std::move(names), identity_.boot.value() << 16,
      Bootstrap::World{
          .send = [this](NodeId to, std::string frame) { links_->send(to, env::Lane::kConsensus, std::move(frame)); },
          .state = [this] { return bootstrap_state(); },
          .begin = [this] { begin_cluster(); }});
  round_trips_.emplace(identity_.boot.value() << 16, [this](NodeId to, std::string frame) {
    links_->send(to, env::Lane::kConsensus, std::move(frame));
  });
  return {};
}

Status Wired::open() {
  RETURN_IF_ERROR(check_options());
  RETURN_IF_ERROR(find_identity());
  RETURN_IF_ERROR(open_storage());
  RETURN_IF_ERROR(listen());
  loop_.add_turn_end([this](Instant now) { end_turn(now); });
  loop_.set_deadline([this] { return next_deadline(); });
  loop_.post([this] {
    watch();
    if (found_) {
      start_replica(*std::exchange(found_, std::nullopt));
    } else if (is_added_) {
      log_info("waits_to_join", "waits for a leader to reach it: it must have been added (`conclave member add`)",
               {{"cluster", fmt::format("{:016x}", identity_.cluster.value())}});
    } else if (options_.join.empty() && !lost_) {
      begin_cluster();
    } else {
      if (lost_) {
        log_info("waits_for_readmission", "waits for a leader to re-admit it");
      } else {
        log_info("waits_for_init", "waits for `conclave init`, asked once of any server");
      }
    }
    look_for_refusals();
  });
  return {};
}

ReadyInfo Wired::info() const {
  return {.name = options_.name,
          .client = {.host = options_.client_listen.host, .port = server_->port()},
          .peer = {.host = options_.peer_listen.host, .port = links_->port()},
          .cluster = identity_.cluster,
          .alone = options_.join.empty() && !is_added_ && !is_one_of_many_,
          .waiting = waiting_ && (is_added_ || !options_.join.empty())};
}

void Wired::start_replica(node::FoundReplica found) {
  waiting_ = false;
  node::ReplicaOptions options;
  options.raft.group = kGroup;
  options.raft.self = identity_.node;
  options.raft.boot = identity_.boot;
  options.raft.seed = random_.next();
  options.snapshot_log_bytes = options_.snapshot_log_bytes;
  options.history = options_.history;
  log_info("started", "starts",
           {{"certainty", std::string(to_string(found.recovered.certainty))},
            {"term", fmt::format("{}", found.recovered.vote.term)},
            {"log_up_to", fmt::format("{}", found.recovered.last.index)},
            {"state_of", fmt::format("{}", found.recovered.snapshot.last.index)}});
  node::ReplicaWorld& world = *this;
  replica_ = std::make_unique<node::Replica>(options, std::move(found.recovered), std::move(found.keyspace), world);
  api::ServiceOptions api{.cluster = identity_.cluster, .self = identity_.node, .name = options_.name};
  const auto url = [](const net::TlsFiles& tls, std::string_view host, uint16_t port) {
    return fmt::format("{}://{}:{}", tls == net::TlsFiles() ? "http" : "https", host, port);
  };
  api.client_urls = client_urls();
  api.peer_urls = {url(options_.peer_tls, options_.peer_listen.host, links_->port())};
  for (const JoinEntry& server : servers_) {
    for (const NodeId id : {node_id_of(server.name), address_id_of(server)}) {
      api.peers.push_back(
          {.id = id, .name = server.name, .peer_urls = {url(options_.peer_tls, server.host, server.port)}});
    }
  }
  std::erase_if(api.peers, [this](const api::MemberAttributes& peer) { return peer.id == identity_.node; });
  api.version = options_.etcd_version;
  api.seed = random_.next();
  api.disk = [this] { return disk_metrics(); };
  api.network = [this] { return network_metrics(); };
  api.process = [this] {
    api::ProcessMetrics metrics = process_metrics();
    metrics.start_seconds = started_at_ms_ / 1000;
    metrics.descriptors_max = descriptors_max_;
    metrics.descriptors_open = descriptors_.count(server_->connections());
    metrics.log_lines_dropped = log_lines_dropped();
    return metrics;
  };
  service_ = std::make_unique<api::Service>(api, *replica_, clock_);
  replica_->set_clients(*service_);
  replica_->start(loop_.now());
  if (disk_full_) replica_->on_storage(loop_.now(), node::SpaceChanged{.full = true});
  for (const net::PeerLinkState& link : links_->states()) {
    if (link.connected) replica_->on_link_up(loop_.now(), link.id);
  }
}

std::vector<std::string> Wired::client_urls() const {
  if (!advertised_.empty()) return advertised_;
  std::array<char, 256> machine{};
  // Cut short it may lack its end.
  if (::gethostname(machine.data(), machine.size() - 1) != 0) machine.front() = 0;
  const ClientUrl found = default_client_url({.is_tls = options_.client_tls != net::TlsFiles(),
                                              .host = options_.client_listen.host,
                                              .port = server_->port(),
                                              .peer_host = options_.peer_listen.host,
                                              .machine_name = machine.data()});
  if (found.is_guessed) {
    log_warning("client_url_guessed",
                "--client-listen names every address of this machine, which no client can dial: members' lists tell "
                "clients a guess. Say where they reach this server by --client-advertise",
                {{"url", found.url}});
  }
  return {found.url};
}

// ---- A new cluster, or a new disk ----

BootstrapState Wired::bootstrap_state() const {
  if (lost_ || is_added_) return BootstrapState::kLed;
  if (replica_ == nullptr) return BootstrapState::kEmpty;
  return replica_->raft().status().term > Term(1) ? BootstrapState::kLed : BootstrapState::kBegun;
}

bool Wired::is_complete() const {
  if (replica_ == nullptr || !replica_->raft().status().leader.is_set()) return false;
  return std::ranges::all_of(replica_->raft().membership().members(), [this](const Member& member) {
    return std::as_const(*replica_).keyspace().record(api::member_record_key(member.id)) != nullptr;
  });
}

void Wired::begin_cluster() {
  if (!waiting_ || beginning_) return;
  beginning_ = true;
  storage_->add(node::PersistJob{.group = kGroup,
                                 .sequence = WriteSequence(1),
                                 .batch = node::Storage::bootstrap_batch(kGroup, identity_.node, first_membership_)});
}

// A leader writes to this server as to a member: it was added; or the cluster is there and this server's disk is new.
// Should init be under way, its word comes first.
void Wired::join_after_a_while() {
  if (joining_ || beginning_) return;
  joining_ = true;
  loop_.call_at(is_added_ ? loop_.now() : loop_.now() + kJoinDelay, [this] {
    if (replica_ != nullptr || beginning_) return;
    if (is_added_) {
      log_info("joined", "a leader reaches this server: it joins the cluster");
    } else {
      log_warning("disk_lost",
                  "a leader knows this server as a member, but its directory is empty: asks to be re-admitted");
      lost_ = true;
    }
    node::FoundReplica found{.recovered = {.group = kGroup}, .keyspace = std::make_unique<keyspace::Keyspace>()};
    start_replica(std::move(found));
  });
}

// ---- Members ----

bool Wired::is_settled() const {
  return replica_ != nullptr && replica_->raft().status().leader.is_set() &&
         replica_->raft().membership().contains(identity_.node);
}

// While a snapshot is being loaded what is applied is older than any configuration still known.
const Membership& Wired::applied_membership() const {
  const raft::Raft& raft = replica_->raft();
  return raft.membership_at(std::max(replica_->applied(), raft.snapshot().last.index));
}

// As it has published it; empty if it has not.
std::string Wired::name_of(NodeId id) const {
  const auto record = replica_ == nullptr ? std::nullopt : api::member_record(std::as_const(*replica_).keyspace(), id);
  return record ? record->name() : std::string();
}

const JoinEntry* Wired::join_entry_of(NodeId id) const {
  const std::string name = name_of(id);
  const auto found = std::ranges::find_if(servers_, [&](const JoinEntry& entry) {
    return node_id_of(entry.name) == id || address_id_of(entry) == id || entry.name == name;
  });
  return found == servers_.end() ? nullptr : &*found;
}

// What a member published is right while the cluster works. At a start it may be old, and all of them at once where
// servers were moved: then the command line is right, and before a leader is heard nothing could be published.
std::optional<net::PeerAddress> Wired::address_of(NodeId id) const {
  std::optional<net::PeerAddress> joined;
  if (const JoinEntry* entry = join_entry_of(id)) {
    joined = {.id = id, .host = entry->host, .port = entry->port, .name = entry->name};
  }
  if (joined && !heard_leader_) return joined;
  const auto record = replica_ == nullptr ? std::nullopt : api::member_record(std::as_const(*replica_).keyspace(), id);
  if (!record || record->peerurls().empty()) return joined;
  const auto text = api::address_of_url(record->peerurls(0));
  const auto address = parse_address(text.value_or(""));
  if (!address) return joined;
  const std::string name = record->name().empty() && joined ? joined->name : record->name();
  return net::PeerAddress{.id = id, .host = address->host, .port = address->port, .name = name};
}

std::vector<net::PeerAddress> Wired::wanted_peers() const {
  std::vector<net::PeerAddress> peers;
  const auto add = [&](const net::PeerAddress& peer) {
    if (peer.id != identity_.node && std::ranges::find(peers, peer.id, &net::PeerAddress::id) == peers.end()) {
      peers.push_back(peer);
    }
  };
  // What is committed tells who still is to hear that it is out; what is not yet, who is to come.
  if (replica_ != nullptr) {
    for (const Membership* membership : {&replica_->raft().membership(), &applied_membership()}) {
      for (const Member& member : membership->members()) {
        if (const auto address = address_of(member.id)) add(*address);
      }
    }
  }
  if (is_settled()) return peers;
  // Whom the leader may be that this server does not know of yet. By the address only where the cluster is not new.
  for (const JoinEntry& entry : servers_) {
    if (entry.name == options_.name) continue;
    const NodeId by_name = node_id_of(entry.name);
    const NodeId by_address = address_id_of(entry);
    const bool is_there = std::ranges::any_of(peers, [&](const net::PeerAddress& peer) {
      return peer.id == by_name || peer.id == by_address || peer.name == entry.name;
    });
    if (is_there) continue;
    add({.id = by_name, .host = entry.host, .port = entry.port, .name = entry.name});
    if (is_added_ || lost_ || replica_ != nullptr) {
      add({.id = by_address, .host = entry.host, .port = entry.port, .name = entry.name});
    }
  }
  for (const net::PeerAddress& peer : told_) add(peer);
  return peers;
}

bool Wired::is_known(NodeId id) const {
  if (replica_ != nullptr) {
    const raft::Raft& raft = replica_->raft();
    if (raft.membership().contains(id) || applied_membership().contains(id)) return true;
  }
  if (is_settled()) return false;
  return std::ranges::find(told_, id, &net::PeerAddress::id) != told_.end() ||
         std::ranges::any_of(servers_, [id](const JoinEntry& entry) {
           return node_id_of(entry.name) == id || address_id_of(entry) == id;
         });
}

void Wired::follow_members(Instant now) {
  const raft::Raft& raft = replica_->raft();
  const Membership& newest = raft.membership();
  const Membership& applied = applied_membership();
  const bool settled = is_settled();
  if (settled == linked_.settled && linked_.records == service_->member_records_version() && newest == linked_.newest &&
      applied == linked_.applied) {
    return;
  }
  linked_ = {.newest = newest, .applied = applied, .records = service_->member_records_version(), .settled = settled};
  heard_leader_ |= settled;
  if (settled) told_.clear();
  links_->set_peers(wanted_peers());
  for (const net::PeerLinkState& link : links_->states()) {
    if (link.connected) introduce(link.id);
  }
  if (applied.contains(identity_.node)) {
    was_member_ = true;
    removed_until_ = kNever;
  } else if (was_member_ && !newest.contains(identity_.node) && removed_until_ == kNever) {
    removed_until_ = now + kRemovedPatience;
    loop_.call_at(removed_until_, [this] { leave_if_removed(); });
  }
}

// What others will look for afterwards: who led when, which alarms stood, when this server got its state anew.
void Wired::tell_changes(Instant now) {
  const raft::Status& role = service_->role();
  if (role.leader != logged_.leader || (role.leader.is_set() && role.term != logged_.term)) {
    logged_.leader = role.leader;
    logged_.term = role.term;
    const std::string term = fmt::format("{}", role.term);
    if (role.leader.is_set()) {
      log_info("leader_changed", role.leader == identity_.node ? "this server leads" : "another server leads",
               {{"term", term},
                {"leader", fmt::format("{:x}", role.leader.value())},
                {"name", role.leader == identity_.node ? options_.name : name_of(role.leader)}});
    } else {
      log_warning("leader_lost", "no leader is known", {{"term", term}});
    }
  }
  const std::vector<api::Alarm>& alarms = service_->alarms().standing();
  if (alarms != logged_.alarms) {
    const auto tell = [](const std::vector<api::Alarm>& those, const std::vector<api::Alarm>& before, bool raised) {
      for (const api::Alarm& alarm : those) {
        if (std::ranges::find(before, alarm) != before.end()) continue;
        const LogFields fields = {{"kind", std::string(to_string(alarm.kind))},
                                  {"member", fmt::format("{:x}", alarm.member.value())}};
        if (raised) {
          log_warning("alarm_raised", "an alarm stands", fields);
        } else {
          log_info("alarm_cleared", "an alarm is over", fields);
        }
      }
    };
    tell(alarms, logged_.alarms, true);
    tell(logged_.alarms, alarms, false);
    logged_.alarms = alarms;
  }
  const uint64_t installed = replica_->counters().snapshots_installed;
  if (installed != logged_.snapshots_installed) {
    logged_.snapshots_installed = installed;
    log_info("snapshot_installed", "this server's state was replaced by a snapshot of another's",
             {{"index", fmt::format("{}", replica_->raft().snapshot().last.index)}});
  }
  const bool lags = replica_->is_lagging(now);
  if (std::exchange(logged_.lags, lags) == lags) return;
  const LogFields at = {{"applied", fmt::format("{}", replica_->applied())},
                        {"commit", fmt::format("{}", replica_->raft().status().commit)}};
  if (lags) {
    log_warning("lag_began", "what the leader had applied a second ago is not applied here: sessions are handed over",
                at);
  } else {
    log_info("lag_ended", "this server has caught up with its leader", at);
  }
}

void Wired::introduce(NodeId to) {
  if (!is_settled()) return;
  links_->send(to, env::Lane::kConsensus, encode_introduction(wanted_peers()));
}

void Wired::on_introduction(ByteView frame) {
  if (is_settled()) return;
  auto members = decode_introduction(frame);
  if (!members) return;
  told_ = std::move(*members);
  links_->set_peers(wanted_peers());
}

void Wired::leave_if_removed() {
  if (loop_.now() < removed_until_) return;
  log_warning("removed", "this server was removed from the cluster: it ends");
  identity_.removed = true;
  if (const Status written = write_identity(*disk_, identity_); !written) {
    log_error("identity_not_written", "cannot note that this server was removed", {{"error", written.error().message}});
  }
  stop();
}

// Who was removed while it was away learns it from nobody, since it is not known any more.
void Wired::look_for_refusals() {
  for (const net::PeerLinkState& link : links_->states()) {
    if (told_features_ || link.refusals == 0 || link.refusal != net::PeerVerdict::kFeatures) continue;
    told_features_ = true;
    log_error("builds_apart", "this build and another server's know no feature level in common",
              {{"member", fmt::format("{:x}", link.id.value())}});
  }
  if (!is_settled() && !told_refusal_) {
    for (const net::PeerLinkState& link : links_->states()) {
      if (link.refusals == 0 || link.refusal != net::PeerVerdict::kStranger) continue;
      told_refusal_ = true;
      log_warning(
          "unknown_to_others",
          "other servers do not know this one as a member: it was removed while it was away, or is not added yet "
          "(`conclave member add`)");
      break;
    }
  }
  loop_.call_at(loop_.now() + kRefusalCheck, [this] { look_for_refusals(); });
}

// ---- Turns ----

void Wired::deliver(std::vector<node::StorageResult> results) {
  const Instant now = loop_.now();
  for (node::StorageResult& result : results) {
    if (const auto* changed = std::get_if<node::SpaceChanged>(&result)) {
      disk_full_ = changed->full;
      if (disk_full_) {
        log_warning("disk_full", "the disk has no space for another segment of the log");
      } else {
        log_info("disk_has_space", "the disk has space for the log again");
      }
    }
    if (replica_ != nullptr) {
      replica_->on_storage(now, std::move(result));
    } else if (beginning_ && std::holds_alternative<node::Persisted>(result)) {
      log_info("cluster_begun", options_.join.empty() ? "a new cluster of this server alone" : "a new cluster begins");
      start_replica({.recovered = node::Storage::bootstrap_state(kGroup, identity_.node, first_membership_),
                     .keyspace = std::make_unique<keyspace::Keyspace>()});
      bootstrap_->begun();
    }
  }
}

void Wired::watch() {
  if (const auto line = slow_writes_.look(clock_.now(), storage_->gauge())) log_warning("slow_write", *line);
  if (const auto line = crowded_ports_.look(loop_.now(), server_->port_counts(), links_->port_counts())) {
    log_warning("connections_refused", *line);
  }
  round_trips_->look(loop_.now(), links_->states());
  loop_.call_at(loop_.now() + kWatchInterval, [this] { watch(); });
}

api::DiskMetrics Wired::disk_metrics() {
  static_assert(api::DiskMetrics::kBounds == wal::WriteGauge::kBounds);
  const auto seconds = [](Duration duration) { return std::chrono::duration<double>(duration).count(); };
  const wal::WriteGauge& writes = storage_->gauge();
  const wal::SpaceGauge& space = storage_->space();
  api::DiskMetrics metrics{.live_bytes = space.live_bytes(),
                           .spare_bytes = space.spare_bytes(),
                           .full = space.full(),
                           .last_write_seconds = seconds(writes.last()),
                           .running_write_seconds = seconds(writes.running_for(clock_.now())),
                           .write_seconds_sum = seconds(writes.sum())};
  for (size_t i = 0; i < metrics.writes.size(); ++i) metrics.writes[i] = writes.count(i);
  return metrics;
}

api::NetworkMetrics Wired::network_metrics() const {
  return {.connections = server_->connections(),
          .connections_max = connections_max_,
          .client = server_->port_counts(),
          .peer = links_->port_counts(),
          .tls = server_->tls_counts(),
          .peers = links_->states(),
          .round_trips = round_trips_->metrics()};
}

void Wired::end_turn(Instant now) {
  bootstrap_->tick(now);
  if (replica_ != nullptr) {
    replica_->tick(now);
    replica_->flush(now);
    follow_members(now);
  }
  // The disk and the peers first: they are what a request waits for.
  storage_->submit();
  links_->flush();
  if (service_ != nullptr) {
    service_->turn_end(now);
    tell_changes(now);
    work_at_leisure();
  }
  server_->flush();
}

// The service's large reads, piece by piece.
void Wired::work_at_leisure() {
  if (works_at_leisure_ || !service_->has_leisure_work()) return;
  works_at_leisure_ = true;
  loop_.at_leisure([this] {
    works_at_leisure_ = false;
    service_->work_at_leisure();
    work_at_leisure();
  });
}

Instant Wired::next_deadline() const {
  Instant deadline = bootstrap_->next_deadline();
  if (replica_ == nullptr) return deadline;
  if (replica_->has_work() || service_->has_work()) return loop_.now();
  return std::min({deadline, replica_->next_deadline(), service_->next_deadline()});
}

void Wired::on_frame(NodeId from, ByteView frame) {
  if (!frame.empty() && frame.front() == kBootstrapFrame) {
    bootstrap_->on_frame(from, frame);
    return;
  }
  if (!frame.empty() && frame.front() == kIntroductionFrame) {
    on_introduction(frame);
    return;
  }
  if (!frame.empty() && frame.front() == kPingFrame) {
    round_trips_->on_frame(loop_.now(), from, frame);
    return;
  }
  if (replica_ != nullptr) {
    replica_->on_frame(loop_.now(), from, frame);
  } else if (node::is_from_leader(frame)) {
    join_after_a_while();
  }
}

void Wired::on_link_up(NodeId peer) {
  round_trips_->on_link_up(loop_.now(), peer);
  introduce(peer);
  if (replica_ != nullptr) replica_->on_link_up(loop_.now(), peer);
}

void Wired::on_link_broken(NodeId peer) {
  if (replica_ != nullptr) replica_->on_link_broken(loop_.now(), peer);
}

// Nothing it holds is to be believed, so nothing is handed over or finished either.
void Wired::on_diverged(LogIndex index) {
  log_error("state_differs",
            "this server's state is not what a majority of the servers has: its memory or disk is at fault, or it runs "
            "another version. It ends. To have it copied from the others, start it with an empty data directory",
            {{"after_entry", fmt::format("{}", index)}});
  identity_.diverged_at = index;
  if (const Status written = write_identity(*disk_, identity_); !written) {
    log_error("identity_not_written", "cannot note that this server's state differs",
              {{"error", written.error().message}});
  }
  log_flush();
  std::_Exit(kDivergedExit);
}

// Nothing is lost: a build that knows the level goes on where this one ended.
void Wired::on_outdated(uint64_t level) {
  log_error(
      "outdated",
      "this build does not know the cluster's feature level: it cannot follow what the others write, and ends. Start "
      "this server with the version that the others run",
      {{"level", level == 0 ? "unknown" : fmt::format("{}", level)},
       {"known", fmt::format("{}", node::kFeatureLevelMax)}});
  log_flush();
  std::_Exit(kOutdatedExit);
}

// ---- Clients ----

std::unique_ptr<net::CallHandler> Wired::open(net::ServerCall& call) {
  if (call.path() == kInitPath) return std::make_unique<Init>(*this, call);
  if (service_ != nullptr) return service_->open(call);
  const std::string why = is_added_ ? "this server waits for a leader to reach it: add it with `conclave member add`"
                          : lost_   ? "this server lost its data and waits to be re-admitted"
                                    : "the cluster has not begun: run `conclave init` once";
  // Clients of conclave.v1 tell by its word that nothing was done, and ask again.
  if (call.path().starts_with("/conclave.v1.")) {
    return std::make_unique<Refuse>(
        call, api::status_of(api::session_error(keyspace::GrpcCode::kUnavailable, api::kNoQuorumReason, why)));
  }
  return std::make_unique<Refuse>(call, net::GrpcStatus{.code = kGrpcUnavailable, .message = why});
}

void Wired::on_http(const net::HttpRequest& request, std::function<void(net::HttpResponse)> answer) {
  if (service_ != nullptr) {
    service_->on_http(request, std::move(answer));
    return;
  }
  answer(
      {.status = 503, .content_type = "application/json", .body = R"({"health":"false","reason":"NOT INITIALISED"})"});
}

// ---- Running and ending ----

void Wired::run() {
  loop_.run();
  // No more frames or calls reach what is about to go.
  log_info("ended", "ended");
  log_flush();
}

void Wired::stop() {
  const int before = stops_.fetch_add(1);
  if (before > 0) {
    loop_.stop();
    return;
  }
  loop_.post([this] {
    log_info("ending", "hands leadership over, finishes what is in flight");
    server_->drain();
    hand_over(loop_.now() + kHandOverMax);
  });
}

void Wired::reload(const Reload& reload) {
  // Read here, so that no file is waited for on the loop.
  Result<Tls> loaded = load_tls();
  if (!loaded) {
    log_error("reload_refused", "reload refused, what was loaded stays", {{"error", loaded.error().message}});
    return;
  }
  loop_.post([this, tls = std::move(*loaded), reload] {
    if (tls.client) server_->set_tls(tls.client);
    if (tls.peer) links_->set_tls(tls.peer);
    LogFields fields = {{"log_level", std::string(to_string(reload.log_level))}};
    if (!reload.for_next_start.empty()) {
      fields.push_back({"for_next_start", fmt::format("{}", fmt::join(reload.for_next_start, ","))});
    }
    // Told under the level that tells more: who quietens the log sees that it was done.
    const bool is_quieter = reload.log_level > log_level();
    if (!is_quieter) set_log_level(reload.log_level);
    log_info("reloaded",
             tls.client || tls.peer ? "the log's level; certificates, for new connections" : "the log's level", fields);
    set_log_level(reload.log_level);
  });
}

void Wired::hand_over(Instant give_up) {
  const bool leads = replica_ != nullptr && replica_->raft().status().role == raft::Role::kLeader;
  const bool alone = replica_ == nullptr || replica_->raft().membership().members().size() < 2;
  const Instant now = loop_.now();
  const bool is_asked = server_->queued_bytes() > 0 || (service_ != nullptr && service_->unary_calls_open() > 0);
  const bool busy = (leads && !alone) || is_asked || (replica_ != nullptr && replica_->writes_pending() > 0);
  if (!busy || now >= give_up) {
    loop_.stop();
    return;
  }
  if (leads && !alone && !replica_->raft().status().transferring) (void)replica_->transfer(now, NodeId());
  loop_.call_at(now + std::chrono::milliseconds(10), [this, give_up] { hand_over(give_up); });
}

}  // namespace

Result<Address> parse_address(std::string_view text) {
  const size_t colon = text.rfind(':');
  uint16_t port = 0;
  const std::string_view digits = colon == std::string_view::npos ? text : text.substr(colon + 1);
  const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), port);
  if (digits.empty() || parsed.ec != std::errc() || parsed.ptr != digits.data() + digits.size()) {
    return fail(ErrorCode::kInvalidArgument, "'{}' is not HOST:PORT", text);
  }
  Address address{.port = port};
  if (colon != std::string_view::npos && colon > 0) address.host = std::string(text.substr(0, colon));
  return address;
}

Result<std::unique_ptr<Server>> Server::start(const ServerOptions& options) {
  auto server = std::make_unique<Wired>(options);
  const Status opened = server->open();
  // What was found on the way is part of why.
  if (!opened) log_flush();
  RETURN_IF_ERROR(opened);
  return server;
}

}  // namespace conclave::server
