// Random damage to the disk of one server, each verdict compared with what is known to be true: which batches were
// acknowledged, where each one's sectors lie, and which of them were damaged. That account is kept by looking at what
// each write changed on the disk, not by asking the log.
//
// One limit is physical and not tested against: what makes the log's end as it was before its last write. Within the 20
// ms before an idle mark, a sector of the last batch that holds its earlier content is a write that did not complete,
// whether the disk lied or the power failed; and a newest segment rolled back as a whole, idle mark and all, is a log
// that ended earlier. Peers notice both by their floors (architecture, section 5). So damage that makes places old
// again is drawn only once the last batch is attested, and leaves a part of the newest batch or mark.
#include <algorithm>
#include <array>
#include <cstdlib>
#include <map>
#include <set>
#include <utility>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "sim/trace_disk.h"
#include "tests/wal/model.h"
#include "wal/log.h"
#include "wal/manifest.h"

namespace conclave::wal {
namespace {

using sim::TraceDisk;
using sim::TraceImage;
using Place = std::pair<std::string, size_t>;  // file, sector

const Owner kOwner{.cluster = ClusterId(7), .node = NodeId(3)};

LogOptions small_segments() {
  return {.owner = kOwner, .segment_bytes = uint64_t{32} << 10};
}

// A batch as the disk saw it.
struct WrittenBatch {
  std::vector<Place> sectors;
  std::set<std::pair<uint64_t, uint64_t>> entries;  // group, index
  bool idle = false;
};

// A disk with a history, and the truth about it.
struct Case {
  TraceImage image;
  TraceImage earlier;  // the same disk some time before: what a stale sector or a rolled-back file holds
  Model truth;
  Model truth_with_torn;  // the same, and the batch that was under way
  std::vector<WrittenBatch> batches;
  std::map<Place, size_t> owner_of;  // the batch whose content the sector holds
  std::set<Place> hurt;              // damaged before, and its holes filled
  // All that was ever written, by group, index and term.
  std::map<std::array<uint64_t, 3>, Entry> entries;
  size_t attested = 0;  // so many of `batches` are attested by an idle mark, a later batch or a restart
  bool torn = false;    // the last of `batches` was under way and is partly there
  std::vector<Place> written;
  std::string newest_file;  // of the segments
};

bool is_segment(const std::string& path) {
  return path.starts_with("wal/segment-") && !path.ends_with(".new");
}

class CaseMaker {
 public:
  explicit CaseMaker(uint64_t seed)
      : random_(seed),
        // Braces: drawn in this order by every compiler.
        history_{random_.next(), {.groups = random_.between(1, 3), .payload_max = random_.coin() ? 400U : 1500U}} {}

  Case make() {
    open();
    const uint64_t batches = random_.between(3, 40);
    const uint64_t early = random_.below(batches);
    for (uint64_t i = 0; i < batches; ++i) {
      if (i == early) case_.earlier = disk_.current();
      if (random_.chance(1, 20)) open();
      if (random_.chance(1, 15)) hurt_and_fill();
      const bool last = i + 1 == batches;
      write(last && random_.chance(1, 4));
      if (!case_.torn && random_.chance(1, last ? 2 : 6)) idle();
    }
    if (!case_.torn) case_.image = disk_.current();
    // A restart cuts a segment behind its end: what a torn batch left there is gone.
    std::erase_if(case_.owner_of, [&](const auto& owned) {
      const auto file = case_.image.files.find(owned.first.first);
      return file == case_.image.files.end() || file->second.size() < (owned.first.second + 1) * kSectorBytes;
    });
    for (const auto& [place, batch] : case_.owner_of) case_.written.push_back(place);
    const auto manifest = decode_manifest(case_.image.files["wal/manifest-a"]);
    if (manifest) case_.newest_file = segment_path(manifest->segments.back().slot);
    return std::move(case_);
  }

