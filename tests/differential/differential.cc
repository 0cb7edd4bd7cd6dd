// The same random requests over gRPC to two servers of etcd's API, one after the other, answers compared field by
// field; at the end all events that a watch of everything saw. Left out of the comparison is only what kDifferences
// lists. Ends with 1 at the first difference that is not listed, and prints the request and both answers.
#include <algorithm>
#include <array>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>
#include <CLI/CLI.hpp>

#include "base/random.h"
#include "env/posix/clock.h"
#include "etcd/rpc.pb.h"
#include "net/client.h"
#include "net/loop.h"

namespace conclave {
namespace {

using google::protobuf::Message;

// What may differ, why, and how often it did. Nothing here is about keys, values, revisions, codes or texts of errors.
struct Difference {
  std::string_view what;
  std::string_view why;
  uint64_t hits = 0;
};
std::array<Difference, 5> differences = {{
    {.what = "header.cluster_id, member_id, raft_term", .why = "another cluster"},
    {.what = "LeaseTimeToLive: TTL", .why = "time passes between the two answers"},
    {.what = "LeaseTimeToLive: order of keys", .why = "etcd's is that of a hash table"},
    // Not asked from here on. The generator ends such a delete behind its last key instead, and sorts by key.
    {.what = "Range: sorted by what several keys have in common",
     .why = "etcd's sort leaves their order, and with a limit the choice, to chance"},
    {.what = "Txn: a put within a delete of everything from a key on",
     .why = "etcd takes the end \"\\0\" for a key, sees no duplicate, and puts and deletes in one revision"},
}};

struct Ask {
  std::string path;
  std::unique_ptr<Message> request;
  std::unique_ptr<Message> response;  // an empty one of its type
};

template <class Request, class Response>
Ask ask(const std::string& path, const Request& request) {
  return {
      .path = std::move(path), .request = std::make_unique<Request>(request), .response = std::make_unique<Response>()};
}

// Few keys, so that requests meet; revisions around the newest; leases that stand, stood, or never did.
class Generator {
 public:
  explicit Generator(uint64_t seed) : random_(seed) {}
  void see(int64_t revision) { revision_ = std::max(revision_, revision); }

  Ask next() {
    const uint64_t kind = random_.below(100);
    if (kind < 30) return ask<etcdserverpb::PutRequest, etcdserverpb::PutResponse>("/etcdserverpb.KV/Put", put());
    if (kind < 55) {
      return ask<etcdserverpb::RangeRequest, etcdserverpb::RangeResponse>("/etcdserverpb.KV/Range", range());
    }
    if (kind < 63) {
      return ask<etcdserverpb::DeleteRangeRequest, etcdserverpb::DeleteRangeResponse>("/etcdserverpb.KV/DeleteRange",
                                                                                      remove());
    }
    if (kind < 88) return ask<etcdserverpb::TxnRequest, etcdserverpb::TxnResponse>("/etcdserverpb.KV/Txn", txn(0));
    if (kind < 92) {
      etcdserverpb::LeaseGrantRequest request;
      request.set_id(lease());
      request.set_ttl(one_in(20) ? 9'000'000'001 : 100'000 + static_cast<int64_t>(random_.below(1000)));
      // Zero lets the server choose: another id on each.
      if (request.id() == 0) request.set_id(1);
      return ask<etcdserverpb::LeaseGrantRequest, etcdserverpb::LeaseGrantResponse>("/etcdserverpb.Lease/LeaseGrant",
                                                                                    request);
    }
    if (kind < 94) {
      etcdserverpb::LeaseRevokeRequest request;
      request.set_id(lease());
      return ask<etcdserverpb::LeaseRevokeRequest, etcdserverpb::LeaseRevokeResponse>("/etcdserverpb.Lease/LeaseRevoke",
                                                                                      request);
    }
    if (kind < 96) {
      etcdserverpb::LeaseTimeToLiveRequest request;
      request.set_id(lease());
      request.set_keys(one_in(2));
      return ask<etcdserverpb::LeaseTimeToLiveRequest, etcdserverpb::LeaseTimeToLiveResponse>(
          "/etcdserverpb.Lease/LeaseTimeToLive", request);
    }
    etcdserverpb::CompactionRequest request;
    request.set_revision(revision_ + static_cast<int64_t>(random_.below(60)) - 55);
    request.set_physical(one_in(2));
    return ask<etcdserverpb::CompactionRequest, etcdserverpb::CompactionResponse>("/etcdserverpb.KV/Compact", request);
  }

