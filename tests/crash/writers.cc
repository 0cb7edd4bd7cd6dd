// Writers under which servers are killed: each writes increasing numbers to a key of its own, a number at a time, as a
// transaction that only holds on the number before it. So a write whose outcome is unknown can be tried again without
// ever standing twice, and every number that was acknowledged must be found again. Driven by kill_loop.py over standard
// input, a command a line:
//
//   mark    ends an interval: prints the longest time in it without any acknowledgement, and how many came
//   check   reads all keys, linearizable, through each endpoint that answers; prints what was compared
//   stop    ends the writers, reads once more, and ends with exit code 0
//
// The first violation is printed and ends the process with exit code 1.
//
//   writers ENDPOINTS [CLIENTS]
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <fmt/format.h>

#include "cli/claim.h"
#include "cli/endpoints.h"
#include "env/posix/clock.h"
#include "etcd/rpc.pb.h"
#include "net/client.h"
#include "net/loop.h"

namespace conclave::crash {
namespace {

using namespace std::chrono_literals;

constexpr std::string_view kTxnPath = "/etcdserverpb.KV/Txn";
constexpr std::string_view kRangePath = "/etcdserverpb.KV/Range";
// An attempt that has no answer by then is made again elsewhere: a forwarded request may wait for a leader that is
// dead.
constexpr Duration kAttempt = 200ms;
constexpr Duration kReadAttempt = 1s;
constexpr Duration kPauseAfterFailure = 5ms;
// A cluster of three with two running that serves nothing for so long is a violation.
constexpr Duration kSilenceMax = 60s;

void say(const std::string& line) {
  std::fwrite(line.data(), 1, line.size(), stdout);
  std::fputc('\n', stdout);
  std::fflush(stdout);
}

[[noreturn]] void violation(const std::string& what) {
  say("VIOLATION " + what);
  std::_Exit(1);
}

// What is known of one key.
struct Record {
  std::string key;
  uint64_t acknowledged = 0;  // the last number that was
  int64_t revision = 0;       // at which it was written
};

// What a read may not fall behind: taken when it begins.
struct Floor {
  int64_t revision = 0;
  std::vector<uint64_t> acknowledged;
};

class World {
 public:
  World(const std::vector<cli::Endpoint>& endpoints, size_t clients) {
    const auto run = static_cast<uint64_t>(to_nanoseconds(clock_.now()));
    prefix_ = fmt::format("crash/{:x}/", run);
    for (const cli::Endpoint& endpoint : endpoints) {
      // Own connections for reads, so that they do not wait behind writes.
      writing_.push_back(net::Channel::make(loop_, endpoint.host, endpoint.port, endpoint.tls));
      reading_.push_back(net::Channel::make(loop_, endpoint.host, endpoint.port, endpoint.tls));
    }
    terms_.resize(endpoints.size());
    for (size_t i = 0; i < clients; ++i) records_.push_back({.key = fmt::format("{}{:04}", prefix_, i)});
  }

  void run() {
    loop_.post([this] {
      last_ack_ = clock_.now();
      for (size_t i = 0; i < records_.size(); ++i) write(i, i % writing_.size());
      watch_silence();
    });
    std::thread commands([this]() noexcept {
      for (std::string line; std::getline(std::cin, line);) {
        loop_.post([this, line] { command(line); });
        if (line == "stop") return;
      }
      std::_Exit(1);  // whoever drives this is gone
    });
    loop_.run();
    commands.join();
  }

 private:
  void command(const std::string& line) {
    if (line == "mark") {
      const Duration gap = std::max(longest_gap_, clock_.now() - last_ack_);
      say(fmt::format("mark gap_ms={:.1f} acknowledged={}", std::chrono::duration<double, std::milli>(gap).count(),
                      std::exchange(acknowledged_, 0)));
      longest_gap_ = Duration::zero();  // a gap that goes on is told again, in its whole length
    } else if (line == "check") {
      check([] {});
    } else if (line == "stop") {
      stopping_ = true;
      check([this] { loop_.stop(); });
    } else {
      violation("unknown command " + line);
    }
  }

