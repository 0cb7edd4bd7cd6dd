#include "tests/compat/golden.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include <fmt/format.h>
#include <gtest/gtest.h>

namespace conclave::compat {
namespace {

namespace fs = std::filesystem;

// The working directory is tests/compat.
const fs::path kDirectory = "golden/1";

std::string read_file(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream content;
  content << file.rdbuf();
  return content.str();
}

}  // namespace

bool is_rewriting() {
  return std::getenv("CONCLAVE_REWRITE") != nullptr;  // NOLINT(concurrency-mt-unsafe): one thread
}

std::string read_golden(std::string_view name) {
  return read_file(kDirectory / name);
}

void expect_golden(std::string_view name, ByteView bytes) {
  if (is_rewriting()) {
    const fs::path path = kDirectory / name;
    fs::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << bytes;
  }
  EXPECT_TRUE(read_golden(name) == bytes) << name << ": other bytes than were written once";
}

std::map<std::string, std::string> read_golden_directory(std::string_view directory) {
  std::map<std::string, std::string> files;
  const fs::path root = kDirectory / directory;
  for (const auto& entry : fs::recursive_directory_iterator(root)) {
    if (entry.is_regular_file()) files[entry.path().lexically_relative(root).string()] = read_file(entry.path());
  }
  return files;
}

std::string to_text(std::string_view comment, const Named& values) {
  std::string text = fmt::format("# {}\n", comment);
  for (const auto& [name, bytes] : values) {
    text += name;
    for (const char byte : bytes) text += fmt::format(" {:02x}", static_cast<unsigned char>(byte));
    text += '\n';
  }
  return text;
}

Named parse_text(std::string_view text) {
  Named values;
  std::istringstream lines{std::string(text)};
  for (std::string line; std::getline(lines, line);) {
    if (line.empty() || line.front() == '#') continue;
    std::istringstream words(line);
    std::string name;
    std::string bytes;
    words >> name;
    for (std::string word; words >> word;) bytes += static_cast<char>(std::stoul(word, nullptr, 16));
    values.emplace_back(name, bytes);
  }
  return values;
}

void expect_golden_text(std::string_view name, std::string_view comment, const Named& values) {
  if (is_rewriting()) expect_golden(name, to_text(comment, values));
  const Named golden = parse_text(read_golden(name));
  ASSERT_EQ(golden.size(), values.size()) << name;
  for (size_t i = 0; i < values.size(); ++i) {
    EXPECT_EQ(golden[i].first, values[i].first) << name;
    EXPECT_TRUE(golden[i].second == values[i].second) << name << ": other bytes than were written once\n"
                                                      << to_text("once", {golden[i]}) << to_text("now", {values[i]});
  }
}

std::map<std::string, std::string> read_golden_text(std::string_view name) {
  std::map<std::string, std::string> values;
  for (auto& [key, bytes] : parse_text(read_golden(name))) values.emplace(std::move(key), std::move(bytes));
  return values;
}

}  // namespace conclave::compat
