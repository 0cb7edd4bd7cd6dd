// The same random requests to two servers of etcd's API, one after the other, over gRPC or as JSON over HTTP/1.1;
// answers are compared field by field, and what watches say, before the next is asked. Left out of the comparison is
// only what differences.cc lists. Ends with 1 at the first difference that is not listed, and prints the request and
// both answers; the same seed asks the same again.
#include <algorithm>
#include <array>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>
#include <google/protobuf/util/json_util.h>
#include <CLI/CLI.hpp>

#include "env/posix/clock.h"
#include "net/client.h"
#include "net/loop.h"
#include "tests/differential/differences.h"
#include "tests/differential/generator.h"
#include "tests/differential/http.h"
#include "tests/differential/json.h"
#include "tests/differential/streams.h"

namespace conclave::differential {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

constexpr std::string_view kJsonPaths[][2] = {
    {"/etcdserverpb.KV/Range", "/v3/kv/range"},
    {"/etcdserverpb.KV/Put", "/v3/kv/put"},
    {"/etcdserverpb.KV/DeleteRange", "/v3/kv/deleterange"},
    {"/etcdserverpb.KV/Txn", "/v3/kv/txn"},
    {"/etcdserverpb.KV/Compact", "/v3/kv/compaction"},
    {"/etcdserverpb.Watch/Watch", "/v3/watch"},
    {"/etcdserverpb.Lease/LeaseGrant", "/v3/lease/grant"},
    {"/etcdserverpb.Lease/LeaseRevoke", "/v3/lease/revoke"},
    {"/etcdserverpb.Lease/LeaseKeepAlive", "/v3/lease/keepalive"},
    {"/etcdserverpb.Lease/LeaseTimeToLive", "/v3/lease/timetolive"},
    {"/etcdserverpb.Lease/LeaseLeases", "/v3/lease/leases"},
    {"/etcdserverpb.Cluster/MemberAdd", "/v3/cluster/member/add"},
    {"/etcdserverpb.Cluster/MemberRemove", "/v3/cluster/member/remove"},
    {"/etcdserverpb.Cluster/MemberUpdate", "/v3/cluster/member/update"},
    {"/etcdserverpb.Cluster/MemberPromote", "/v3/cluster/member/promote"},
    {"/etcdserverpb.Maintenance/MoveLeader", "/v3/maintenance/transfer-leadership"},
    {"/etcdserverpb.Auth/AuthEnable", "/v3/auth/enable"},
    {"/etcdserverpb.Auth/Authenticate", "/v3/auth/authenticate"},
    {"/etcdserverpb.Auth/UserAdd", "/v3/auth/user/add"},
    {"/etcdserverpb.Auth/UserGet", "/v3/auth/user/get"},
    {"/etcdserverpb.Auth/UserList", "/v3/auth/user/list"},
    {"/etcdserverpb.Auth/UserDelete", "/v3/auth/user/delete"},
    {"/etcdserverpb.Auth/UserGrantRole", "/v3/auth/user/grant"},
    {"/etcdserverpb.Auth/RoleAdd", "/v3/auth/role/add"},
    {"/etcdserverpb.Auth/RoleGet", "/v3/auth/role/get"},
    {"/etcdserverpb.Auth/RoleList", "/v3/auth/role/list"},
    {"/v3lockpb.Lock/Unlock", "/v3/lock/unlock"},
    {"/v3electionpb.Election/Leader", "/v3/election/leader"},
    {"/v3electionpb.Election/Proclaim", "/v3/election/proclaim"},
    {"/v3electionpb.Election/Resign", "/v3/election/resign"},
};

// The watch of everything, behind those that the generator asks for.
constexpr size_t kEverything = kWatchStreams;
constexpr Duration kPatience = std::chrono::seconds(30);
constexpr Duration kWatchPatience = std::chrono::seconds(30);
constexpr Duration kShortLease = std::chrono::seconds(1);
// Go's sort takes so few by insertion, which keeps the order of equals.
constexpr int64_t kSortedStablyMax = 12;
// Of a body with several requests.
constexpr size_t kReadBytes = 500;
// Of a text that is printed.
constexpr size_t kLineBytesMax = 400;
constexpr ptrdiff_t kLinesBefore = 20;
constexpr ptrdiff_t kLinesAfter = 20;

std::string json_path_of(const std::string& path) {
  const auto* const found = std::ranges::find(kJsonPaths, path, [](const auto& pair) { return pair[0]; });
  return found == std::end(kJsonPaths) ? std::string() : std::string((*found)[1]);
}

std::string decode_base64(std::string_view text) {
  constexpr std::string_view kAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  uint32_t bits = 0;
  int count = 0;
  for (const char c : text) {
    const size_t digit = kAlphabet.find(c);
    if (digit == std::string_view::npos) break;
    bits = (bits << 6) | static_cast<uint32_t>(digit);
    count += 6;
    if (count < 8) continue;
    count -= 8;
    out += static_cast<char>((bits >> count) & 0xff);
  }
  return out;
}

std::string to_json(const Message& message, const Ask& ask) {
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = !ask.in_camel_case;
  options.always_print_enums_as_ints = ask.enums_as_numbers;
  options.always_print_primitive_fields = ask.with_defaults;
  std::string json;
  if (!google::protobuf::util::MessageToJsonString(message, &json, options).ok()) return "unprintable";
  return json;
}

// What gRPC said, as JSON would say it.
std::optional<Json> to_tree(ByteView bytes, const Message& type) {
  const std::unique_ptr<Message> message(type.New());
  if (!message->ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return std::nullopt;
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  std::string json;
  if (!google::protobuf::util::MessageToJsonString(*message, &json, options).ok()) return std::nullopt;
  return parse_json(json);
}

std::string shortened(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    out += text.substr(0, std::min(end, kLineBytesMax));
    if (end > kLineBytesMax) out += fmt::format("... ({} bytes)", end);
    out += '\n';
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return out;
}

// Both texts around where they part, and which line that is.
std::string side_by_side(const std::string& ours, const std::string& theirs) {
  const auto parted = std::ranges::mismatch(ours, theirs).in1 - ours.begin();
  const auto line = std::count(ours.begin(), ours.begin() + parted, '\n');
  const auto around = [line](std::string_view text) {
    std::string out;
    for (ptrdiff_t i = 0; !text.empty() && i <= line + kLinesAfter; ++i) {
      const size_t end = std::min(text.find('\n'), text.size());
      if (i + kLinesBefore >= line) out += shortened(text.substr(0, end));
      text.remove_prefix(std::min(end + 1, text.size()));
    }
    return out;
  };
  return fmt::format("from line {}, parting in line {}\nconclave:\n{}etcd:\n{}",
                     std::max<ptrdiff_t>(line - kLinesBefore, 0) + 1, line + 1, around(ours), around(theirs));
}

// A server.
struct System {
  std::string name;
  std::unique_ptr<net::Channel> channel;
  std::unique_ptr<HttpClient> http;
  std::unique_ptr<net::ClientCall> call;               // of Ask::Shape::kStream
  std::unordered_map<int64_t, int64_t> leases;         // that it chose, by the generator's name
  std::unordered_map<std::string, std::string> names;  // the other way
  std::array<SaidStream, kWatchStreams + 1> streams;
  // The answer to the request under way.
  bool answered = false;
  std::string error;
  std::vector<Json> messages;
  // Of a range whose request leaves its order open: what it said, and then the whole.
  std::vector<Json> said;
  std::vector<Json> whole;
};

// Ids of leases that the generator knows by names of its own.
void name_leases(Message& message, const std::unordered_map<int64_t, int64_t>& leases) {
  if (leases.empty()) return;
  const auto& reflection = *message.GetReflection();
  std::vector<const FieldDescriptor*> fields;
  reflection.ListFields(message, &fields);
  for (const FieldDescriptor* field : fields) {
    if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      if (!field->is_repeated()) {
        name_leases(*reflection.MutableMessage(&message, field), leases);
      } else {
        for (int i = 0; i < reflection.FieldSize(message, field); ++i) {
          name_leases(*reflection.MutableRepeatedMessage(&message, field, i), leases);
        }
      }
    } else if (field->cpp_type() == FieldDescriptor::CPPTYPE_INT64 && !field->is_repeated() &&
               (field->name() == "lease" || field->name() == "ID")) {
      const auto found = leases.find(reflection.GetInt64(message, field));
      if (found != leases.end()) reflection.SetInt64(&message, field, found->second);
    }
  }
}

void name_leases(Json& json, const std::unordered_map<std::string, std::string>& names) {
  for (Json& each : json.list) name_leases(each, names);
  for (auto& [name, member] : json.members) {
    if (name == "lease" || name == "ID") {
      const auto found = names.find(member.text);
      if (found != names.end()) member.text = found->second;
    }
    name_leases(member, names);
  }
}

void hide_cluster(Json& response) {
  Json* const header = response.find("header");
  if (header == nullptr) return;
  for (const std::string name : {"cluster_id", "member_id", "raft_term"}) {
    if (Json* const id = header->find(name)) id->text = "some";
  }
  hit(Differs::kHeader);
}

std::string sort_target_of(const etcdserverpb::RangeRequest& request) {
  constexpr std::string_view kNames[] = {"key", "version", "create_revision", "mod_revision", "value"};
  return std::string(kNames[request.sort_target()]);
}

// What is sorted are then the first keys, and the one behind them that says whether there are more.
bool is_limited_first(const etcdserverpb::RangeRequest& request) {
  const bool filters = request.min_mod_revision() != 0 || request.max_mod_revision() != 0 ||
                       request.min_create_revision() != 0 || request.max_create_revision() != 0;
  return request.limit() > 0 && request.sort_order() == etcdserverpb::RangeRequest::NONE && !filters;
}

bool leaves_order_open(const etcdserverpb::RangeRequest& request, const Json& response) {
  if (request.sort_target() == etcdserverpb::RangeRequest::KEY || response.find("kvs") == nullptr) return false;
  const int64_t count = response.number("count");
  return (is_limited_first(request) ? std::min(count, request.limit() + 1) : count) > kSortedStablyMax;
}

// True if anything was.
bool settle_ties(const etcdserverpb::RangeRequest& request, Json& response) {
  if (!leaves_order_open(request, response)) return false;
  std::vector<Json>& kvs = response.find("kvs")->list;
  const std::string target = sort_target_of(request);
  const auto key = [](const Json& kv) { return kv.text_of("key"); };
  bool any = false;
  bool any_left = false;
  for (size_t begin = 0; begin < kvs.size();) {
    size_t end = begin + 1;
    while (end < kvs.size() && kvs[end].text_of(target) == kvs[begin].text_of(target)) ++end;
    std::ranges::sort(kvs.begin() + static_cast<ptrdiff_t>(begin), kvs.begin() + static_cast<ptrdiff_t>(end), {}, key);
    any |= end - begin > 1;
    if (end == kvs.size() && response.is_true("more")) {
      any_left = true;
      for (; begin < end; ++begin) {
        std::erase_if(kvs[begin].members, [&target](const auto& member) { return member.first != target; });
      }
    }
    begin = end;
  }
  if (any) hit(Differs::kTies);
  if (any_left) hit(Differs::kTiesLeft);
  return any || any_left;
}

void settle_ties(const etcdserverpb::TxnRequest& request, Json& response) {
  const auto& operations = response.is_true("succeeded") ? request.success() : request.failure();
  Json* const responses = response.find("responses");
  if (responses == nullptr) return;
  for (int i = 0; i < operations.size() && static_cast<size_t>(i) < responses->list.size(); ++i) {
    Json& each = responses->list[static_cast<size_t>(i)];
    Json* const range = each.find("response_range");
    Json* const txn = each.find("response_txn");
    if (range != nullptr && operations[i].has_request_range()) (void)settle_ties(operations[i].request_range(), *range);
    if (txn != nullptr && operations[i].has_request_txn()) settle_ties(operations[i].request_txn(), *txn);
  }
}

void settle_leases(const Message& request, Json& response) {
  if (request.GetDescriptor() == etcdserverpb::LeaseTimeToLiveRequest::descriptor()) {
    if (response.number("TTL") > 0) {
      response.find("TTL")->text = "some";
      hit(Differs::kLeaseTime);
    }
    if (Json* const keys = response.find("keys")) {
      if (!std::ranges::is_sorted(keys->list, {}, &Json::text)) hit(Differs::kLeaseKeys);
      std::ranges::sort(keys->list, {}, &Json::text);
    }
  }
  if (request.GetDescriptor() == etcdserverpb::LeaseLeasesRequest::descriptor()) {
    if (Json* const leases = response.find("leases")) {
      const auto id = [](const Json& lease) { return lease.text_of("ID"); };
      if (!std::ranges::is_sorted(leases->list, {}, id)) hit(Differs::kLeases);
      std::ranges::sort(leases->list, {}, id);
    }
  }
}

class Comparison {
 public:
  struct Options {
    std::vector<uint16_t> ports;  // of conclave and of etcd
    uint64_t seed = 1;
    uint64_t requests = 0;
    bool over_json = false;
  };
  Comparison(net::Loop& loop, const Options& options)
      : loop_(loop), options_(options), generator_(options.seed), left_(options.requests) {
    for (size_t i = 0; i < 2; ++i) {
      systems_[i].name = i == 0 ? "conclave" : "etcd";
      systems_[i].channel = net::Channel::make(loop, "127.0.0.1", options.ports[i]);
      systems_[i].http = std::make_unique<HttpClient>(loop, options.ports[i]);
    }
    etcdserverpb::WatchRequest everything;
    everything.mutable_create_request()->set_key(std::string(1, '\0'));
    everything.mutable_create_request()->set_range_end(std::string(1, '\0'));
    everything.mutable_create_request()->set_prev_kv(true);
    ask_.shape = Ask::Shape::kWatch;
    ask_.path = "/etcdserverpb.Watch/Watch";
    ask_.requests.push_back(std::make_unique<etcdserverpb::WatchRequest>(everything));
    ask_.stream = kEverything;
    ask_.begins_stream = true;
    send_watch();
    settle();
  }