  void watch_silence() {
    if (!stopping_ && clock_.now() - last_ack_ > kSilenceMax) violation("no write was acknowledged for a minute");
    loop_.call_at(loop_.now() + 1s, [this] { watch_silence(); });
  }

  [[nodiscard]] std::string request(const Record& record) const {
    etcdserverpb::TxnRequest request;
    etcdserverpb::Compare& compare = *request.add_compare();
    compare.set_target(etcdserverpb::Compare::MOD);
    compare.set_key(record.key);
    compare.set_mod_revision(record.revision);
    etcdserverpb::PutRequest& put = *request.add_success()->mutable_request_put();
    put.set_key(record.key);
    put.set_value(fmt::format("{}", record.acknowledged + 1));
    request.add_failure()->mutable_request_range()->set_key(record.key);
    return request.SerializeAsString();
  }

  void write(size_t client, size_t endpoint) {
    if (stopping_) return;
    const int64_t floor = revision_;
    writing_[endpoint]->call(kTxnPath, request(records_[client]), kAttempt,
                             [this, client, endpoint, floor](const net::GrpcStatus& status, ByteView message) {
                               if (status.ok()) {
                                 answered(client, endpoint, floor, message);
                                 return write(client, endpoint);
                               }
                               loop_.call_at(loop_.now() + kPauseAfterFailure, [this, client, endpoint] {
                                 write(client, (endpoint + 1) % writing_.size());
                               });
                             });
  }

  // The next number stands: written now, or by an attempt before whose answer did not come.
  void answered(size_t client, size_t endpoint, int64_t floor, ByteView message) {
    etcdserverpb::TxnResponse response;
    if (!response.ParseFromArray(message.data(), static_cast<int>(message.size()))) violation("unreadable answer");
    see(endpoint, floor, response.header());
    Record& record = records_[client];
    const uint64_t next = record.acknowledged + 1;
    if (response.succeeded()) {
      record.revision = response.header().revision();
    } else {
      const auto& range = response.responses(0).response_range();
      if (range.kvs_size() != 1) violation(fmt::format("{} is gone, {} was acknowledged", record.key, next - 1));
      const mvccpb::KeyValue& kv = range.kvs(0);
      if (kv.value() != fmt::format("{}", next) || kv.mod_revision() <= record.revision) {
        violation(fmt::format("{} is {} at revision {} where {} is being written after revision {}", record.key,
                              kv.value(), kv.mod_revision(), next, record.revision));
      }
      record.revision = kv.mod_revision();
    }
    record.acknowledged = next;
    const Instant now = clock_.now();
    longest_gap_ = std::max(longest_gap_, now - last_ack_);
    last_ack_ = now;
    ++acknowledged_;
  }

  // Revisions never go back for anyone who asked after another's answer; terms never for who asks the same server.
  void see(size_t endpoint, int64_t floor, const etcdserverpb::ResponseHeader& header) {
    if (header.revision() < floor) {
      violation(fmt::format("revision {} after {} had been seen", header.revision(), floor));
    }
    if (header.raft_term() < terms_[endpoint]) {
      violation(fmt::format("term {} after {} at one server", header.raft_term(), terms_[endpoint]));
    }
    if (cluster_ != 0 && cluster_ != header.cluster_id()) violation("the cluster's id changed");
    cluster_ = header.cluster_id();
    terms_[endpoint] = header.raft_term();
    revision_ = std::max(revision_, header.revision());
  }