 private:
  void open() {
    log_.reset();
    auto opened = Log::open(disk_, small_segments());
    ASSERT_TRUE(opened) << opened.error().message;
    log_ = std::move(opened->log);
    holes_ = std::move(opened->recovery.holes);
    const bool certain = std::ranges::all_of(
        opened->recovery.groups, [](const Recovered& group) { return group.certainty == Certainty::kCertain; });
    ASSERT_TRUE(certain && !opened->recovery.unknown_groups) << "nothing was damaged that is not attested";
    case_.attested = case_.batches.size();
  }

  void note(WrittenBatch batch) {
    const TraceImage now = disk_.current();
    for (const auto& [path, content] : now.files) {
      const auto old = before_.files.find(path);
      if (!is_segment(path) || old == before_.files.end()) continue;
      for (size_t at = 0; at + kSectorBytes <= content.size(); at += kSectorBytes) {
        if (old->second.size() >= at + kSectorBytes &&
            old->second.compare(at, kSectorBytes, content, at, kSectorBytes) == 0) {
          continue;
        }
        batch.sectors.emplace_back(path, at / kSectorBytes);
        case_.hurt.erase(batch.sectors.back());
        case_.owner_of[batch.sectors.back()] = case_.batches.size();
      }
    }
    ASSERT_FALSE(batch.sectors.empty());
    case_.batches.push_back(std::move(batch));
  }

  // A sector rots that the log can do without, and a peer fills the holes found at the next start.
  void hurt_and_fill() {
    if (case_.batches.size() < 4) return;
    const WrittenBatch& batch = case_.batches[random_.below(case_.batches.size() - 2)];
    const Place place = batch.sectors[random_.below(batch.sectors.size())];
    // Written again since, perhaps by the last batch, which nothing attests.
    if (case_.owner_of.at(place) + 2 >= case_.batches.size()) return;
    TraceImage image = disk_.current();
    const auto file = image.files.find(place.first);
    if (file == image.files.end() || file->second.size() < (place.second + 1) * kSectorBytes) return;
    // Neither a stamp nor what the sector's place is told by: the batch stays what it is.
    char& byte = file->second[place.second * kSectorBytes + random_.between(20, 499)];
    byte = static_cast<char>(byte ^ static_cast<char>(1U << random_.below(8)));
    case_.hurt.insert(place);
    log_.reset();
    disk_ = TraceDisk(image);
    open();
    Batch fills;
    for (const Hole& hole : holes_) {
      const auto& known = case_.truth.groups[hole.group.value()].entries;
      const auto right = known.find(hole.index.value());
      ASSERT_NE(right, known.end()) << "a hole where nothing is";
      fills.fill(hole.group, right->second);
    }
    if (!fills.empty()) write_batch(fills, case_.truth, false);
  }

  void write(bool torn) {
    Batch batch;
    Model after = case_.truth;
    history_.next(batch, after);
    write_batch(batch, after, torn);
  }

  void write_batch(const Batch& batch, const Model& after, bool torn) {
    // Spares are made outside, so that all that differs in a segment is the batch.
    for (;;) {
      auto more = log_->maintain();
      ASSERT_TRUE(more);
      if (!*more) break;
    }
    WrittenBatch written;
    for (const Operation& operation : batch.operations()) {
      if (operation.kind != ChangeKind::kEntries && operation.kind != ChangeKind::kFill) continue;
      const Entry entry{
          .index = operation.index, .term = operation.term, .type = operation.type, .payload = operation.payload};
      written.entries.emplace(operation.group.value(), entry.index.value());
      case_.entries[{operation.group.value(), entry.index.value(), entry.term.value()}] = entry;
    }
    before_ = disk_.current();
    if (torn) {
      // Keeps the disk as it is in the middle of the last write of a segment.
      disk_.set_hook([&](std::string_view call) {
        if (call != "write_durable") return;
        std::vector<bool> kept(disk_.unsynced());
        for (auto&& keep : kept) keep = random_.coin();
        case_.image = disk_.crash(kept);
      });
    }
    const Status done = log_->write(batch);
    ASSERT_TRUE(done) << done.error().message;
    disk_.set_hook({});
    case_.truth_with_torn = after;
    if (!torn) case_.truth = after;
    case_.torn = torn;
    // What was written before this is durable, and this shows it: if anything of it is there.
    if (!torn) case_.attested = case_.batches.size();
    note(std::move(written));
  }

