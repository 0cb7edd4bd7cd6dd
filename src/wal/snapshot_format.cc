#include "wal/snapshot_format.h"

#include <zstd.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "base/limits.h"

namespace conclave::wal {
namespace {

constexpr uint32_t kHeaderMagic = 0x73776c43;  // "Clws"
constexpr uint32_t kBlockMagic = 0x62776c43;   // "Clwb"
constexpr uint32_t kFooterMagic = 0x66776c43;  // "Clwf"
constexpr uint32_t kFormatVersion = 1;
// Snapshots are taken beside the service: the fastest level already takes most of what can be had of keys and values.
constexpr int kZstdLevel = 1;

}  // namespace

void encode_snapshot_header(const SnapshotHeader& header, std::string& out) {
  const size_t begin = out.size();
  ByteWriter writer(out);
  writer.fixed(kHeaderMagic);
  writer.fixed(kFormatVersion);
  writer.fixed(uint32_t{0});  // the length, below
  writer.fixed(header.cluster.value());
  writer.fixed(header.group.value());
  writer.fixed(header.mark.last.term.value());
  writer.fixed(header.mark.last.index.value());
  std::string membership;
  header.mark.membership.encode(membership);
  writer.sized(membership);
  const size_t length = out.size() - begin + 4;
  ASSERT_CMP(length, <=, kSnapshotHeaderBytesMax);
  store_le(out.data() + begin + 8, static_cast<uint32_t>(length));
  writer.fixed(crc32c(ByteView(out).substr(begin)));
}

Result<uint32_t> snapshot_header_bytes(ByteView prefix) {
  ByteReader reader(prefix);
  const auto magic = reader.fixed<uint32_t>();
  const auto version = reader.fixed<uint32_t>();
  const auto length = reader.fixed<uint32_t>();
  if (!reader.ok() || magic != kHeaderMagic) return fail(ErrorCode::kMalformed, "snapshot: no header");
  if (version != kFormatVersion) return fail(ErrorCode::kVersion, "snapshot of version {}", version);
  if (length <= kSnapshotPrefixBytes + 4 || length > kSnapshotHeaderBytesMax) {
    return fail(ErrorCode::kMalformed, "snapshot: header of {} bytes", length);
  }
  return length;
}

Result<SnapshotHeader> decode_snapshot_header(ByteView bytes) {
  ASSIGN_OR_RETURN(const uint32_t length, snapshot_header_bytes(bytes));
  if (bytes.size() != length) return fail(ErrorCode::kMalformed, "snapshot: header cut");
  const ByteView covered = bytes.substr(0, length - 4);
  if (load_le<uint32_t>(bytes.data() + covered.size()) != crc32c(covered)) {
    return fail(ErrorCode::kMalformed, "snapshot: header with a wrong checksum");
  }
  ByteReader reader(covered.substr(kSnapshotPrefixBytes));
  SnapshotHeader header;
  header.cluster = ClusterId(reader.fixed<uint64_t>());
  header.group = GroupId(reader.fixed<uint64_t>());
  header.mark.last.term = Term(reader.fixed<uint64_t>());
  header.mark.last.index = LogIndex(reader.fixed<uint64_t>());
  const ByteView membership = reader.sized();
  if (!reader.finished() || !header.group.is_set() || header.mark.last.index.value() > kProtocolNumberMax ||
      header.mark.last.term.value() > kProtocolNumberMax) {
    return fail(ErrorCode::kMalformed, "snapshot: a header field that cannot be");
  }
  ASSIGN_OR_RETURN(header.mark.membership, Membership::decode(membership));
  return header;
}

uint32_t snapshot_seed(ByteView encoded_header) {
  ASSERT_CMP(encoded_header.size(), >=, 4U);
  return load_le<uint32_t>(encoded_header.data() + encoded_header.size() - 4);
}

void encode_snapshot_block(ByteView content, uint64_t number, bool compress, uint32_t seed, std::string& out) {
  ASSERT_CMP(content.size(), <=, kSnapshotBlockBytesMax);
  const size_t begin = out.size();
  out.resize(begin + kBlockHeaderBytes);
  auto codec = SnapshotCodec::kPlain;
  if (compress) {
    const size_t bound = ZSTD_compressBound(content.size());
    out.resize(begin + kBlockHeaderBytes + bound);
    const size_t size =
        ZSTD_compress(out.data() + begin + kBlockHeaderBytes, bound, content.data(), content.size(), kZstdLevel);
    if (ZSTD_isError(size) == 0 && size < content.size()) {
      codec = SnapshotCodec::kZstd;
      out.resize(begin + kBlockHeaderBytes + size);
    } else {
      out.resize(begin + kBlockHeaderBytes);
    }
  }
  if (codec == SnapshotCodec::kPlain) out.append(content);
  const ByteView stored = ByteView(out).substr(begin + kBlockHeaderBytes);
  char* header = out.data() + begin;
  store_le(header, kBlockMagic);
  store_le(header + 4, static_cast<uint32_t>(codec));
  store_le(header + 8, number);
  store_le(header + 16, static_cast<uint32_t>(content.size()));
  store_le(header + 20, static_cast<uint32_t>(stored.size()));
  store_le(header + 24, crc32c(stored, seed));
  store_le(header + 28, crc32c(ByteView(header, kBlockHeaderBytes - 4), seed));
}

Result<SnapshotBlock> decode_block_header(ByteView bytes, uint64_t number, uint32_t seed) {
  if (bytes.size() < kBlockHeaderBytes) return fail(ErrorCode::kMalformed, "block {}: cut", number);
  const char* header = bytes.data();
  if (load_le<uint32_t>(header) != kBlockMagic ||
      load_le<uint32_t>(header + 28) != crc32c(bytes.substr(0, kBlockHeaderBytes - 4), seed)) {
    return fail(ErrorCode::kMalformed, "block {}: its header has a wrong checksum", number);
  }
  SnapshotBlock block;
  const auto codec = load_le<uint32_t>(header + 4);
  block.number = load_le<uint64_t>(header + 8);
  block.content_bytes = load_le<uint32_t>(header + 16);
  block.stored_bytes = load_le<uint32_t>(header + 20);
  block.stored_checksum = load_le<uint32_t>(header + 24);
  if (block.number != number)
    return fail(ErrorCode::kMalformed, "block {}: block {} stands there", number, block.number);
  if (codec > static_cast<uint32_t>(SnapshotCodec::kZstd) || block.content_bytes > kSnapshotBlockBytesMax ||
      block.stored_bytes > block.content_bytes || block.content_bytes == 0) {
    return fail(ErrorCode::kMalformed, "block {}: a field that cannot be", number);
  }
  block.codec = static_cast<SnapshotCodec>(codec);
  return block;
}

Status check_block_stored(const SnapshotBlock& block, ByteView stored, uint32_t seed) {
  if (stored.size() != block.stored_bytes || crc32c(stored, seed) != block.stored_checksum) {
    return fail(ErrorCode::kMalformed, "block {}: wrong checksum", block.number);
  }
  return {};
}

Status decode_block_content(const SnapshotBlock& block, ByteView stored, uint32_t seed, std::string& content) {
  RETURN_IF_ERROR(check_block_stored(block, stored, seed));
  if (block.codec == SnapshotCodec::kPlain) {
    if (block.content_bytes != block.stored_bytes)
      return fail(ErrorCode::kMalformed, "block {}: two lengths", block.number);
    content.assign(stored);
    return {};
  }
  // At most kSnapshotBlockBytesMax, checked with the header.
  content.resize(block.content_bytes);
  const size_t size = ZSTD_decompress(content.data(), content.size(), stored.data(), stored.size());
  if (ZSTD_isError(size) != 0 || size != block.content_bytes) {
    return fail(ErrorCode::kMalformed, "block {}: cannot be unpacked", block.number);
  }
  return {};
}

void encode_snapshot_footer(const SnapshotFooter& footer, uint32_t seed, std::string& out) {
  const size_t begin = out.size();
  ByteWriter writer(out);
  writer.fixed(kFooterMagic);
  writer.fixed(uint32_t{0});
  writer.fixed(footer.blocks);
  writer.fixed(footer.content_bytes);
  writer.fixed(footer.content_checksum);
  writer.fixed(crc32c(ByteView(out).substr(begin), seed));
}

Result<SnapshotFooter> decode_snapshot_footer(ByteView bytes, uint32_t seed) {
  if (bytes.size() != kSnapshotFooterBytes || !looks_like_footer(bytes) ||
      load_le<uint32_t>(bytes.data() + kSnapshotFooterBytes - 4) !=
          crc32c(bytes.substr(0, kSnapshotFooterBytes - 4), seed)) {
    return fail(ErrorCode::kMalformed, "snapshot: no footer, or one with a wrong checksum");
  }
  return SnapshotFooter{.blocks = load_le<uint64_t>(bytes.data() + 8),
                        .content_bytes = load_le<uint64_t>(bytes.data() + 16),
                        .content_checksum = load_le<uint32_t>(bytes.data() + 24)};
}

bool looks_like_footer(ByteView bytes) {
  // NOLINTNEXTLINE(bugprone-suspicious-stringview-data-usage): the size is checked first
  return bytes.size() >= 4 && load_le<uint32_t>(bytes.data()) == kFooterMagic;
}

}  // namespace conclave::wal
