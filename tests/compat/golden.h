// Golden files: bytes that a build of an earlier day wrote, by feature level. What a person should be able to read is
// hexadecimal text: a line each, a name and its bytes. CONCLAVE_REWRITE=1 writes them: for a level that is new, never
// for one that `frozen` names.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/bytes.h"

namespace conclave::compat {

[[nodiscard]] bool is_rewriting();

// Of golden/1; empty if there is none.
[[nodiscard]] std::string read_golden(std::string_view name);
// Says by an expectation whether the bytes are the golden file's; writes them where that is asked for.
void expect_golden(std::string_view name, ByteView bytes);
// All files below golden/1/`directory`, by their path in it.
[[nodiscard]] std::map<std::string, std::string> read_golden_directory(std::string_view directory);

// Bytes by name, in the order of the file.
using Named = std::vector<std::pair<std::string, std::string>>;
[[nodiscard]] std::string to_text(std::string_view comment, const Named& values);
[[nodiscard]] Named parse_text(std::string_view text);
// The same of a file of hexadecimal text.
void expect_golden_text(std::string_view name, std::string_view comment, const Named& values);
// By name.
[[nodiscard]] std::map<std::string, std::string> read_golden_text(std::string_view name);

}  // namespace conclave::compat
