#include "api/json.h"

#include <algorithm>
#include <span>
#include <utility>

#include <fmt/format.h>
#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>
#include <google/protobuf/struct.pb.h>
#include <google/protobuf/util/json_util.h>

#include "api/limits.h"
#include "base/assert.h"
#include "base/mark.h"
#include "keyspace/errors.h"
#include "net/grpc_framing.h"

namespace conclave::api {
namespace {

namespace protobuf = google::protobuf;
using keyspace::GrpcCode;

struct Route {
  std::string_view path;  // behind the version
  Method method;
};
// etcd's, behind /v3/ and /v3beta/.
constexpr Route kEtcdRoutes[] = {
    {"kv/range", Method::kRange},
    {"kv/put", Method::kPut},
    {"kv/deleterange", Method::kDeleteRange},
    {"kv/txn", Method::kTxn},
    {"kv/compaction", Method::kCompact},
    {"watch", Method::kWatch},
    {"lease/grant", Method::kLeaseGrant},
    {"lease/revoke", Method::kLeaseRevoke},
    {"kv/lease/revoke", Method::kLeaseRevoke},
    {"lease/keepalive", Method::kLeaseKeepAlive},
    {"lease/timetolive", Method::kLeaseTimeToLive},
    {"kv/lease/timetolive", Method::kLeaseTimeToLive},
    {"lease/leases", Method::kLeaseLeases},
    {"kv/lease/leases", Method::kLeaseLeases},
    {"cluster/member/add", Method::kMemberAdd},
    {"cluster/member/remove", Method::kMemberRemove},
    {"cluster/member/update", Method::kMemberUpdate},
    {"cluster/member/list", Method::kMemberList},
    {"cluster/member/promote", Method::kMemberPromote},
    {"maintenance/alarm", Method::kAlarm},
    {"maintenance/status", Method::kStatus},
    {"maintenance/defragment", Method::kDefragment},
    {"maintenance/hash", Method::kHash},
    {"maintenance/hashkv", Method::kHashKv},
    {"maintenance/snapshot", Method::kSnapshot},
    {"maintenance/transfer-leadership", Method::kMoveLeader},
    {"maintenance/downgrade", Method::kDowngrade},
    {"auth/enable", Method::kAuthEnable},
    {"auth/disable", Method::kAuthDisable},
    {"auth/status", Method::kAuthStatus},
    {"auth/authenticate", Method::kAuthenticate},
    {"auth/user/add", Method::kUserAdd},
    {"auth/user/get", Method::kUserGet},
    {"auth/user/list", Method::kUserList},
    {"auth/user/delete", Method::kUserDelete},
    {"auth/user/changepw", Method::kUserChangePassword},
    {"auth/user/grant", Method::kUserGrantRole},
    {"auth/user/revoke", Method::kUserRevokeRole},
    {"auth/role/add", Method::kRoleAdd},
    {"auth/role/get", Method::kRoleGet},
    {"auth/role/list", Method::kRoleList},
    {"auth/role/delete", Method::kRoleDelete},
    {"auth/role/grant", Method::kRoleGrantPermission},
    {"auth/role/revoke", Method::kRoleRevokePermission},
    {"lock/lock", Method::kLock},
    {"lock/unlock", Method::kUnlock},
    {"election/campaign", Method::kCampaign},
    {"election/proclaim", Method::kProclaim},
    {"election/leader", Method::kLeader},
    {"election/observe", Method::kObserve},
    {"election/resign", Method::kResign},
};

// Ours, behind /v1/: the service and the method, in lower case with underscores.
constexpr Route kOwnRoutes[] = {
    {"session/session", Method::kSessionsSession},
    {"session/open", Method::kSessionsOpen},
    {"session/keep_alive", Method::kSessionsKeepAlive},
    {"session/close", Method::kSessionsClose},
    {"session/events", Method::kSessionsEvents},
    {"session/describe", Method::kSessionsDescribe},
    {"session/list", Method::kSessionsList},
    {"session/kill", Method::kSessionsKill},
    {"lock/acquire", Method::kLocksAcquire},
    {"lock/release", Method::kLocksRelease},
    {"lock/validate", Method::kLocksValidate},
    {"lock/describe", Method::kLocksDescribe},
    {"lock/list", Method::kLocksList},
    {"lock/force_release", Method::kLocksForceRelease},
    {"lock/request_release", Method::kLocksRequestRelease},
    {"election/campaign", Method::kElectionsCampaign},
    {"election/proclaim", Method::kElectionsProclaim},
    {"election/resign", Method::kElectionsResign},
    {"election/transfer", Method::kElectionsTransfer},
    {"election/leader", Method::kElectionsLeader},
    {"election/observe", Method::kElectionsObserve},
    {"election/describe", Method::kElectionsDescribe},
    {"election/list", Method::kElectionsList},
};

std::optional<Method> method_at(std::span<const Route> routes, std::string_view path) {
  const auto found = std::ranges::find(routes, path, &Route::path);
  if (found == routes.end()) return std::nullopt;
  return found->method;
}

constexpr std::string_view kJson = "application/json";

std::string quoted(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (byte < 0x20 || byte >= 0x7f) {
      // Texts are ASCII but for what they quote of a request, whose bytes need not be UTF-8.
      out += fmt::format("\\u{:04x}", byte);
    } else {
      out += c;
    }
  }
  return out + '"';
}

std::string_view http_phrase(int status) {
  switch (status) {
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 403:
      return "Forbidden";
    case 404:
      return "Not Found";
    case 409:
      return "Conflict";
    case 429:
      return "Too Many Requests";
    case 499:
      return "Client Closed Request";
    case 501:
      return "Not Implemented";
    case 503:
      return "Service Unavailable";
    case 504:
      return "Gateway Timeout";
    default:
      return "Internal Server Error";
  }
}

// google.rpc.ErrorInfo, as libprotobuf would write it; of etcd's errors nothing.
std::string details_of(const net::GrpcStatus& status) {
  if (status.reason.empty()) return "";
  return fmt::format(R"({{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":{},"domain":"{}"}})",
                     quoted(status.reason), net::kErrorDomain);
}

