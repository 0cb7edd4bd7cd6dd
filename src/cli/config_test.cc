#include "cli/config.h"

#include <filesystem>
#include <fstream>

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <CLI/CLI.hpp>

namespace conclave::cli {
namespace {

class ConfigTest : public ::testing::Test {
 protected:
  ConfigTest() : path_(::testing::TempDir() + "/conclave-config-" + std::to_string(getpid()) + ".toml") {
    verb_.add_option("--client-listen", listen_, "")->capture_default_str();
    verb_.add_option("--snapshot-log-mib", mib_, "")->check(CLI::Range(1, 1000))->capture_default_str();
    verb_.add_flag("--insecure-plaintext", plain_, "");
    add_config(verb_);
    verb_.callback([this] {
      settings_ = settle(verb_, [this](const std::string& name) -> std::optional<std::string> {
        const auto found = environment_.find(name);
        return found == environment_.end() ? std::nullopt : std::optional(found->second);
      });
    });
  }
  ~ConfigTest() override { std::filesystem::remove(path_); }
  // What it says against the command line, if anything.
  std::string parse(const std::string& file, const std::string& arguments = "") {
    std::ofstream(path_, std::ios::trunc) << file;
    try {
      verb_.parse(arguments.empty() ? "--config " + path_ : arguments + " --config " + path_);
    } catch (const CLI::ParseError& error) {
      return error.what();
    }
    return {};
  }
  [[nodiscard]] std::string where(const std::string& name) const {
    for (const Setting& setting : settings_) {
      if (setting.name == name) return setting.value + " from " + setting.where;
    }
    return "not there";
  }

  const std::string path_;
  CLI::App verb_;
  std::string listen_ = "127.0.0.1:2379";
  uint64_t mib_ = 64;
  bool plain_ = false;
  std::map<std::string, std::string> environment_;
  std::vector<Setting> settings_;
};

TEST_F(ConfigTest, FlagsWinOverTheEnvironmentThatOverTheFileThatOverTheDefault) {
  environment_["CONCLAVE_CLIENT_LISTEN"] = "e:1";
  EXPECT_EQ(parse("client_listen = 'f:1'\nsnapshot_log_mib = 7\n"), "");
  EXPECT_EQ(listen_, "e:1");
  EXPECT_EQ(mib_, 7U);
  EXPECT_EQ(where("client_listen"), "e:1 from CONCLAVE_CLIENT_LISTEN");
  EXPECT_EQ(where("snapshot_log_mib"), "7 from " + path_ + ":2");
  EXPECT_EQ(where("insecure_plaintext"), "false from default");
  EXPECT_EQ(parse("client_listen = 'f:1'\ninsecure_plaintext = true\n", "--client-listen c:1 --snapshot-log-mib 9"),
            "");
  EXPECT_EQ(listen_, "c:1");
  EXPECT_EQ(mib_, 9U);
  EXPECT_TRUE(plain_);
  EXPECT_EQ(where("client_listen"), "c:1 from --client-listen");
  EXPECT_EQ(where("insecure_plaintext"), "true from " + path_ + ":2");
}

TEST_F(ConfigTest, AFlagMayBeSwitchedOffInTheEnvironment) {
  environment_["CONCLAVE_INSECURE_PLAINTEXT"] = "false";
  EXPECT_EQ(parse("insecure_plaintext = true"), "");
  EXPECT_FALSE(plain_);
  EXPECT_EQ(where("snapshot_log_mib"), "64 from default");
}

TEST_F(ConfigTest, WhatCannotBeIsSaidWithItsPlace) {
  EXPECT_EQ(parse("\nclient_lisen = 'a:1'"), path_ + ":2: there is no 'client_lisen'; is 'client_listen' meant?");
  EXPECT_EQ(parse("something_else = 1"), path_ + ":1: there is no 'something_else'");
  EXPECT_NE(parse("snapshot_log_mib = 5000").find(path_ + ":1: "), std::string::npos);
  EXPECT_EQ(mib_, 64U);
  EXPECT_NE(parse("snapshot_log_mib = ").find("line 1: "), std::string::npos);
  EXPECT_EQ(parse("[client]\nlisten = 1"),
            path_ + ": line 1: 'client' is neither text nor an integer nor true or false");
  environment_["CONCLAVE_CONFIG"] = "/nowhere/to/be/found";
  try {
    verb_.parse("");
    ADD_FAILURE() << "it was read";
  } catch (const CLI::ParseError& error) {
    EXPECT_STREQ(error.what(), "/nowhere/to/be/found: /nowhere/to/be/found cannot be read");
  }
}

// As a server does at SIGHUP: what the command line said stands, the file is of now.
TEST_F(ConfigTest, TheCommandLineIsSaidAgainToAVerbMadeAnew) {
  std::vector<Given> said;
  verb_.callback([&] {
    said = given(verb_);
    (void)settle(verb_, [](const std::string&) { return std::nullopt; });
  });
  ASSERT_EQ(parse("client_listen = 'f:1'\nsnapshot_log_mib = 7\n", "--client-listen c:1 --insecure-plaintext"), "");
  const auto again = [&] {
    CLI::App verb;
    std::string listen = "d:1";
    uint64_t mib = 64;
    bool plain = false;
    verb.add_option("--client-listen", listen, "");
    verb.add_option("--snapshot-log-mib", mib, "")->check(CLI::Range(1, 1000));
    verb.add_flag("--insecure-plaintext", plain, "");
    add_config(verb);
    give(verb, said);
    (void)settle(verb, [](const std::string&) { return std::nullopt; });
    return fmt::format("{} {} {}", listen, mib, plain);
  };
  EXPECT_EQ(again(), "c:1 7 true");
  std::ofstream(path_, std::ios::trunc) << "client_listen = 'f:2'\nsnapshot_log_mib = 8\n";
  EXPECT_EQ(again(), "c:1 8 true");
  std::ofstream(path_, std::ios::trunc) << "snapshot_log_mib = 5000\n";
  EXPECT_THROW((void)again(), CLI::ParseError);
}

TEST(ConfigFileTest, HasTextNumbersAndTruth) {
  const auto file = parse_config("a = \"x\"\nb = -3\n# nothing\nc = true\n");
  ASSERT_TRUE(file);
  EXPECT_EQ(file->at("a").text, "x");
  EXPECT_EQ(file->at("b").text, "-3");
  EXPECT_EQ(file->at("c").text, "true");
  EXPECT_EQ(file->at("c").line, 4U);
  EXPECT_FALSE(parse_config("a = 1.5"));
  EXPECT_FALSE(parse_config("a = 1\na = 2"));
}

}  // namespace
}  // namespace conclave::cli
