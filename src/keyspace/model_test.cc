// The implementation against the model: 2,000,000 random steps over everything the keyspace can be asked, in shards
// that run side by side. CONCLAVE_KEYSPACE_STEPS overrides the steps of each shard (make soak).
#include "keyspace/model.h"

#include <cstdlib>
#include <memory>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/random.h"
#include "keyspace/scripts.h"

namespace conclave::keyspace {
namespace {

constexpr int kShards = 8;
constexpr int64_t kStepsPerShard = 250'000;
constexpr int64_t kStepsPerRound = 2'500;  // a fresh keyspace each: histories stay short and a failure shrinks quickly
constexpr int64_t kSuccessesPerShard = 130;  // a thousand and more over all shards

int64_t steps_per_shard() {
  const char* steps = std::getenv("CONCLAVE_KEYSPACE_STEPS");  // NOLINT(concurrency-mt-unsafe): nobody sets it
  return steps != nullptr ? std::atoll(steps) : kStepsPerShard;
}

class ModelTest : public testing::TestWithParam<int> {};

TEST_P(ModelTest, AgreesOnRandomScripts) {
  Random seeds(0x6b657973ULL + static_cast<uint64_t>(GetParam()));
  std::map<std::string, int64_t> succeeded;
  int64_t answers = 0;
  int64_t errors = 0;
  int64_t steps = steps_per_shard();
  for (int64_t done = 0; done < steps; done += kStepsPerRound) {
    Random random = seeds.fork();
    ScriptWriter writer([&random](uint64_t bound) { return random.below(bound); });
    auto comparison = std::make_unique<Comparison>();
    std::vector<Step> script;
    for (int64_t i = 0; i < kStepsPerRound; ++i) {
      script.push_back(writer.next(comparison->model()));
      std::optional<std::string> difference = comparison->run(script.back());
      if (!difference) continue;
      std::vector<Step> smallest = shrink(script);
      std::string text;
      Comparison again;
      for (const Step& step : smallest) {
        text += describe(step) + "\n";
        if (std::optional<std::string> what = again.run(step)) text += "=> " + *what + "\n";
      }
      FAIL() << "shard " << GetParam() << " step " << done + i << "; smallest script that differs:\n" << text;
    }
    for (const auto& [name, count] : comparison->succeeded) succeeded[name] += count;
    answers += comparison->answers;
    errors += comparison->errors;
  }
  EXPECT_LE(errors * 2, answers);
  for (int target = 0; target < 5; ++target) {
    for (int result = 0; result < 4; ++result) succeeded.try_emplace(fmt::format("compare.{}.{}", target, result), 0);
    for (int order = 0; order < 3; ++order) succeeded.try_emplace(fmt::format("range.sort.{}.{}", target, order), 0);
  }
  for (int guard = 0; guard < 5; ++guard) succeeded.try_emplace(fmt::format("guard.{}", guard), 0);
  for (int operation = 0; operation < 6; ++operation) succeeded.try_emplace(fmt::format("operation.{}", operation), 0);
  for (const char* name : {"put",
                           "put.lease",
                           "put.prev_kv",
                           "put.ignore_value",
                           "put.ignore_lease",
                           "delete",
                           "delete.prev_kv",
                           "delete.range_end",
                           "delete.from_key",
                           "delete.everything",
                           "txn.success",
                           "txn.failure",
                           "txn.range",
                           "txn.put",
                           "txn.delete",
                           "txn.txn",
                           "compare.range",
                           "compact",
                           "grant",
                           "revoke",
                           "expire",
                           "session.open",
                           "session.command",
                           "term",
                           "internal",
                           "range.range_end",
                           "range.from_key",
                           "range.everything",
                           "range.limit",
                           "range.revision",
                           "range.serializable",
                           "range.keys_only",
                           "range.count_only",
                           "range.min_mod",
                           "range.max_mod",
                           "range.min_create",
                           "range.max_create",
                           "watch",
                           "watch.prev_kv",
                           "watch.no_put",
                           "watch.no_delete",
                           "watch.past",
                           "watch.now",
                           "watch.future",
                           "watch.range_end",
                           "watch.from_key",
                           "watch.everything",
                           "reload"}) {
    succeeded.try_emplace(name, 0);
  }
  int64_t wanted = steps >= kStepsPerShard ? kSuccessesPerShard : 0;
  for (const auto& [name, count] : succeeded) EXPECT_GE(count, wanted) << name;
  RecordProperty("answers", static_cast<int>(answers));
  RecordProperty("errors", static_cast<int>(errors));
}

INSTANTIATE_TEST_SUITE_P(Shards, ModelTest, testing::Range(0, kShards));

}  // namespace
}  // namespace conclave::keyspace
