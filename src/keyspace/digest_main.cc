// Prints the state digests of random scripts, mixed into one number: builds by different compilers and at different
// optimisation levels must print the same. Usage: keyspace_digest [STEPS] [SEED]
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>

#include <fmt/format.h>

#include "base/random.h"
#include "keyspace/digest.h"
#include "keyspace/scripts.h"

int main(int argc, char** argv) {
  using namespace conclave;
  using namespace conclave::keyspace;
  int64_t steps = argc > 1 ? std::atoll(argv[1]) : 100'000;
  uint64_t seed = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1;
  constexpr int64_t kRound = 2'500;
  Random seeds(seed);
  uint64_t digest = 0;
  for (int64_t done = 0; done < steps; done += kRound) {
    Random random = seeds.fork();
    ScriptWriter writer([&random](uint64_t bound) { return random.below(bound); });
    auto comparison = std::make_unique<Comparison>();
    for (int64_t i = 0; i < kRound; ++i) {
      Step step = writer.next(comparison->model());
      if (std::optional<std::string> difference = comparison->run(step)) {
        fmt::print(stderr, "step {}: {}\n{}\n", done + i, describe(step), *difference);
        return 1;
      }
    }
    digest = mix(digest, comparison->implementation().digest());
  }
  fmt::print("{:016x}\n", digest);
  return 0;
}