  [[nodiscard]] int exit_code() const { return exit_code_; }

 private:
  void next() {
    if (over_) return;
    if (sorted_) return ask_again();
    if (left_ == 0) return finish();
    --left_;
    ++asked_;
    const Instant before = asked_at_;
    asked_at_ = loop_.now();
    ask_ = generator_.next();
    skip_ = ask_.is_of_short_lease ? before : asked_at_;
    if (options_.over_json && json_path_of(ask_.path).empty()) {
      hit(Differs::kHashPath);
      loop_.post([this] { next(); });
      return;
    }
    if (options_.over_json && ask_.shape != Ask::Shape::kUnary) shorten_body();
    if (ask_.shape == Ask::Shape::kWatch) {
      send_watch();
      settle();
      return;
    }
    if (const auto* compaction = dynamic_cast<const etcdserverpb::CompactionRequest*>(ask_.requests[0].get())) {
      end_streams_behind(compaction->revision());
    }
    send();
  }

  // ---- Requests with an end ----

  void send() {
    for (System& system : systems_) {
      system.answered = false;
      system.error.clear();
      system.messages.clear();
      if (options_.over_json) {
        send_json(system);
      } else {
        send_grpc(system);
      }
    }
  }

  std::vector<std::unique_ptr<Message>> requests_for(const System& system) const {
    std::vector<std::unique_ptr<Message>> requests;
    for (const auto& request : ask_.requests) {
      requests.emplace_back(request->New())->CopyFrom(*request);
      name_leases(*requests.back(), system.leases);
    }
    return requests;
  }

