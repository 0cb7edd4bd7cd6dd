#include "net/http1.h"

#include <algorithm>
#include <optional>

#include <fmt/format.h>

namespace conclave::net {
namespace {

bool is_token(char c) {
  if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) return true;
  return std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos;
}

bool is_token(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) { return is_token(c); });
}

bool is_field_value(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return byte == '\t' || (byte >= 0x20 && byte != 0x7f);
  });
}

char lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

bool equals_ignoring_case(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](char x, char y) { return lower(x) == lower(y); });
}

std::string_view trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

struct Fields {
  bool host = false;
  bool close = false;
  bool keep_alive = false;
  bool expects_continue = false;
  std::optional<size_t> content_length;
};

bool parse_request_line(std::string_view line, Http1Request& out, bool& is_1_1) {
  const size_t first = line.find(' ');
  if (first == std::string_view::npos) return false;
  const size_t second = line.find(' ', first + 1);
  if (second == std::string_view::npos) return false;
  const std::string_view method = line.substr(0, first);
  const std::string_view target = line.substr(first + 1, second - first - 1);
  const std::string_view version = line.substr(second + 1);
  if (!is_token(method) || method.size() > 32) return false;
  if (target.empty() || target.front() != '/') return false;
  if (!std::all_of(target.begin(), target.end(), [](char c) { return c > 0x20 && c < 0x7f; })) return false;
  if (version != "HTTP/1.1" && version != "HTTP/1.0") return false;
  is_1_1 = version == "HTTP/1.1";
  out.request.method = method;
  out.request.target = target;
  return true;
}

bool parse_length(std::string_view value, Fields& fields) {
  // Twice is how requests are smuggled past proxies.
  if (fields.content_length || value.empty() || value.size() > 9) return false;
  size_t length = 0;
  for (const char c : value) {
    if (c < '0' || c > '9') return false;
    length = length * 10 + static_cast<size_t>(c - '0');
  }
  if (length > kHttp1BodyBytesMax) return false;
  fields.content_length = length;
  return true;
}

bool parse_connection(std::string_view value, Fields& fields) {
  while (!value.empty()) {
    const size_t comma = std::min(value.find(','), value.size());
    const std::string_view option = trim(value.substr(0, comma));
    if (equals_ignoring_case(option, "close")) fields.close = true;
    if (equals_ignoring_case(option, "keep-alive")) fields.keep_alive = true;
    value.remove_prefix(std::min(comma + 1, value.size()));
  }
  return true;
}

bool parse_field(std::string_view line, Fields& fields, HttpRequest& request) {
  const size_t colon = line.find(':');
  if (colon == std::string_view::npos) return false;
  const std::string_view name = line.substr(0, colon);
  const std::string_view value = trim(line.substr(colon + 1));
  if (!is_token(name) || !is_field_value(value)) return false;
  request.fields.emplace_back(name, value);
  std::ranges::transform(request.fields.back().first, request.fields.back().first.begin(), lower);
  if (equals_ignoring_case(name, "expect")) fields.expects_continue = equals_ignoring_case(value, "100-continue");
  if (equals_ignoring_case(name, "host")) {
    if (fields.host) return false;
    fields.host = true;
    return true;
  }
  if (equals_ignoring_case(name, "content-length")) return parse_length(value, fields);
  if (equals_ignoring_case(name, "transfer-encoding")) return false;
  if (equals_ignoring_case(name, "connection")) return parse_connection(value, fields);
  return true;
}

std::string_view reason(int status) {
  switch (status) {
    case 200:
      return "OK";
    case 204:
      return "No Content";
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 403:
      return "Forbidden";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 409:
      return "Conflict";
    case 429:
      return "Too Many Requests";
    case 500:
      return "Internal Server Error";
    case 501:
      return "Not Implemented";
    case 503:
      return "Service Unavailable";
    case 504:
      return "Gateway Timeout";
    default:
      return "";
  }
}

// A response built by us; still, no value of it may begin a header of its own.
std::string_view one_line(std::string_view text) {
  return text.substr(0, std::min(text.find_first_of("\r\n"), text.size()));
}

std::string retry_after(const HttpResponse& response) {
  if (response.retry_after == Duration::zero()) return "";
  return fmt::format("Retry-After: {}\r\n", std::chrono::ceil<std::chrono::seconds>(response.retry_after).count());
}

}  // namespace

Http1Next parse_http1(ByteView bytes, Http1Request& out) {
  out = {};
  const size_t searched = std::min(bytes.size(), kHttp1HeaderBytesMax);
  const size_t end = bytes.substr(0, searched).find("\r\n\r\n");
  // Refused early: a client that begins with other bytes is not left waiting for the rest of its header.
  const ByteView head = bytes.substr(0, end == ByteView::npos ? searched : end);
  if (!head.empty() && !is_token(head.front())) return Http1Next::kBad;
  if (end == ByteView::npos) return searched == kHttp1HeaderBytesMax ? Http1Next::kBad : Http1Next::kMore;

  Fields fields;
  bool is_1_1 = false;
  std::string_view rest = head;
  for (bool first = true; first || !rest.empty(); first = false) {
    const size_t line_end = std::min(rest.find("\r\n"), rest.size());
    const std::string_view line = rest.substr(0, line_end);
    rest.remove_prefix(std::min(line_end + 2, rest.size()));
    const bool good = first ? parse_request_line(line, out, is_1_1) : parse_field(line, fields, out.request);
    if (!good) return Http1Next::kBad;
  }
  if (is_1_1 && !fields.host) return Http1Next::kBad;
  const size_t length = fields.content_length.value_or(0);
  const size_t begin = end + 4;
  out.is_1_1 = is_1_1;
  out.bytes = begin + length;
  out.expects_continue = is_1_1 && fields.expects_continue;
  if (bytes.size() - begin < length) return Http1Next::kMore;
  out.request.body = bytes.substr(begin, length);
  out.keep_alive = !fields.close && (is_1_1 || fields.keep_alive);
  return Http1Next::kRequest;
}

void format_http1(const HttpResponse& response, bool keep_alive, bool head, std::string& out) {
  fmt::format_to(std::back_inserter(out),
                 "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\n{}Connection: {}\r\n\r\n",
                 response.status, reason(response.status), one_line(response.content_type), response.body.size(),
                 retry_after(response), keep_alive ? "keep-alive" : "close");
  if (!head) out.append(response.body);
}

void format_http1_head(const HttpResponse& response, bool keep_alive, bool chunked, std::string& out) {
  fmt::format_to(std::back_inserter(out), "HTTP/1.1 {} {}\r\nContent-Type: {}\r\n{}Connection: {}\r\n\r\n",
                 response.status, reason(response.status), one_line(response.content_type),
                 chunked ? "Transfer-Encoding: chunked\r\n" : "", keep_alive ? "keep-alive" : "close");
}

void format_http1_chunk(std::string_view piece, std::string& out) {
  if (piece.empty()) return;  // would end the body
  fmt::format_to(std::back_inserter(out), "{:x}\r\n{}\r\n", piece.size(), piece);
}

}  // namespace conclave::net
