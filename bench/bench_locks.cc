// What waiting for a lock costs a server: how long a release takes until the next owner is told, with 10, 1,000 and
// 100,000 sessions in line for one name, how many of them it wakes, and what a waiter takes of memory. One thread, the
// keyspace and the layer alone: no log, network or encoding.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <string_view>
#include <vector>

#include <fmt/format.h>
#include <malloc.h>

#include "base/assert.h"
#include "layers/testing/session_world.h"

namespace conclave::layers {
namespace {

constexpr std::string_view kSecret = "0123456789abcdef";
constexpr size_t kSessionsPerStream = 1000;
constexpr size_t kHandOvers = 2000;

size_t memory_in_use() {
  const struct mallinfo2 info = mallinfo2();
  return info.uordblks + info.hblkhd;
}

struct Line {
  size_t waiters = 0;
  double hand_over_us = 0;  // median
  double hand_over_p99_us = 0;
  double woken = 0;          // responses a release leads to, besides its own
  double waiter_bytes = 0;   // what an acquire that waits adds: claim, record of it, and who is to be told
  double session_bytes = 0;  // an idle session with its lease
};

class Bench {
 public:
  Line run(size_t waiters) {
    Line line{.waiters = waiters};
    const size_t before = memory_in_use();
    for (size_t i = 0; i <= waiters; ++i) open(static_cast<int64_t>(i) + 1);
    world_.sent.clear();
    const size_t opened = memory_in_use();
    for (size_t i = 0; i <= waiters; ++i) acquire(static_cast<int64_t>(i) + 1, 1);
    world_.sent.clear();
    const size_t waiting = memory_in_use();
    line.session_bytes = static_cast<double>(opened - before) / static_cast<double>(waiters + 1);
    line.waiter_bytes = static_cast<double>(waiting - opened) / static_cast<double>(waiters + 1);
    std::vector<double> times;
    uint64_t sequence = 2;
    size_t told = 0;
    // Who let go stands in line again, so that there are as many all the time.
    for (size_t i = 0; i < kHandOvers; ++i) {
      const int64_t owner = static_cast<int64_t>(i % (waiters + 1)) + 1;
      if (i > 0 && owner == 1) sequence += 2;
      v1::SessionRequest release;
      release.set_session(owner);
      release.set_sequence(sequence);
      release.mutable_release()->set_name("orders");
      release.mutable_release()->set_token(tokens_[static_cast<size_t>(owner)]);
      const auto begin = std::chrono::steady_clock::now();
      world_.sessions().request(world_.now, stream_of(owner), release);
      world_.settle();
      times.push_back(std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - begin).count());
      for (auto& [stream, responses] : world_.sent) {
        for (const v1::SessionResponse& response : responses) told += response.has_granted() ? 1 : 0;
      }
      ASSERT(told == i + 1);
      world_.sent.clear();
      acquire(owner, sequence + 1);
      world_.sent.clear();
    }
    std::sort(times.begin(), times.end());
    line.hand_over_us = times[times.size() / 2];
    line.hand_over_p99_us = times[times.size() * 99 / 100];
    line.woken = static_cast<double>(told) / static_cast<double>(kHandOvers);
    return line;
  }

 private:
  StreamId stream_of(int64_t session) {
    const size_t stream = static_cast<size_t>(session) / kSessionsPerStream;
    while (streams_.size() <= stream) streams_.push_back(world_.sessions().open_stream());
    return streams_[stream];
  }
  void open(int64_t session) {
    v1::SessionRequest request;
    request.set_session(session);
    request.mutable_open()->set_secret(std::string(kSecret));
    request.mutable_open()->set_ttl_ms(30'000);
    world_.sessions().request(world_.now, stream_of(session), request);
    world_.settle();
    world_.sent.clear();
  }
  void acquire(int64_t session, uint64_t sequence) {
    v1::SessionRequest request;
    request.set_session(session);
    request.set_sequence(sequence);
    request.mutable_acquire()->add_names("orders");
    world_.sessions().request(world_.now, stream_of(session), request);
    world_.settle();
    const v1::SessionResponse& answer = world_.sent[stream_of(session)].back();
    ASSERT_MSG(answer.has_claimed(), "{}", describe(answer));
    tokens_.resize(std::max(tokens_.size(), static_cast<size_t>(session) + 1));
    tokens_[static_cast<size_t>(session)] = answer.claimed().claims(0).token();
    world_.sent.clear();
  }

  TestWorld world_;
  std::vector<StreamId> streams_;
  std::vector<int64_t> tokens_;
};

}  // namespace
}  // namespace conclave::layers

int main(int argc, char** argv) {
  const bool json = argc > 1 && std::string_view(argv[1]) == "--json";
  std::string lines;
  double few = 0;
  for (const size_t waiters : {size_t{10}, size_t{1000}, size_t{100'000}}) {
    const conclave::layers::Line line = conclave::layers::Bench().run(waiters);
    if (few == 0) few = line.hand_over_us;
    fmt::print(
        "{:>7} waiters: hand-over {:.2f} us (p99 {:.2f}), {:.2f} of that with 10; {:.2f} woken by a release; "
        "{:.0f} bytes a waiter, {:.0f} its session\n",
        line.waiters, line.hand_over_us, line.hand_over_p99_us, line.hand_over_us / few, line.woken, line.waiter_bytes,
        line.session_bytes);
    lines += fmt::format(
        R"({}{{"waiters":{},"hand_over_us":{:.3f},"hand_over_p99_us":{:.3f},"woken":{:.3f},"waiter_bytes":{:.0f},)"
        R"("session_bytes":{:.0f}}})",
        lines.empty() ? "" : ",", line.waiters, line.hand_over_us, line.hand_over_p99_us, line.woken, line.waiter_bytes,
        line.session_bytes);
  }
  if (json)
    fmt::print(R"({{"bench":"locks","lines":[{}]}})"
               "\n",
               lines);
  return 0;
}
