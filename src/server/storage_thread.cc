#include "server/storage_thread.h"

#include <cstdio>
#include <cstdlib>
#include <utility>

namespace conclave::server {
namespace {

// A batch behind which nothing comes for so long gets its mark (wal/log.h).
constexpr auto kQuiet = std::chrono::milliseconds(20);
// While the disk is full.
constexpr auto kSpaceRetry = std::chrono::milliseconds(100);

// Nothing may be acknowledged after it, so nothing else is done either: no destructors, no flushing.
[[noreturn]] void end_process(const Error& error) {
  std::fputs(fmt::format("conclave: the disk failed, ending: {}\n", error.message).c_str(), stderr);
  std::_Exit(74);
}

}  // namespace

StorageThread::StorageThread(std::unique_ptr<node::Storage> storage, env::Clock& clock, net::Loop& loop,
                             std::function<void(std::vector<node::StorageResult>)> deliver)
    : storage_(std::move(storage)), clock_(clock), loop_(loop), deliver_(std::move(deliver)) {
  thread_ = std::thread([this] { run(); });
}

StorageThread::~StorageThread() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

void StorageThread::submit() {
  if (collected_.empty()) return;
  bool was_empty = false;
  {
    const std::lock_guard lock(mutex_);
    was_empty = inbox_.empty();
    if (was_empty) {
      inbox_.swap(collected_);
    } else {
      for (node::StorageJob& job : collected_) inbox_.push_back(std::move(job));
    }
  }
  collected_.clear();
  if (was_empty) wake_.notify_one();
}

bool StorageThread::wait_for_jobs(bool idle_work, bool retry) {
  std::unique_lock lock(mutex_);
  const auto ready = [this] { return stop_ || !inbox_.empty(); };
  if (retry) {
    wake_.wait_for(lock, kSpaceRetry, ready);
  } else if (!storage_->has_work() && !idle_work) {
    if (storage_->wants_idle_mark()) {
      wake_.wait_for(lock, kQuiet, ready);
    } else if (const auto pause = storage_->space_retry()) {
      wake_.wait_for(lock, *pause, ready);
    } else {
      wake_.wait(lock, ready);
    }
  }
  if (stop_) return false;
  std::vector<node::StorageJob> jobs = std::exchange(inbox_, {});
  lock.unlock();
  for (node::StorageJob& job : jobs) storage_->add(std::move(job));
  return true;
}

void StorageThread::run() noexcept {
  std::vector<node::StorageResult> results;
  bool idle_work = true;
  bool retry = false;
  Instant worked_at = clock_.now();
  while (wait_for_jobs(idle_work, retry)) {
    retry = false;
    if (storage_->has_work()) {
      const Status worked = storage_->work(results);
      hand_back(results);
      worked_at = clock_.now();
      idle_work = true;
      if (!worked) {
        if (worked.error().code != ErrorCode::kNoSpace) end_process(worked.error());
        retry = !storage_->has_pieces();
      }
      continue;
    }
    const Result<bool> more = storage_->idle(clock_.now() >= worked_at + kQuiet, results);
    if (!more) end_process(more.error());
    hand_back(results);
    idle_work = *more;
  }
}

void StorageThread::hand_back(std::vector<node::StorageResult>& results) {
  if (results.empty()) return;
  bool post = false;
  {
    const std::lock_guard lock(mutex_);
    for (node::StorageResult& result : results) outbox_.push_back(std::move(result));
    post = !std::exchange(delivery_posted_, true);
  }
  results.clear();
  if (!post) return;
  loop_.post([this] {
    std::vector<node::StorageResult> done;
    {
      const std::lock_guard lock(mutex_);
      done.swap(outbox_);
      delivery_posted_ = false;
    }
    deliver_(std::move(done));
  });
}

}  // namespace conclave::server