  void idle() {
    before_ = disk_.current();
    ASSERT_TRUE(log_->idle_mark());
    const TraceImage now = disk_.current();
    if (now.hash() != before_.hash()) {
      bool in_segment = false;
      for (const auto& [path, content] : now.files) {
        in_segment = in_segment || (is_segment(path) && before_.files.contains(path) && before_.files[path] != content);
      }
      if (in_segment) note({.idle = true});
    }
    case_.attested = case_.batches.size();
  }

  Random random_;
  History history_;
  TraceDisk disk_;
  std::unique_ptr<Log> log_;
  std::vector<Hole> holes_;  // as the last start found them
  TraceImage before_;
  Case case_;
};

enum class Damage : uint8_t {
  kBit,
  kGarbage,
  kZero,
  kStale,
  kMisdirected,
  kMisdirectedWrite,  // the sector's own content lies elsewhere, over something else; here is what was before
  kBlock,
  kRange,
  kUnreadable,
  kCut,
  kSwapped,
  kMissing,
  kRolledBackFile,
  kManifestOne,
  kManifestBoth,
  kManifestRolledBack,
  kLastBatch,  // a bit or garbage in the last acknowledged batch
  kSpare,      // where nothing of this use was written
  kCount,
};
constexpr std::array<std::string_view, static_cast<size_t>(Damage::kCount)> kDamageNames = {"bit",
                                                                                            "garbage",
                                                                                            "zero",
                                                                                            "stale",
                                                                                            "misdirected",
                                                                                            "misdirected write",
                                                                                            "block",
                                                                                            "range",
                                                                                            "unreadable",
                                                                                            "cut",
                                                                                            "swapped",
                                                                                            "missing",
                                                                                            "rolled-back file",
                                                                                            "one manifest",
                                                                                            "manifests",
                                                                                            "manifests rolled back",
                                                                                            "last batch",
                                                                                            "unused place"};

struct Damaged {
  TraceImage image;
  std::set<Place> sectors;  // whose content is not what it was
  std::set<Place> unreadable;
  bool whole_file = false;  // the shape of a segment file, or the manifest, changed: where things end may be unknowable
  bool manifests = false;
};

class Verdicts {
 public:
  enum Kind : uint8_t { kWhole, kTorn, kHole, kUncertain, kRefused, kKinds };
  std::array<uint64_t, kKinds> count{};
  uint64_t cases = 0;
  uint64_t holes = 0;
  uint64_t holes_with_term = 0;
  std::array<uint64_t, static_cast<size_t>(Damage::kCount)> by_damage{};
};

class DamageTest {
 public:
  explicit DamageTest(uint64_t seed) : random_(seed) {}

