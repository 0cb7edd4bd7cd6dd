#include "cli/durations.h"

#include <charconv>

#include <fmt/format.h>

namespace conclave::cli {
namespace {

using namespace std::chrono_literals;

struct Unit {
  std::string_view name;
  Duration length;
};
// Longer names before those they begin with.
constexpr Unit kUnits[] = {{"ms", 1ms}, {"us", 1us}, {"ns", 1ns}, {"s", 1s}, {"m", 1min}, {"h", 1h}, {"d", 24h}};
constexpr Duration kLongest = 24h * 366;

}  // namespace

Result<Duration> parse_duration(std::string_view text) {
  const auto wrong = [&] {
    return fail(ErrorCode::kInvalidArgument, "'{}' is not a duration; write for example 250ms, 10s or 1m30s", text);
  };
  if (text == "0") return Duration::zero();
  if (text.empty()) return wrong();
  Duration total{};
  std::string_view rest = text;
  while (!rest.empty()) {
    uint64_t number = 0;
    const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), number);
    if (error != std::errc()) return wrong();
    rest.remove_prefix(static_cast<size_t>(end - rest.data()));
    const Unit* unit = nullptr;
    for (const Unit& candidate : kUnits) {
      if (unit == nullptr && rest.starts_with(candidate.name)) unit = &candidate;
    }
    if (unit == nullptr) return wrong();
    if (number > static_cast<uint64_t>(kLongest / unit->length)) {
      return fail(ErrorCode::kInvalidArgument, "'{}' is more than a year", text);
    }
    total += static_cast<int64_t>(number) * unit->length;
    rest.remove_prefix(unit->name.size());
  }
  if (total > kLongest) return fail(ErrorCode::kInvalidArgument, "'{}' is more than a year", text);
  return total;
}

std::string flag_text(Duration duration) {
  // The largest unit of which it is a whole number.
  const Unit* best = nullptr;
  for (const Unit& unit : kUnits) {
    const bool fits = duration % unit.length == Duration::zero();
    if (fits && (best == nullptr || unit.length > best->length)) best = &unit;
  }
  return duration == Duration::zero() ? "0s" : fmt::format("{}{}", duration / best->length, best->name);
}

std::string describe(Duration duration) {
  if (duration < 1ms) return fmt::format("{} us", duration / 1us);
  if (duration < 1s) return fmt::format("{} ms", duration / 1ms);
  return fmt::format("{:.1f} s", std::chrono::duration<double>(duration).count());
}

}  // namespace conclave::cli
