#include "tests/differential/streams.h"

#include <algorithm>

namespace conclave::differential {

bool ExpectedStream::Watcher::wants(const WrittenEvent& event) const {
  if (event.revision < start || (event.is_delete ? no_delete : no_put)) return false;
  if (end.empty()) return event.key == key;
  return event.key >= key && (end == std::string(1, '\0') || event.key < end);
}

bool ExpectedStream::is_ended(int64_t id) const {
  const auto found = watchers_.find(id);
  return found != watchers_.end() && found->second.is_ended;
}

bool ExpectedStream::may_take(const etcdserverpb::WatchRequest& request) const {
  if (request.has_cancel_request()) return !is_ended(request.cancel_request().watch_id());
  if (!request.has_create_request()) return true;
  if (request.create_request().watch_id() != 0) return !is_ended(request.create_request().watch_id());
  int64_t id = next_id_;
  for (; watchers_.contains(id); ++id) {
    if (is_ended(id)) return false;
  }
  return true;
}

void ExpectedStream::take(const etcdserverpb::WatchRequest& request, int64_t revision, int64_t compacted,
                          const std::vector<WrittenEvent>& written) {
  if (request.has_progress_request()) ++lines_;
  if (request.has_cancel_request() && watchers_.erase(request.cancel_request().watch_id()) > 0) ++lines_;
  if (!request.has_create_request()) return;
  ++lines_;
  const etcdserverpb::WatchCreateRequest& create = request.create_request();
  Watcher watcher{.key = create.key(), .end = create.range_end(), .start = create.start_revision()};
  if (watcher.key.empty()) watcher.key = std::string(1, '\0');
  if (!watcher.end.empty() && watcher.end != std::string(1, '\0') && watcher.key >= watcher.end) return;
  int64_t id = create.watch_id();
  if (id == 0) {
    while (watchers_.contains(next_id_)) ++next_id_;
    id = next_id_++;
  } else if (watchers_.contains(id)) {
    return;
  }
  if (watcher.start == 0) watcher.start = revision + 1;
  for (const int filter : create.filters()) {
    if (filter == etcdserverpb::WatchCreateRequest::NOPUT) watcher.no_put = true;
    if (filter == etcdserverpb::WatchCreateRequest::NODELETE) watcher.no_delete = true;
  }
  if (watcher.start < compacted) {
    watcher.is_ended = true;
    ++lines_;
  } else {
    const auto first = std::ranges::lower_bound(written, watcher.start, {}, &WrittenEvent::revision);
    const auto count =
        std::count_if(first, written.end(), [&watcher](const WrittenEvent& event) { return watcher.wants(event); });
    lines_ += static_cast<uint64_t>(count);
    watcher.is_silent = watcher.start <= revision && count == 0;
  }
  watchers_.emplace(id, std::move(watcher));
}

void ExpectedStream::written(const WrittenEvent& event) {
  for (auto& [id, watcher] : watchers_) {
    if (watcher.is_ended || !watcher.wants(event)) continue;
    ++lines_;
    watcher.is_silent = false;
  }
}

bool ExpectedStream::may_be_behind(int64_t revision) const {
  return std::ranges::any_of(
      watchers_, [revision](const auto& each) { return each.second.is_silent && each.second.start < revision; });
}

}  // namespace conclave::differential
