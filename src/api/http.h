// What is served over plain HTTP: /health, /livez, /readyz, /version and /metrics. Everything else is not found.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "api/context.h"
#include "api/sessions_host.h"
#include "net/server.h"

namespace conclave::api {

class Http {
 public:
  Http(Context& context, const SessionsHost& sessions);
  Http(const Http&) = delete;
  Http& operator=(const Http&) = delete;
  ~Http();

  void serve(const net::HttpRequest& request, std::function<void(net::HttpResponse)> answer);

 private:
  class Probe;
  void probe(std::function<void(bool healthy, std::string_view reason)> done);

  Context& context_;
  const SessionsHost& sessions_;
  std::map<uint64_t, std::unique_ptr<Probe>> probes_;
  uint64_t last_ = 0;
};

// Prometheus' text format.
[[nodiscard]] std::string metrics_text(Context& context, const SessionsHost& sessions);

}  // namespace conclave::api
