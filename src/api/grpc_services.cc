#include "api/grpc_services.h"

#include <set>
#include <utility>

#include <google/protobuf/descriptor.h>
#include <google/protobuf/descriptor.pb.h>

#include "api/stream_call.h"
#include "base/assert.h"
#include "etcd/health.pb.h"
#include "grpc/reflection_v1.pb.h"
#include "grpc/reflection_v1alpha.pb.h"

namespace conclave::api {
namespace {

namespace protobuf = google::protobuf;
namespace health = grpc::health::v1;
namespace reflection = grpc::reflection::v1;
using keyspace::ErrorId;
using keyspace::GrpcCode;

health::HealthCheckResponse::ServingStatus serving(Context& context) {
  return context.has_leader() ? health::HealthCheckResponse::SERVING : health::HealthCheckResponse::NOT_SERVING;
}

class HealthCheckCall final : public UnaryCall {
 public:
  using UnaryCall::UnaryCall;

 protected:
  void on_request(ByteView message) override {
    health::HealthCheckRequest request;
    if (!parse(message, request)) return;
    if (!request.service().empty()) {
      fail(GrpcCode::kNotFound, "unknown service");
      return;
    }
    health::HealthCheckResponse response;
    response.set_status(serving(context()));
    answer(response.SerializeAsString());
  }
};

// The state at once, and again whenever it is another. Of a service that is not there: that it is not, and no more.
class HealthWatchCall final : public StreamCall {
 public:
  HealthWatchCall(Context& context, net::ServerCall& wire)
      : StreamCall(context, wire, Method::kHealthWatch), role_(*this) {}

  void on_message(ByteView message) override {
    if (!is_open() || std::exchange(asked_, true)) return;
    health::HealthCheckRequest request;
    if (!request.ParseFromArray(message.data(), static_cast<int>(message.size()))) {
      fail(ErrorId::kMalformed);
    } else if (!request.service().empty()) {
      say(health::HealthCheckResponse::SERVICE_UNKNOWN);
    } else {
      say(serving(context()));
      context().role_listeners().add(role_);
    }
  }
  void on_half_close() override {
    if (is_open() && !asked_) fail(GrpcCode::kUnimplemented, "the call ended without a request");
  }
  void on_refused(node::Ticket, ErrorId) override {}

 protected:
  void on_closed() override {
    context().role_listeners().remove(role_);
    StreamCall::on_closed();
  }

 private:
  class Role final : public RoleListener {
   public:
    explicit Role(HealthWatchCall& call) : call_(call) {}
    void on_role_changed() override {
      if (serving(call_.context()) != call_.said_) call_.say(serving(call_.context()));
    }

   private:
    HealthWatchCall& call_;
  };

  void say(health::HealthCheckResponse::ServingStatus status) {
    said_ = status;
    health::HealthCheckResponse response;
    response.set_status(status);
    wire().send(response.SerializeAsString());
  }

  Role role_;
  health::HealthCheckResponse::ServingStatus said_ = health::HealthCheckResponse::UNKNOWN;
  bool asked_ = false;
};

// Answers from the descriptors that are linked in. Both versions of the protocol have the same bytes.
class ReflectionCall final : public StreamCall {
 public:
  using StreamCall::StreamCall;

  void on_message(ByteView message) override {
    if (!is_open()) return;
    reflection::ServerReflectionRequest request;
    if (!request.ParseFromArray(message.data(), static_cast<int>(message.size()))) {
      fail(ErrorId::kMalformed);
      return;
    }
    // Answers are up to some 40 KiB; who asks without reading is ended.
    if (wire().queued_bytes() > kStreamBytesQueuedMax) {
      fail(ErrorId::kTooManyRequests);
      return;
    }
    reflection::ServerReflectionResponse response;
    response.set_valid_host(request.host());
    reply(request, response);
    *response.mutable_original_request() = std::move(request);
    wire().send(response.SerializeAsString());
  }
  void on_half_close() override {
    if (is_open()) finish({});
  }
  void on_refused(node::Ticket, ErrorId) override {}

 private:
  using Request = reflection::ServerReflectionRequest;
  using Response = reflection::ServerReflectionResponse;

  static void refuse(GrpcCode code, std::string_view text, Response& response) {
    response.mutable_error_response()->set_error_code(static_cast<int32_t>(code));
    response.mutable_error_response()->set_error_message(std::string(text));
  }

  // A file and all it needs, itself first.
  static void add_file(const protobuf::FileDescriptor* file, std::set<const protobuf::FileDescriptor*>& seen,
                       Response& response) {
    if (!seen.insert(file).second) return;
    protobuf::FileDescriptorProto proto;
    file->CopyTo(&proto);
    response.mutable_file_descriptor_response()->add_file_descriptor_proto(proto.SerializeAsString());
    for (int i = 0; i < file->dependency_count(); ++i) add_file(file->dependency(i), seen, response);
  }
  static void reply_file(const protobuf::FileDescriptor* file, Response& response) {
    if (file == nullptr) return refuse(GrpcCode::kNotFound, "not known here", response);
    std::set<const protobuf::FileDescriptor*> seen;
    add_file(file, seen, response);
  }

  static void reply(const Request& request, Response& response) {
    const protobuf::DescriptorPool& pool = *protobuf::DescriptorPool::generated_pool();
    switch (request.message_request_case()) {
      case Request::kFileByFilename:
        return reply_file(pool.FindFileByName(request.file_by_filename()), response);
      case Request::kFileContainingSymbol:
        return reply_file(pool.FindFileContainingSymbol(request.file_containing_symbol()), response);
      case Request::kFileContainingExtension:
        return refuse(GrpcCode::kNotFound, "there are no extensions", response);
      case Request::kAllExtensionNumbersOfType:
        if (pool.FindMessageTypeByName(request.all_extension_numbers_of_type()) == nullptr) {
          return refuse(GrpcCode::kNotFound, "not known here", response);
        }
        response.mutable_all_extension_numbers_response()->set_base_type_name(request.all_extension_numbers_of_type());
        return;
      case Request::kListServices: {
        std::set<std::string_view> names;
        for (size_t i = 0; i < kMethodCount; ++i) {
          const std::string_view path = path_of(static_cast<Method>(i)).substr(1);
          names.insert(path.substr(0, path.find('/')));
        }
        for (const std::string_view name : names) {
          response.mutable_list_services_response()->add_service()->set_name(std::string(name));
        }
        return;
      }
      case Request::MESSAGE_REQUEST_NOT_SET:
        return refuse(GrpcCode::kUnimplemented, "not a known question", response);
    }
  }
};

}  // namespace

std::unique_ptr<net::CallHandler> make_grpc_services_call(Context& context, net::ServerCall& wire, Method method) {
  switch (method) {
    case Method::kHealthCheck:
      return std::make_unique<HealthCheckCall>(context, wire, method);
    case Method::kHealthWatch:
      return std::make_unique<HealthWatchCall>(context, wire);
    case Method::kReflection:
    case Method::kReflectionAlpha:
      // Its file must be linked in to be told of.
      (void)grpc::reflection::v1alpha::ErrorResponse::descriptor();
      return std::make_unique<ReflectionCall>(context, wire, method);
    default:
      UNREACHABLE();
  }
}

}  // namespace conclave::api
