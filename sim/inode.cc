#include "sim/inode.h"

#include <algorithm>

#include "base/assert.h"

namespace conclave::sim {
namespace {

uint64_t sectors_of(uint64_t bytes) {
  return (bytes + kSectorBytes - 1) / kSectorBytes;
}

}  // namespace

void Inode::set_size(std::vector<char>& image, uint64_t& size, uint64_t wanted) {
  const uint64_t kept = std::min(size, wanted);
  if (wanted < size) {
    // The rest of the last sector is zero, so that growing again shows zeros.
    const uint64_t end = std::min<uint64_t>(image.size(), sectors_of(wanted) * kSectorBytes);
    std::fill(image.begin() + static_cast<ptrdiff_t>(kept), image.begin() + static_cast<ptrdiff_t>(end), '\0');
  }
  image.resize(sectors_of(wanted) * kSectorBytes);
  size = wanted;
}

void Inode::write(Instant begins, uint64_t offset, ByteView bytes, const WriteFault& fault) {
  if (bytes.empty()) return;
  const uint64_t end = offset + bytes.size();
  if (end > cache_size_) resize(begins, end);
  std::memcpy(cache_.data() + offset, bytes.data(), bytes.size());
  Operation operation{
      .begins = begins, .first_sector = offset / kSectorBytes, .content = content_.size(), .fault = fault};
  operation.sectors = sectors_of(end) - operation.first_sector;
  content_.append(cache_.data() + operation.first_sector * kSectorBytes, operation.sectors * kSectorBytes);
  operations_.push_back(operation);
}

void Inode::resize(Instant begins, uint64_t bytes) {
  const bool is_cut = bytes < cache_size_;
  set_size(cache_, cache_size_, bytes);
  operations_.push_back({.begins = begins, .is_resize = true, .is_cut = is_cut, .size = bytes});
}

void Inode::sync(Instant completes, bool lie) {
  if (!operations_.empty()) {
    barriers_.push_back({operations_.size(), completes, lie});
  } else {
    acknowledged_.assign(sectors_of(platter_size_), true);
  }
}

bool Inode::is_pending(uint64_t sector) const {
  return std::ranges::any_of(operations_, [sector](const Operation& operation) {
    return !operation.is_resize && sector >= operation.first_sector &&
           sector < operation.first_sector + operation.sectors;
  });
}

Sector Inode::visible(uint64_t sector) const {
  Sector content;
  if (const SectorFault* fault = atlas_.find(sector); fault != nullptr && fault->kind != FaultKind::kUnreadableSector) {
    return fault->content;
  }
  std::memcpy(content.data(), platter_.data() + sector * kSectorBytes, kSectorBytes);
  return content;
}

void Inode::apply_size(const Operation& operation) {
  set_size(platter_, platter_size_, operation.size);
  atlas_.clear_from(sectors_of(operation.size));
  const uint64_t sectors = sectors_of(operation.size);
  if (acknowledged_.size() > sectors) acknowledged_.resize(sectors);
}

// The caller has checked that the sector lies inside the platter's size.
void Inode::put_on_platter(uint64_t sector, const char* content) {
  const uint64_t at = sector * kSectorBytes;
  const uint64_t bytes = std::min<uint64_t>(kSectorBytes, platter_size_ - at);
  std::memcpy(platter_.data() + at, content, bytes);
}

void Inode::apply_sector(const Operation& operation, uint64_t index) {
  const uint64_t sector = operation.first_sector + index;
  if (sector * kSectorBytes >= platter_size_) return;  // its growth was not kept
  const char* content = content_.data() + operation.content + index * kSectorBytes;
  const WriteFault& fault = operation.fault;
  if (fault.kind != FaultKind::kCount && fault.sector == sector) {
    SectorFault stale{.sector = sector, .kind = fault.kind, .content = visible(sector)};
    put_on_platter(sector, content);
    atlas_.put(stale);
    if (fault.kind == FaultKind::kMisdirectedWrite && fault.other * kSectorBytes < platter_size_) {
      SectorFault hit{.sector = fault.other, .kind = fault.kind};
      std::memcpy(hit.content.data(), content, kSectorBytes);
      atlas_.put(hit);
    }
    return;
  }
  put_on_platter(sector, content);
  atlas_.clear(sector);
}

void Inode::settle(Instant now) {
  if (dropped_at_ <= now) before_drop_.reset();
  if (barriers_.empty()) return;
  // Not in order of time: a process that died in a call that hangs leaves a barrier later than those of the next
  // process, and any of them covers all that was written before it.
  size_t done = 0;
  std::erase_if(barriers_, [&](const Barrier& barrier) {
    if (barrier.completes > now) return false;
    if (!barrier.lie) {
      done = std::max(done, barrier.operations);
    } else {
      for (size_t i = 0; i < barrier.operations; ++i) operations_[i].acknowledged = true;
    }
    return true;
  });
  for (size_t i = 0; i < done; ++i) {
    const Operation& operation = operations_[i];
    if (operation.is_resize) {
      apply_size(operation);
      continue;
    }
    for (uint64_t k = 0; k < operation.sectors; ++k) apply_sector(operation, k);
  }
  // A sync covers the whole file, what an earlier life left on the platter included.
  if (done > 0) acknowledged_.assign(sectors_of(platter_size_), true);
  erase_front(done);
}

void Inode::erase_front(size_t count) {
  if (count == 0) return;
  operations_.erase(operations_.begin(), operations_.begin() + static_cast<ptrdiff_t>(count));
  for (Barrier& barrier : barriers_) barrier.operations -= std::min(barrier.operations, count);
  size_t first = content_.size();
  for (const Operation& operation : operations_) {
    if (!operation.is_resize) {
      first = operation.content;
      break;
    }
  }
  content_.erase(0, first);
  for (Operation& operation : operations_) {
    if (!operation.is_resize) operation.content -= first;
  }
}

void Inode::drop_begun_after(Instant at) {
  while (!operations_.empty() && operations_.back().begins > at) operations_.pop_back();
  std::erase_if(barriers_, [this](const Barrier& barrier) { return barrier.operations > operations_.size(); });
}

Inode::CrashLosses Inode::lose_power(Instant at, CrashChooser& chooser) {
  CrashLosses losses;
  undo_drop_after(at);
  settle(at);
  drop_begun_after(at);
  const size_t considered = chooser.prefix(operations_.size());
  size_t size_changes = 0;
  for (size_t i = 0; i < considered; ++i) size_changes += operations_[i].is_resize ? 1 : 0;
  size_t sizes_left = chooser.prefix(size_changes);
  bool cut_lost = false;
  for (size_t i = 0; i < operations_.size(); ++i) {
    const Operation& operation = operations_[i];
    if (operation.is_resize) {
      // A lie is about bytes; the file system's own journal of sizes is not lied to.
      if (operation.acknowledged) {
        apply_size(operation);
      } else if (i < considered && sizes_left > 0) {
        --sizes_left;
        apply_size(operation);
      } else {
        cut_lost = cut_lost || operation.is_cut;
      }
      continue;
    }
    for (uint64_t k = 0; k < operation.sectors; ++k) {
      const uint64_t sector = operation.first_sector + k;
      const bool kept = i < considered && !cut_lost && chooser.keep_sector();
      if (kept) {
        apply_sector(operation, k);
        if (operation.acknowledged) {
          acknowledged_.resize(std::max<size_t>(acknowledged_.size(), sector + 1));
          acknowledged_[sector] = true;
        }
        continue;
      }
      if (sector * kSectorBytes >= platter_size_) continue;
      if (operation.acknowledged) {
        // Pristine is what was promised; what is there is what was there before.
        const SectorFault stale{.sector = sector, .kind = FaultKind::kLyingSync, .content = visible(sector)};
        put_on_platter(sector, content_.data() + operation.content + k * kSectorBytes);
        atlas_.put(stale);
        acknowledged_.resize(std::max<size_t>(acknowledged_.size(), sector + 1));
        acknowledged_[sector] = true;
        ++losses.sectors_lost;
        continue;
      }
      ++losses.sectors_lost;
      // In a prefix the sector after the last that stayed may be the torn one.
      if (i > considered || cut_lost) continue;
      if (const size_t torn = std::min(chooser.torn_bytes(), kSectorBytes); torn > 0) {
        ++losses.sectors_torn;
        SectorFault half{.sector = sector, .kind = FaultKind::kTornWrite, .content = visible(sector)};
        const uint64_t bytes = std::min<uint64_t>(torn, platter_size_ - sector * kSectorBytes);
        std::memcpy(half.content.data(), content_.data() + operation.content + k * kSectorBytes, bytes);
        atlas_.put(half);
      }
    }
  }
  operations_.clear();
  barriers_.clear();
  content_.clear();
  cache_ = platter_;
  cache_size_ = platter_size_;
  return losses;
}

// Calls are made at once and take their time afterwards. So what a call did to the platter must be undone if its
// process turns out to have ended before the call began.
void Inode::undo_drop_after(Instant at) {
  while (before_drop_ != nullptr && dropped_at_ > at) {
    const std::shared_ptr<const Inode> before = before_drop_;
    *this = *before;
  }
}

void Inode::drop_unsynced(Instant begins, CrashChooser& chooser) {
  auto before = std::make_shared<const Inode>(*this);
  // The cache goes on showing what was written: that is what makes a second sync a lie.
  std::vector<char> shown = cache_;
  const uint64_t shown_size = cache_size_;
  lose_power(Instant::max(), chooser);
  // The size is the file system's and survives; only pages are dropped.
  if (platter_size_ != shown_size) {
    apply_size({.begins = {}, .is_resize = true, .is_cut = shown_size < platter_size_, .size = shown_size});
  }
  cache_ = std::move(shown);
  cache_size_ = shown_size;
  before_drop_ = std::move(before);
  dropped_at_ = begins;
}

void Inode::lose_process(Instant at) {
  undo_drop_after(at);
  settle(at);
  if (operations_.empty() || operations_.back().begins <= at) return;
  drop_begun_after(at);
  rebuild_cache();
}

void Inode::rebuild_cache() {
  cache_ = platter_;
  cache_size_ = platter_size_;
  for (const Operation& operation : operations_) {
    if (operation.is_resize) {
      set_size(cache_, cache_size_, operation.size);
    } else {
      std::memcpy(cache_.data() + operation.first_sector * kSectorBytes, content_.data() + operation.content,
                  operation.sectors * kSectorBytes);
    }
  }
}

void Inode::make_settled() {
  operations_.clear();
  barriers_.clear();
  content_.clear();
  platter_ = cache_;
  platter_size_ = cache_size_;
  acknowledged_.assign(sectors_of(platter_size_), true);
}

}  // namespace conclave::sim
