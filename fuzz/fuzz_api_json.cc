// A request as JSON: a line with its path, behind /v3/ where it does not begin with a slash, and the body. One server,
// which takes each as if it were its first. Whatever is said, there is one answer, or a stream of lines, and each of
// them is JSON's by its look.
#include <cstdint>
#include <memory>

#include "api/testing/cluster.h"
#include "base/assert.h"

namespace {

using namespace conclave;  // NOLINT(google-build-using-namespace)

class Answer final : public net::HttpAnswer {
 public:
  void answer(const net::HttpResponse& response) override {
    ASSERT_CMP(status_, ==, 0);
    take(response.status);
    ASSERT(response.body.starts_with('{'));
    over = true;
  }
  void begin(const net::HttpResponse& head) override { take(head.status); }
  void send(std::string_view piece) override { ASSERT(!over && piece.starts_with('{') && piece.ends_with('\n')); }
  void finish() override {
    ASSERT(!over);
    over = true;
  }
  [[nodiscard]] size_t queued_bytes() const override { return 0; }
  bool over = false;

 private:
  void take(int status) {
    ASSERT_CMP(status_, ==, 0);
    ASSERT(status >= 200 && status < 600);
    status_ = status;
  }
  int status_ = 0;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static auto* const cluster = [] {
    auto* made = new api::testing::Cluster();
    made->elect();
    return made;
  }();
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const std::string_view path = input.substr(0, input.find('\n'));
  const std::string_view body = input.substr(std::min(path.size() + 1, input.size()));
  Answer answer;
  const std::string target = path.starts_with('/') ? std::string(path) : "/v3/" + std::string(path);
  const auto handler =
      cluster->service().open_http({.method = "POST", .target = target, .body = std::string(body)}, answer);
  if (!answer.over && handler != nullptr) {
    cluster->settle();
    if (!answer.over) handler->on_cancel();
  }
  cluster->settle();
  return 0;
}