  std::string body_for(const System& system) const {
    std::string body;
    for (const auto& request : requests_for(system)) body += to_json(*request, ask_) + "\n";
    return body;
  }

  // etcd reads no more of a body once its answer begins. What it reads at a time is not lost.
  void shorten_body() {
    const auto is_long = [this] {
      return std::ranges::any_of(systems_,
                                 [this](const System& system) { return body_for(system).size() > kReadBytes; });
    };
    if (is_long()) ask_.with_defaults = false;
    while (ask_.requests.size() > 1 && is_long()) {
      ask_.requests.pop_back();
      hit(Differs::kLongBody);
    }
  }

  void send_grpc(System& system) {
    const auto requests = requests_for(system);
    if (ask_.shape == Ask::Shape::kUnary) {
      system.channel->call(ask_.path, requests[0]->SerializeAsString(), kPatience,
                           [this, &system](const net::GrpcStatus& status, ByteView message) {
                             if (status.ok()) take(system, to_tree(message, *ask_.response));
                             answered(system, status);
                           });
      return;
    }
    system.call = system.channel->open(
        ask_.path, {.on_message = [this, &system](ByteView message) { take(system, to_tree(message, *ask_.response)); },
                    .on_finished = [this, &system](const net::GrpcStatus& status) { answered(system, status); }});
    for (const auto& request : requests) system.call->send(request->SerializeAsString());
    system.call->half_close();
  }

