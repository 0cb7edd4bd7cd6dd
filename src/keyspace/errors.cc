#include "keyspace/errors.h"

#include <cstddef>
#include <iterator>

#include "base/assert.h"

namespace conclave::keyspace {
namespace {

struct Row {
  GrpcCode code;
  std::string_view text;
};

constexpr Row kRows[] = {
#define X(identifier, code, text) {GrpcCode::code, text},
    CONCLAVE_KEYSPACE_ERRORS(X)
#undef X
};

const Row& row(ErrorId error) {
  size_t at = static_cast<size_t>(error);
  ASSERT_CMP(at, <, std::size(kRows));
  return kRows[at];
}

}  // namespace

GrpcCode grpc_code(ErrorId error) {
  return row(error).code;
}
std::string_view error_text(ErrorId error) {
  return row(error).text;
}

}  // namespace conclave::keyspace
