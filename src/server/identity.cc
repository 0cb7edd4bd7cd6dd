#include "server/identity.h"

#include <algorithm>
#include <charconv>
#include <memory>

#include "base/crc32c.h"

namespace conclave::server {
namespace {

constexpr std::string_view kFile = "identity";
constexpr std::string_view kBeside = "identity.new";
constexpr std::string_view kFirstWords = "conclave identity ";
constexpr std::string_view kFirstLine = "conclave identity 1\n";
constexpr std::string_view kRemovedLine = "removed yes";
constexpr std::string_view kDivergedKey = "diverged";

std::string encode(const Identity& identity) {
  std::string text = fmt::format("{}cluster {:016x}\nnode {:016x}\nname {}\nboot {}\n", kFirstLine,
                                 identity.cluster.value(), identity.node.value(), identity.name, identity.boot.value());
  if (identity.removed) text += fmt::format("{}\n", kRemovedLine);
  if (identity.diverged_at.value() != 0) text += fmt::format("{} {}\n", kDivergedKey, identity.diverged_at);
  text += fmt::format("crc32c {:08x}\n", crc32c(text));
  return text;
}

// The rest of the line that begins with `key`, taken off the text.
bool take_line(std::string_view& text, std::string_view key, std::string_view& value) {
  if (!text.starts_with(key) || text.size() <= key.size() || text[key.size()] != ' ') return false;
  const size_t end = text.find('\n');
  if (end == std::string_view::npos) return false;
  value = text.substr(key.size() + 1, end - key.size() - 1);
  text.remove_prefix(end + 1);
  return true;
}

bool parse_number(std::string_view text, int base, uint64_t& value) {
  const auto result = std::from_chars(text.data(), text.data() + text.size(), value, base);
  return result.ec == std::errc() && result.ptr == text.data() + text.size();
}

Result<Identity> decode(std::string_view whole) {
  std::string_view text = whole;
  std::string_view cluster, node, name, boot, removed, diverged, checksum;
  uint64_t cluster_number = 0, node_number = 0, boot_number = 0, diverged_number = 0, sum = 0;
  bool good = text.starts_with(kFirstLine);
  // Before the checksum: a later version may have another layout behind its first line.
  if (uint64_t version = 0; !good && text.starts_with(kFirstWords)) {
    const std::string_view number = text.substr(kFirstWords.size(), text.find('\n') - kFirstWords.size());
    if (parse_number(number, 10, version) && version > 1) {
      return fail(ErrorCode::kVersion, "the file {} is of version {}: a later build wrote it", kFile, version);
    }
  }
  if (good) text.remove_prefix(kFirstLine.size());
  good = good && take_line(text, "cluster", cluster) && take_line(text, "node", node) &&
         take_line(text, "name", name) && take_line(text, "boot", boot);
  const bool is_removed = good && take_line(text, "removed", removed);
  good = good && (!is_removed || removed == "yes");
  if (good && take_line(text, kDivergedKey, diverged)) {
    good = parse_number(diverged, 10, diverged_number) && diverged_number != 0;
  }
  const size_t covered = whole.size() - text.size();
  good = good && take_line(text, "crc32c", checksum) && text.empty() && parse_number(checksum, 16, sum) &&
         sum == crc32c(whole.substr(0, covered)) && parse_number(cluster, 16, cluster_number) &&
         parse_number(node, 16, node_number) && parse_number(boot, 10, boot_number);
  if (!good) return fail(ErrorCode::kMalformed, "the file {} is damaged", kFile);
  return Identity{.cluster = ClusterId(cluster_number),
                  .node = NodeId(node_number),
                  .name = std::string(name),
                  .boot = Boot(boot_number),
                  .removed = is_removed,
                  .diverged_at = LogIndex(diverged_number)};
}

Result<std::string> read_all(env::Disk& disk) {
  ASSIGN_OR_RETURN(const auto file, disk.open(kFile, {}));
  ASSIGN_OR_RETURN(const uint64_t size, file->size());
  if (size > 4096) return fail(ErrorCode::kMalformed, "the file {} is damaged: {} bytes", kFile, size);
  std::string bytes(size, '\0');
  RETURN_IF_ERROR(file->read(0, bytes));
  return bytes;
}

Status write_all(env::Disk& disk, std::string_view bytes) {
  if (const Status removed = disk.remove(kBeside); !removed && removed.error().code != ErrorCode::kNotFound) {
    return removed;
  }
  ASSIGN_OR_RETURN(const auto file, disk.open(kBeside, {.mode = env::OpenMode::kCreate}));
  RETURN_IF_ERROR(file->write(0, bytes));
  RETURN_IF_ERROR(file->sync());
  RETURN_IF_ERROR(disk.rename(kBeside, kFile));
  return disk.sync_directory("");
}

Result<JoinEntry> parse_entry(std::string_view text) {
  const size_t equals = text.find('=');
  const size_t colon = text.rfind(':');
  uint64_t port = 0;
  if (equals == std::string_view::npos || equals == 0 || colon == std::string_view::npos || colon <= equals + 1 ||
      !parse_number(text.substr(colon + 1), 10, port) || port == 0 || port > 65'535) {
    return fail(ErrorCode::kInvalidArgument, "'{}' is not NAME=HOST:PORT", text);
  }
  return JoinEntry{.name = std::string(text.substr(0, equals)),
                   .host = std::string(text.substr(equals + 1, colon - equals - 1)),
                   .port = static_cast<uint16_t>(port)};
}

}  // namespace

Result<std::vector<JoinEntry>> parse_join(std::string_view text) {
  std::vector<JoinEntry> entries;
  while (!text.empty()) {
    const size_t comma = std::min(text.find(','), text.size());
    ASSIGN_OR_RETURN(JoinEntry entry, parse_entry(text.substr(0, comma)));
    entries.push_back(std::move(entry));
    text.remove_prefix(std::min(comma + 1, text.size()));
  }
  if (entries.size() > kMembersMax) {
    return fail(ErrorCode::kInvalidArgument, "{} servers are more than the {} a cluster may have", entries.size(),
                kMembersMax);
  }
  std::ranges::sort(entries, {}, &JoinEntry::name);
  for (size_t i = 0; i + 1 < entries.size(); ++i) {
    if (entries[i].name == entries[i + 1].name) {
      return fail(ErrorCode::kInvalidArgument, "'{}' is named twice", entries[i].name);
    }
  }
  return entries;
}

NodeId address_id_of(const JoinEntry& server) {
  return node_id_of(fmt::format("{}:{}", server.host, server.port));
}

ClusterId cluster_id_of(const std::vector<JoinEntry>& servers) {
  return cluster_id_of(servers, ClusterId(), Position());
}

ClusterId cluster_id_of(const std::vector<JoinEntry>& servers, ClusterId from, Position last) {
  std::string text = "cluster";
  for (const JoinEntry& server : servers) text += fmt::format(" {}={}:{}", server.name, server.host, server.port);
  if (from.value() != 0) text += fmt::format(" from {:016x} at {} of {}", from.value(), last.index, last.term);
  return ClusterId(hash_of_text(text));
}

Result<Identity> read_identity(env::Disk& disk) {
  ASSIGN_OR_RETURN(const std::string bytes, read_all(disk));
  return decode(bytes);
}

Status write_identity(env::Disk& disk, const Identity& identity) {
  return write_all(disk, encode(identity));
}

Result<Identity> begin_life(env::Disk& disk, const Identity& expected, std::optional<ClusterId> required,
                            int64_t wall_milliseconds) {
  Identity identity = expected;
  if (const Result<Identity> found = read_identity(disk); found) {
    identity = *found;
    if (identity.name != expected.name) {
      return fail(ErrorCode::kForeign, "the directory belongs to server '{}', not to '{}'", identity.name,
                  expected.name);
    }
    if (required && identity.cluster != *required) {
      return fail(ErrorCode::kForeign, "the directory belongs to cluster {:016x}, not to {:016x}",
                  identity.cluster.value(), required->value());
    }
    if (identity.removed) {
      return fail(ErrorCode::kForeign,
                  "this server was removed from the cluster {:016x}; to add it again, start it with an empty directory",
                  identity.cluster.value());
    }
    if (identity.diverged_at.value() != 0) {
      return fail(
          ErrorCode::kUnreadable,
          "this server's state differed from that of a majority after entry {}, so what the directory holds is not to "
          "be believed; to have it copied from the others, start it with an empty directory",
          identity.diverged_at);
    }
  } else if (found.error().code != ErrorCode::kNotFound) {
    return std::unexpected(found.error());
  }
  identity.boot =
      Boot(std::max(identity.boot.value() + 1, static_cast<uint64_t>(std::max<int64_t>(wall_milliseconds, 0))));
  RETURN_IF_ERROR(write_identity(disk, identity));
  return identity;
}

}  // namespace conclave::server
