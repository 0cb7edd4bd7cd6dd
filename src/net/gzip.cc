#include "net/gzip.h"

#include <zlib.h>

#include <array>
#include <limits>

namespace conclave::net {
namespace {

// The largest window there is, and gzip's wrapping only.
constexpr int kWindowBits = 15 + 16;
// So that a small message takes little, and a bomb goes off in small pieces.
constexpr size_t kPieceBytes = size_t{16} << 10;

class Inflater {
 public:
  explicit Inflater(ByteView compressed) {
    stream_.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(compressed.data()));
    stream_.avail_in = static_cast<uInt>(compressed.size());
    is_ready_ = inflateInit2(&stream_, kWindowBits) == Z_OK;
  }
  Inflater(const Inflater&) = delete;
  Inflater& operator=(const Inflater&) = delete;
  ~Inflater() {
    if (is_ready_) inflateEnd(&stream_);
  }

  // zlib's code: Z_OK where there is more to come.
  int next(std::array<char, kPieceBytes>& piece, size_t& made) {
    if (!is_ready_) return Z_MEM_ERROR;
    stream_.next_out = reinterpret_cast<Bytef*>(piece.data());
    stream_.avail_out = static_cast<uInt>(piece.size());
    const int code = inflate(&stream_, Z_NO_FLUSH);
    made = piece.size() - stream_.avail_out;
    return code;
  }
  [[nodiscard]] bool has_rest() const { return stream_.avail_in > 0; }

 private:
  z_stream stream_{};
  bool is_ready_ = false;
};

}  // namespace

Gunzip gunzip(ByteView compressed, size_t bytes_max, std::string& out) {
  if (compressed.size() > std::numeric_limits<uInt>::max()) return Gunzip::kTooLarge;
  Inflater inflater(compressed);
  const size_t before = out.size();
  for (;;) {
    std::array<char, kPieceBytes> piece;
    size_t made = 0;
    // No progress is an error of zlib's: the input is cut.
    const int code = inflater.next(piece, made);
    if (code != Z_OK && code != Z_STREAM_END) return Gunzip::kMalformed;
    if (made > bytes_max - (out.size() - before)) return Gunzip::kTooLarge;
    out.append(piece.data(), made);
    if (code == Z_STREAM_END) return inflater.has_rest() ? Gunzip::kMalformed : Gunzip::kDone;
  }
}

}  // namespace conclave::net
