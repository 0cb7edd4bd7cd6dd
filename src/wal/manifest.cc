#include "wal/manifest.h"

#include <algorithm>
#include <array>

#include <fmt/format.h>

#include "base/assert.h"
#include "base/crc32c.h"
#include "base/mark.h"

namespace conclave::wal {
namespace {

constexpr uint32_t kMagic = 0x6d776c43;  // "Clwm"
constexpr uint32_t kFormatVersion = 1;
constexpr size_t kHeaderBytes = 12;  // magic, version, length
constexpr std::array<std::string_view, 2> kPaths = {"wal/manifest-a", "wal/manifest-b"};
// Where a segment's sectors are numbered in 32 bits, this leaves room.
constexpr uint64_t kSegmentBytesMax = uint64_t{1} << 32;

Result<std::string> read_file(env::Disk& disk, std::string_view path) {
  ASSIGN_OR_RETURN(const auto file, disk.open(path, {}));
  ASSIGN_OR_RETURN(const uint64_t size, file->size());
  if (size > kManifestBytesMax) return fail(ErrorCode::kMalformed, "manifest of {} bytes", size);
  std::string bytes(size, '\0');
  RETURN_IF_ERROR(file->read(0, bytes));
  return bytes;
}

}  // namespace

std::string segment_path(uint32_t slot) {
  return fmt::format("{}/segment-{:08}", kLogDirectory, slot);
}

void encode_manifest(const Manifest& manifest, std::string& out) {
  const size_t begin = out.size();
  ByteWriter writer(out);
  writer.fixed(kMagic);
  writer.fixed(kFormatVersion);
  writer.fixed(uint32_t{0});  // the length, below
  writer.fixed(manifest.owner.cluster.value());
  writer.fixed(manifest.owner.node.value());
  writer.fixed(manifest.generation);
  writer.fixed(manifest.segment_bytes);
  writer.varint(manifest.segments.size());
  for (const ManifestSegment& segment : manifest.segments) {
    writer.varint(segment.sequence);
    writer.varint(segment.slot);
    writer.varint(segment.first_number);
    writer.fixed(static_cast<uint8_t>((segment.sealed ? 1 : 0) | (segment.all_uncertain ? 2 : 0)));
    writer.varint(segment.end_sector);
    writer.varint(segment.doubts.size());
    for (const Doubt& doubt : segment.doubts) {
      writer.varint(doubt.group.value());
      writer.fixed(static_cast<uint8_t>(doubt.certainty));
      writer.varint(doubt.doubted.value());
    }
  }
  store_le(out.data() + begin + 8, static_cast<uint32_t>(out.size() - begin + 4));
  writer.fixed(crc32c(ByteView(out).substr(begin)));
}

Result<Manifest> decode_manifest(ByteView bytes) {
  if (bytes.size() < kHeaderBytes + 4 ||
      // NOLINTNEXTLINE(bugprone-suspicious-stringview-data-usage): the size is checked just above
      load_le<uint32_t>(bytes.data()) != kMagic) {
    return fail(ErrorCode::kMalformed, "manifest: none here");
  }
  // The file may be longer: an older, longer content lies behind.
  const auto length = load_le<uint32_t>(bytes.data() + 8);
  if (length < kHeaderBytes + 4 || length > bytes.size()) return fail(ErrorCode::kMalformed, "manifest: cut");
  const ByteView covered = bytes.substr(0, length - 4);
  if (load_le<uint32_t>(bytes.data() + covered.size()) != crc32c(covered)) {
    return fail(ErrorCode::kMalformed, "manifest: wrong checksum");
  }
  if (const auto version = load_le<uint32_t>(bytes.data() + 4); version != kFormatVersion) {
    return fail(ErrorCode::kVersion, "manifest of version {}", version);
  }
  ByteReader reader(covered.substr(kHeaderBytes));
  Manifest manifest;
  manifest.owner.cluster = ClusterId(reader.fixed<uint64_t>());
  manifest.owner.node = NodeId(reader.fixed<uint64_t>());
  manifest.generation = reader.fixed<uint64_t>();
  manifest.segment_bytes = reader.fixed<uint64_t>();
  const uint64_t count = reader.varint();
  if (manifest.segment_bytes < kBlockBytes || manifest.segment_bytes % kBlockBytes != 0 ||
      manifest.segment_bytes > kSegmentBytesMax || count == 0 || count > kSegmentsMax) {
    reader.reject();
  }
  for (uint64_t i = 0; i < count && reader.ok(); ++i) {
    ManifestSegment segment;
    segment.sequence = reader.varint();
    const uint64_t slot = reader.varint();
    segment.first_number = reader.varint();
    const auto flags = reader.fixed<uint8_t>();
    segment.sealed = (flags & 1) != 0;
    segment.all_uncertain = (flags & 2) != 0;
    const uint64_t end_sector = reader.varint();
    const uint64_t doubts = reader.varint();
    // Every segment but the last is sealed; numbers and uses grow.
    const bool in_order = manifest.segments.empty() || (manifest.segments.back().sequence < segment.sequence &&
                                                        manifest.segments.back().first_number < segment.first_number);
    if (flags > 3 || slot > UINT32_MAX || end_sector > manifest.segment_bytes / kSectorBytes || !in_order ||
        segment.first_number == 0 || segment.first_number > kBatchNumberMax || segment.sealed != (i + 1 < count)) {
      reader.reject();
    }
    segment.slot = static_cast<uint32_t>(slot);
    segment.end_sector = static_cast<uint32_t>(end_sector);
    for (uint64_t k = 0; k < doubts && reader.ok(); ++k) {
      Doubt doubt;
      doubt.group = GroupId(reader.varint());
      const auto certainty = reader.fixed<uint8_t>();
      if (!doubt.group.is_set() || certainty > static_cast<uint8_t>(Certainty::kRolledBack)) reader.reject();
      doubt.certainty = static_cast<Certainty>(certainty);
      doubt.doubted = Incarnation(reader.varint());
      segment.doubts.push_back(doubt);
    }
    manifest.segments.push_back(std::move(segment));
  }
  if (!reader.finished()) return fail(ErrorCode::kMalformed, "manifest: a field that cannot be");
  return manifest;
}

Result<ManifestFinding> read_manifests(env::Disk& disk) {
  ManifestFinding finding;
  for (const std::string_view path : kPaths) {
    finding.second_damaged = true;  // until the loop has come to its end
    auto bytes = read_file(disk, path);
    if (!bytes) {
      const ErrorCode code = bytes.error().code;
      if (code == ErrorCode::kNotFound) {
        finding.damage.push_back(fmt::format("{} is missing", path));
        continue;
      }
      finding.present = true;
      if (code != ErrorCode::kUnreadable && code != ErrorCode::kOutOfRange && code != ErrorCode::kMalformed) {
        return std::unexpected(std::move(bytes).error());
      }
      finding.damage.push_back(fmt::format("{}: {}", path, bytes.error().message));
      continue;
    }
    finding.present = true;
    auto manifest = decode_manifest(*bytes);
    if (!manifest) {
      // A version to come is not damage: the file is whole and must not be written over.
      if (manifest.error().code == ErrorCode::kVersion) return std::unexpected(std::move(manifest).error());
      finding.damage.push_back(fmt::format("{}: {}", path, manifest.error().message));
      continue;
    }
    finding.second_damaged = false;
    if (!finding.valid || manifest->generation > finding.manifest.generation) {
      if (finding.valid) {
        REACHED(wal_manifest_second_is_newer);
        finding.damage.push_back(fmt::format("{} is of a later generation than the first copy", path));
      }
      finding.manifest = std::move(*manifest);
      finding.valid = true;
    }
  }
  return finding;
}

Status write_manifests(env::Disk& disk, const Manifest& manifest, ManifestOrder order) {
  std::string bytes;
  encode_manifest(manifest, bytes);
  const size_t first = order == ManifestOrder::kSecondCopyFirst ? 1 : 0;
  for (const std::string_view path : {kPaths[first], kPaths[1 - first]}) {
    auto file = disk.open(path, {.mode = env::OpenMode::kWrite});
    bool created = false;
    if (!file && file.error().code == ErrorCode::kNotFound) {
      file = disk.open(path, {.mode = env::OpenMode::kCreate});
      created = true;
    }
    if (!file) return std::unexpected(std::move(file).error());
    std::string padded = bytes;
    if (created) padded.resize(std::max(bytes.size(), kManifestReservedBytes), '\0');
    RETURN_IF_ERROR((*file)->write_durable(0, padded));
    if (created) RETURN_IF_ERROR(disk.sync_directory(kLogDirectory));
  }
  return {};
}

}  // namespace conclave::wal
