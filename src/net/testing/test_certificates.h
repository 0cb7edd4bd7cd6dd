// Certificates for the tests of net: a CA of the test's own, files in a directory that goes with it.
#pragma once

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "net/certificates.h"
#include "net/tls.h"

namespace conclave::net {

class TestDirectory {
 public:
  TestDirectory() {
    std::string name = (std::filesystem::temp_directory_path() / "conclave_tls_XXXXXX").string();
    EXPECT_NE(::mkdtemp(name.data()), nullptr);
    path_ = name;
  }
  TestDirectory(const TestDirectory&) = delete;
  TestDirectory& operator=(const TestDirectory&) = delete;
  ~TestDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  // Keys are the owner's only.
  std::string write(const std::string& name, const std::string& text) {
    const std::string path = (path_ / name).string();
    std::ofstream(path) << text;
    EXPECT_EQ(::chmod(path.c_str(), 0600), 0);
    return path;
  }

 private:
  std::filesystem::path path_;
};

class TestAuthority {
 public:
  TestAuthority(TestDirectory& directory, std::string name) : directory_(directory), name_(std::move(name)) {
    const int64_t now = std::time(nullptr);
    auto made = make_authority(name_, {.from = now - 3600, .until = now + 3600});
    EXPECT_TRUE(made.has_value());
    own_ = std::move(*made);
    ca_ = directory_.write(name_ + ".pem", own_.certificate);
  }
  [[nodiscard]] const std::string& ca() const { return ca_; }

  // A certificate of this CA, and whom to believe: this CA too.
  TlsFiles issue(CertificateUse use, const std::string& name, std::vector<std::string> hosts = {},
                 int64_t valid_seconds = 3600) {
    const int64_t now = std::time(nullptr);
    const int64_t until = now + valid_seconds;
    auto made = issue_certificate(own_, {.name = name,
                                         .use = use,
                                         .hosts = std::move(hosts),
                                         .validity = {.from = std::min(now, until) - 3600, .until = until}});
    EXPECT_TRUE(made.has_value()) << made.error().message;
    const std::string base = name_ + "-" + name + "-" + std::to_string(++issued_);
    return {.certificate = directory_.write(base + ".pem", made->certificate),
            .key = directory_.write(base + ".key", made->key),
            .ca = ca_};
  }

 private:
  TestDirectory& directory_;
  const std::string name_;
  KeyedCertificate own_;
  std::string ca_;
  int issued_ = 0;
};

inline std::shared_ptr<const TlsContext> load_tls(TlsRole role, const TlsFiles& files,
                                                  const std::vector<std::string>& protocols = {}) {
  auto loaded = TlsContext::load(role, files, protocols);
  EXPECT_TRUE(loaded.has_value()) << loaded.error().message;
  return loaded ? *loaded : nullptr;
}

}  // namespace conclave::net
