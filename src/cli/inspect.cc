#include <filesystem>
#include <memory>
#include <string>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "cli/common.h"
#include "cli/json.h"
#include "cli/verbs.h"
#include "env/posix/disk.h"
#include "wal/inspect.h"
#include "wal/snapshot.h"

namespace conclave::cli {
namespace {

struct Arguments {
  std::string path;
  bool json = false;
};

int failed(const Error& error) {
  fmt::print(stderr, "conclave: {} ({})\n", error.message, to_string(error.code));
  if (error.code == ErrorCode::kNotFound || error.code == ErrorCode::kMalformed) return kFalse;
  return error.code == ErrorCode::kUnreadable ? kFalse : kLocalIo;
}

std::string describe(const wal::Hole& hole) {
  std::string text = fmt::format("group {} entry {}: a hole", hole.group, hole.index);
  if (hole.term.value() != 0) text += fmt::format(" of term {}", hole.term);
  if (hole.payload_checksum) text += fmt::format(", payload checksum {:08x}", *hole.payload_checksum);
  return text;
}

void print_table(const wal::LogInspection& log) {
  fmt::print("log of cluster {} server {}, generation {}, segments of {} KiB\n", log.manifest.owner.cluster,
             log.manifest.owner.node, log.manifest.generation, log.manifest.segment_bytes >> 10);
  fmt::print("\n{:>8} {:>9} {:>10} {:>8} {:>9} {:>7} {:>8} {:>5}  {}\n", "SEGMENT", "FILE", "KIB USED", "BATCHES",
             "RECORDS", "MARKS", "DAMAGED", "GAPS", "END");
  for (const wal::InspectedSegment& segment : log.segments) {
    fmt::print("{:>8} {:>9} {:>10} {:>8} {:>9} {:>7} {:>8} {:>5}  {}\n", segment.listed.sequence,
               segment.file_missing ? std::string("missing") : fmt::format("{:08}", segment.listed.slot),
               segment.end_sector * kSectorBytes >> 10, segment.batches, segment.records, segment.idle_marks,
               segment.damaged_batches, segment.gaps, segment.listed.sealed ? "sealed" : to_string(segment.tail));
  }
  fmt::print("\n{:>8} {:>10} {:>10} {:>8} {:>8} {:>8} {:>10} {:>8} {:>7}  {}\n", "GROUP", "FIRST", "LAST", "TERM",
             "COMMIT", "SNAPSHOT", "VOTE TERM", "VOTE", "HOLES", "CERTAINTY");
  for (const wal::InspectedGroup& group : log.groups) {
    fmt::print("{:>8} {:>10} {:>10} {:>8} {:>8} {:>8} {:>10} {:>8} {:>7}  {}\n", group.state.group, group.first,
               group.state.last.index, group.state.last.term, group.state.commit, group.state.mark.index,
               group.state.vote.term, group.state.vote.candidate, group.holes.size(), to_string(group.state.certainty));
  }
  bool headed = false;
  const auto damage = [&](const std::string& text) {
    if (!headed) fmt::print("\ndamage:\n");
    headed = true;
    fmt::print("  {}\n", text);
  };
  for (const std::string& text : log.manifest_damage) damage(text);
  for (const wal::Finding& finding : log.findings) {
    damage(fmt::format("segment {} file {:08} sectors {} to {}: {}", finding.sequence, finding.slot,
                       finding.from_sector, finding.to_sector, finding.what));
  }
  for (const wal::InspectedGroup& group : log.groups) {
    for (const wal::Hole& hole : group.holes) damage(describe(hole));
  }
  if (log.unknown_groups) damage("groups may be missing altogether");
}

void print_json(const wal::LogInspection& log) {
  JsonList segments;
  for (const wal::InspectedSegment& segment : log.segments) {
    JsonList fields;
    fields.field("sequence", json_number(segment.listed.sequence));
    fields.field("slot", fmt::format("{}", segment.listed.slot));
    fields.field("missing", segment.file_missing ? "true" : "false");
    fields.field("sealed", segment.listed.sealed ? "true" : "false");
    fields.field("bytes", json_number(segment.end_sector * kSectorBytes));
    fields.field("batches", json_number(segment.batches));
    fields.field("records", json_number(segment.records));
    fields.field("idle_marks", json_number(segment.idle_marks));
    fields.field("damaged_batches", json_number(segment.damaged_batches));
    fields.field("gaps", json_number(segment.gaps));
    fields.field("end", json_text(to_string(segment.tail)));
    segments.add(fields.object());
  }
  JsonList groups;
  for (const wal::InspectedGroup& group : log.groups) {
    JsonList holes;
    for (const wal::Hole& hole : group.holes) {
      JsonList fields;
      fields.field("index", json_number(hole.index));
      fields.field("term", json_number(hole.term));
      if (hole.payload_checksum) fields.field("payload_checksum", fmt::format("{}", *hole.payload_checksum));
      holes.add(fields.object());
    }
    JsonList fields;
    fields.field("group", json_number(group.state.group));
    fields.field("first_index", json_number(group.first));
    fields.field("entries", json_number(group.entries));
    fields.field("last_index", json_number(group.state.last.index));
    fields.field("last_term", json_number(group.state.last.term));
    fields.field("commit_index", json_number(group.state.commit));
    fields.field("snapshot_index", json_number(group.state.mark.index));
    fields.field("vote_term", json_number(group.state.vote.term));
    fields.field("vote_candidate", json_number(group.state.vote.candidate));
    fields.field("incarnation", json_number(group.state.vote.incarnation));
    fields.field("certainty", json_text(to_string(group.state.certainty)));
    fields.field("holes", holes.array());
    groups.add(fields.object());
  }
  JsonList damage;
  for (const std::string& text : log.manifest_damage) damage.add(fmt::format("{{\"what\":{}}}", json_text(text)));
  for (const wal::Finding& finding : log.findings) {
    JsonList fields;
    fields.field("sequence", json_number(finding.sequence));
    fields.field("slot", fmt::format("{}", finding.slot));
    fields.field("from_sector", fmt::format("{}", finding.from_sector));
    fields.field("to_sector", fmt::format("{}", finding.to_sector));
    fields.field("what", json_text(finding.what));
    damage.add(fields.object());
  }
  JsonList all;
  all.field("cluster", json_number(log.manifest.owner.cluster));
  all.field("node", json_number(log.manifest.owner.node));
  all.field("generation", json_number(log.manifest.generation));
  all.field("segment_bytes", json_number(log.manifest.segment_bytes));
  all.field("damaged", log.damaged() ? "true" : "false");
  all.field("unknown_groups", log.unknown_groups ? "true" : "false");
  all.field("segments", segments.array());
  all.field("groups", groups.array());
  all.field("damage", damage.array());
  fmt::print("{}\n", all.object());
}

int inspect_wal(const Arguments& arguments) {
  // The data directory, or the log's own directory in it.
  std::filesystem::path path = arguments.path;
  std::error_code ignored;
  if (!std::filesystem::exists(path / wal::kLogDirectory, ignored)) {
    const std::filesystem::path absolute = std::filesystem::absolute(path, ignored).lexically_normal();
    const bool slash = absolute.filename().empty();
    const std::filesystem::path own = slash ? absolute.parent_path() : absolute;
    if (own.filename() == wal::kLogDirectory) path = own.parent_path();
  }
  auto disk = env::PosixDisk::open_directory(path.string());
  if (!disk) return failed(disk.error());
  const auto log = wal::inspect_log(**disk);
  if (!log) return failed(log.error());
  if (arguments.json) {
    print_json(*log);
  } else {
    print_table(*log);
  }
  return log->damaged() ? kFalse : kOk;
}

struct InspectedSnapshot {
  std::string file;
  std::optional<wal::SnapshotHeader> header;
  uint64_t blocks = 0;
  uint64_t content_bytes = 0;
  uint64_t file_bytes = 0;
  std::string damage;
};

InspectedSnapshot read_snapshot(env::Disk& disk, const std::string& file) {
  InspectedSnapshot found{.file = file};
  auto reader = wal::SnapshotReader::open_path(disk, file);
  if (!reader) {
    found.damage = reader.error().message;
    return found;
  }
  found.header = (*reader)->header();
  std::string content;
  for (;;) {
    const auto more = (*reader)->next(content);
    if (!more) found.damage = more.error().message;
    if (!more || !*more) break;
  }
  found.blocks = (*reader)->blocks();
  found.content_bytes = (*reader)->content_bytes();
  found.file_bytes = (*reader)->offset();
  return found;
}

void print_snapshots(const std::vector<InspectedSnapshot>& snapshots, bool json) {
  if (json) {
    JsonList list;
    for (const InspectedSnapshot& snapshot : snapshots) {
      JsonList fields;
      fields.field("file", json_text(snapshot.file));
      if (snapshot.header) {
        fields.field("cluster", json_number(snapshot.header->cluster));
        fields.field("group", json_number(snapshot.header->group));
        fields.field("index", json_number(snapshot.header->mark.last.index));
        fields.field("term", json_number(snapshot.header->mark.last.term));
        fields.field("membership", json_text(snapshot.header->mark.membership.describe()));
      }
      fields.field("blocks", json_number(snapshot.blocks));
      fields.field("content_bytes", json_number(snapshot.content_bytes));
      fields.field("file_bytes", json_number(snapshot.file_bytes));
      fields.field("damage", snapshot.damage.empty() ? "null" : json_text(snapshot.damage));
      list.add(fields.object());
    }
    fmt::print("{{\"snapshots\":{}}}\n", list.array());
    return;
  }
  fmt::print("{:>8} {:>10} {:>8} {:>8} {:>14} {:>14}  {:<12} {}\n", "GROUP", "INDEX", "TERM", "BLOCKS", "CONTENT BYTES",
             "FILE BYTES", "MEMBERS", "STATE");
  for (const InspectedSnapshot& snapshot : snapshots) {
    const std::string state = snapshot.damage.empty() ? "good" : "damaged: " + snapshot.damage;
    if (!snapshot.header) {
      fmt::print("{}: {}\n", snapshot.file, state);
      continue;
    }
    fmt::print("{:>8} {:>10} {:>8} {:>8} {:>14} {:>14}  {:<12} {}\n", snapshot.header->group,
               snapshot.header->mark.last.index, snapshot.header->mark.last.term, snapshot.blocks,
               snapshot.content_bytes, snapshot.file_bytes, snapshot.header->mark.membership.describe(), state);
  }
}

int inspect_snapshot(const Arguments& arguments) {
  std::filesystem::path path = arguments.path;
  std::error_code ignored;
  std::vector<InspectedSnapshot> snapshots;
  if (std::filesystem::is_directory(path, ignored)) {
    auto disk = env::PosixDisk::open_directory(path.string());
    if (!disk) return failed(disk.error());
    const auto names = wal::list_snapshots(**disk);
    if (!names) return failed(names.error());
    for (const wal::SnapshotName& name : *names) snapshots.push_back(read_snapshot(**disk, wal::snapshot_path(name)));
  } else {
    const std::filesystem::path parent = path.has_parent_path() ? path.parent_path() : std::filesystem::path(".");
    auto disk = env::PosixDisk::open_directory(parent.string());
    if (!disk) return failed(disk.error());
    if (!std::filesystem::exists(path, ignored)) {
      return failed({ErrorCode::kNotFound, fmt::format("{}: no such file", path.string())});
    }
    snapshots.push_back(read_snapshot(**disk, path.filename().string()));
  }
  print_snapshots(snapshots, arguments.json);
  for (const InspectedSnapshot& snapshot : snapshots) {
    if (!snapshot.damage.empty()) return kFalse;
  }
  return kOk;
}

}  // namespace

void add_inspect(CLI::App& app, int& exit_code) {
  CLI::App* inspect =
      app.add_subcommand("inspect", "look into the files of a server that is stopped; exit code 1: damaged");
  inspect->require_subcommand(1);
  const auto arguments = std::make_shared<Arguments>();
  const auto options = [&](CLI::App* verb, const char* what) {
    verb->add_option("PATH", arguments->path, what)->required();
    add_output(*verb, arguments->json);
  };
  CLI::App* wal = inspect->add_subcommand("wal", "segments, batches, groups and damage of a log");
  options(wal, "the data directory");
  wal->callback([arguments, &exit_code] { exit_code = inspect_wal(*arguments); });
  CLI::App* snapshot = inspect->add_subcommand("snapshot", "what snapshot files hold, each block checked");
  options(snapshot, "a snapshot file, or the data directory");
  snapshot->callback([arguments, &exit_code] { exit_code = inspect_snapshot(*arguments); });
}

}  // namespace conclave::cli
