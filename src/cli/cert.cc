// `conclave cert init|issue`: a CA of one's own and certificates for servers, peers and clients, as files. Offline.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <ctime>
#include <memory>
#include <system_error>

#include <CLI/CLI.hpp>

#include "cli/common.h"
#include "cli/verbs.h"
#include "net/certificates.h"

namespace conclave::cli {
namespace {

constexpr int64_t kDaySeconds = 86'400;
// Some clocks are a little slow; what was just issued is good there too.
constexpr int64_t kBackdateSeconds = 300;
constexpr size_t kFileBytesMax = size_t{1} << 20;

struct Arguments {
  std::string directory = ".";
  std::string name;
  std::vector<std::string> hosts;
  net::CertificateUse use = net::CertificateUse::kServer;
  int64_t days = 0;
  bool force = false;
};

int io_failure(const std::string& path) {
  return report({kLocalIo, fmt::format("{}: {}", path, std::generic_category().message(errno)), ""});
}

bool exists(const std::string& path) {
  struct stat found{};
  return ::lstat(path.c_str(), &found) == 0;
}

// Whole or not at all, and never readable by others on the way there.
Status write_file(const std::string& path, const std::string& text, mode_t mode) {
  const std::string temporary = path + ".tmp";
  const auto failed = [&](int error) {
    ::unlink(temporary.c_str());
    return fail(ErrorCode::kIo, "{}: {}", path, std::generic_category().message(error));
  };
  ::unlink(temporary.c_str());
  const int file = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
  if (file < 0) return fail(ErrorCode::kIo, "{}: {}", temporary, std::generic_category().message(errno));
  const ssize_t written = ::write(file, text.data(), text.size());
  const int error = written < 0 ? errno : 0;
  const bool synced = ::fsync(file) == 0;
  ::close(file);
  if (error != 0 || static_cast<size_t>(written) != text.size() || !synced) return failed(error == 0 ? EIO : error);
  if (::rename(temporary.c_str(), path.c_str()) != 0) return failed(errno);
  return {};
}

Result<std::string> read_file(const std::string& path) {
  const std::unique_ptr<FILE, int (*)(FILE*)> file(std::fopen(path.c_str(), "rbe"), std::fclose);
  std::string text(kFileBytesMax, '\0');
  if (!file) return fail(ErrorCode::kIo, "{}: {}", path, std::generic_category().message(errno));
  text.resize(std::fread(text.data(), 1, text.size(), file.get()));
  return text;
}

// `base`.pem and `base`.key. The key first: a certificate without one misleads.
int write_pair(const std::string& base, const net::KeyedCertificate& made, bool force) {
  const std::string certificate = base + ".pem";
  const std::string key = base + ".key";
  for (const std::string& path : {certificate, key}) {
    if (!force && exists(path))
      return report({kFalse, fmt::format("{} is there already", path), "--force replaces it"});
  }
  if (const Status wrote = write_file(key, made.key, 0600); !wrote)
    return report({kLocalIo, wrote.error().message, ""});
  if (const Status wrote = write_file(certificate, made.certificate, 0644); !wrote) {
    return report({kLocalIo, wrote.error().message, ""});
  }
  fmt::print("{}\n{}\n", certificate, key);
  return kOk;
}

net::Validity validity_of(int64_t days) {
  const int64_t now = std::time(nullptr);
  return {.from = now - kBackdateSeconds, .until = now + days * kDaySeconds};
}

int init(const Arguments& arguments) {
  const std::string base = arguments.directory + "/ca";
  if (::mkdir(arguments.directory.c_str(), 0700) != 0 && errno != EEXIST) return io_failure(arguments.directory);
  const auto made = net::make_authority(arguments.name, validity_of(arguments.days));
  if (!made) return report(usage_failure(made.error()));
  return write_pair(base, *made, arguments.force);
}

int issue(const Arguments& arguments) {
  if (arguments.name.find('/') != std::string::npos || arguments.name == "ca") {
    return report({kUsage, fmt::format("'{}' cannot be a certificate's name", arguments.name), ""});
  }
  const auto certificate = read_file(arguments.directory + "/ca.pem");
  if (!certificate) return report({kLocalIo, certificate.error().message, "conclave cert init makes a CA"});
  const auto key = read_file(arguments.directory + "/ca.key");
  if (!key) return report({kLocalIo, key.error().message, ""});
  const auto made =
      net::issue_certificate({.certificate = *certificate, .key = *key}, {.name = arguments.name,
                                                                          .use = arguments.use,
                                                                          .hosts = arguments.hosts,
                                                                          .validity = validity_of(arguments.days)});
  if (!made) return report(usage_failure(made.error()));
  const char* const kind = arguments.use == net::CertificateUse::kServer ? "server"
                           : arguments.use == net::CertificateUse::kPeer ? "peer"
                                                                         : "client";
  return write_pair(fmt::format("{}/{}-{}", arguments.directory, kind, arguments.name), *made, arguments.force);
}

void add_files(CLI::App& verb, Arguments& arguments) {
  verb.add_option("--dir", arguments.directory, "where the CA and what it issues lie (default .)");
  verb.add_option("--days", arguments.days, fmt::format("how long it is good (default {})", arguments.days))
      ->check(CLI::Range(1, 36'500));
  verb.add_flag("--force", arguments.force, "replace files that are there");
}

}  // namespace

void add_cert(CLI::App& app, int& exit_code) {
  CLI::App* cert = app.add_subcommand("cert", "a CA and certificates for TLS");
  cert->require_subcommand(1);

  const auto authority = std::make_shared<Arguments>();
  authority->name = "conclave-ca";
  authority->days = 3650;
  CLI::App* make = cert->add_subcommand("init", "make a CA: ca.pem, and ca.key to keep secret");
  make->add_option("--name", authority->name, "the CA's name (default conclave-ca)");
  add_files(*make, *authority);
  make->callback([authority, &exit_code] { exit_code = init(*authority); });

  const auto leaf = std::make_shared<Arguments>();
  leaf->days = 365;
  CLI::App* give =
      cert->add_subcommand("issue", "issue a certificate: server-NAME.pem, peer-NAME.pem or client-NAME.pem");
  give->add_option("NAME", leaf->name, "of a server or peer: the member's name in --join; of a client: the user's")
      ->required();
  CLI::Option* const peer = give->add_flag_callback(
      "--peer", [leaf] { leaf->use = net::CertificateUse::kPeer; },
      "between servers, for --peer-cert: names the member");
  CLI::Option* const client = give->add_flag_callback(
      "--client", [leaf] { leaf->use = net::CertificateUse::kClient; }, "for a client, for --cert");
  peer->excludes(client);
  give->add_option("--host", leaf->hosts, "DNS name or address under which clients reach the server; may be repeated");
  add_files(*give, *leaf);
  give->callback([leaf, &exit_code] {
    if (leaf->use == net::CertificateUse::kServer && leaf->hosts.empty()) {
      exit_code = report({kUsage, "a server's certificate needs --host: clients check it", ""});
      return;
    }
    exit_code = issue(*leaf);
  });
}

}  // namespace conclave::cli
