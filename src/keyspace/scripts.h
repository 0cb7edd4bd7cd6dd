// Random scripts over the whole keyspace, and running them against the model and the implementation at once: the engine
// of model_test, the differential fuzzer and the digest tool. Not part of the product.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/random.h"
#include "keyspace/command.h"
#include "keyspace/keyspace.h"
#include "keyspace/model.h"
#include "keyspace/watch_stream.h"

namespace conclave::keyspace {

// Draws numbers below a bound: from a seeded generator, or from a fuzzer's bytes.
using Draw = std::function<uint64_t(uint64_t bound)>;

struct Step {
  enum class Kind { kCommand, kRange, kLook, kWatch, kBackground, kReload };
  Kind kind = Kind::kCommand;
  CommandHeader header;  // of kCommand
  std::string request;   // bytes of etcd's message; of kRange too
  uint64_t entry_term = 1;
  uint32_t units = 0;  // slices of this size; 0: the default
  // Of our own commands, in the model's terms.
  std::vector<model::Guard> guards;
  std::vector<model::Operation> operations;
  std::vector<int64_t> leases;  // of kLeaseExpire
  std::string secret;
  // Of kWatch.
  std::string key;
  std::string range_end;
  int64_t from = 0;  // 0: now
  bool with_previous = false;
  bool no_put = false;
  bool no_delete = false;
};
[[nodiscard]] std::string describe(const Step& step);

class ScriptWriter {
 public:
  explicit ScriptWriter(Draw draw) : draw_(std::move(draw)) {}
  // A step that makes sense, mostly, after what `model` has seen.
  [[nodiscard]] Step next(const model::Model& model);

 private:
  bool chance(uint64_t numerator, uint64_t denominator) { return draw_(denominator) < numerator; }
  std::string key();
  void range_of(std::string& key, std::string& range_end);
  std::string value();
  int64_t lease();
  int64_t existing_lease(const model::Model& model);
  int64_t revision(const model::Model& model);
  std::string existing_key(const model::Model& model);
  void fill(etcdserverpb::RangeRequest* request, const model::Model& model);
  void fill(etcdserverpb::PutRequest* request, const model::Model& model);
  void fill(etcdserverpb::DeleteRangeRequest* request);
  void fill(etcdserverpb::Compare* compare, const model::Model& model);
  void fill(etcdserverpb::TxnRequest* request, const model::Model& model, int depth);
  void fill_internal(Step& step, const model::Model& model);

  Draw draw_;
};

// The two side by side.
class Comparison {
 public:
  Comparison() : implementation_(std::make_unique<Keyspace>()) {}
  // The first difference, in words; nothing if they agree.
  [[nodiscard]] std::optional<std::string> run(const Step& step);
  [[nodiscard]] const model::Model& model() const { return model_; }
  [[nodiscard]] Keyspace& implementation() { return *implementation_; }
  // What was answered without error, by option; and how many answers were errors.
  std::map<std::string, int64_t> succeeded;
  int64_t answers = 0;
  int64_t errors = 0;

 private:
  std::optional<std::string> run_command(const Step& step);
  std::optional<std::string> run_range(const Step& step);
  std::optional<std::string> look(const model::Model& model);
  std::optional<std::string> watch(const Step& step);
  // A watch that stands while commands go on.
  struct OpenWatch {
    Step step;
    int64_t told_through = 0;  // all events up to this revision were compared
    int64_t events = 0;
    std::unique_ptr<WatchStream> stream;
  };
  std::optional<std::string> open_watch(const Step& step);
  // What open watches were sent since the last time. Streams are asked only when the hub names them.
  std::optional<std::string> look_at_open_watches();
  void close_watch(size_t at);
  std::optional<std::string> reload();
  model::Answer apply_to_model(const Step& step, int* failed_guard);
  void count(const Step& step);
  void count_range_kind(const std::string& what, const std::string& key, const std::string& range_end);
  void count_watch(const Step& step, const std::string& start);

  std::unique_ptr<Keyspace> retired_;  // outlives a snapshot reader over it
  std::unique_ptr<Keyspace> implementation_;
  model::Model model_;
  uint64_t index_ = 0;
  std::vector<OpenWatch> open_watches_;  // they end before the keyspace they are of
};

// The command of a step, as it would lie in the log; nothing if the request would not be proposed, with the reason.
[[nodiscard]] std::optional<SharedBytes> command_of(const Step& step, ErrorId& refused);

// Removes steps while the script still fails; the smallest found.
[[nodiscard]] std::vector<Step> shrink(std::vector<Step> steps);

}  // namespace conclave::keyspace
