// SPDX-License-Identifier: Apache-2.0
// Device memory between guard pages, and streams. Not instrumented.
#include <sys/mman.h>

#include <cstring>
#include <deque>
#include <vector>

#include "support/simt/sanitizers.hpp"
#include "support/simt/simt.hpp"

namespace simt {
namespace {

constexpr std::size_t page = 4096, alignment = 256;
constexpr unsigned char garbage = 0xff;  // a NaN, or index −1, to whoever reads what nothing has written

struct allocation {  // guard page · slack · data · slack to 256 bytes · guard page
  unsigned char *map, *data;
  std::size_t pages, bytes;
  bool live;

  unsigned char* first() const { return map + page; }
  unsigned char* last() const { return map + page + pages; }
  void protect(int how) const { mprotect(first(), pages, how); }
  bool intact() const {
    for (unsigned char const* p = first(); p != last(); ++p)
      if (p == data) p += bytes - 1;
      else if (*p != garbage) return false;
    return true;
  }
};
std::vector<allocation>& allocations() {
  static auto* all = new std::vector<allocation>;  // addresses are never used again
  return *all;
}
allocation* find(void const* p) {
  auto const* at = static_cast<unsigned char const*>(p);
  for (allocation& a : allocations())
    if (a.map <= at && at < a.last() + page) return &a;
  return nullptr;
}
using kvevict::cuda::raise;

int open = 0;

}  // namespace

void* allocate(std::size_t bytes) {
  if (bytes == 0) return nullptr;
  std::size_t const span = (bytes + alignment - 1) / alignment * alignment, pages = (span + page - 1) / page * page;
  void* const map = mmap(nullptr, pages + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (map == MAP_FAILED) raise("allocate device memory: " + std::to_string(bytes) + " bytes are not to be had; free some");
  auto* const base = static_cast<unsigned char*>(map);
  allocation const a{base, base + page + pages - span, pages, bytes, true};
  a.protect(PROT_READ | PROT_WRITE);
  std::memset(a.first(), garbage, pages);
  sanitizers::poison(a.first(), pages);
  sanitizers::unpoison(a.data, bytes);
  if (open == 0) a.protect(PROT_NONE);
  allocations().push_back(a);
  return a.data;
}

void release(void* p) {
  allocation* const a = find(p);
  if (a == nullptr || !a->live || a->data != p) raise("release device memory: not what allocate returned, or returned a second time");
  a->live = false;
  a->protect(PROT_NONE);
  madvise(a->first(), a->pages, MADV_DONTNEED);
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

unlocked::unlocked() {
  if (open++ == 0)
    for (allocation const& a : allocations())
      if (a.live) a.protect(PROT_READ | PROT_WRITE);
}
unlocked::~unlocked() noexcept(false) {
  if (--open != 0) return;
  bool intact = true;
  for (allocation const& a : allocations())
    if (a.live) intact = a.intact() && intact, a.protect(PROT_NONE);
  if (!intact && std::uncaught_exceptions() == 0)
    raise("device memory: something wrote beyond an allocation; build with -fsanitize=address to see what");
}

struct queue {
  std::deque<std::function<void()>> work;
};
queue* make_queue() { return new queue; }
void enqueue(queue* q, std::function<void()> work) { q->work.push_back(std::move(work)); }
void synchronize(queue* q) {
  while (!q->work.empty()) {
    auto const next = std::move(q->work.front());
    q->work.pop_front();
    try {
      next();
    } catch (...) {
      q->work.clear();  // as after an error of the device: nothing behind it runs
      throw;
    }
  }
}
void destroy(queue* q) {
  try {
    synchronize(q);
  } catch (...) {  // whoever wanted to know has synchronized
  }
  delete q;
}

}  // namespace simt
