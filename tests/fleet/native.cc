// A worker of the fleet by Conclave's own client: takes the lock NAME, or is elected on it with a priority of its own
// and sometimes hands its term to another candidate, asks the resource to let it in, works, leaves; again and again.
// Started by fleet_test.py, which kills and pauses it.
//
//   fleet_native lock|election ENDPOINTS NAME RESOURCE ID
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <random>
#include <string>
#include <thread>

#include "conclave/client.h"

namespace {

using namespace std::chrono_literals;
using namespace conclave::client;

constexpr auto kTtl = 5s;
constexpr int kWrites = 4;
constexpr auto kPause = 15ms;

// Where it is gone, so is this, at once: the client's thread is in the middle of something.
class Resource {
 public:
  Resource(const std::string& where, std::string id) : id_(std::move(id)) {
    const size_t colon = where.rfind(':');
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(std::stoul(where.substr(colon + 1))));
    if (inet_pton(AF_INET, where.substr(0, colon).c_str(), &address.sin_addr) != 1) std::_Exit(64);
    socket_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(socket_, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) std::_Exit(1);
  }
  Resource(const Resource&) = delete;
  Resource& operator=(const Resource&) = delete;
  ~Resource() { close(socket_); }

  // False where it refuses the token.
  bool ask(const std::string& what, int64_t token) {
    const std::string line = what + " " + std::to_string(token) + " " + id_ + "\n";
    if (send(socket_, line.data(), line.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(line.size())) std::_Exit(1);
    std::string answer;
    for (char byte = 0; byte != '\n'; answer += byte) {
      if (read(socket_, &byte, 1) != 1) std::_Exit(1);
    }
    return answer == "ok\n";
  }
  void work(const Held& held) {
    if (!ask("enter", held.token())) return;
    for (int i = 0; i < kWrites; ++i) {
      std::this_thread::sleep_for(kPause);
      if (!held.is_held()) {
        ask("leave", held.token());
        return;
      }
      if (!ask("write", held.token())) return;
    }
    ask("exit", held.token());
  }

 private:
  std::string id_;
  int socket_ = -1;
};

// Where a candidate says which session it has, for who would hand its term to it.
std::string session_key(const std::string& id) {
  return "fleet-candidates/" + id.substr(0, id.rfind('.'));
}

std::string other_of(const std::string& id) {
  std::string other = id.substr(0, id.rfind('.'));
  other.back() = other.back() == '1' ? '2' : '1';
  return "fleet-candidates/" + other;
}

// Whether to go on with this session.
bool lock_once(Session& session, const std::string& name, Resource& resource) {
  std::expected<Hold, Error> hold = session.lock(name);
  if (!hold) return false;
  resource.work(*hold);
  return hold->release() == HeldEnd::kReleased;
}

bool lead_once(Client& client, Session& session, const std::string& name, const std::string& id, Resource& resource,
               std::mt19937& draw) {
  Transaction say;
  say.puts.push_back({.key = session_key(id), .value = std::to_string(session.id()), .lease = session.id()});
  if (!client.kv().commit(say)) return false;
  std::expected<Term, Error> term = session.campaign(name, id, {.priority = static_cast<int32_t>(draw() % 3)});
  if (!term) return false;
  resource.work(*term);
  if (draw() % 2 == 0) {
    const auto other = client.kv().get(other_of(id));
    if (other && *other && term->transfer(std::stoll((*other)->value))) {
      std::printf("handed over\n");
      return true;
    }
  }
  return term->resign() == HeldEnd::kReleased;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 6) return 64;
  const std::string kind = argv[1];
  const std::string name = argv[3];
  const std::string id = argv[5];
  Resource resource(argv[4], id);
  std::mt19937 draw(static_cast<uint32_t>(std::hash<std::string>()(id)));
  std::expected<Client, Error> client = Client::open({.endpoints = argv[2]});
  if (!client) return 1;
  while (true) {
    std::expected<Session, Error> session =
        client->open_session({.ttl = kTtl, .description = id, .jeopardy_max = 2 * kTtl});
    while (session && (kind == "lock" ? lock_once(*session, name, resource)
                                      : lead_once(*client, *session, name, id, resource, draw))) {
      std::this_thread::sleep_for(kPause);
    }
    std::this_thread::sleep_for(100ms);
  }
}
