// A process that holds a lock and writes under its guard as often as it can, for client_test.py. Prints the token, then
// for each write when it began (CLOCK_BOOTTIME, nanoseconds), whether it believed that it holds the lock and what came
// of it, and at last how the hold ended.
//
//   holder ENDPOINTS NAME TTL_MS [CA CERTIFICATE KEY]
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <string>

#include "conclave/client.h"

using namespace conclave::client;

int main(int argc, char** argv) {
  if (argc != 4 && argc != 7) return 64;
  const bool tls = argc == 7;
  auto client = Client::open(
      {.endpoints = argv[1], .ca = tls ? argv[4] : "", .certificate = tls ? argv[5] : "", .key = tls ? argv[6] : ""});
  if (!client) return 1;
  auto session = client->open_session({.ttl = std::chrono::milliseconds(std::atol(argv[3]))});
  if (!session) {
    std::printf("no session: %s\n", session.error().message.c_str());
    return 1;
  }
  auto hold = session->lock(argv[2]);
  if (!hold) {
    std::printf("no lock: %s\n", hold.error().message.c_str());
    return 1;
  }
  std::printf("token %lld\n", static_cast<long long>(hold->token()));
  std::fflush(stdout);
  std::mutex mutex;
  std::condition_variable_any pace;
  Kv kv = client->kv();
  while (!hold->stop_token().stop_requested()) {
    const auto began = BootClock::now().time_since_epoch().count();
    const bool held = hold->is_held();
    const auto written = kv.commit(
        *hold, {.puts = {{.key = std::string(argv[2]) + "-written", .value = std::to_string(hold->token())}}});
    std::printf("write %lld %s %s\n", static_cast<long long>(began), held ? "held" : "not-held",
                written ? "ok" : written.error().reason.c_str());
    std::fflush(stdout);
    std::unique_lock lock(mutex);
    (void)pace.wait_for(lock, hold->stop_token(), std::chrono::milliseconds(2), [] { return false; });
  }
  std::printf("end %s\n", std::string(to_string(hold->release())).c_str());
  return 0;
}