// Errors carry what clients of etcd before 3.6 look for, and what those since look for.
std::string unary_error(const net::GrpcStatus& status) {
  const std::string text = quoted(status.message);
  return fmt::format(R"({{"error":{0},"code":{1},"message":{0},"details":[{2}]}})", text, status.code,
                     details_of(status));
}
std::string stream_error(const net::GrpcStatus& status) {
  const int http = http_status_of(status.code);
  return fmt::format(
      R"({{"error":{{"grpc_code":{0},"http_code":{1},"message":{2},"http_status":"{3}","code":{0},"details":[{4}]}}}})"
      "\n",
      status.code, http, quoted(status.message), http_phrase(http), details_of(status));
}

const protobuf::MethodDescriptor& descriptor_of(Method method) {
  // "/etcdserverpb.KV/Range" is known as etcdserverpb.KV.Range.
  std::string name(path_of(method).substr(1));
  std::ranges::replace(name, '/', '.');
  const protobuf::MethodDescriptor* found = protobuf::DescriptorPool::generated_pool()->FindMethodByName(name);
  ASSERT(found != nullptr);
  return *found;
}

std::unique_ptr<protobuf::Message> make_message(const protobuf::Descriptor* type) {
  return std::unique_ptr<protobuf::Message>(protobuf::MessageFactory::generated_factory()->GetPrototype(type)->New());
}

// Whether every enum of `object` that is given by name has that name.
bool knows_enums(const protobuf::Struct& object, const protobuf::Descriptor& type);

bool knows_enums(const protobuf::Value& value, const protobuf::FieldDescriptor& field) {
  if (value.has_list_value()) {
    return std::ranges::all_of(value.list_value().values(),
                               [&field](const protobuf::Value& each) { return knows_enums(each, field); });
  }
  if (value.has_struct_value()) {
    return field.message_type() == nullptr || knows_enums(value.struct_value(), *field.message_type());
  }
  if (field.enum_type() == nullptr || value.kind_case() != protobuf::Value::kStringValue) return true;
  return field.enum_type()->FindValueByName(value.string_value()) != nullptr;
}

bool knows_enums(const protobuf::Struct& object, const protobuf::Descriptor& type) {
  return std::ranges::all_of(object.fields(), [&type](const auto& entry) {
    const protobuf::FieldDescriptor* field = type.FindFieldByName(entry.first);
    if (field == nullptr) field = type.FindFieldByCamelcaseName(entry.first);
    return field == nullptr || knows_enums(entry.second, *field);
  });
}

// Unknown fields are ignored, as etcd ignores them. libprotobuf, told so, would also read an enum name it does not know
// as the enum's first: a compare with a mistyped operator would be one for equality.
bool parse_json(std::string_view json, protobuf::Message& message) {
  const protobuf::StringPiece bytes(json.data(), json.size());
  if (protobuf::util::JsonStringToMessage(bytes, &message).ok()) return true;
  message.Clear();
  protobuf::util::JsonParseOptions lenient;
  lenient.ignore_unknown_fields = true;
  if (!protobuf::util::JsonStringToMessage(bytes, &message, lenient).ok()) return false;
  protobuf::Struct object;
  return protobuf::util::JsonStringToMessage(bytes, &object).ok() && knows_enums(object, *message.GetDescriptor());
}