  Damaged damage(const Case& from, Damage kind) {
    Damaged out{.image = from.image, .sectors = from.hurt};
    Place place = from.written[random_.below(from.written.size())];
    if (kind == Damage::kLastBatch) {
      const auto& last = from.batches.back().sectors;
      place = last[random_.below(last.size())];
    }
    const bool makes_old = kind == Damage::kZero || kind == Damage::kStale || kind == Damage::kMisdirectedWrite ||
                           kind == Damage::kRange || kind == Damage::kBlock;
    // See the top: not in the last batch while nothing attests it.
    if (makes_old) {
      for (int i = 0; i < 200 && from.owner_of.at(place) >= from.attested; ++i) {
        place = from.written[random_.below(from.written.size())];
      }
      if (from.owner_of.at(place) >= from.attested) kind = Damage::kBit;
    }
    const auto sector_of = [&](const Place& at) { return out.image.files[at.first].data() + at.second * kSectorBytes; };
    const auto flip_bit = [&](const Place& at) {
      const size_t byte = random_.below(kSectorBytes);
      const auto bit = static_cast<unsigned>(random_.below(8));
      char& target = sector_of(at)[byte];
      target = static_cast<char>(target ^ static_cast<char>(1U << bit));
    };
    const auto garbage = [&](const Place& at) {
      for (size_t i = 0; i < kSectorBytes; ++i) sector_of(at)[i] = static_cast<char>(random_.below(256));
      out.sectors.insert(at);
    };
    const auto make_old = [&](const Place& at) {
      const auto old = from.earlier.files.find(at.first);
      const bool known = old != from.earlier.files.end() && old->second.size() >= (at.second + 1) * kSectorBytes;
      if (known && random_.coin()) {
        std::copy_n(old->second.data() + at.second * kSectorBytes, kSectorBytes, sector_of(at));
      } else {
        std::fill_n(sector_of(at), kSectorBytes, '\0');
      }
      out.sectors.insert(at);
    };
    std::vector<std::string> segments;
    for (const auto& [path, content] : out.image.files) {
      if (is_segment(path)) segments.push_back(path);
    }
    const std::string& some_segment = segments[random_.below(segments.size())];
    switch (kind) {
      case Damage::kBit:
      case Damage::kLastBatch:
        if (random_.chance(1, 4)) {
          garbage(place);
        } else {
          flip_bit(place);
          out.sectors.insert(place);
        }
        break;
      case Damage::kGarbage:
        garbage(place);
        break;
      case Damage::kZero:
        std::fill_n(sector_of(place), kSectorBytes, '\0');
        out.sectors.insert(place);
        break;
      case Damage::kStale:
        make_old(place);
        break;
      case Damage::kMisdirected: {
        const Place other = from.written[random_.below(from.written.size())];
        // What rotted before and then goes astray looks like what an earlier use left and rotted in its place.
        if (other == place || from.hurt.contains(other)) break;
        std::copy_n(sector_of(other), kSectorBytes, sector_of(place));
        out.sectors.insert(place);
        break;
      }
      case Damage::kMisdirectedWrite: {
        const Place other = from.written[random_.below(from.written.size())];
        if (other == place || from.owner_of.at(other) >= from.attested) break;
        std::copy_n(sector_of(place), kSectorBytes, sector_of(other));
        out.sectors.insert(other);
        make_old(place);
        break;
      }
      case Damage::kBlock:
      case Damage::kRange: {
        const size_t sectors = kind == Damage::kBlock ? kSectorsPerBlock : random_.between(2, 40);
        const uint64_t how = random_.below(3);
        size_t from_sector = kind == Damage::kBlock ? place.second / kSectorsPerBlock * kSectorsPerBlock : place.second;
        for (size_t i = 0; i < sectors; ++i) {
          const Place at{place.first, from_sector + i};
          if ((at.second + 1) * kSectorBytes > out.image.files[at.first].size()) break;
          const auto owner = from.owner_of.find(at);
          const bool newest =
              owner != from.owner_of.end() && owner->second + (from.torn ? 2 : 1) >= from.batches.size();
          if (newest || (owner != from.owner_of.end() && owner->second >= from.attested)) break;
          if (how == 0) {
            garbage(at);
          } else {
            make_old(at);
          }
        }
        break;
      }
      case Damage::kUnreadable:
        out.unreadable.insert(place);
        out.sectors.insert(place);
        break;
      case Damage::kCut: {
        std::string& content = out.image.files[some_segment];
        content.resize(random_.below(content.size() + 1));
        out.whole_file = true;
        break;
      }
      case Damage::kSwapped: {
        const std::string& other = segments[random_.below(segments.size())];
        if (other != some_segment) {
          std::swap(out.image.files[some_segment], out.image.files[other]);
          out.whole_file = true;
        }
        break;
      }
      case Damage::kMissing:
        out.image.files.erase(some_segment);
        out.whole_file = true;
        break;
      case Damage::kRolledBackFile: {
        const auto old = from.earlier.files.find(some_segment);
        const auto& newest = from.batches.back().sectors;
        const bool holds_end = std::ranges::any_of(newest, [&](const Place& at) { return at.first == some_segment; });
        if (old == from.earlier.files.end() || holds_end) break;
        out.image.files[some_segment] = old->second;
        out.whole_file = true;
        break;
      }
      case Damage::kManifestOne:
      case Damage::kManifestBoth: {
        for (const char* path : {"wal/manifest-a", "wal/manifest-b"}) {
          if (kind == Damage::kManifestOne && random_.coin()) continue;
          std::string& content = out.image.files[path];
          // Behind the manifest's own length lies nothing that counts: the damage is drawn at its begin.
          const size_t bytes = std::min<size_t>(content.size(), 60);
          const size_t byte = random_.below(bytes);
          content[byte] = static_cast<char>(content[byte] ^ static_cast<char>(1U << random_.below(8)));
          if (random_.chance(1, 6)) out.image.files.erase(path);
          if (kind == Damage::kManifestOne) break;
        }
        out.manifests = kind == Damage::kManifestBoth;
        break;
      }
      case Damage::kManifestRolledBack:
        for (const char* path : {"wal/manifest-a", "wal/manifest-b"}) {
          const auto old = from.earlier.files.find(path);
          if (old != from.earlier.files.end()) out.image.files[path] = old->second;
        }
        out.manifests = true;
        break;
      case Damage::kSpare: {
        std::string& content = out.image.files[some_segment];
        const Place at{some_segment, random_.below(content.size() / kSectorBytes)};
        if (from.owner_of.contains(at)) break;
        flip_bit(at);
        break;
      }
      case Damage::kCount:
        break;
    }
    return out;
  }