 private:
  bool one_in(uint64_t n) { return random_.below(n) == 0; }
  std::string key() {
    if (one_in(100)) return {};
    std::string key = fmt::format("k{}", random_.below(20));
    if (one_in(5)) key += fmt::format("/{}", random_.below(5));
    return key;
  }
  std::string range_end() {
    switch (random_.below(6)) {
      case 0:
        return key();
      case 1:
        return std::string(1, '\0');
      case 2:
        return "k1~";
      default:
        return {};
    }
  }
  int64_t lease() { return static_cast<int64_t>(random_.below(12)); }
  int64_t near_revision() { return std::max<int64_t>(0, revision_ + static_cast<int64_t>(random_.below(44)) - 40); }
  etcdserverpb::PutRequest put() {
    etcdserverpb::PutRequest request;
    request.set_key(key());
    if (!one_in(8)) request.set_value(fmt::format("v{}", random_.below(50)));
    if (one_in(6)) request.set_lease(lease());
    request.set_prev_kv(one_in(2));
    if (one_in(20)) {
      request.set_ignore_value(true);
      if (!one_in(4)) request.clear_value();
    }
    if (one_in(20)) {
      request.set_ignore_lease(true);
      if (!one_in(4)) request.clear_lease();
    }
    return request;
  }
  etcdserverpb::RangeRequest range() {
    etcdserverpb::RangeRequest request;
    request.set_key(key());
    request.set_range_end(range_end());
    if (one_in(3)) request.set_limit(static_cast<int64_t>(random_.below(5)));
    if (one_in(3)) request.set_revision(near_revision());
    if (one_in(2)) {
      request.set_sort_order(static_cast<etcdserverpb::RangeRequest::SortOrder>(random_.below(3)));
      if (random_.below(5) != 0) ++differences[3].hits;
    }
    request.set_serializable(one_in(4));
    request.set_keys_only(one_in(6));
    request.set_count_only(one_in(10));
    if (one_in(8)) request.set_min_mod_revision(near_revision());
    if (one_in(8)) request.set_max_mod_revision(near_revision());
    if (one_in(8)) request.set_min_create_revision(near_revision());
    if (one_in(8)) request.set_max_create_revision(near_revision());
    return request;
  }
  etcdserverpb::DeleteRangeRequest remove() {
    etcdserverpb::DeleteRangeRequest request;
    request.set_key(key());
    if (one_in(2)) request.set_range_end(range_end());
    request.set_prev_kv(one_in(2));
    return request;
  }
  etcdserverpb::Compare compare() {
    etcdserverpb::Compare compare;
    compare.set_key(key());
    if (one_in(5)) compare.set_range_end(range_end());
    compare.set_result(static_cast<etcdserverpb::Compare::CompareResult>(random_.below(4)));
    switch (random_.below(5)) {
      case 0:
        compare.set_target(etcdserverpb::Compare::VERSION);
        compare.set_version(static_cast<int64_t>(random_.below(4)));
        break;
      case 1:
        compare.set_target(etcdserverpb::Compare::CREATE);
        compare.set_create_revision(one_in(2) ? 0 : near_revision());
        break;
      case 2:
        compare.set_target(etcdserverpb::Compare::MOD);
        compare.set_mod_revision(one_in(2) ? 0 : near_revision());
        break;
      case 3:
        compare.set_target(etcdserverpb::Compare::VALUE);
        compare.set_value(fmt::format("v{}", random_.below(50)));
        break;
      default:
        compare.set_target(etcdserverpb::Compare::LEASE);
        compare.set_lease(lease());
        break;
    }
    return compare;
  }
  void add_operations(google::protobuf::RepeatedPtrField<etcdserverpb::RequestOp>* operations, int depth) {
    for (uint64_t count = random_.below(4); count > 0; --count) {
      etcdserverpb::RequestOp& operation = *operations->Add();
      switch (random_.below(depth < 2 ? 10 : 8)) {
        case 0:
        case 1:
        case 2:
          *operation.mutable_request_range() = range();
          break;
        case 3:
        case 4:
          *operation.mutable_request_delete_range() = remove();
          if (operation.request_delete_range().range_end() == std::string(1, '\0')) {
            ++differences[4].hits;
            operation.mutable_request_delete_range()->set_range_end("k~");
          }
          break;
        case 5:
        case 6:
        case 7:
          *operation.mutable_request_put() = put();
          break;
        default:
          *operation.mutable_request_txn() = txn(depth + 1);
      }
    }
  }
  etcdserverpb::TxnRequest txn(int depth) {
    etcdserverpb::TxnRequest request;
    for (uint64_t count = random_.below(3); count > 0; --count) *request.add_compare() = compare();
    add_operations(request.mutable_success(), depth);
    add_operations(request.mutable_failure(), depth);
    return request;
  }