// The first object of `rest`, which may hold several behind each other; what is no object is all given back.
std::string_view take_object(std::string_view& rest) {
  size_t depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < rest.size(); ++i) {
    const char c = rest[i];
    if (in_string) {
      if (c == '\\') {
        ++i;
      } else if (c == '"') {
        in_string = false;
      }
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{') {
      ++depth;
    } else if (c == '}' && depth > 0) {
      --depth;
      if (depth > 0) continue;
      const std::string_view object = rest.substr(0, i + 1);
      rest.remove_prefix(i + 1);
      return object;
    }
  }
  return std::exchange(rest, {});
}

std::string_view trim(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n";
  const size_t begin = text.find_first_not_of(kSpace);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
}

// A request over HTTP, dressed as a call. Two ends: the service's handler, and the HTTP answer. When either ends, the
// other is ended in the same step.
class JsonCall final : public net::HttpHandler, public net::ServerCall, public Timed {
 public:
  JsonCall(Context& context, const net::HttpRequest& request, net::HttpAnswer& answer, Method method)
      : context_(context),
        answer_(&answer),
        descriptor_(descriptor_of(method)),
        path_(path_of(method)),
        fields_(request.fields) {}
  JsonCall(const JsonCall&) = delete;
  JsonCall& operator=(const JsonCall&) = delete;
  ~JsonCall() override { ASSERT(answer_ == nullptr); }

  void begin(net::Service& service, std::string_view body) {
    if (const std::string_view text = header("grpc-timeout"); !text.empty()) {
      const std::optional<Duration> timeout = net::parse_grpc_timeout(text);
      if (!timeout) return end_with(GrpcCode::kInvalidArgument, "malformed grpc-timeout");
      deadline_ = context_.now() + *timeout;
      context_.set_timer(*this, deadline_);
    }
    std::vector<std::string> messages;
    std::string_view rest = trim(body);
    // A stream of requests may be none; a single request that is empty says nothing, and means its defaults.
    if (rest.empty() && !descriptor_.client_streaming()) messages.emplace_back();
    while (!rest.empty()) {
      const std::string_view json = descriptor_.client_streaming() ? take_object(rest) : std::exchange(rest, {});
      const std::unique_ptr<protobuf::Message> message = make_message(descriptor_.input_type());
      if (!parse_json(json, *message)) {
        REACHED(json_refused);
        return end_with(GrpcCode::kInvalidArgument,
                        fmt::format("the body is not a {} in JSON", descriptor_.input_type()->full_name()));
      }
      messages.push_back(message->SerializeAsString());
      rest = trim(rest);
    }
    handler_ = service.open(*this);
    if (handler_ == nullptr && !finished_) return end_with(GrpcCode::kUnimplemented, "unknown method");
    for (const std::string& message : messages) {
      if (!finished_) handler_->on_message(message);
    }
    if (!finished_) handler_->on_half_close();
  }
  [[nodiscard]] bool is_answered() const { return answer_ == nullptr; }

  // ---- net::HttpHandler ----
  void on_cancel() override {
    answer_ = nullptr;
    context_.stop_timer(*this);
    if (!std::exchange(finished_, true) && handler_) handler_->on_cancel();
  }
  void on_drained() override {
    if (!finished_) handler_->on_drained();
  }

  // ---- net::ServerCall ----
  [[nodiscard]] std::string_view path() const override { return path_; }
  // gRPC's metadata travels as Grpc-Metadata-*, the token also as Authorization.
  [[nodiscard]] std::string_view header(std::string_view name) const override {
    constexpr std::string_view kPrefix = "grpc-metadata-";
    for (const auto& [field, value] : fields_) {
      if (field.starts_with(kPrefix) && std::string_view(field).substr(kPrefix.size()) == name) return value;
      if (field == name && (name == "authorization" || name == "grpc-timeout")) return value;
    }
    return {};
  }
  [[nodiscard]] Instant deadline() const override { return deadline_; }
  [[nodiscard]] size_t queued_bytes() const override { return answer_->queued_bytes(); }
  void send(std::string message) override {
    if (broken_) return;
    if (!descriptor_.server_streaming()) {
      message_ = std::move(message);
      return;
    }
    std::string json;
    if (!to_json(message, json)) {
      // Not from in here: the handler is at work.
      broken_ = true;
      context_.set_timer(*this, context_.now());
      return;
    }
    if (!std::exchange(begun_, true)) answer_->begin({.content_type = std::string(kJson)});
    answer_->send("{\"result\":" + json + "}\n");
  }
  void finish(const net::GrpcStatus& status) override {
    finished_ = true;
    context_.stop_timer(*this);
    std::string json;
    if (!status.ok()) {
      finish_with(status);
    } else if (broken_ || (!descriptor_.server_streaming() && !to_json(message_, json))) {
      finish_with(too_large());
    } else if (!descriptor_.server_streaming()) {
      std::exchange(answer_, nullptr)->answer({.content_type = std::string(kJson), .body = std::move(json)});
    } else {
      if (!begun_) answer_->begin({.content_type = std::string(kJson)});
      std::exchange(answer_, nullptr)->finish();
    }
  }

