#include "net/request_fields.h"

#include <algorithm>
#include <array>

namespace conclave::net {
namespace {

constexpr std::array<std::string_view, 4> kPseudo = {":method", ":scheme", ":path", ":authority"};
constexpr uint8_t kRequired = 0b0111;
// They speak of a connection of HTTP/1.1.
constexpr std::array<std::string_view, 5> kForbidden = {"connection", "keep-alive", "proxy-connection",
                                                        "transfer-encoding", "upgrade"};

// A token without capitals.
bool is_name(std::string_view name) {
  constexpr std::string_view kMarks = "!#$%&'*+-.^_`|~";
  return !name.empty() && std::all_of(name.begin(), name.end(), [&](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || kMarks.find(c) != std::string_view::npos;
  });
}

bool is_value(std::string_view value) {
  return std::none_of(value.begin(), value.end(), [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return (byte < 0x20 && c != '\t') || byte == 0x7f;
  });
}

bool is_trailers(std::string_view value) {
  constexpr std::string_view kTrailers = "trailers";
  return std::equal(value.begin(), value.end(), kTrailers.begin(), kTrailers.end(), [](char a, char b) {
    return (a >= 'A' && a <= 'Z' ? static_cast<char>(a + ('a' - 'A')) : a) == b;
  });
}

}  // namespace

bool RequestFields::take(std::string_view name, std::string_view value) {
  if (!is_value(value)) return false;
  if (name.starts_with(':')) return take_pseudo(name, value);
  regular_ = true;
  if (!is_name(name) || std::find(kForbidden.begin(), kForbidden.end(), name) != kForbidden.end()) return false;
  return name != "te" || is_trailers(value);
}

bool RequestFields::take_pseudo(std::string_view name, std::string_view value) {
  const auto found = std::find(kPseudo.begin(), kPseudo.end(), name);
  if (regular_ || found == kPseudo.end()) return false;
  const auto bit = static_cast<uint8_t>(1U << static_cast<unsigned>(found - kPseudo.begin()));
  if ((pseudo_ & bit) != 0 || ((kRequired & bit) != 0 && value.empty())) return false;
  pseudo_ |= bit;
  return true;
}

bool RequestFields::end_of_headers() {
  regular_ = true;
  return (pseudo_ & kRequired) == kRequired;
}

}  // namespace conclave::net
