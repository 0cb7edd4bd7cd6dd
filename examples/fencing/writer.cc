// A writer whose resource checks the token. It takes the lock, and writes with the lock's token; in between it may be
// slow, or stopped for longer than its session lasts, and believe that it holds the lock still. That cannot be helped
// here: between any look at the clock and the write that follows, a process may stop. The resource refuses it.
//
//   writer ENDPOINTS file PATH TEXT
//   writer ENDPOINTS sql DATABASE TEXT       by the command sqlite3; the table is made by row.sql
//   writer ENDPOINTS http PORT TEXT          to resource.py on this host
//
// Waits for a line on standard input before it writes. Ends with 0 where it was written, 3 where it was refused.
#include <conclave/client.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <string>

#include "file.h"

using namespace conclave::client;

namespace {

std::string quoted(const std::string& text) {
  std::string quoted = "'";
  for (const char c : text) quoted.append(c == '\'' ? 2 : 1, c);
  return quoted + "'";
}

// One statement that looks and writes: it changes one row, or none.
Write write_row(const std::string& database, int64_t token, const std::string& text) {
  const std::string number = std::to_string(token);
  const std::string sql = ".timeout 5000\nUPDATE report SET text = " + quoted(text) + ", token = " + number +
                          " WHERE id = 1 AND token <= " + number + ";\nSELECT changes() = 1;\n";
  const std::string command = "sqlite3 -batch " + quoted(database);
  FILE* const sqlite = popen((command + " > " + quoted(database + ".answer")).c_str(), "w");
  if (sqlite == nullptr) return Write::kFailed;
  std::fputs(sql.c_str(), sqlite);
  if (pclose(sqlite) != 0) return Write::kFailed;
  std::ifstream answer(database + ".answer");
  std::string changed;
  return !std::getline(answer, changed) ? Write::kFailed : changed == "1" ? Write::kWritten : Write::kStaleToken;
}

Write write_http(const std::string& port, int64_t token, const std::string& text) {
  const int connection = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(std::atoi(port.c_str())));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(connection, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) return Write::kFailed;
  const std::string request =
      "PUT /report HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nFencing-Token: " + std::to_string(token) +
      "\r\nContent-Length: " + std::to_string(text.size()) + "\r\n\r\n" + text;
  std::string answer(4096, '\0');
  ssize_t got = -1;
  if (send(connection, request.data(), request.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(request.size())) {
    got = recv(connection, answer.data(), answer.size(), 0);
  }
  close(connection);
  if (got < 12) return Write::kFailed;
  const std::string status = answer.substr(9, 3);
  return status == "200" ? Write::kWritten : status == "412" ? Write::kStaleToken : Write::kFailed;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) {
    std::fprintf(stderr, "writer ENDPOINTS file|sql|http WHERE TEXT\n");
    return 64;
  }
  const std::string kind = argv[2];
  const std::string where = argv[3];
  const std::string text = argv[4];
  auto client = Client::open({.endpoints = argv[1]});
  if (!client) {
    std::fprintf(stderr, "%s\n", client.error().message.c_str());
    return 1;
  }
  auto session = client->open_session({.ttl = std::chrono::seconds(2), .description = "the example of fencing"});
  if (!session) {
    std::fprintf(stderr, "no session: %s\n", session.error().message.c_str());
    return 1;
  }
  auto hold = session->lock("examples/report-" + kind);
  if (!hold) {
    std::fprintf(stderr, "no lock: %s\n", hold.error().message.c_str());
    return 1;
  }
  const int64_t token = hold->token();
  std::printf("token %lld\n", static_cast<long long>(token));
  std::fflush(stdout);
  std::string line;
  std::getline(std::cin, line);

  const Write written = kind == "file"  ? write_guarded(where, token, text)
                        : kind == "sql" ? write_row(where, token, text)
                                        : write_http(where, token, text);
  std::printf("%s\n", written == Write::kWritten      ? "written"
                      : written == Write::kStaleToken ? "refused: the token is stale"
                                                      : "failed");
  std::printf("the lock: %s\n", std::string(to_string(hold->release())).c_str());
  return written == Write::kWritten ? 0 : written == Write::kStaleToken ? 3 : 1;
}