  void take(System& system, const std::optional<Json>& message) {
    if (!message) return complain(fmt::format("{} sent what cannot be read", system.name));
    system.messages.push_back(*message);
  }

  void answered(System& system, const net::GrpcStatus& status) {
    if (!status.ok()) system.error = fmt::format("{} {}", status.code, status.message);
    answered(system);
  }

  void answered(System& system) {
    system.answered = true;
    if (!std::ranges::all_of(systems_, &System::answered)) return;
    loop_.post([this] { compare(); });
  }

  void send_json(System& system) {
    system.http->send("POST", json_path_of(ask_.path), body_for(system), [this, &system](HttpReply& reply) {
      if (reply.status == 0) return complain(fmt::format("{} ended the connection", system.name));
      if (!reply.whole) return;
      read_json(system, reply);
      answered(system);
    });
  }

  void read_json(System& system, const HttpReply& reply) {
    std::optional<Json> error;
    int status = reply.status;
    if (status != 200) error = parse_json(reply.body);
    if (status == 412 && error && error->number("code") == 9) {
      status = 400;
      hit(Differs::kPrecondition);
    }
    const auto type = reply.fields.find("content-type");
    const std::string head =
        fmt::format("HTTP {}, {}", status, type == reply.fields.end() ? "no content-type" : type->second);
    if (reply.status != 200) {
      if (!error) {
        system.error = head + "\n" + reply.body;
        return;
      }
      if (const Json* const details = error->find("details"); details != nullptr && details->list.empty()) {
        error->members.erase("details");
        hit(Differs::kErrorDetails);
      }
      system.error = head + "\n" + to_text(*error);
      return;
    }
    if (head != "HTTP 200, application/json") return complain(fmt::format("{}: {}", system.name, head));
    if (ask_.shape == Ask::Shape::kUnary) return take(system, parse_json(reply.body));
    size_t begin = 0;
    while (begin < reply.body.size()) {
      const size_t end = reply.body.find('\n', begin);
      if (end == std::string::npos) return complain(fmt::format("{}: a line without an end", system.name));
      std::optional<Json> line = parse_json(std::string_view(reply.body).substr(begin, end - begin));
      Json* const result = line ? line->find("result") : nullptr;
      if (result == nullptr || line->members.size() != 1) {
        return complain(fmt::format("{}: a line without a result: {}", system.name, reply.body));
      }
      take(system, *result);
      begin = end + 1;
    }
  }

