// Messages are passed on as the bytes they are, where gRPC has a form for that: what is compared is the calls, not
// protobuf. The sync form has none and parses its one field.
#include "bench/grpc_echo.h"

#include <memory>
#include <optional>
#include <vector>

#include <grpcpp/grpcpp.h>

#include "base/assert.h"
#include "grpc_echo.grpc.pb.h"

namespace conclave::bench {
namespace {

// Calls waited for at once; those that arrive meanwhile wait in gRPC.
constexpr size_t kAsyncCalls = 256;

using AsyncEcho = Echo::WithRawMethod_Call<Echo::Service>;

// One call after the other: waited for, answered, and again.
class AsyncCall {
 public:
  AsyncCall(AsyncEcho& service, grpc::ServerCompletionQueue& queue) : service_(service), queue_(queue) { wait(); }
  AsyncCall(const AsyncCall&) = delete;
  AsyncCall& operator=(const AsyncCall&) = delete;
  ~AsyncCall() = default;

  void proceed(bool ok) {
    if (ok && !answering_) {
      answering_ = true;
      turn_->writer.Finish(turn_->request, grpc::Status::OK, this);
    } else {
      wait();
    }
  }

 private:
  struct Turn {
    Turn() : writer(&context) {}
    grpc::ServerContext context;
    grpc::ServerAsyncResponseWriter<grpc::ByteBuffer> writer;
    grpc::ByteBuffer request;
  };

  void wait() {
    answering_ = false;
    turn_.emplace();
    service_.RequestCall(&turn_->context, &turn_->request, &turn_->writer, &queue_, &queue_, this);
  }

  AsyncEcho& service_;
  grpc::ServerCompletionQueue& queue_;
  std::optional<Turn> turn_;
  bool answering_ = false;
};

class CallbackEcho final : public Echo::WithRawCallbackMethod_Call<Echo::Service> {
 public:
  grpc::ServerUnaryReactor* Call(grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                 grpc::ByteBuffer* response) override {
    *response = *request;
    grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }
};

class SyncEcho final : public Echo::Service {
 public:
  grpc::Status Call(grpc::ServerContext*, const Blob* request, Blob* response) override {
    response->set_data(request->data());
    return grpc::Status::OK;
  }
};

std::unique_ptr<grpc::Server> start(grpc::ServerBuilder& builder, const std::function<void(uint16_t port)>& listening) {
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  ASSERT(server != nullptr && port != 0);
  listening(static_cast<uint16_t>(port));
  return server;
}

[[noreturn]] void serve_async(const std::function<void(uint16_t port)>& listening) {
  AsyncEcho service;
  grpc::ServerBuilder builder;
  builder.RegisterService(&service);
  const std::unique_ptr<grpc::ServerCompletionQueue> queue = builder.AddCompletionQueue();
  const std::unique_ptr<grpc::Server> server = start(builder, listening);
  std::vector<std::unique_ptr<AsyncCall>> calls;
  calls.reserve(kAsyncCalls);
  for (size_t i = 0; i < kAsyncCalls; ++i) calls.push_back(std::make_unique<AsyncCall>(service, *queue));
  for (;;) {
    void* tag = nullptr;
    bool ok = false;
    ASSERT(queue->Next(&tag, &ok));
    static_cast<AsyncCall*>(tag)->proceed(ok);
  }
}

[[noreturn]] void serve(grpc::Service& service, const std::function<void(uint16_t port)>& listening) {
  grpc::ServerBuilder builder;
  builder.RegisterService(&service);
  const std::unique_ptr<grpc::Server> server = start(builder, listening);
  for (;;) server->Wait();
}

}  // namespace

void serve_grpc_echo(GrpcWay way, const std::function<void(uint16_t port)>& listening) {
  if (way == GrpcWay::kAsync) serve_async(listening);
  if (way == GrpcWay::kCallback) {
    CallbackEcho service;
    serve(service, listening);
  }
  SyncEcho service;
  serve(service, listening);
}

}  // namespace conclave::bench
