#include "keyspace/pool.h"

#include <new>

#include "base/assert.h"

// Memory on a free list is as good as freed: AddressSanitizer, where it runs, is told so. Elsewhere the macros are
// nothing.
#if __has_include(<sanitizer/asan_interface.h>)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(at, size) ((void)(at), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(at, size) ((void)(at), (void)(size))
#endif

namespace conclave::keyspace {

Pool::~Pool() {
  while (large_.next != &large_) {
    Large* record = large_.next;
    large_.next = record->next;
    ::operator delete(record);
  }
}

void* Pool::allocate(size_t size) {
  size = (size + kGrain - 1) & ~(kGrain - 1);
  used_ += size;
  if (size > kPooledMax) {
    Large* record = static_cast<Large*>(::operator new(sizeof(Large) + size));
    record->next = large_.next;
    record->previous = &large_;
    large_.next->previous = record;
    large_.next = record;
    return record + 1;
  }
  Free*& head = free_[size / kGrain];
  if (head == nullptr) return refill(size);
  Free* at = head;
  ASAN_UNPOISON_MEMORY_REGION(at, size);
  head = at->next;
  return at;
}

void* Pool::refill(size_t size) {
  if (fresh_size_ < size) {
    // What is left of the old block serves smaller classes.
    if (fresh_size_ >= kGrain) {
      Free* rest = reinterpret_cast<Free*>(fresh_);
      rest->next = free_[fresh_size_ / kGrain];
      free_[fresh_size_ / kGrain] = rest;
      ASAN_POISON_MEMORY_REGION(rest, fresh_size_);
    }
    blocks_.emplace_back(new char[kBlockBytes]);
    fresh_ = blocks_.back().get();
    fresh_size_ = kBlockBytes;
  }
  void* at = fresh_;
  fresh_ += size;
  fresh_size_ -= size;
  return at;
}

void Pool::free(void* at, size_t size) {
  size = (size + kGrain - 1) & ~(kGrain - 1);
  ASSERT_CMP(size, <=, used_);
  used_ -= size;
  if (size > kPooledMax) {
    Large* record = static_cast<Large*>(at) - 1;
    record->next->previous = record->previous;
    record->previous->next = record->next;
    ::operator delete(record);
    return;
  }
  Free* record = static_cast<Free*>(at);
  record->next = free_[size / kGrain];
  free_[size / kGrain] = record;
  ASAN_POISON_MEMORY_REGION(record, size);
}

}  // namespace conclave::keyspace