  // As text, without what may differ.
  std::string comparable(System& system) {
    if (!system.error.empty()) return system.error;
    std::string text;
    for (Json& message : system.messages) {
      hide_cluster(message);
      name_leases(message, system.names);
      const Message& request = *ask_.requests[0];
      settle_leases(request, message);
      if (const auto* range = dynamic_cast<const etcdserverpb::RangeRequest*>(&request)) settle_range(*range, system);
      if (const auto* txn = dynamic_cast<const etcdserverpb::TxnRequest*>(&request)) settle_ties(*txn, message);
      text += to_text(message) + "\n";
    }
    return text;
  }

  // What is left open by its request and is not compared is looked at once the whole is known.
  void settle_range(const etcdserverpb::RangeRequest& request, System& system) {
    const Json* const kvs = system.messages[0].find("kvs");
    std::vector<Json> said = kvs == nullptr ? std::vector<Json>() : kvs->list;
    if (sorted_) system.whole = said;
    if (!settle_ties(request, system.messages[0]) || sorted_ || is_limited_first(request)) return;
    system.said = std::move(said);
    is_left_open_ = true;
  }

  // Without a limit and with values, of the same revision: nothing was written since.
  void ask_again() {
    auto whole = std::make_unique<etcdserverpb::RangeRequest>(*sorted_);
    whole->clear_limit();
    whole->clear_keys_only();
    ask_ = {};
    ask_.path = "/etcdserverpb.KV/Range";
    ask_.requests.push_back(std::move(whole));
    ask_.response = &etcdserverpb::RangeResponse::default_instance();
    send();
  }

  // What was said before is the beginning of a sort of the whole: each is in it, once, and at each place is what
  // belongs there by what is sorted by. Empty: so it is.
  static std::string misplaced(const etcdserverpb::RangeRequest& request, const System& system) {
    const std::string target = sort_target_of(request);
    std::map<std::string, const Json*> by_key;
    for (const Json& kv : system.whole) by_key.emplace(kv.text_of("key"), &kv);
    for (size_t i = 0; i < system.said.size(); ++i) {
      const auto found = by_key.find(system.said[i].text_of("key"));
      if (found == by_key.end()) {
        return fmt::format("{} said what is not there, or twice, at {}:\n{}", system.name, i, to_text(system.said[i]));
      }
      Json kv = *found->second;
      if (kv.text_of(target) != system.whole[i].text_of(target)) {
        return fmt::format("{} said at {} what belongs elsewhere:\n{}", system.name, i, to_text(system.said[i]));
      }
      if (request.keys_only()) kv.members.erase("value");
      if (to_text(kv) != to_text(system.said[i])) {
        return fmt::format("{} said at {}\n{}and then\n{}", system.name, i, to_text(system.said[i]), to_text(kv));
      }
      by_key.erase(found);
    }
    return {};
  }