  Random random_;
  int64_t revision_ = 1;
};

// One of the two servers.
struct System {
  std::string name;
  std::unique_ptr<net::Channel> channel;
  std::unique_ptr<net::ClientCall> watch;
  net::GrpcStatus status;
  std::string message;
  std::vector<std::string> events;
  int64_t seen = 0;  // newest revision of an event
  bool answered = false;
};

void clear_ids(Message& message) {
  const auto* field = message.GetDescriptor()->FindFieldByName("header");
  auto* header = dynamic_cast<etcdserverpb::ResponseHeader*>(message.GetReflection()->MutableMessage(&message, field));
  header->clear_cluster_id();
  header->clear_member_id();
  header->clear_raft_term();
}

// As text, without what may differ.
std::string comparable(const System& system, const Message& type) {
  if (!system.status.ok()) return fmt::format("{} {}", system.status.code, system.status.message);
  const std::unique_ptr<Message> message(type.New());
  if (!message->ParseFromString(system.message)) return "unreadable";
  clear_ids(*message);
  if (auto* lease = dynamic_cast<etcdserverpb::LeaseTimeToLiveResponse*>(message.get())) {
    if (lease->ttl() > 0) {
      lease->set_ttl(1);
      ++differences[1].hits;
    }
    if (!std::ranges::is_sorted(lease->keys())) ++differences[2].hits;
    std::ranges::sort(*lease->mutable_keys());
  }
  return message->DebugString();
}

class Comparison {
 public:
  Comparison(net::Loop& loop, std::vector<uint16_t> ports, uint64_t seed, uint64_t requests)
      : loop_(loop), generator_(seed), left_(requests) {
    for (const uint16_t port : ports) {
      auto& system = systems_[port == ports[0] ? 0 : 1];
      system.name = port == ports[0] ? "conclave" : "etcd";
      system.channel = net::Channel::make(loop, "127.0.0.1", port);
      system.watch =
          system.channel->open("/etcdserverpb.Watch/Watch",
                               {.on_message = [this, &system](ByteView message) { on_events(system, message); },
                                .on_finished =
                                    [this, &system](const net::GrpcStatus& status) {
                                      complain(fmt::format("the watch of {} ended: {}", system.name, status.message));
                                    }});
      etcdserverpb::WatchRequest request;
      request.mutable_create_request()->set_key(std::string(1, '\0'));
      request.mutable_create_request()->set_range_end(std::string(1, '\0'));
      request.mutable_create_request()->set_prev_kv(true);
      system.watch->send(request.SerializeAsString());
    }
  }

  void next() {
    if (left_ == 0) return finish();
    --left_;
    ++asked_;
    ask_ = generator_.next();
    // An event's previous value is read when the event is sent: it must not be compacted meanwhile.
    waits_ = ask_.path == "/etcdserverpb.KV/Compact";
    if (!waits_ || all_seen()) send();
  }
  [[nodiscard]] int exit_code() const { return exit_code_; }

 private:
  void send() {
    waits_ = false;
    for (System& system : systems_) {
      system.answered = false;
      system.channel->call(ask_.path, ask_.request->SerializeAsString(), std::chrono::seconds(30),
                           [this, &system](const net::GrpcStatus& status, ByteView message) {
                             system.answered = true;
                             system.status = status;
                             system.message = message;
                             if (std::ranges::all_of(systems_, &System::answered)) compare();
                           });
    }
  }

