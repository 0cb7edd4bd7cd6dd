// What a server said in JSON, as a tree that two answers can be compared by: names in order, numbers as they were
// written. A reader of its own, since that of the server is what is tested.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace conclave::differential {

struct Json {
  enum class Kind : uint8_t { kWord, kText, kList, kObject };
  Kind kind = Kind::kObject;
  std::string text;  // of a text, without escapes; of a number, true, false and null as written
  std::vector<Json> list;
  std::map<std::string, Json> members;

  [[nodiscard]] static Json of_text(std::string text) { return {.kind = Kind::kText, .text = std::move(text)}; }
  [[nodiscard]] const Json* find(const std::string& name) const;
  [[nodiscard]] Json* find(const std::string& name);
  // Zero where it is not there, as numbers that are zero are left out.
  [[nodiscard]] int64_t number(const std::string& name) const;
  [[nodiscard]] std::string text_of(const std::string& name) const;
  [[nodiscard]] bool is_true(const std::string& name) const { return text_of(name) == "true"; }
};

// Nothing but one value and white space; names of one object differ.
[[nodiscard]] std::optional<Json> parse_json(std::string_view bytes);

// A line for each value that is no object or list.
[[nodiscard]] std::string to_text(const Json& json);

}  // namespace conclave::differential