  // ---- Timed ----
  void on_time(Instant) override {
    finished_ = true;
    handler_->on_cancel();
    finish_with(broken_ ? too_large()
                        : net::GrpcStatus{.code = static_cast<uint32_t>(GrpcCode::kDeadlineExceeded),
                                          .message = "context deadline exceeded"});
  }

 private:
  static net::GrpcStatus too_large() {
    return {.code = static_cast<uint32_t>(GrpcCode::kResourceExhausted),
            .message = "the answer is too large for JSON: ask with a limit, or over gRPC"};
  }

  // False: too large.
  bool to_json(const std::string& bytes, std::string& json) {
    if (bytes.size() > kJsonAnswerBytesMax) {
      REACHED(json_answer_too_large);
      return false;
    }
    const std::unique_ptr<protobuf::Message> message = make_message(descriptor_.output_type());
    ASSERT(message->ParseFromString(bytes));
    protobuf::util::JsonPrintOptions options;
    options.preserve_proto_field_names = true;
    return protobuf::util::MessageToJsonString(*message, &json, options).ok();
  }

  void end_with(GrpcCode code, std::string_view text) {
    finished_ = true;
    context_.stop_timer(*this);
    finish_with({.code = static_cast<uint32_t>(code), .message = std::string(text)});
  }

  void finish_with(const net::GrpcStatus& status) {
    net::HttpAnswer& answer = *std::exchange(answer_, nullptr);
    if (begun_) {
      answer.send(stream_error(status));
      answer.finish();
    } else {
      answer.answer({.status = http_status_of(status.code),
                     .content_type = std::string(kJson),
                     .body = descriptor_.server_streaming() ? stream_error(status) : unary_error(status),
                     .retry_after = status.retry_after});
    }
  }

  Context& context_;
  net::HttpAnswer* answer_;  // null once it was given
  const protobuf::MethodDescriptor& descriptor_;
  const std::string_view path_;
  const std::vector<std::pair<std::string, std::string>> fields_;
  std::unique_ptr<net::CallHandler> handler_;
  std::string message_;  // of a unary answer
  Instant deadline_ = kNever;
  bool begun_ = false;
  bool finished_ = false;
  bool broken_ = false;  // something could not be said; the call ends with the turn
};

}  // namespace

std::optional<Method> json_method_of(std::string_view target) {
  const std::string_view path = target.substr(0, target.find('?'));
  for (const std::string_view prefix : {"/v3/", "/v3beta/"}) {
    if (path.starts_with(prefix)) return method_at(kEtcdRoutes, path.substr(prefix.size()));
  }
  constexpr std::string_view kOwnPrefix = "/v1/";
  if (path.starts_with(kOwnPrefix)) return method_at(kOwnRoutes, path.substr(kOwnPrefix.size()));
  return std::nullopt;
}

std::unique_ptr<net::HttpHandler> make_json_call(Context& context, net::Service& service,
                                                 const net::HttpRequest& request, net::HttpAnswer& answer,
                                                 Method method) {
  if (request.method != "POST") {
    answer.answer({.status = 405,
                   .content_type = std::string(kJson),
                   .body = unary_error(
                       {.code = static_cast<uint32_t>(GrpcCode::kUnimplemented), .message = "Method Not Allowed"})});
    return nullptr;
  }
  auto call = std::make_unique<JsonCall>(context, request, answer, method);
  call->begin(service, request.body);
  return call;
}

int http_status_of(uint32_t grpc_code) {
  switch (static_cast<GrpcCode>(grpc_code)) {
    case GrpcCode::kOk:
      return 200;
    case GrpcCode::kInvalidArgument:
    case GrpcCode::kFailedPrecondition:
    case GrpcCode::kOutOfRange:
      return 400;
    case GrpcCode::kUnauthenticated:
      return 401;
    case GrpcCode::kPermissionDenied:
      return 403;
    case GrpcCode::kNotFound:
      return 404;
    case GrpcCode::kAlreadyExists:
    case GrpcCode::kAborted:
      return 409;
    case GrpcCode::kResourceExhausted:
      return 429;
    case GrpcCode::kCanceled:
      return 499;
    case GrpcCode::kUnimplemented:
      return 501;
    case GrpcCode::kUnavailable:
      return 503;
    case GrpcCode::kDeadlineExceeded:
      return 504;
    default:
      return 500;
  }
}

}  // namespace conclave::api
