// SPDX-License-Identifier: Apache-2.0
// The interfaces of AddressSanitizer and ThreadSanitizer, when the program is linked with one of them.
#pragma once

#include <cstddef>

extern "C" {
#define KVEVICT_SIMT_WEAK __attribute__((weak))
KVEVICT_SIMT_WEAK void __asan_poison_memory_region(void const volatile*, std::size_t);
KVEVICT_SIMT_WEAK void __asan_unpoison_memory_region(void const volatile*, std::size_t);
KVEVICT_SIMT_WEAK void __sanitizer_start_switch_fiber(void** fake, void const* bottom, std::size_t size);
KVEVICT_SIMT_WEAK void __sanitizer_finish_switch_fiber(void* fake, void const** bottom, std::size_t* size);
KVEVICT_SIMT_WEAK void* __tsan_get_current_fiber();
KVEVICT_SIMT_WEAK void* __tsan_create_fiber(unsigned flags);
KVEVICT_SIMT_WEAK void __tsan_switch_to_fiber(void* fiber, unsigned flags);
KVEVICT_SIMT_WEAK void __tsan_acquire(void*);
KVEVICT_SIMT_WEAK void __tsan_release(void*);
#undef KVEVICT_SIMT_WEAK
}

namespace sanitizers {

inline bool address() { return __sanitizer_start_switch_fiber != nullptr && __asan_poison_memory_region != nullptr; }
inline bool thread() { return __tsan_create_fiber != nullptr; }

inline void poison(void const* p, std::size_t n) {
  if (address()) __asan_poison_memory_region(p, n);
}
inline void unpoison(void const* p, std::size_t n) {
  if (address()) __asan_unpoison_memory_region(p, n);
}
inline void start_switch(void** fake, void const* bottom, std::size_t n) {
  if (address()) __sanitizer_start_switch_fiber(fake, bottom, n);
}
inline void finish_switch(void* fake, void const** bottom, std::size_t* n) {
  if (address()) __sanitizer_finish_switch_fiber(fake, bottom, n);
}

inline void* current_fiber() { return thread() ? __tsan_get_current_fiber() : nullptr; }
inline void* create_fiber() { return thread() ? __tsan_create_fiber(0) : nullptr; }
inline void enter(void* fiber) {
  if (thread()) __tsan_switch_to_fiber(fiber, 0);
}  // it has seen what was done here
inline void leave(void* fiber) {
  if (thread()) __tsan_switch_to_fiber(fiber, 1);
}  // no synchronisation
inline void acquire(void* object) {
  if (thread()) __tsan_acquire(object);
}
inline void release(void* object) {
  if (thread()) __tsan_release(object);
}

}  // namespace sanitizers
