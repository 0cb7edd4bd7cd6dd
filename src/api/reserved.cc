#include "api/reserved.h"

#include <algorithm>

#include "base/mark.h"
#include "keyspace/requests.h"

namespace conclave::api {
namespace {

using keyspace::CommandKind;
using keyspace::ErrorId;
using keyspace::KeyRange;

constexpr std::string_view kReservedEnd = "/.conclave0";  // '0' follows '/'

bool is_inhabited(const keyspace::Keyspace& keyspace) {
  return keyspace.store().tree().totals(KeyRange::of(kReservedKeys, kReservedEnd)).lives > 0;
}

bool deletes_reserved(const keyspace::Keyspace& keyspace, const keyspace::DeleteRangeRequest& request) {
  if (is_reserved(request.key)) return true;
  const KeyRange range = KeyRange::of(request.key, request.range_end);
  if (range.is_point() || range.begin >= kReservedEnd) return false;
  return (range.kind == KeyRange::Kind::kFrom || range.end > kReservedKeys) && is_inhabited(keyspace);
}

bool writes_reserved(const keyspace::Keyspace& keyspace, const keyspace::Program& program) {
  const auto puts = [](const keyspace::PutRequest& put) { return is_reserved(put.key); };
  const auto deletes = [&keyspace](const keyspace::DeleteRangeRequest& request) {
    return deletes_reserved(keyspace, request);
  };
  return std::ranges::any_of(program.puts, puts) || std::ranges::any_of(program.deletes, deletes);
}

}  // namespace

bool writes_reserved(const keyspace::Keyspace& keyspace, CommandKind kind, ByteView canonical) {
  bool writes = false;
  if (kind == CommandKind::kPut) {
    keyspace::PutRequest put;
    writes = keyspace::parse(canonical, put) == ErrorId::kNone && is_reserved(put.key);
  } else if (kind == CommandKind::kDeleteRange) {
    keyspace::DeleteRangeRequest request;
    writes = keyspace::parse(canonical, request) == ErrorId::kNone && deletes_reserved(keyspace, request);
  } else if (kind == CommandKind::kTxn) {
    // Nearly always nothing lives there, and nothing in the bytes names such a key: then they are not parsed for it.
    if (!is_inhabited(keyspace) && canonical.find(kReservedKeys) == ByteView::npos) return false;
    keyspace::Program program;
    writes = keyspace::parse(canonical, program) == ErrorId::kNone && writes_reserved(keyspace, program);
  }
  if (writes) REACHED(reserved_keys_refused);
  return writes;
}

}  // namespace conclave::api
