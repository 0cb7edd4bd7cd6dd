// StorageThread: the thread of one disk. Jobs of a turn are handed over together, with one wake-up; results come back
// to the loop the same way. What the disk cannot do ends the process.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "env/clock.h"
#include "net/loop.h"
#include "node/storage.h"

namespace conclave::server {

class StorageThread {
 public:
  // `deliver` is called on the loop's thread.
  StorageThread(std::unique_ptr<node::Storage> storage, env::Clock& clock, net::Loop& loop,
                std::function<void(std::vector<node::StorageResult>)> deliver);
  // Ends the thread after the write under way; what waits is not written.
  ~StorageThread();
  StorageThread(const StorageThread&) = delete;
  StorageThread& operator=(const StorageThread&) = delete;

  // On the loop's thread.
  void add(node::StorageJob job) { collected_.push_back(std::move(job)); }
  // At the end of each turn.
  void submit();
  // How long the write under way runs, and how long those took that ended; any thread.
  [[nodiscard]] const wal::WriteGauge& gauge() const { return storage_->gauge(); }
  [[nodiscard]] const wal::SpaceGauge& space() const { return storage_->space_gauge(); }

 private:
  void run() noexcept;
  // False: the thread is to end.
  bool wait_for_jobs(bool idle_work, bool retry);
  void hand_back(std::vector<node::StorageResult>& results);

  std::unique_ptr<node::Storage> storage_;
  env::Clock& clock_;
  net::Loop& loop_;
  std::function<void(std::vector<node::StorageResult>)> deliver_;
  std::vector<node::StorageJob> collected_;

  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<node::StorageJob> inbox_;      // under mutex_
  std::vector<node::StorageResult> outbox_;  // under mutex_
  bool delivery_posted_ = false;             // under mutex_
  bool stop_ = false;                        // under mutex_
  std::thread thread_;
};

}  // namespace conclave::server