  void compare_again() {
    const etcdserverpb::RangeRequest request = *std::exchange(sorted_, std::nullopt);
    for (const System& system : systems_) {
      if (const std::string wrong = misplaced(request, system); !wrong.empty()) return complain(wrong);
    }
  }

  void compare() {
    if (over_) return;
    if (ask_.chosen_lease != 0) name_chosen_lease();
    if (loop_.now() - skip_ > kShortLease && ask_.is_of_short_lease) {
      hit(Differs::kLeaseShort);
    } else {
      const std::string ours = comparable(systems_[0]);
      const std::string theirs = comparable(systems_[1]);
      if (ours != theirs) return complain("they answer\n" + side_by_side(ours, theirs));
      if (sorted_) {
        compare_again();
      } else if (std::exchange(is_left_open_, false)) {
        sorted_ = dynamic_cast<const etcdserverpb::RangeRequest&>(*ask_.requests[0]);
      }
    }
    if (!systems_[0].error.empty()) {
      ++refused_;
    } else if (!systems_[0].messages.empty()) {
      const Json* const header = systems_[0].messages[0].find("header");
      if (header != nullptr) revision_ = std::max(revision_, header->number("revision"));
      generator_.see_revision(revision_);
      if (const auto* compaction = dynamic_cast<const etcdserverpb::CompactionRequest*>(ask_.requests[0].get())) {
        compacted_ = compaction->revision();
        generator_.see_compaction(compacted_);
      }
    }
    settle();
  }

  void name_chosen_lease() {
    const std::string name = std::to_string(ask_.chosen_lease);
    for (System& system : systems_) {
      if (system.messages.empty()) continue;
      const int64_t id = system.messages[0].number("ID");
      system.leases.emplace(ask_.chosen_lease, id);
      system.names.emplace(std::to_string(id), name);
      hit(Differs::kLeaseChosen);
    }
  }

  // ---- Watches ----

  void send_watch() {
    const size_t at = ask_.stream;
    const bool begins = ask_.begins_stream || options_.over_json || systems_[0].streams[at].call == nullptr;
    if (begins) expected_[at].begin();
    std::erase_if(ask_.requests, [this, at](const auto& request) {
      auto& watch = dynamic_cast<etcdserverpb::WatchRequest&>(*request);
      if (watch.has_create_request() && watch.create_request().start_revision() == compacted_ && deletes(compacted_)) {
        hit(Differs::kDeletedThere);
        watch.mutable_create_request()->set_start_revision(compacted_ + 1);
      }
      if (!expected_[at].may_take(watch)) {
        hit(Differs::kEndedId);
        return true;
      }
      expected_[at].take(watch, revision_, compacted_, written_);
      return false;
    });
    for (System& system : systems_) {
      SaidStream& stream = system.streams[at];
      if (begins) {
        stream = {};
        open_watch(system, at);
      }
      if (options_.over_json) continue;
      for (const auto& request : ask_.requests) stream.call->send(request->SerializeAsString());
    }
  }

  [[nodiscard]] bool deletes(int64_t revision) const {
    const auto found = std::ranges::equal_range(written_, revision, {}, &WrittenEvent::revision);
    return std::ranges::any_of(found, &WrittenEvent::is_delete);
  }

  void end_streams_behind(int64_t revision) {
    for (size_t at = 0; at < kWatchStreams; ++at) {
      if (!expected_[at].may_be_behind(revision)) continue;
      hit(Differs::kBehind);
      expected_[at].begin();
      for (System& system : systems_) system.streams[at] = {};
    }
  }

