// A session: opened, watched, and closed. Keys put on its lease end with it.
//
//   session ENDPOINTS
#include <conclave/client.h>

#include <cstdio>
#include <string>

using namespace conclave::client;

int main(int argc, char** argv) {
  auto client = Client::open({.endpoints = argc > 1 ? argv[1] : "127.0.0.1:2379"});
  if (!client) {
    std::fprintf(stderr, "%s\n", client.error().message.c_str());
    return 1;
  }
  auto session = client->open_session({.ttl = std::chrono::seconds(5),
                                       .description = "the example of a session",
                                       .on_state = [](State state, const std::string& reason) {
                                         std::printf("state: %s%s%s\n", std::string(to_string(state)).c_str(),
                                                     reason.empty() ? "" : ", ", reason.c_str());
                                       }});
  if (!session) {
    std::fprintf(stderr, "no session: %s\n", session.error().message.c_str());
    return 1;
  }
  std::printf("session %llx\n", static_cast<unsigned long long>(session->id()));

  // Present while the session is: what others find under hosts/ is alive, or was until a TTL ago.
  const auto put = client->kv().commit(Transaction{
      .puts = {{.key = "hosts/example", .value = "here", .lease = session->id()}}, .reads = {"hosts/example"}});
  if (!put) {
    std::fprintf(stderr, "not put: %s\n", put.error().message.c_str());
    return 1;
  }
  std::printf("hosts/example = %s\n", put->read.front()->value.c_str());

  const auto closed = session->close();
  if (!closed) std::fprintf(stderr, "closing: %s\n", closed.error().message.c_str());
  const auto after = client->kv().get("hosts/example");
  if (!after) {
    std::fprintf(stderr, "not read: %s\n", after.error().message.c_str());
    return 1;
  }
  std::printf("after closing: %s\n", after->has_value() ? "still there" : "gone");
  return after->has_value() ? 1 : 0;
}
