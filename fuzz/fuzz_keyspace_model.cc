// The implementation against the model, on scripts drawn from the fuzzer's bytes.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "keyspace/scripts.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace conclave::keyspace;
  size_t at = 0;
  // Two bytes a draw; past the end everything is zero, and the script ends with the bytes.
  ScriptWriter writer([&](uint64_t bound) -> uint64_t {
    uint64_t value = 0;
    for (int i = 0; i < 2; ++i) value = value << 8 | (at < size ? data[at] : 0), ++at;
    return value % bound;
  });
  Comparison comparison;
  std::vector<Step> script;
  while (at < size && script.size() < 300) {
    script.push_back(writer.next(comparison.model()));
    if (std::optional<std::string> difference = comparison.run(script.back())) {
      for (const Step& step : shrink(script)) fmt::print(stderr, "{}\n", describe(step));
      fmt::print(stderr, "=> {}\n", *difference);
      std::abort();
    }
  }
  return 0;
}
