// TLS 1.2 and 1.3 as a state machine: bytes of the wire in, plain bytes out, and the other way round. Owns no socket
// and no clock but the one that OpenSSL checks a certificate's dates with. OpenSSL is in tls.cc and certificates.cc,
// and nowhere else.
//
// What is left out on purpose: renegotiation and compression (attacks, no use), and session tickets. Connections here
// live long, so that resuming saves little; a resumed one would not be checked against a CA that has been changed
// since, and the tickets' key would be one more secret to rotate.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"

struct ssl_ctx_st;
struct ssl_st;

namespace conclave::net {

// Of a certificate that says which member of the cluster it is: the rest of the URI is the member's name, byte by byte.
inline constexpr std::string_view kMemberUri = "conclave://member/";

// Paths of PEM files; empty: none.
struct TlsFiles {
  std::string certificate;  // and the chain to the CA, without that itself
  std::string key;          // not readable by everybody
  std::string ca;           // whom to believe
  friend bool operator==(const TlsFiles&, const TlsFiles&) = default;
};

enum class TlsRole : uint8_t {
  kServer,  // shows a certificate; with a CA, each client must show one of its
  kClient,  // without a CA, believes those that the system does; shows a certificate if it has one
  kPeer,    // both ends: shows one and demands one, of the CA
};

// Keys, certificates and rules of many sessions. Never changes: to reload, load another one and use it for new
// sessions; those that stand keep theirs. Any thread.
class TlsContext {
 public:
  // kInvalidArgument with what is wrong in which file. `protocols` for ALPN, the best first; a side that offers none of
  // them is refused, one that does not speak ALPN is not.
  [[nodiscard]] static Result<std::shared_ptr<const TlsContext>> load(TlsRole role, const TlsFiles& files,
                                                                      const std::vector<std::string>& protocols);
  TlsContext(const TlsContext&) = delete;
  TlsContext& operator=(const TlsContext&) = delete;
  ~TlsContext();

 private:
  friend class TlsSession;
  TlsContext() = default;

  ssl_ctx_st* native_ = nullptr;
  std::string protocols_;  // as the handshake has them, each behind its length
};

// One connection's. Holds what OpenSSL does (some KiB while nothing arrives) and at most one unfinished record.
class TlsSession {
 public:
  enum class Phase : uint8_t {
    kHandshake,
    kOpen,
    kEnded,  // the other side ended it in order
    kFailed  // see failure()
  };

  [[nodiscard]] static std::unique_ptr<TlsSession> accept(std::shared_ptr<const TlsContext> context);
  // `host`: the name or address that the certificate must be made out to; empty: any that the CA vouches for, who it is
  // being asked with names_member().
  [[nodiscard]] static std::unique_ptr<TlsSession> connect(std::shared_ptr<const TlsContext> context,
                                                           const std::string& host);
  TlsSession(const TlsSession&) = delete;
  TlsSession& operator=(const TlsSession&) = delete;
  ~TlsSession();

  // Takes all of `wire`, appends what it says to `plain` and what is to be sent because of it to `wire_out`. The side
  // that connects begins with an empty one.
  void receive(ByteView wire, std::string& plain, std::string& wire_out);
  // In kOpen. False: failed.
  [[nodiscard]] bool send(ByteView plain, std::string& wire_out);
  // Says that nothing more is sent.
  void end(std::string& wire_out);

  [[nodiscard]] Phase phase() const { return phase_; }
  // In kFailed: one line for people.
  [[nodiscard]] const std::string& failure() const { return failure_; }
  // What ALPN agreed on, or empty.
  [[nodiscard]] std::string protocol() const;
  // The other side's certificate says that it is the member of this name: by a URI kMemberUri + name among its
  // alternative names; where it has no URI that begins so, by a DNS name equal to it, byte by byte.
  [[nodiscard]] bool names_member(std::string_view name) const;

 private:
  struct Wire;
  explicit TlsSession(std::shared_ptr<const TlsContext> context);
  void note_failure(int result);

  const std::shared_ptr<const TlsContext> context_;
  ssl_st* native_ = nullptr;
  // Where OpenSSL reads from and writes to, during a call.
  ByteView in_;
  std::string* out_ = nullptr;
  Phase phase_ = Phase::kHandshake;
  std::string failure_;
};

}  // namespace conclave::net
