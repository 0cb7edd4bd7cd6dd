// An election: candidates wait their turn, the leader tells of its work, observers see each leader.
//
//   election ENDPOINTS NAME TERMS   leads so many terms, each until a line comes on standard input or it is lost
//   election ENDPOINTS NAME         observes, until standard input ends
#include <conclave/client.h>

#include <poll.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>

using namespace conclave::client;

namespace {

// False: standard input has ended.
bool read_line() {
  char byte = 0;
  while (read(STDIN_FILENO, &byte, 1) == 1) {
    if (byte == '\n') return true;
  }
  return false;
}

// Until there is a line, or stop is asked for.
void work(const std::stop_token& stop) {
  while (!stop.stop_requested()) {
    pollfd input = {.fd = STDIN_FILENO, .events = POLLIN, .revents = 0};
    if (poll(&input, 1, 50) > 0) return (void)read_line();
  }
}

int lead(Client& client, const std::string& name, int terms) {
  const auto ended = client.elect(
      name, "host " + std::to_string(getpid()),
      {.session = {.ttl = std::chrono::seconds(5), .description = "the example of an election"},
       .on_error = [](const Error& error) { std::fprintf(stderr, "again, after: %s\n", error.message.c_str()); }},
      [&](Term& term) {
        std::printf("leading, token %lld\n", static_cast<long long>(term.token()));
        std::fflush(stdout);
        const auto told = term.proclaim("host " + std::to_string(getpid()) + ", at work");
        if (told) work(term.stop_token());
        return --terms > 0 ? Next::kCampaignAgain : Next::kEnd;
      });
  if (ended) return 0;
  std::fprintf(stderr, "%s\n", ended.error().message.c_str());
  return 1;
}

int observe(Client& client, const std::string& name) {
  auto session = client.open_session({.ttl = std::chrono::seconds(5)});
  if (!session) {
    std::fprintf(stderr, "no session: %s\n", session.error().message.c_str());
    return 1;
  }
  const Observation observation = session->observe(name, [](const Leader& leader) {
    if (leader.token == 0) {
      std::printf("nobody leads\n");
    } else {
      std::printf("%s leads, token %lld\n", leader.value.c_str(), static_cast<long long>(leader.token));
    }
    std::fflush(stdout);
  });
  while (read_line()) {
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "election ENDPOINTS NAME [TERMS]\n");
    return 64;
  }
  auto client = Client::open({.endpoints = argv[1]});
  if (!client) {
    std::fprintf(stderr, "%s\n", client.error().message.c_str());
    return 1;
  }
  return argc > 3 ? lead(*client, argv[2], std::atoi(argv[3])) : observe(*client, argv[2]);
}
