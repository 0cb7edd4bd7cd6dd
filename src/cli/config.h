// Configuration of a verb: each of its flags may also stand in the environment (--client-listen:
// CONCLAVE_CLIENT_LISTEN) or in a TOML file (client_listen), which --config or CONCLAVE_CONFIG names. A flag wins over
// the environment, that over the file, that over the default. Says of each value where it is from.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace CLI {
class App;
}

namespace conclave::cli {

// A key of the file and its value as text. kInvalidArgument with the place: no TOML, tables, or values that are not
// text, an integer or a boolean.
struct ConfigValue {
  std::string text;
  uint32_t line = 0;
};
using ConfigFile = std::map<std::string, ConfigValue, std::less<>>;
[[nodiscard]] Result<ConfigFile> parse_config(std::string_view toml);

enum class Source : uint8_t { kDefault, kFile, kEnvironment, kFlag };
struct Setting {
  std::string name;   // as in a file
  std::string value;  // of one that is not set, the default; of a flag, true or false
  Source source = Source::kDefault;
  std::string where;  // for people: "--data", "CONCLAVE_DATA", "FILE:3", "default"
};

// Adds --config. The verb's flags are made without environment names.
void add_config(CLI::App& verb);
// For the verb's callback, when the command line is parsed: fills in what it left open. Throws CLI::ParseError for a
// file that cannot be read, a key that is no flag (with the one that is meant, if one is close) and what a flag would
// refuse.
using Environment = std::function<std::optional<std::string>(const std::string& name)>;
std::vector<Setting> settle(CLI::App& verb, const Environment& environment);
// What the command line said: taken before settle(), and said again to a verb made anew, whose settle() then reads the
// environment and the file of that time.
struct Given {
  std::string flag;
  std::vector<std::string> values;
};
[[nodiscard]] std::vector<Given> given(const CLI::App& verb);
void give(CLI::App& verb, const std::vector<Given>& all);
[[nodiscard]] std::optional<std::string> own_environment(const std::string& name);

}  // namespace conclave::cli
