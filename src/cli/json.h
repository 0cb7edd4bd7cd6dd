// JSON as the command line writes it: one document, 64-bit integers as strings, since many readers round them. Writes
// only, and keeps no tree.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include <fmt/format.h>

namespace conclave::cli {

// A quoted string. The text must be UTF-8.
[[nodiscard]] std::string json_text(std::string_view text);
[[nodiscard]] std::string base64(std::string_view bytes);

template <class T>
[[nodiscard]] std::string json_number(const T& value) {
  return fmt::format("\"{}\"", value);
}

// Joins the elements of an array or object.
class JsonList {
 public:
  void add(const std::string& element) {
    if (!text_.empty()) text_ += ',';
    text_ += element;
  }
  void field(std::string_view name, const std::string& value) { add(fmt::format("{}:{}", json_text(name), value)); }
  // Bytes under their name; if they are not text, in base64 under NAME_base64.
  void bytes_field(std::string_view name, std::string_view bytes);
  [[nodiscard]] std::string array() const { return '[' + text_ + ']'; }
  [[nodiscard]] std::string object() const { return '{' + text_ + '}'; }

 private:
  std::string text_;
};

}  // namespace conclave::cli
