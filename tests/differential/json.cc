#include "tests/differential/json.h"

#include <algorithm>
#include <charconv>
#include <utility>

namespace conclave::differential {
namespace {

constexpr int kDepthMax = 600;

class Reader {
 public:
  explicit Reader(std::string_view bytes) : rest_(bytes) {}

  bool value(Json& out, int depth) {
    skip_space();
    if (rest_.empty() || depth > kDepthMax) return false;
    switch (rest_.front()) {
      case '{':
        return object(out, depth);
      case '[':
        return list(out, depth);
      case '"':
        out.kind = Json::Kind::kText;
        return text(out.text);
      default:
        return word(out);
    }
  }
  bool at_end() {
    skip_space();
    return rest_.empty();
  }

 private:
  void skip_space() { rest_.remove_prefix(std::min(rest_.find_first_not_of(" \t\r\n"), rest_.size())); }
  bool take(char c) {
    skip_space();
    if (!rest_.starts_with(c)) return false;
    rest_.remove_prefix(1);
    return true;
  }

  bool object(Json& out, int depth) {
    out.kind = Json::Kind::kObject;
    if (!take('{')) return false;
    if (take('}')) return true;
    do {
      skip_space();
      std::string name;
      Json member;
      if (!text(name) || !take(':') || !value(member, depth + 1)) return false;
      if (!out.members.emplace(std::move(name), std::move(member)).second) return false;
    } while (take(','));
    return take('}');
  }

  bool list(Json& out, int depth) {
    out.kind = Json::Kind::kList;
    if (!take('[')) return false;
    if (take(']')) return true;
    do {
      if (!value(out.list.emplace_back(), depth + 1)) return false;
    } while (take(','));
    return take(']');
  }

  bool word(Json& out) {
    out.kind = Json::Kind::kWord;
    const size_t end = std::min(rest_.find_first_of(" \t\r\n,]}"), rest_.size());
    out.text = rest_.substr(0, end);
    rest_.remove_prefix(end);
    if (out.text == "true" || out.text == "false" || out.text == "null") return true;
    double number = 0;
    const char* const last = out.text.data() + out.text.size();
    const auto [at, error] = std::from_chars(out.text.data(), last, number);
    return error == std::errc() && at == last;
  }

  bool text(std::string& out) {
    if (!rest_.starts_with('"')) return false;
    rest_.remove_prefix(1);
    while (true) {
      const size_t plain = rest_.find_first_of("\"\\");
      if (plain == std::string_view::npos) return false;
      out.append(rest_.substr(0, plain));
      const bool ends = rest_[plain] == '"';
      rest_.remove_prefix(plain + 1);
      if (ends) return true;
      if (!escape(out)) return false;
    }
  }

  bool escape(std::string& out) {
    if (rest_.empty()) return false;
    const char c = rest_.front();
    rest_.remove_prefix(1);
    constexpr std::string_view kNames = "\"\\/bfnrt";
    constexpr std::string_view kMeanings = "\"\\/\b\f\n\r\t";
    if (const size_t at = kNames.find(c); at != std::string_view::npos) {
      out += kMeanings[at];
      return true;
    }
    if (c != 'u' || rest_.size() < 4) return false;
    uint32_t code = 0;
    const std::string digits(rest_.substr(0, 4));
    const auto [at, error] = std::from_chars(digits.data(), digits.data() + digits.size(), code, 16);
    if (error != std::errc() || at != digits.data() + digits.size()) return false;
    rest_.remove_prefix(4);
    // Halves of a pair stay halves: they compare as well.
    if (code < 0x80) {
      out += static_cast<char>(code);
    } else if (code < 0x800) {
      out += static_cast<char>(0xc0 | (code >> 6));
      out += static_cast<char>(0x80 | (code & 0x3f));
    } else {
      out += static_cast<char>(0xe0 | (code >> 12));
      out += static_cast<char>(0x80 | ((code >> 6) & 0x3f));
      out += static_cast<char>(0x80 | (code & 0x3f));
    }
    return true;
  }

  std::string_view rest_;
};

void write(const Json& json, const std::string& indent, std::string& out) {
  switch (json.kind) {
    case Json::Kind::kWord:
      out += json.text;
      break;
    case Json::Kind::kText:
      out += '"' + json.text + '"';
      break;
    case Json::Kind::kList:
      out += '[';
      for (const Json& each : json.list) {
        out.append("\n").append(indent).append("  ");
        write(each, indent + "  ", out);
      }
      out += ']';
      break;
    case Json::Kind::kObject:
      out += '{';
      for (const auto& [name, member] : json.members) {
        out.append("\n").append(indent).append("  ").append(name).append(": ");
        write(member, indent + "  ", out);
      }
      out += '}';
      break;
  }
}

}  // namespace

const Json* Json::find(const std::string& name) const {
  const auto found = members.find(name);
  return found == members.end() ? nullptr : &found->second;
}

Json* Json::find(const std::string& name) {
  const auto found = members.find(name);
  return found == members.end() ? nullptr : &found->second;
}

std::string Json::text_of(const std::string& name) const {
  const Json* found = find(name);
  return found == nullptr ? std::string() : found->text;
}

int64_t Json::number(const std::string& name) const {
  const std::string digits = text_of(name);
  int64_t number = 0;
  std::from_chars(digits.data(), digits.data() + digits.size(), number);
  return number;
}

std::optional<Json> parse_json(std::string_view bytes) {
  Reader reader(bytes);
  Json json;
  if (!reader.value(json, 0) || !reader.at_end()) return std::nullopt;
  return json;
}

std::string to_text(const Json& json) {
  std::string out;
  write(json, "", out);
  return out;
}

}  // namespace conclave::differential
