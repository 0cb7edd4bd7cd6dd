// `conclave kv`: keys and values, with etcd's semantics.
#include <unistd.h>

#include <atomic>
#include <charconv>
#include <cstdio>
#include <iostream>
#include <iterator>
#include <memory>
#include <string>

#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include "cli/claim.h"
#include "cli/common.h"
#include "cli/json.h"
#include "cli/table.h"
#include "cli/verbs.h"
#include "cli/wakeups.h"
#include "cli/watch_feed.h"
#include "etcd/rpc.pb.h"

namespace conclave::cli {
namespace {

struct Arguments {
  Common common;
  std::string key;
  std::string value;
  std::string lease;
  std::string output;
  int64_t revision = 0;
  int64_t limit = 0;
  uint64_t count = 0;
  bool prefix = false;
  bool serializable = false;
  bool keys_only = false;
  [[nodiscard]] bool json() const { return output == "json"; }
};

void print(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
}

std::string json_of(const mvccpb::KeyValue& kv) {
  JsonList fields;
  fields.bytes_field("key", kv.key());
  fields.bytes_field("value", kv.value());
  fields.field("create_revision", json_number(kv.create_revision()));
  fields.field("mod_revision", json_number(kv.mod_revision()));
  fields.field("version", json_number(kv.version()));
  if (kv.lease() != 0) fields.field("lease", json_text(fmt::format("{:x}", static_cast<uint64_t>(kv.lease()))));
  return fields.object();
}

Result<Endpoints*> open(const Arguments& arguments, std::unique_ptr<Endpoints>& endpoints) {
  ASSIGN_OR_RETURN(auto parsed, load_endpoints(arguments.common));
  endpoints = std::make_unique<Endpoints>(std::move(parsed));
  return endpoints.get();
}

int put(const Arguments& arguments) {
  std::unique_ptr<Endpoints> endpoints;
  if (const auto opened = open(arguments, endpoints); !opened) return report(usage_failure(opened.error()));
  etcdserverpb::PutRequest request;
  request.set_key(arguments.key);
  request.set_value(arguments.value);
  if (arguments.value == "-") {
    request.set_value(std::string(std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>()));
  }
  if (!arguments.lease.empty()) {
    uint64_t lease = 0;
    const char* const end = arguments.lease.data() + arguments.lease.size();
    const auto [at, error] = std::from_chars(arguments.lease.data(), end, lease, 16);
    if (error != std::errc() || at != end) return report({kUsage, "--lease is not a number in hexadecimal", ""});
    request.set_lease(static_cast<int64_t>(lease));
  }
  const auto answer = endpoints->ask<etcdserverpb::PutResponse>("/etcdserverpb.KV/Put", request, Repeat::kChange,
                                                                arguments.common.timeout);
  if (!answer) return report(answer.error());
  const int64_t revision = answer->header().revision();
  if (arguments.json()) {
    print(fmt::format("{{\"revision\":{}}}\n", json_number(revision)));
  } else {
    print(arguments.output == "value" ? fmt::format("{}\n", revision) : fmt::format("revision {}\n", revision));
  }
  return kOk;
}

void print_range(const Arguments& arguments, const etcdserverpb::RangeResponse& answer) {
  if (arguments.json()) {
    JsonList kvs;
    for (const mvccpb::KeyValue& kv : answer.kvs()) kvs.add(json_of(kv));
    print(fmt::format("{{\"revision\":{},\"count\":{},\"more\":{},\"kvs\":{}}}\n",
                      json_number(answer.header().revision()), json_number(answer.count()), answer.more(),
                      kvs.array()));
  } else if (arguments.output == "value") {
    for (const mvccpb::KeyValue& kv : answer.kvs()) print((arguments.keys_only ? kv.key() : kv.value()) + '\n');
  } else {
    Table table({"KEY", ">VERSION", ">CREATED", ">MODIFIED", "LEASE", arguments.keys_only ? "" : "VALUE"});
    for (const mvccpb::KeyValue& kv : answer.kvs()) {
      table.add({kv.key(), fmt::format("{}", kv.version()), fmt::format("{}", kv.create_revision()),
                 fmt::format("{}", kv.mod_revision()),
                 kv.lease() == 0 ? "" : fmt::format("{:x}", static_cast<uint64_t>(kv.lease())), kv.value()});
    }
    print(table.text());
  }
}

int get(const Arguments& arguments) {
  std::unique_ptr<Endpoints> endpoints;
  if (const auto opened = open(arguments, endpoints); !opened) return report(usage_failure(opened.error()));
  etcdserverpb::RangeRequest request;
  request.set_key(arguments.key);
  if (arguments.prefix) {
    request.set_range_end(arguments.key.empty() ? std::string(1, '\0') : end_of_prefix(arguments.key));
    if (arguments.key.empty()) request.set_key(std::string(1, '\0'));
  }
  request.set_revision(arguments.revision);
  request.set_limit(arguments.limit);
  request.set_serializable(arguments.serializable);
  request.set_keys_only(arguments.keys_only);
  const auto answer = endpoints->ask<etcdserverpb::RangeResponse>("/etcdserverpb.KV/Range", request, Repeat::kHarmless,
                                                                  arguments.common.timeout);
  if (!answer) return report(answer.error());
  if (answer->kvs_size() == 0 && !arguments.json()) {
    narrate(arguments.prefix ? fmt::format("no key begins with '{}'", arguments.key)
                             : fmt::format("there is no key '{}'", arguments.key));
    return kFalse;
  }
  print_range(arguments, *answer);
  return answer->kvs_size() == 0 ? kFalse : kOk;
}

int del(const Arguments& arguments) {
  std::unique_ptr<Endpoints> endpoints;
  if (const auto opened = open(arguments, endpoints); !opened) return report(usage_failure(opened.error()));
  etcdserverpb::DeleteRangeRequest request;
  request.set_key(arguments.key);
  if (arguments.prefix) request.set_range_end(end_of_prefix(arguments.key));
  const auto answer = endpoints->ask<etcdserverpb::DeleteRangeResponse>("/etcdserverpb.KV/DeleteRange", request,
                                                                        Repeat::kChange, arguments.common.timeout);
  if (!answer) return report(answer.error());
  if (arguments.json()) {
    print(fmt::format("{{\"revision\":{},\"deleted\":{}}}\n", json_number(answer->header().revision()),
                      json_number(answer->deleted())));
  } else {
    print(fmt::format("{}{}\n", arguments.output == "value" ? "" : "deleted ", answer->deleted()));
  }
  return answer->deleted() == 0 ? kFalse : kOk;
}

void print_events(const Arguments& arguments, const etcdserverpb::WatchResponse& response, uint64_t& seen) {
  for (const mvccpb::Event& event : response.events()) {
    if (arguments.count != 0 && seen >= arguments.count) return;
    ++seen;
    const bool deleted = event.type() == mvccpb::Event::DELETE;
    if (arguments.json()) {
      print(fmt::format("{{\"event\":\"{}\",\"kv\":{}}}\n", deleted ? "delete" : "put", json_of(event.kv())));
    } else if (arguments.output == "value") {
      if (!deleted) print(event.kv().value() + '\n');
    } else {
      print(fmt::format("{} {}  {}{}{}\n", event.kv().mod_revision(), deleted ? "delete" : "put   ", event.kv().key(),
                        deleted ? "" : "  ", event.kv().value()));
    }
  }
  std::fflush(stdout);
}

int watch(const Arguments& arguments) {
  const Wakeups wakeups;
  std::unique_ptr<Endpoints> endpoints;
  if (const auto opened = open(arguments, endpoints); !opened) return report(usage_failure(opened.error()));
  etcdserverpb::WatchCreateRequest request;
  request.set_key(arguments.key);
  if (arguments.prefix) request.set_range_end(end_of_prefix(arguments.key));
  request.set_start_revision(arguments.revision);
  std::atomic<bool> ended = false;
  int code = kOk;  // written before `ended` is set
  uint64_t seen = 0;
  std::unique_ptr<WatchFeed> feed;
  const WatchFeedEvents events{.on_events =
                                   [&](const etcdserverpb::WatchResponse& response) {
                                     print_events(arguments, response, seen);
                                     const bool over = std::ferror(stdout) != 0;  // nobody reads any more
                                     if (over || (arguments.count != 0 && seen >= arguments.count)) ended = true;
                                     wakeups.notify();
                                   },
                               .on_failed =
                                   [&](const Failure& failure) {
                                     code = report(failure);
                                     ended = true;
                                     wakeups.notify();
                                   }};
  endpoints->on_loop([&] { feed = std::make_unique<WatchFeed>(*endpoints, std::move(request), events); });
  while (!ended && !is_ending_signal(wakeups.wait(kNever).signal)) {
  }
  endpoints->on_loop([&] { feed.reset(); });
  return code;
}

}  // namespace

void add_kv(CLI::App& app, int& exit_code) {
  CLI::App* kv = app.add_subcommand("kv", "keys and values");
  kv->require_subcommand(1);
  const auto arguments = std::make_shared<Arguments>();
  const auto verb = [&](const char* name, const char* text, const std::vector<std::string>& outputs) {
    CLI::App* added = kv->add_subcommand(name, text);
    add_common(*added, arguments->common);
    added->add_option("-o,--output", arguments->output, "the form of the output")->check(CLI::IsMember(outputs));
    return added;
  };
  CLI::App* putting = verb("put", "writes a value; exit code 79: it may have been written", {"table", "json", "value"});
  putting->add_option("KEY", arguments->key)->required();
  putting->add_option("VALUE", arguments->value, "-: read from standard input")->required();
  putting->add_option("--lease", arguments->lease, "the key ends with this lease (hexadecimal)");
  putting->callback([arguments, &exit_code] { exit_code = put(*arguments); });

  CLI::App* getting = verb("get", "prints values; exit code 1: there is none", {"table", "json", "value"});
  getting->add_option("KEY", arguments->key)->required();
  getting->add_flag("--prefix", arguments->prefix, "all keys that begin with KEY");
  getting->add_option("--revision", arguments->revision, "as of this revision")->check(CLI::NonNegativeNumber);
  getting->add_option("--limit", arguments->limit, "at most so many keys")->check(CLI::NonNegativeNumber);
  getting->add_flag("--serializable", arguments->serializable, "what the server has, be it behind the others");
  getting->callback([arguments, &exit_code] {
    if (arguments->output.empty()) arguments->output = "value";
    exit_code = get(*arguments);
  });

  CLI::App* listing = verb("ls", "lists keys; exit code 1: there are none", {"table", "json", "value"});
  listing->add_option("PREFIX", arguments->key, "only keys that begin with it");
  listing->add_option("--revision", arguments->revision, "as of this revision")->check(CLI::NonNegativeNumber);
  listing->add_option("--limit", arguments->limit, "at most so many keys")->check(CLI::NonNegativeNumber);
  listing->callback([arguments, &exit_code] {
    arguments->prefix = arguments->keys_only = true;
    exit_code = get(*arguments);
  });

  CLI::App* deleting = verb("del", "deletes; exit code 1: there was nothing", {"table", "json", "value"});
  deleting->add_option("KEY", arguments->key)->required();
  deleting->add_flag("--prefix", arguments->prefix, "all keys that begin with KEY");
  deleting->callback([arguments, &exit_code] { exit_code = del(*arguments); });

  CLI::App* watching =
      verb("watch", "prints changes as they come; json: one line for each", {"table", "json", "value"});
  watching->add_option("KEY", arguments->key)->required();
  watching->add_flag("--prefix", arguments->prefix, "all keys that begin with KEY");
  watching->add_option("--revision", arguments->revision, "from this revision on, itself included")
      ->check(CLI::NonNegativeNumber);
  watching->add_option("--count", arguments->count, "end after so many events");
  watching->callback([arguments, &exit_code] { exit_code = watch(*arguments); });
}

}  // namespace conclave::cli
