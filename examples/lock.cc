// A lock: one process at a time adds to a counter that lies in the cluster, each time under the lock's guard.
//
//   lock ENDPOINTS TIMES
#include <conclave/client.h>

#include <cstdio>
#include <cstdlib>
#include <string>

using namespace conclave::client;

int main(int argc, char** argv) {
  auto client = Client::open({.endpoints = argc > 1 ? argv[1] : "127.0.0.1:2379"});
  if (!client) {
    std::fprintf(stderr, "%s\n", client.error().message.c_str());
    return 1;
  }
  auto session = client->open_session({.ttl = std::chrono::seconds(5), .description = "the example of a lock"});
  if (!session) {
    std::fprintf(stderr, "no session: %s\n", session.error().message.c_str());
    return 1;
  }
  for (int i = argc > 2 ? std::atoi(argv[2]) : 1; i > 0; --i) {
    const auto became = session->with_lock("examples/counter", {.note = "adding one"}, [&](Hold& hold) {
      Kv kv = client->kv();
      const auto found = kv.get("examples/count");
      if (!found) return std::fprintf(stderr, "not read: %s\n", found.error().message.c_str()), void();
      const long before = found->has_value() ? std::atol((*found)->value.c_str()) : 0;
      // Written only while the claim stands, whatever happened to this process since it read.
      const auto written = kv.commit(hold, {.puts = {{.key = "examples/count", .value = std::to_string(before + 1)}}});
      if (!written) return std::fprintf(stderr, "not written: %s\n", written.error().message.c_str()), void();
      std::printf("token %lld: %ld\n", static_cast<long long>(hold.token()), before + 1);
    });
    if (!became) {
      std::fprintf(stderr, "no lock: %s\n", became.error().message.c_str());
      return 1;
    }
    if (*became != HeldEnd::kReleased)
      std::fprintf(stderr, "the lock ended: %s\n", std::string(to_string(*became)).c_str());
  }
  return 0;
}
