#include "sim/decisions.h"

#include <algorithm>
#include <charconv>

#include "base/assert.h"

namespace conclave::sim {
namespace {

__extension__ using Wide = unsigned __int128;

// The finaliser of splitmix64: neighbouring inputs give unrelated outputs.
uint64_t mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15ULL;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

// Uniform in [0, bound) out of one word. The bias is below bound / 2^64 and of no consequence here.
uint64_t scale(uint64_t word, uint64_t bound) {
  return static_cast<uint64_t>((Wide{word} * bound) >> 64);
}

// Separate the draws, their details and the plain choices of one stream.
constexpr uint64_t kDetailDomain = 0x6c62272e07bb0142ULL;
constexpr uint64_t kChoiceDomain = 0x27d4eb2f165667c5ULL;

std::string_view next_line(std::string_view& text) {
  const size_t end = text.find('\n');
  std::string_view line = text.substr(0, end);
  text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
  if (const size_t comment = line.find('#'); comment != std::string_view::npos) line = line.substr(0, comment);
  while (!line.empty() && (line.back() == ' ' || line.back() == '\r')) line.remove_suffix(1);
  return line;
}

std::string_view next_word(std::string_view& line) {
  while (!line.empty() && line.front() == ' ') line.remove_prefix(1);
  const size_t end = line.find(' ');
  const std::string_view word = line.substr(0, end);
  line = end == std::string_view::npos ? std::string_view() : line.substr(end);
  return word;
}

bool parse_number(std::string_view word, uint64_t& number) {
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), number);
  return error == std::errc() && end == word.data() + word.size();
}

}  // namespace

std::string to_text(const Replay& replay) {
  std::string text = "conclave-decisions 1\n";
  text += fmt::format("suite {}\nseed {}\nseconds {}\n", replay.suite, replay.seed, replay.seconds);
  text += fmt::format("mode {}\n", replay.mode == ReplayMode::kAll        ? "all"
                                   : replay.mode == ReplayMode::kKeepOnly ? "keep-only"
                                                                          : "suppress");
  for (const Decision& decision : replay.decisions) {
    text += fmt::format("{} {} {}", decision.site, decision.target, decision.ordinal);
    if (decision.at != Instant{}) text += fmt::format("  # at {} ns", to_nanoseconds(decision.at));
    text += '\n';
  }
  return text;
}

Result<Replay> replay_of_text(std::string_view text) {
  Replay replay;
  size_t number = 0;
  bool opened = false;
  while (!text.empty()) {
    std::string_view line = next_line(text);
    ++number;
    if (line.empty()) continue;
    const std::string_view word = next_word(line);
    const std::string_view second = next_word(line);
    const std::string_view third = next_word(line);
    const bool two = !second.empty() && third.empty();
    bool good = false;
    if (!opened) {
      good = opened = word == "conclave-decisions" && second == "1" && two;
    } else if (word == "suite" && two) {
      replay.suite = second;
      good = true;
    } else if (word == "seed" && two) {
      good = parse_number(second, replay.seed);
    } else if (word == "seconds" && two) {
      good = parse_number(second, replay.seconds);
    } else if (word == "mode" && two) {
      good = second == "all" || second == "keep-only" || second == "suppress";
      replay.mode = second == "all"         ? ReplayMode::kAll
                    : second == "keep-only" ? ReplayMode::kKeepOnly
                                            : ReplayMode::kSuppress;
    } else {
      Decision decision;
      decision.site = word;
      good = next_word(line).empty() && parse_number(second, decision.target) && parse_number(third, decision.ordinal);
      replay.decisions.push_back(std::move(decision));
    }
    if (!good) return fail(ErrorCode::kMalformed, "line {} is no line of a file of decisions", number);
  }
  if (!opened) return fail(ErrorCode::kMalformed, "not a file of decisions");
  return replay;
}

void Decisions::set_replay(const Replay& replay) {
  ASSERT(streams_.empty());
  mode_ = replay.mode;
  for (const Decision& decision : replay.decisions) {
    listed_[{decision.site, decision.target}].push_back(decision.ordinal);
  }
  for (auto& [key, ordinals] : listed_) std::ranges::sort(ordinals);
}

uint64_t Decisions::key_of(std::string_view site, uint64_t target) const {
  uint64_t key = mix(seed_);
  for (char c : site) key = mix(key ^ static_cast<unsigned char>(c));
  return mix(key ^ mix(target));
}

Decisions::Stream Decisions::stream(FaultKind kind, std::string_view site, uint64_t target) {
  Key name{std::string(site), target};
  if (auto it = by_name_.find(name); it != by_name_.end()) {
    ASSERT(streams_[static_cast<size_t>(it->second)].kind == kind);
    return it->second;
  }
  const auto stream = static_cast<Stream>(streams_.size());
  StreamState state{.site = name.first, .target = target, .kind = kind, .key = key_of(site, target)};
  if (auto it = listed_.find(name); it != listed_.end()) state.listed = &it->second;
  streams_.push_back(std::move(state));
  by_name_.emplace(std::move(name), stream);
  return stream;
}

bool Decisions::decide(Stream stream, uint64_t numerator, uint64_t denominator) {
  StreamState& state = streams_[static_cast<size_t>(stream)];
  const uint64_t ordinal = state.draws++;
  // A draw that cannot fire still takes its ordinal: the others keep theirs.
  if (stopped_ || numerator == 0 || !enabled_[state.kind]) return false;
  if (scale(mix(state.key + mix(ordinal)), denominator) >= numerator) return false;
  if (mode_ != ReplayMode::kAll) {
    const bool listed = state.listed != nullptr && std::ranges::binary_search(*state.listed, ordinal);
    if (listed != (mode_ == ReplayMode::kKeepOnly)) return false;
  }
  records_.push_back({stream, ordinal, now_ == nullptr ? Instant{} : *now_});
  ++counters_[state.kind];
  return true;
}

Random Decisions::detail(Stream stream) const {
  const StreamState& state = streams_[static_cast<size_t>(stream)];
  ASSERT(state.draws > 0);
  return Random(state.key ^ mix(kDetailDomain + state.draws - 1));
}

uint64_t Decisions::choose(Stream stream, uint64_t bound) {
  StreamState& state = streams_[static_cast<size_t>(stream)];
  return scale(mix(state.key ^ mix(kChoiceDomain + state.choices++)), bound);
}

Duration Decisions::exponential(Stream stream, Duration mean) {
  StreamState& state = streams_[static_cast<size_t>(stream)];
  return Random(state.key ^ mix(kChoiceDomain + state.choices++)).exponential(mean);
}

Random Decisions::generator(std::string_view site, uint64_t target) const {
  return Random(~key_of(site, target));
}

std::vector<Decision> Decisions::fired() const {
  std::vector<Decision> list;
  list.reserve(records_.size());
  for (const Record& record : records_) {
    const StreamState& state = streams_[static_cast<size_t>(record.stream)];
    list.push_back({state.site, state.target, record.ordinal, record.at});
  }
  return list;
}

}  // namespace conclave::sim