  // Through every endpoint, one after the other; those that do not answer are left out, but one must.
  void check(std::function<void()> done) {
    struct Progress {
      size_t endpoint = 0;
      size_t answered = 0;
      Instant end;
      std::function<void()> done;
    };
    read(std::make_shared<Progress>(Progress{.end = clock_.now() + kSilenceMax, .done = std::move(done)}));
  }
  template <class Progress>
  void read(const std::shared_ptr<Progress>& progress) {
    if (progress->endpoint == reading_.size()) {
      if (progress->answered > 0) {
        say(fmt::format("checked keys={} endpoints={} revision={}", records_.size(), progress->answered, revision_));
        return progress->done();
      }
      if (clock_.now() > progress->end) violation("no server answered a read for a minute");
      progress->endpoint = 0;
      loop_.call_at(loop_.now() + kPauseAfterFailure, [this, progress] { read(progress); });
      return;
    }
    etcdserverpb::RangeRequest request;
    request.set_key(prefix_);
    request.set_range_end(cli::end_of_prefix(prefix_));
    Floor floor{.revision = revision_, .acknowledged = {}};
    for (const Record& record : records_) floor.acknowledged.push_back(record.acknowledged);
    const size_t endpoint = progress->endpoint++;
    reading_[endpoint]->call(
        kRangePath, request.SerializeAsString(), kReadAttempt,
        [this, progress, endpoint, floor = std::move(floor)](const net::GrpcStatus& status, ByteView message) {
          if (status.ok()) {
            compare(endpoint, floor, message);
            ++progress->answered;
          }
          read(progress);
        });
  }

  void compare(size_t endpoint, const Floor& floor, ByteView message) {
    etcdserverpb::RangeResponse response;
    if (!response.ParseFromArray(message.data(), static_cast<int>(message.size()))) violation("unreadable answer");
    see(endpoint, floor.revision, response.header());
    std::map<std::string, const mvccpb::KeyValue*> found;
    for (const mvccpb::KeyValue& kv : response.kvs()) found[kv.key()] = &kv;
    for (size_t i = 0; i < records_.size(); ++i) {
      const auto kv = found.find(records_[i].key);
      if (kv == found.end()) {
        if (floor.acknowledged[i] > 0) violation(fmt::format("{} is missing", records_[i].key));
        continue;
      }
      const uint64_t value = std::strtoull(kv->second->value().c_str(), nullptr, 10);
      if (value < floor.acknowledged[i]) {
        violation(fmt::format("{} is {}, {} was acknowledged", records_[i].key, value, floor.acknowledged[i]));
      }
      // Each number was written exactly once.
      if (static_cast<uint64_t>(kv->second->version()) != value) {
        violation(fmt::format("{} is {} and was written {} times", records_[i].key, value, kv->second->version()));
      }
      if (value == records_[i].acknowledged && kv->second->mod_revision() != records_[i].revision) {
        violation(fmt::format("{} is {} at revision {}, acknowledged at {}", records_[i].key, value,
                              kv->second->mod_revision(), records_[i].revision));
      }
    }
  }

  env::PosixClock clock_;
  net::Loop loop_{clock_};
  std::string prefix_;
  std::vector<std::unique_ptr<net::Channel>> writing_;
  std::vector<std::unique_ptr<net::Channel>> reading_;
  std::vector<Record> records_;
  std::vector<uint64_t> terms_;  // of each endpoint
  uint64_t cluster_ = 0;
  int64_t revision_ = 0;  // the newest seen by anyone
  Instant last_ack_;
  Duration longest_gap_{};
  uint64_t acknowledged_ = 0;  // since the last mark
  bool stopping_ = false;
};

int run(int argc, char** argv) {
  if (argc < 2 || argc > 3) {
    fmt::print(stderr, "writers ENDPOINTS [CLIENTS]\n");
    return 64;
  }
  auto endpoints = cli::load_endpoints(argv[1], {});
  if (!endpoints) {
    fmt::print(stderr, "writers: {}\n", endpoints.error().message);
    return 64;
  }
  World world(*endpoints, argc == 3 ? std::strtoul(argv[2], nullptr, 10) : 16);
  world.run();
  return 0;
}

}  // namespace
}  // namespace conclave::crash

int main(int argc, char** argv) {
  return conclave::crash::run(argc, argv);
}
