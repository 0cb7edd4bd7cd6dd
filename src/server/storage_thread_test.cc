#include "server/storage_thread.h"

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <gtest/gtest.h>

#include "env/posix/clock.h"
#include "env/posix/disk.h"
#include "node/testing/watched_disk.h"

namespace conclave::server {
namespace {

using std::chrono::seconds;

// A leader whose disk is full refuses what would be written, so that no job comes by which there being space again
// would be seen: the server refused everything for ever.
TEST(StorageThread, SeesThatThereIsSpaceAgainWithNothingToWrite) {
  std::string path = ::testing::TempDir() + "conclave-storage-thread-XXXXXX";
  ASSERT_NE(mkdtemp(path.data()), nullptr);
  {
    env::PosixClock clock;
    net::Loop loop(clock);
    const std::unique_ptr<env::Disk> posix = env::PosixDisk::open_directory(path).value();
    node::testing::WatchedDisk disk(*posix);
    auto opened = node::Storage::open(
        disk, clock, {.owner = {.cluster = ClusterId(7), .node = NodeId(1)}, .segment_bytes = uint64_t{1} << 20});
    ASSERT_TRUE(opened) << opened.error().message;
    disk.full = true;
    std::vector<bool> told;
    const StorageThread thread(std::move(opened->storage), clock, loop,
                               [&](const std::vector<node::StorageResult>& results) {
                                 for (const node::StorageResult& result : results) {
                                   const auto* changed = std::get_if<node::SpaceChanged>(&result);
                                   if (changed == nullptr) continue;
                                   told.push_back(changed->full);
                                   if (changed->full) {
                                     disk.full = false;
                                   } else {
                                     loop.stop();
                                   }
                                 }
                               });
    (void)loop.call_at(loop.now() + seconds(30), [&] { loop.stop(); });
    loop.run();
    EXPECT_EQ(told, (std::vector<bool>{true, false}));
  }
  std::filesystem::remove_all(path);
}

}  // namespace
}  // namespace conclave::server
