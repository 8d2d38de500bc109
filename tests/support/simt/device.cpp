// SPDX-License-Identifier: Apache-2.0
// Device memory between guard pages, and the work of streams. Not instrumented.
#include <sys/mman.h>

#include <cstring>
#include <vector>

#include "support/simt/sanitizers.hpp"
#include "support/simt/simt.hpp"

namespace simt {
namespace {

using kvevict::cuda::raise;
constexpr std::size_t page = 4096, alignment = 256;

struct allocation {  // guard page · slack · data, to the end of a page but for its alignment · guard page
  unsigned char *map, *data;
  std::size_t pages, bytes;
  bool live = true;

  void protect(int how) const { mprotect(map + page, pages, how); }
};
std::vector<allocation>& allocations() {
  static auto* all = new std::vector<allocation>;  // addresses are never used again
  return *all;
}
allocation* find(void const* p) {
  auto const* at = static_cast<unsigned char const*>(p);
  for (allocation& a : allocations())
    if (a.map <= at && at < a.map + a.pages + 2 * page) return &a;
  return nullptr;
}

struct unlocked {  // device memory, while a stream works
  unlocked() { protect(PROT_READ | PROT_WRITE); }
  ~unlocked() { protect(PROT_NONE); }
  static void protect(int how) {
    for (allocation const& a : allocations())
      if (a.live) a.protect(how);
  }
};

}  // namespace

void* allocate(std::size_t bytes) {
  if (bytes == 0) return nullptr;
  std::size_t const span = (bytes + alignment - 1) / alignment * alignment, pages = (span + page - 1) / page * page;
  void* const map = mmap(nullptr, pages + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (map == MAP_FAILED)
    raise("allocate device memory: " + std::to_string(bytes) + " bytes are not to be had; free some");
  auto* const base = static_cast<unsigned char*>(map);
  allocation const a{base, base + page + pages - span, pages, bytes};
  a.protect(PROT_READ | PROT_WRITE);
  std::memset(base + page, 0xff, pages);  // a NaN, or index −1, to whoever reads what nothing has written
  sanitizers::poison(base + page, pages);
  sanitizers::unpoison(a.data, bytes);
  a.protect(PROT_NONE);
  allocations().push_back(a);
  return a.data;
}

void release(void* p) {
  allocation* const a = find(p);
  if (a == nullptr || !a->live || a->data != p)
    raise("release device memory: not what allocate returned, or returned a second time");
  a->live = false;
  a->protect(PROT_NONE);
  madvise(a->map + page, a->pages, MADV_DONTNEED);
}

void require_device(void const* p, std::size_t bytes, char const* call) {
  if (p == nullptr && bytes == 0) return;
  allocation const* const a = find(p);
  if (a == nullptr) raise(std::string(call) + ": a pointer is not device memory; copy the data to the device");
  if (!a->live) raise(std::string(call) + ": the device memory has been released");
  auto const* const at = static_cast<unsigned char const*>(p);
  if (at < a->data || bytes > a->bytes || static_cast<std::size_t>(at - a->data) > a->bytes - bytes)
    raise(std::string(call) + ": " + std::to_string(bytes) + " bytes from offset " + std::to_string(at - a->data) +
          " are not inside the allocation of " + std::to_string(a->bytes) + " bytes");
}
void require_host(void const* p, char const* call) {
  if (find(p) != nullptr) raise(std::string(call) + ": the host's pointer is device memory");
}

void synchronize(queue& q) {
  queue const work = std::move(q);  // after an error nothing behind it runs, as on a device
  q.clear();
  unlocked const device;
  for (auto const& next : work) next();
}

}  // namespace simt