  static bool is_uncertain(const Recovery& recovery, uint64_t id) {
    const auto at = std::ranges::find(recovery.groups, GroupId(id), &Recovered::group);
    return at == recovery.groups.end() ? recovery.unknown_groups : at->certainty != Certainty::kCertain;
  }

  // Empty if what was found is this truth, but for what the damage took.
  static std::string compare(const Case& from, const Model& truth, const Damaged& damaged, const Recovery& recovery,
                             const Model& found, const std::set<size_t>& reached) {
    // No wrong data, no hole where nothing is lost.
    for (const auto& [id, group] : found.groups) {
      const bool uncertain = is_uncertain(recovery, id);
      const auto expected = truth.groups.find(id);
      for (const auto& [index, entry] : group.entries) {
        const Entry* right = nullptr;
        if (expected != truth.groups.end()) {
          const auto at = expected->second.entries.find(index);
          if (at != expected->second.entries.end()) right = &at->second;
        }
        if (entry.type == EntryType::kHole) {
          if (uncertain || damaged.whole_file || damaged.manifests) continue;
          if (right == nullptr) return fmt::format("group {}: a hole at {} where nothing is", id, index);
          if (entry.term.value() != 0 && entry.term != right->term) return fmt::format("a hole of the wrong term");
          const bool lost = std::ranges::any_of(
              reached, [&](size_t batch) { return from.batches[batch].entries.contains({id, index}); });
          if (!lost) return fmt::format("group {}: a hole at {} whose batch is not damaged", id, index);
          continue;
        }
        // An uncertain group may show entries that a lost batch took back, and the batch under way; a certain one may
        // not. Nothing shows what was never written.
        if (right != nullptr && *right == entry) continue;
        if (uncertain) {
          const auto once = from.entries.find({id, index, entry.term.value()});
          if (once != from.entries.end() && once->second == entry) continue;
        }
        return fmt::format(
            "group {}: entry {} of term {} is wrong: {}", id, index, entry.term,
            right == nullptr ? std::string("nothing is there") : fmt::format("term {} is there", right->term));
      }
    }
    // Nothing acknowledged is missing.
    for (const auto& [id, group] : truth.groups) {
      if (group == ModelGroup{} || is_uncertain(recovery, id)) continue;
      const auto at = found.groups.find(id);
      if (at == found.groups.end()) return fmt::format("group {} was cut", id);
      if (at->second.last != group.last) {
        return fmt::format("group {}: last is {}/{}, was {}/{}", id, at->second.last.term, at->second.last.index,
                           group.last.term, group.last.index);
      }
      if (at->second.vote != group.vote) return fmt::format("group {}: the vote was lost", id);
      for (const auto& [index, entry] : group.entries) {
        if (!at->second.entries.contains(index)) return fmt::format("group {}: entry {} was cut", id, index);
      }
      if (at->second.entries.size() != group.entries.size()) return fmt::format("group {}: entries too many", id);
      if (at->second.mark.last != group.mark.last) return fmt::format("group {}: the snapshot mark was lost", id);
    }
    // Votes are right wherever they are not called uncertain.
    for (const Recovered& group : recovery.groups) {
      if (group.certainty == Certainty::kVoteUncertain) continue;
      const auto at = truth.groups.find(group.group.value());
      if (at == truth.groups.end() || at->second.vote != group.vote) return "a wrong vote";
    }
    return {};
  }

