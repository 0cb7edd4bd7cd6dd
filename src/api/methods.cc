#include "api/methods.h"

#include <unordered_map>

namespace conclave::api {
namespace {

constexpr std::string_view kPaths[] = {
#define X(identifier, path) path,
    CONCLAVE_API_METHODS(X)
#undef X
};

}  // namespace

std::optional<Method> method_of(std::string_view path) {
  static const auto* const kMethods = [] {
    auto* methods = new std::unordered_map<std::string_view, Method>();
    for (size_t i = 0; i < kMethodCount; ++i) methods->emplace(kPaths[i], static_cast<Method>(i));
    return methods;
  }();
  const auto found = kMethods->find(path);
  if (found == kMethods->end()) return std::nullopt;
  return found->second;
}

std::string_view path_of(Method method) {
  return kPaths[static_cast<size_t>(method)];
}

}  // namespace conclave::api