  // Both watches have all that was written.
  [[nodiscard]] bool all_seen() const {
    return std::ranges::all_of(systems_, [this](const System& system) { return system.seen >= revision_; });
  }

  void complain(const std::string& what) {
    if (over_) return;
    fmt::print("{}\n", what);
    exit_code_ = 1;
    over_ = true;
    loop_.stop();
  }

  void compare() {
    if (over_) return;
    const std::string ours = comparable(systems_[0], *ask_.response);
    const std::string theirs = comparable(systems_[1], *ask_.response);
    ++differences[0].hits;
    if (ours != theirs) {
      return complain(fmt::format("request {}: {}\n{}\nconclave:\n{}\netcd:\n{}", asked_, ask_.path,
                                  ask_.request->DebugString(), ours, theirs));
    }
    if (systems_[0].status.ok()) {
      etcdserverpb::PutResponse any;  // its header is where every response has it
      if (any.ParseFromString(systems_[0].message)) generator_.see(any.header().revision());
      if (any.header().revision() > 1) revision_ = std::max(revision_, any.header().revision());
    } else {
      ++refused_;
    }
    loop_.post([this] { next(); });
  }

  void on_events(System& system, ByteView message) {
    etcdserverpb::WatchResponse response;
    if (!response.ParseFromArray(message.data(), static_cast<int>(message.size())) || response.canceled()) {
      return complain(fmt::format("the watch of {}: {}", system.name, response.ShortDebugString()));
    }
    if (response.created() && ++created_ == 2) loop_.post([this] { next(); });
    for (const mvccpb::Event& event : response.events()) {
      system.events.push_back(event.ShortDebugString());
      system.seen = std::max(system.seen, event.kv().mod_revision());
    }
    if (!waits_ || !all_seen()) return;
    if (finishing_) {
      finish();
    } else {
      send();
    }
  }

  void finish() {
    waits_ = finishing_ = true;
    if (!all_seen() || systems_[0].events.size() != systems_[1].events.size()) {
      if (give_up_ == 0) {
        give_up_ = loop_.call_at(loop_.now() + std::chrono::seconds(10), [this] {
          complain(fmt::format("events: {} up to revision {} and {} up to revision {}", systems_[0].events.size(),
                               systems_[0].seen, systems_[1].events.size(), systems_[1].seen));
        });
      }
      return;
    }
    for (size_t i = 0; i < systems_[0].events.size(); ++i) {
      if (systems_[0].events[i] == systems_[1].events[i]) continue;
      return complain(
          fmt::format("event {}:\nconclave: {}\netcd:     {}", i, systems_[0].events[i], systems_[1].events[i]));
    }
    if (over_) return;
    over_ = true;
    fmt::print("{} requests, {} refused alike, {} events, up to revision {}: no difference but\n", asked_, refused_,
               systems_[0].events.size(), revision_);
    for (const Difference& difference : differences) {
      fmt::print("  {:>8}  {}: {}\n", difference.hits, difference.what, difference.why);
    }
    if (refused_ * 2 > asked_) {
      fmt::print("more than half were refused: this says little\n");
      exit_code_ = 1;
    }
    loop_.stop();
  }

  net::Loop& loop_;
  Generator generator_;
  std::array<System, 2> systems_;
  Ask ask_;
  uint64_t left_;
  uint64_t asked_ = 0;
  uint64_t refused_ = 0;
  int64_t revision_ = 0;  // newest that wrote something
  int created_ = 0;
  bool waits_ = false;  // for events
  bool finishing_ = false;
  bool over_ = false;
  net::TimerId give_up_ = 0;
  int exit_code_ = 0;
};

}  // namespace
}  // namespace conclave

int main(int argc, char** argv) {
  CLI::App app("the same random requests to two servers, answers compared");
  std::vector<uint16_t> ports;
  uint64_t seed = 1;
  uint64_t requests = 20'000;
  app.add_option("--ports", ports, "of conclave and of etcd, on loopback")->expected(2)->required();
  app.add_option("--seed", seed);
  app.add_option("--requests", requests);
  CLI11_PARSE(app, argc, argv);
  conclave::env::PosixClock clock;
  conclave::net::Loop loop(clock);
  conclave::Comparison comparison(loop, ports, seed, requests);
  loop.run();
  return comparison.exit_code();
}