  void open_watch(System& system, size_t at) {
    SaidStream& stream = system.streams[at];
    if (!options_.over_json) {
      stream.call = system.channel->open(
          ask_.path,
          {.on_message = [this, &system,
                          at](ByteView message) { hear(system, at, to_tree(message, etcdserverpb::WatchResponse())); },
           .on_finished =
               [this, &system](const net::GrpcStatus& status) {
                 complain(fmt::format("a watch of {} ended: {}", system.name, status.message));
               }});
      return;
    }
    stream.http = std::make_unique<HttpClient>(loop_, options_.ports[&system == &systems_[0] ? 0 : 1]);
    stream.http->send("POST", json_path_of(ask_.path), body_for(system), [this, &system, at](HttpReply& reply) {
      if (reply.status != 200 || reply.whole) {
        return complain(fmt::format("a watch of {} ended: {} {}", system.name, reply.status, reply.body));
      }
      for (size_t end = reply.body.find('\n'); end != std::string::npos; end = reply.body.find('\n')) {
        const std::optional<Json> line = parse_json(std::string_view(reply.body).substr(0, end));
        const Json* const result = line ? line->find("result") : nullptr;
        hear(system, at, result == nullptr ? std::nullopt : std::optional<Json>(*result));
        reply.body.erase(0, end + 1);
      }
    });
  }

  void hear(System& system, size_t at, std::optional<Json> response) {
    if (over_) return;
    if (!response) return complain(fmt::format("a watch of {} sent what cannot be read", system.name));
    SaidStream& stream = system.streams[at];
    hide_cluster(*response);
    name_leases(*response, system.names);
    const int64_t id = response->number("watch_id");
    std::vector<std::string>& lines = stream.lines[id];
    const Json* const events = response->find("events");
    if (events == nullptr) {
      lines.push_back(to_text(*response));
      ++stream.count;
    } else {
      hear_events(system, at, id, *response, *events);
    }
    if (settling_) loop_.post([this] { settle_on(); });
  }

  void hear_events(System& system, size_t at, int64_t id, const Json& response, const Json& events) {
    SaidStream& stream = system.streams[at];
    std::vector<std::string>& lines = stream.lines[id];
    Json head = response;
    head.members.erase("events");
    const bool is_part = head.members.erase("fragment") > 0;
    for (const Json& event : events.list) {
      const Json* const kv = event.find("kv");
      const int64_t revision = kv == nullptr ? 0 : kv->number("mod_revision");
      // One revision is in one response, unless it says that it is a part.
      const bool is_first = &event == &events.list.front();
      if (is_first && revision == stream.newest[id] && stream.parts[id] != revision) {
        return complain(fmt::format("a watch of {} has revision {} in several responses", system.name, revision));
      }
      stream.newest[id] = revision;
      lines.push_back(to_text(head) + " " + to_text(event));
      ++stream.count;
      if (at != kEverything || kv == nullptr) continue;
      seen_[&system == &systems_[0] ? 0 : 1] = revision;
      if (&system != &systems_[0]) continue;
      written_.push_back({.revision = revision,
                          .is_delete = event.text_of("type") == "DELETE",
                          .key = decode_base64(kv->text_of("key"))});
      for (ExpectedStream& expected : expected_) expected.written(written_.back());
    }
    stream.parts[id] = is_part ? stream.newest[id] : 0;
  }

  // Waits for all that the watches owe, compares it, and goes on.
  void settle() {
    if (over_) return;
    settling_ = true;
    settle_on();
    if (!settling_ || over_) return;
    patience_ = loop_.call_at(loop_.now() + kWatchPatience, [this] {
      patience_ = 0;
      complain("what the watches owe has not come\n" + owed() + compare_streams());
    });
  }

  void settle_on() {
    if (!settling_ || over_) return;
    if (std::ranges::any_of(seen_, [this](int64_t seen) { return seen < revision_; })) return;
    for (size_t at = 0; at < expected_.size(); ++at) {
      for (const System& system : systems_) {
        const uint64_t due = expected_[at].lines();
        const uint64_t count = system.streams[at].count;
        if (count > due)
          return complain(fmt::format("{} says more than it should\n", system.name) + owed() + compare_streams());
        if (count < due) return;
      }
    }
    settling_ = false;
    if (patience_ != 0) loop_.cancel(std::exchange(patience_, 0));
    if (const std::string differing = compare_streams(); !differing.empty()) return complain(differing);
    for (System& system : systems_) {
      for (SaidStream& stream : system.streams) stream.lines.clear();
    }
    loop_.post([this] { next(); });
  }

