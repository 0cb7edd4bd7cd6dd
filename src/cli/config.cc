#include "cli/config.h"

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <numeric>
#include <sstream>

#include <fmt/format.h>
#include <toml++/toml.h>
#include <CLI/CLI.hpp>

namespace conclave::cli {
namespace {

constexpr std::string_view kConfig = "config";

// What one would have to change to make the other of one: letters put in, taken out, exchanged.
size_t distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = std::exchange(row[0], i);
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t exchanged = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, exchanged});
    }
  }
  return row.back();
}

std::string name_in_file(const CLI::Option& option) {
  std::string name = option.get_lnames().empty() ? std::string() : option.get_lnames().front();
  std::ranges::replace(name, '-', '_');
  return name;
}

std::string name_in_environment(std::string name) {
  std::ranges::transform(name, name.begin(), [](char letter) {
    return letter >= 'a' && letter <= 'z' ? static_cast<char>(letter - 32) : letter;
  });
  return "CONCLAVE_" + name;
}

std::vector<CLI::Option*> configurable(CLI::App& verb) {
  std::vector<CLI::Option*> options;
  for (CLI::Option* option : verb.get_options()) {
    const std::string name = name_in_file(*option);
    if (!name.empty() && name != "help" && name != kConfig && name != "effective" && name != "output") {
      options.push_back(option);
    }
  }
  return options;
}

Result<std::string> read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  if (!in || !(text << in.rdbuf())) return fail(ErrorCode::kIo, "{} cannot be read", path);
  return text.str();
}

// Set as if the command line had said so.
void set(CLI::Option& option, const std::string& value, const std::string& where) {
  option.clear();
  option.add_result(value);
  try {
    option.run_callback();
  } catch (const CLI::ParseError& error) {
    throw CLI::ValidationError(where, error.what());
  }
}

std::string shown(const CLI::Option& option) {
  if (option.count() > 0) return fmt::format("{}", fmt::join(option.results(), ","));
  if (option.get_expected_max() == 0) return "false";
  return option.get_default_str();
}

void refuse_unknown(const ConfigFile& file, const std::vector<CLI::Option*>& options, const std::string& path) {
  for (const auto& [key, value] : file) {
    std::string nearest;
    size_t least = SIZE_MAX;
    for (const CLI::Option* option : options) {
      const std::string name = name_in_file(*option);
      if (const size_t away = distance(key, name); away < least) {
        least = away;
        nearest = name;
      }
    }
    if (least == 0) continue;
    const bool is_close = least <= std::max<size_t>(2, key.size() / 3);
    throw CLI::ValidationError(fmt::format("{}:{}", path, value.line),
                               fmt::format("there is no '{}'{}", key, is_close ? "; is '" + nearest + "' meant?" : ""));
  }
}

}  // namespace

Result<ConfigFile> parse_config(std::string_view toml) {
  toml::table table;
  try {
    table = toml::parse(toml);
  } catch (const toml::parse_error& error) {
    return fail(ErrorCode::kInvalidArgument, "line {}: {}", error.source().begin.line, error.description());
  }
  ConfigFile file;
  for (const auto& [key, node] : table) {
    const uint32_t line = node.source().begin.line;
    std::string text;
    if (const auto* string = node.as_string()) {
      text = string->get();
    } else if (const auto* number = node.as_integer()) {
      text = fmt::format("{}", number->get());
    } else if (const auto* boolean = node.as_boolean()) {
      text = boolean->get() ? "true" : "false";
    } else {
      return fail(ErrorCode::kInvalidArgument, "line {}: '{}' is neither text nor an integer nor true or false", line,
                  std::string_view(key));
    }
    file.emplace(std::string(std::string_view(key)), ConfigValue{.text = std::move(text), .line = line});
  }
  return file;
}

void add_config(CLI::App& verb) {
  verb.add_option("--" + std::string(kConfig),
                  "TOML file with flags' values, dashes as underscores: client_listen = \"...\"")
      ->type_name("FILE");
  verb.footer(
      "Each flag may also be set in the environment: CONCLAVE_CLIENT_LISTEN for --client-listen. A flag wins over "
      "the environment,\nthat over the file of --config, that over the default.");
}

std::optional<std::string> own_environment(const std::string& name) {
  const char* const value = std::getenv(name.c_str());  // NOLINT(concurrency-mt-unsafe): before any thread is made
  return value == nullptr ? std::nullopt : std::optional<std::string>(value);
}

std::vector<Given> given(const CLI::App& verb) {
  std::vector<Given> all;
  for (const CLI::Option* option : verb.get_options()) {
    if (option->count() > 0) all.push_back({.flag = "--" + option->get_lnames().front(), .values = option->results()});
  }
  return all;
}

void give(CLI::App& verb, const std::vector<Given>& all) {
  for (const Given& given : all) {
    CLI::Option* const option = verb.get_option(given.flag);
    for (const std::string& value : given.values) option->add_result(value);
    option->run_callback();
  }
}

std::vector<Setting> settle(CLI::App& verb, const Environment& environment) {
  const std::vector<CLI::Option*> options = configurable(verb);
  std::string path;
  if (const CLI::Option* given = verb.get_option("--" + std::string(kConfig)); given->count() > 0) {
    path = given->results().front();
  } else {
    path = environment("CONCLAVE_CONFIG").value_or("");
  }
  ConfigFile file;
  if (!path.empty()) {
    const auto text = read_file(path);
    if (!text) throw CLI::ValidationError(path, text.error().message);
    auto parsed = parse_config(*text);
    if (!parsed) throw CLI::ValidationError(path, parsed.error().message);
    file = std::move(*parsed);
    refuse_unknown(file, options, path);
  }
  std::vector<Setting> settings;
  for (CLI::Option* option : options) {
    Setting setting{.name = name_in_file(*option)};
    const std::string variable = name_in_environment(setting.name);
    if (option->count() > 0) {
      setting.source = Source::kFlag;
      setting.where = "--" + option->get_lnames().front();
    } else if (const auto text = environment(variable)) {
      setting.source = Source::kEnvironment;
      setting.where = variable;
      set(*option, *text, variable);
    } else if (const auto found = file.find(setting.name); found != file.end()) {
      setting.source = Source::kFile;
      setting.where = fmt::format("{}:{}", path, found->second.line);
      set(*option, found->second.text, setting.where);
    } else {
      setting.where = "default";
    }
    setting.value = shown(*option);
    settings.push_back(std::move(setting));
  }
  return settings;
}

}  // namespace conclave::cli
