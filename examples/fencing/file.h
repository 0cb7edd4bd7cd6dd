// A file that is guarded by tokens, from the side of the file: it keeps the highest token that wrote to it, and refuses
// whoever comes with a lower one. All writers must come this way, and by the same host: flock and rename are of one
// machine's file system.
#pragma once

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>

enum class Write { kWritten, kStaleToken, kFailed };

// The first line of the file is the token of who wrote it.
inline int64_t token_of(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  return std::getline(file, line) ? std::strtoll(line.c_str(), nullptr, 10) : 0;
}

inline Write write_guarded(const std::string& path, int64_t token, const std::string& text) {
  // The look and the write are one step: nobody comes in between. A lock of this host alone, and short.
  const int lock = open((path + ".lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (lock < 0) return Write::kFailed;
  Write result = Write::kFailed;
  if (flock(lock, LOCK_EX) == 0) {
    if (token < token_of(path)) {
      result = Write::kStaleToken;
    } else {
      const std::string next = path + ".next";
      std::ofstream file(next, std::ios::trunc);
      file << token << "\n" << text << "\n";
      file.close();
      if (file && std::rename(next.c_str(), path.c_str()) == 0) result = Write::kWritten;
    }
  }
  close(lock);
  return result;
}
