#include "api/snapshot.h"

#include <array>
#include <optional>
#include <utility>

#include <openssl/evp.h>

#include "api/stream_call.h"
#include "base/assert.h"
#include "base/mark.h"
#include "etcd/rpc.pb.h"
#include "keyspace/snapshot.h"

namespace conclave::api {
namespace {

using keyspace::ErrorId;
using keyspace::GrpcCode;

// etcd's, and what clients check: the saved file's size is 32 above a multiple of the block.
constexpr size_t kChunkBytes = size_t{32} << 10;
constexpr size_t kBlockBytes = 512;
constexpr size_t kHashBytes = 32;

class Sha256 {
 public:
  Sha256() : context_(EVP_MD_CTX_new()) {
    ASSERT(context_ != nullptr && EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) == 1);
  }
  void add(ByteView bytes) { ASSERT_CMP(EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size()), ==, 1); }
  [[nodiscard]] std::string finish() {
    std::array<unsigned char, kHashBytes> hash{};
    unsigned size = 0;
    ASSERT(EVP_DigestFinal_ex(context_.get(), hash.data(), &size) == 1 && size == kHashBytes);
    return {reinterpret_cast<const char*>(hash.data()), hash.size()};
  }

 private:
  struct Free {
    void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
  };
  std::unique_ptr<EVP_MD_CTX, Free> context_;
};

// Read twice: once to know how long it will be, once to send it. Both readers are of one moment, and memory of the past
// is kept for them; so they are few, and a client that stops reading is ended.
class SnapshotCall final : public StreamCall, public Job, public StateUser {
 public:
  SnapshotCall(Context& context, net::ServerCall& wire)
      : StreamCall(context, wire, Method::kSnapshot), patience_(context, [this] { fail(ErrorId::kTimeout); }) {}

  void on_message(ByteView) override {
    if (!is_open() || std::exchange(asked_, true)) return;
    if (context().metrics().snapshots_open >= kSnapshotsMax) {
      REACHED(snapshot_streams_refused);
      fail(ErrorId::kTooManyRequests);
      return;
    }
    ++context().metrics().snapshots_open;
    counted_ = true;
    context().state_users().add(*this);
    context().start_job(*this);
    patience_.begin();
  }
  void on_half_close() override {
    if (is_open() && !asked_) fail(GrpcCode::kUnimplemented, "the call ended without a request");
  }
  void on_refused(node::Ticket, ErrorId) override {}
  void on_drained() override {
    if (is_open()) context().start_job(*this);
  }
  void on_state_replaced() override { fail(ErrorId::kLeaderChanged); }

  bool run(uint32_t& units) override {
    if (!sending_ && !read_all_) {
      keyspace::Keyspace& keyspace = context().keyspace();
      if (keyspace.is_busy()) return false;
      counting_.emplace(keyspace);
      sending_.emplace(keyspace);
    }
    const uint32_t share = std::exchange(units, 0);
    if (counting_) {
      std::string content;
      const bool all = counting_->read(content, share);
      remaining_ += content.size();
      if (!all) return false;
      counting_.reset();
      remaining_ += padding(remaining_);
      return false;
    }
    if (wire().queued_bytes() >= kStreamBytesQueuedMax) return true;  // on_drained() goes on
    if (sending_->read(buffer_, share)) {
      read_all_ = true;
      sending_.reset();
      buffer_.append(padding(sent_ + buffer_.size()), '\0');
      ASSERT_CMP(buffer_.size(), ==, remaining_);
    }
    while (buffer_.size() >= kChunkBytes || (read_all_ && !buffer_.empty())) {
      const std::string chunk = buffer_.substr(0, kChunkBytes);
      buffer_.erase(0, chunk.size());
      sent_ += chunk.size();
      remaining_ -= chunk.size();
      hash_.add(chunk);
      send_blob(chunk);
    }
    if (!read_all_) return false;
    send_blob(hash_.finish());
    finish({});
    return true;
  }

 protected:
  void on_closed() override {
    context().stop_job(*this);
    patience_.stop();
    context().state_users().remove(*this);
    counting_.reset();
    sending_.reset();
    if (std::exchange(counted_, false)) --context().metrics().snapshots_open;
    StreamCall::on_closed();
  }

 private:
  static size_t padding(uint64_t bytes) { return (kBlockBytes - bytes % kBlockBytes) % kBlockBytes; }

  void send_blob(const std::string& blob) {
    patience_.begin();
    etcdserverpb::SnapshotResponse response;
    response.set_remaining_bytes(remaining_);
    response.set_blob(blob);
    response.set_version(context().options().version);
    wire().send(context().response() + response.SerializeAsString());
  }

  std::optional<keyspace::SnapshotReader> counting_;
  std::optional<keyspace::SnapshotReader> sending_;
  ReaderPatience patience_;
  Sha256 hash_;
  std::string buffer_;
  uint64_t sent_ = 0;
  uint64_t remaining_ = 0;  // of content and padding
  bool asked_ = false;
  bool counted_ = false;  // among the open ones
  bool read_all_ = false;
};

}  // namespace

std::unique_ptr<net::CallHandler> make_snapshot_call(Context& context, net::ServerCall& wire) {
  return std::make_unique<SnapshotCall>(context, wire);
}

}  // namespace conclave::api