  // Who has said how much of what is due, where anything is missing.
  std::string owed() const {
    std::string all;
    for (size_t at = 0; at < expected_.size(); ++at) {
      const uint64_t due = expected_[at].lines();
      const uint64_t ours = systems_[0].streams[at].count;
      const uint64_t theirs = systems_[1].streams[at].count;
      if (ours != due || theirs != due) {
        all += fmt::format("stream {}: {} lines are due, conclave said {}, etcd {}\n", at, due, ours, theirs);
      }
    }
    return all + fmt::format("events up to revision {} and {} of {}, compacted at {}\n", seen_[0], seen_[1], revision_,
                             compacted_);
  }

  // Empty: all said the same.
  std::string compare_streams() {
    std::string all;
    for (size_t at = 0; at < expected_.size(); ++at) {
      std::array<std::string, 2> texts;
      for (size_t i = 0; i < 2; ++i) {
        for (auto& [id, lines] : systems_[i].streams[at].lines) {
          // Refusals, and answers to requests for progress, which wait for those that are behind.
          if (id == -1) std::ranges::sort(lines);
          for (const std::string& line : lines) texts[i] += line + "\n";
        }
      }
      if (texts[0] == texts[1]) continue;
      all +=
          fmt::format("stream {}, of which {} lines are due and {} and {} came:\n{}", at, expected_[at].lines(),
                      systems_[0].streams[at].count, systems_[1].streams[at].count, side_by_side(texts[0], texts[1]));
    }
    return all;
  }

  // ---- The end ----

  void complain(const std::string& what) {
    if (over_) return;
    over_ = true;
    exit_code_ = 1;
    fmt::print("request {} over {}, seed {}: {}\n", asked_, options_.over_json ? "JSON" : "gRPC", options_.seed,
               ask_.path);
    for (const auto& request : ask_.requests) fmt::print("{}", shortened(request->DebugString()));
    if (options_.over_json) {
      for (const System& system : systems_) {
        fmt::print("POST {}  (to {})\n{}", json_path_of(ask_.path), system.name, shortened(body_for(system)));
      }
    }
    fmt::print("{}\nagain: tests/differential/differential.py --over {} --seed {} --requests {}\n", what,
               options_.over_json ? "json" : "grpc", options_.seed, asked_);
    loop_.stop();
  }

  void finish() {
    over_ = true;
    fmt::print("{} requests over {}, seed {}, {} refused alike, {} events, up to revision {}: no difference but\n",
               asked_, options_.over_json ? "JSON" : "gRPC", options_.seed, refused_, written_.size(), revision_);
    for (const Difference& difference : differences()) {
      fmt::print("  {:>8}  {}: {}\n", difference.hits, difference.what, difference.why);
    }
    if (refused_ * 2 > asked_) {
      fmt::print("more than half were refused: this says little\n");
      exit_code_ = 1;
    }
    loop_.stop();
  }

  net::Loop& loop_;
  const Options options_;
  Generator generator_;
  std::array<System, 2> systems_;
  std::array<ExpectedStream, kWatchStreams + 1> expected_;
  std::vector<WrittenEvent> written_;
  std::array<int64_t, 2> seen_ = {1, 1};  // newest revision of an event, by the watch of everything
  Ask ask_;
  Instant asked_at_{};
  Instant skip_{};  // when what the request under way rests on was asked
  uint64_t left_;
  uint64_t asked_ = 0;
  uint64_t refused_ = 0;
  int64_t revision_ = 1;  // newest that wrote something
  int64_t compacted_ = 0;
  std::optional<etcdserverpb::RangeRequest> sorted_;  // asked again, since its order is open
  bool is_left_open_ = false;                         // the answer being compared
  bool settling_ = false;
  bool over_ = false;
  net::TimerId patience_ = 0;
  int exit_code_ = 0;
};

}  // namespace
}  // namespace conclave::differential

int main(int argc, char** argv) {
  CLI::App app("the same random requests to two servers, answers compared");
  conclave::differential::Comparison::Options options{.requests = 20'000};
  std::string over = "grpc";
  app.add_option("--ports", options.ports, "of conclave and of etcd, on loopback")->expected(2)->required();
  app.add_option("--seed", options.seed);
  app.add_option("--requests", options.requests);
  app.add_option("--over", over)->check(CLI::IsMember({"grpc", "json"}));
  CLI11_PARSE(app, argc, argv);
  options.over_json = over == "json";
  conclave::env::PosixClock clock;
  conclave::net::Loop loop(clock);
  conclave::differential::Comparison comparison(loop, options);
  loop.run();
  return comparison.exit_code();
}
