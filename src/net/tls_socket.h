// TLS over a socket, as a socket: on_connected() comes when the handshake is done, bytes are the plain ones, and an end
// by TLS is TcpEnd::kTls. How long a handshake may take is the owner's affair. Beside what the session holds, a
// connection keeps only ciphertext that the kernel did not take, 512 KiB at most.
#pragma once

#include <memory>
#include <string>

#include "net/tcp.h"
#include "net/tls.h"

namespace conclave::net {

// Answers one who does not speak TLS: what to send before the end, of his first bytes. Empty: TLS's own alert.
using PlaintextAnswer = std::string (*)(ByteView first_bytes);

// `socket` was accepted and is still silent. After a PlaintextAnswer the owner's patience ends the connection.
[[nodiscard]] std::unique_ptr<TcpSocket> accept_tls(std::unique_ptr<TcpSocket> socket,
                                                    std::shared_ptr<const TlsContext> context,
                                                    PlaintextAnswer answer = nullptr);
// `name`: as in TlsSession::connect().
[[nodiscard]] std::unique_ptr<TcpSocket> connect_tls(Loop& loop, TcpEvents& events, const std::string& host,
                                                     uint16_t port, std::shared_ptr<const TlsContext> context,
                                                     const std::string& name);

}  // namespace conclave::net