  // Empty if the verdict is right.
  std::string judge(const Case& from, const Damaged& damaged, Verdicts& verdicts) {
    TraceDisk disk(damaged.image);
    for (const auto& [path, sector] : damaged.unreadable) disk.make_unreadable(path, sector);
    auto opened = Log::open(disk, small_segments());
    ++verdicts.cases;
    if (!opened) {
      ++verdicts.count[Verdicts::kRefused];
      if (opened.error().code == ErrorCode::kUnreadable && damaged.manifests) return {};
      return "refused: " + opened.error().message;
    }
    const Recovery& recovery = opened->recovery;
    const Model found = as_model(recovery);
    bool uncertain = recovery.unknown_groups;
    for (const Recovered& group : recovery.groups) uncertain = uncertain || group.certainty != Certainty::kCertain;

    // What the damage reached.
    std::set<size_t> reached;
    std::map<size_t, size_t> sectors_reached;
    for (const Place& place : damaged.sectors) {
      const auto owner = from.owner_of.find(place);
      if (owner == from.owner_of.end()) continue;
      reached.insert(owner->second);
      ++sectors_reached[owner->second];
    }
    const size_t last = from.batches.size() - 1;
    bool may_be_uncertain = damaged.whole_file || damaged.manifests;
    if (!reached.empty() && *reached.rbegin() >= from.attested) may_be_uncertain = true;
    // The block where the next batch would have stood is lost as a whole: one may have stood there.
    for (const Place& place : damaged.sectors) {
      bool block = place.second % kSectorsPerBlock == 0 && place.first == from.newest_file;
      for (size_t i = 0; i < kSectorsPerBlock; ++i) {
        block = block && damaged.sectors.contains({place.first, place.second + i});
      }
      if (!block) continue;
      const auto before = from.owner_of.find({place.first, place.second - 1});
      if (place.second == 0 || (before != from.owner_of.end() && before->second + 2 >= from.batches.size()))
        may_be_uncertain = true;
    }
    for (const auto& [batch, count] : sectors_reached) {
      // Both copies of a head may be gone. Any later batch that is untouched tells what it was.
      bool told = false;
      for (size_t later = batch + 1; later <= last; ++later) {
        told = told || (!reached.contains(later) && !(from.torn && later == last));
      }
      if (count > 1 && !told) may_be_uncertain = true;
    }
    if (uncertain && !may_be_uncertain) return "uncertain though everything needed is there";

    std::string wrong = compare(from, from.truth, damaged, recovery, found, reached);
    // The batch under way may be there as a whole, or not at all.
    if (!wrong.empty() && from.torn && compare(from, from.truth_with_torn, damaged, recovery, found, reached).empty()) {
      wrong.clear();
    }
    if (!wrong.empty()) return wrong;
    for (const Hole& hole : recovery.holes) {
      ++verdicts.holes;
      verdicts.holes_with_term += hole.term.value() != 0 ? 1 : 0;
    }
    if (uncertain) {
      ++verdicts.count[Verdicts::kUncertain];
    } else if (!recovery.holes.empty()) {
      ++verdicts.count[Verdicts::kHole];
    } else if (recovery.torn_tail) {
      ++verdicts.count[Verdicts::kTorn];
    } else {
      ++verdicts.count[Verdicts::kWhole];
    }
    return {};
  }

 private:
  Random random_;
};

// What recovery said, and what was hit.
std::string explain(const Case& from, const Damaged& damaged) {
  std::string text;
  for (const Place& place : damaged.sectors) {
    const auto owner = from.owner_of.find(place);
    text += fmt::format("{}:{} (batch {} of {}) ", place.first, place.second,
                        owner == from.owner_of.end() ? SIZE_MAX : owner->second, from.batches.size());
  }
  TraceDisk disk(damaged.image);
  for (const auto& [path, sector] : damaged.unreadable) disk.make_unreadable(path, sector);
  auto opened = Log::open(disk, small_segments());
  if (!opened) return text + opened.error().message;
  for (const Finding& finding : opened->recovery.findings) {
    text += fmt::format("\n  segment {} slot {} sectors {}..{}: {}", finding.sequence, finding.slot,
                        finding.from_sector, finding.to_sector, finding.what);
  }
  if (opened->recovery.unknown_groups) text += "\n  groups may be missing";
  for (const Recovered& group : opened->recovery.groups) {
    const auto truth = from.truth.groups.find(group.group.value());
    text += fmt::format(
        "\n  group {}: {}, {} entries from {} to {}/{}, snapshot at {}; should be {} from {}", group.group,
        to_string(group.certainty), group.entries.size(),
        group.entries.empty() ? LogIndex() : group.entries.front().index, group.last.term, group.last.index,
        group.snapshot.last.index, truth == from.truth.groups.end() ? 0 : truth->second.entries.size(),
        truth == from.truth.groups.end() || truth->second.entries.empty() ? 0 : truth->second.entries.begin()->first);
  }
  return text + "\n";
}

// CONCLAVE_WAL_DAMAGES and CONCLAVE_WAL_SEED in the environment: how many, and from which seed on (make soak).
uint64_t setting(const char* name, uint64_t otherwise) {
  const char* text = std::getenv(name);  // NOLINT(concurrency-mt-unsafe): one thread
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

TEST(Damage, IsToldFromTearsAndNothingElse) {
  const uint64_t damages = setting("CONCLAVE_WAL_DAMAGES", 10'000);
  const uint64_t first_seed = setting("CONCLAVE_WAL_SEED", 1);
  Verdicts verdicts;
  for (uint64_t seed = first_seed; verdicts.cases < damages; ++seed) {
    const Case made = CaseMaker(seed).make();
    ASSERT_FALSE(HasFatalFailure()) << "seed " << seed;
    DamageTest test(seed * 1000);
    Random random(seed * 77);
    for (int i = 0; i < 40; ++i) {
      const auto kind = static_cast<Damage>(random.below(static_cast<uint64_t>(Damage::kCount)));
      const Damaged damaged = test.damage(made, kind);
      ++verdicts.by_damage[static_cast<size_t>(kind)];
      const std::string wrong = test.judge(made, damaged, verdicts);
      ASSERT_EQ(wrong, "") << explain(made, damaged) << "seed " << seed << " damage " << i << " ("
                           << kDamageNames[static_cast<size_t>(kind)] << ")";
    }
  }
  const auto share = [&](Verdicts::Kind kind) {
    return fmt::format("{}.{:02} %", verdicts.count[kind] * 100 / verdicts.cases,
                       verdicts.count[kind] * 10'000 / verdicts.cases % 100);
  };
  fmt::print("{} damages: whole {}, torn {}, holes {}, uncertain {}, refused {}; {} holes, {} with their term\n",
             verdicts.cases, share(Verdicts::kWhole), share(Verdicts::kTorn), share(Verdicts::kHole),
             share(Verdicts::kUncertain), share(Verdicts::kRefused), verdicts.holes, verdicts.holes_with_term);
  for (const uint64_t count : verdicts.count) EXPECT_GT(count, 0U);
  for (const uint64_t count : verdicts.by_damage) EXPECT_GT(count, 0U);
}

}  // namespace
}  // namespace conclave::wal
