// SPDX-License-Identifier: Apache-2.0
// The threads of a block as coroutines, one after the other on the calling thread. No sanitizer instruments this file:
// what it does on a CUDA thread's behalf is not that thread's access. What it calls is watched all the same (malloc,
// memmove): no vector grows for a thread.
#include <sys/mman.h>

#include <algorithm>
#include <boost/context/fiber.hpp>
#include <boost/context/protected_fixedsize_stack.hpp>
#include <numeric>
#include <optional>
#include <random>
#include <vector>

#include "support/simt/sanitizers.hpp"
#include "support/simt/simt.hpp"

// else each program waits a second for its fibers
extern "C" char const* __tsan_default_options() { return "atexit_sleep_ms=0"; }

namespace simt {
namespace {

namespace context = boost::context;
namespace limits = kvevict::cuda::limits;

constexpr std::size_t stack_bytes = 256 << 10, arena_bytes = 2 << 20, red_zone = 64, most_arrays = 256, cells = 256;
constexpr char const* names[] = {"the block barrier", "sync_warp", "shuffle",     "shuffle_up",
                                 "shuffle_xor",       "ballot",    "multiply_add"};

struct aborted {};
enum class state : std::uint8_t { fresh, ready, waiting, done };

struct fiber {  // serves one CUDA thread after another
  context::fiber self, back;
  unsigned char* stack = nullptr;
  void *tsan = nullptr, *fake = nullptr;
  state is = state::done;
  extent index{};
  std::uint32_t rank = 0, takes = 0, source = 0;
  std::uint64_t value = 0, result = 0;
  std::uint64_t const* at = nullptr;  // the meeting at which it waits
};
struct gathering {
  meeting kind;
  std::uint32_t first, threads, mask, arrived;  // of `threads` from rank `first` on, those in the mask
  std::uint64_t* cell;
  bool wants(std::uint32_t i) const { return kind == meeting::sync_block || (mask >> i & 1); }
  std::uint32_t wanted() const {
    return kind == meeting::sync_block ? threads : static_cast<std::uint32_t>(__builtin_popcount(mask));
  }
  bool orders_memory() const { return kind <= meeting::sync_warp; }
  bool shuffles() const { return kind >= meeting::shuffle && kind <= meeting::shuffle_xor; }
};
struct shared_array {
  void const* site;
  void* data;
  std::size_t bytes;
};
// a block's shared memory, and what its barriers synchronise on, by turns: some have not left when others meet again
struct arena_type {
  std::uint64_t cells[simt::cells];
  alignas(64) unsigned char bytes[arena_bytes];
};

struct block_type {
  grid_run const* run;
  extent index;
  std::uint32_t finished, last, meetings;
  std::vector<fiber*> threads;
  std::vector<gathering> open;
  std::vector<shared_array> arrays;
  std::size_t taken[2], used;  // bytes: of the launch's, of static arrays; of the arena
  std::optional<std::string> error;
};
block_type block;
fiber* current = nullptr;
void *main_tsan = nullptr, *main_fake = nullptr;
void const* main_stack = nullptr;
std::size_t main_stack_bytes = 0;
arena_type* arena = nullptr;
std::uint64_t launch_end;  // what a launch's threads release and the host acquires
// small enough to be inlined here: a function of its own could be another file's, instrumented
std::minstd_rand random_order;

std::string where() {
  return std::string("kernel ") + block.run->name + ", block " + kvevict::cuda::text_of(block.index);
}

fiber* next_ready() {
  auto const n = static_cast<std::uint32_t>(block.threads.size());
  if (schedule > 1) block.last = static_cast<std::uint32_t>(random_order() % n);
  for (std::uint32_t i = 0; i < n; ++i) {
    block.last = (block.last + (schedule == 1 ? n - 1 : 1)) % n;
    if (block.threads[block.last]->is <= state::ready) return block.threads[block.last];
  }
  return nullptr;
}

void resume(fiber& f) {
  current = &f;
  f.is = state::ready;
  sanitizers::start_switch(&main_fake, f.stack, stack_bytes);
  sanitizers::enter(f.tsan);
  f.self = std::move(f.self).resume();
  sanitizers::finish_switch(main_fake, nullptr, nullptr);
  current = nullptr;
}
void leave(fiber& f) {
  sanitizers::start_switch(&f.fake, main_stack, main_stack_bytes);
  sanitizers::leave(main_tsan);
  f.back = std::move(f.back).resume();
  sanitizers::finish_switch(f.fake, &main_stack, &main_stack_bytes);
}
void suspend(fiber& f) {
  leave(f);
  if (block.error) throw aborted{};
}

fiber* make_fiber() {
  auto* const f = new fiber;
  context::protected_fixedsize_stack maker(stack_bytes);
  context::stack_context const space = maker.allocate();
  f->stack = static_cast<unsigned char*>(space.sp) - stack_bytes;
  f->tsan = sanitizers::create_fiber();
  f->self = context::fiber(std::allocator_arg, context::preallocated(space.sp, space.size, space), maker,
                           [f](context::fiber&& from) {
                             f->back = std::move(from);
                             sanitizers::finish_switch(nullptr, &main_stack, &main_stack_bytes);
                             for (;; leave(*f)) {
                               try {
                                 block.run->body(f->index, block.index);
                               } catch (aborted const&) {
                               }
                               f->is = state::done;
                               ++block.finished;
                               sanitizers::release(&launch_end);
                             }
                             return std::move(f->back);
                           });
  return f;
}

void clear_arena() {
  // a new mapping: ThreadSanitizer forgets what the last block did to it
  if (arena == nullptr || sanitizers::thread()) {
    if (arena != nullptr) munmap(arena, sizeof(arena_type));
    arena = static_cast<arena_type*>(
        mmap(arena, sizeof(arena_type), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  }
  sanitizers::poison(arena->bytes, block.used == 0 ? arena_bytes : block.used);
  block.taken[0] = block.taken[1] = block.used = 0;
  block.arrays.clear(), block.arrays.reserve(most_arrays);
}

void multiply(fiber* const* lanes) {  // fragment layouts: PTX ISA, mma.m16n8k16, written down once more on purpose
  double a[16][16], b[16][8];
  auto const part = [&](int lane) -> matrix_part const& {
    return *reinterpret_cast<matrix_part const*>(lanes[lane]->value);
  };
  for (int lane = 0; lane < 32; ++lane) {
    matrix_part const& p = part(lane);
    auto const element = [&](std::uint32_t const* r, int i) {
      return p.widen(static_cast<std::uint16_t>(r[i >> 1] >> (16 * (i & 1))));
    };
    for (int i = 0; i < 8; ++i)
      a[(lane >> 2) + (i & 2 ? 8 : 0)][(lane & 3) * 2 + (i & 1) + (i & 4 ? 8 : 0)] = element(p.a, i);
    for (int i = 0; i < 4; ++i) b[(lane & 3) * 2 + (i & 1) + (i & 2 ? 8 : 0)][lane >> 2] = element(p.b, i);
  }
  for (int lane = 0; lane < 32; ++lane)
    for (int i = 0; i < 4; ++i) {
      double sum = part(lane).d[i];
      for (int k = 0; k < 16; ++k) sum += a[(lane >> 2) + (i & 2 ? 8 : 0)][k] * b[k][(lane & 3) * 2 + (i & 1)];
      part(lane).d[i] = static_cast<float>(sum);
    }
}

void finish(gathering const& g) {
  fiber* const* const lanes = &block.threads[g.first];
  std::uint32_t votes = 0;
  for (std::uint32_t l = 0; l < g.threads; ++l)
    if (g.wants(l) && lanes[l]->value != 0) votes |= 1u << l;  // a block's barrier brings no values
  for (std::uint32_t l = 0; l < g.threads; ++l)
    if (g.wants(l))
      lanes[l]->result = g.shuffles() ? lanes[lanes[l]->source]->value : votes, lanes[l]->is = state::ready;
  if (g.kind == meeting::multiply_add) multiply(lanes);
}

std::string text_of(gathering const& g) {
  char mask[48] = "";
  if (g.kind != meeting::sync_block)
    std::snprintf(mask, sizeof mask, " with mask 0x%08x in warp %u", g.mask, g.first / 32);
  return std::string(names[static_cast<int>(g.kind)]) + mask;
}
std::string stuck() {  // nobody can go on: what is waited for, and by whom not
  gathering const& g = block.open.front();
  std::uint32_t l = 0;
  while (!g.wants(l) || block.threads[g.first + l]->at == g.cell) ++l;
  return text_of(g) + " is reached by " + std::to_string(g.arrived) + " of " + std::to_string(g.wanted()) +
         " threads: thread " + std::to_string(g.first + l) +
         (block.threads[g.first + l]->is == state::done ? " has returned" : " waits elsewhere");
}

void start_block(std::uint64_t number) {
  static auto* const pool = new std::vector<fiber*>;  // suspended for ever, so never destroyed
  static std::size_t next = 0;
  extent const grid = block.run->grid, size = block.run->block;
  auto const index_in = [](std::uint64_t i, extent e) {
    return extent{static_cast<std::uint32_t>(i % e.x), static_cast<std::uint32_t>(i / e.x % e.y),
                  static_cast<std::uint32_t>(i / e.x / e.y)};
  };
  block.index = index_in(number, grid);
  block.finished = block.meetings = 0;
  block.threads.resize(volume(size));
  block.open.clear(), block.open.reserve(block.threads.size());
  clear_arena();
  // Under ThreadSanitizer blocks take turns with the fibers, shifted by one: one that served two blocks would order
  // them.
  std::size_t const wanted = block.threads.size() * (sanitizers::thread() && volume(grid) > 1 ? 2 : 1);
  while (pool->size() < wanted) pool->push_back(make_fiber());
  for (std::uint32_t r = 0; r < block.threads.size(); ++r) {
    fiber& f = *(*pool)[(next + r) % pool->size()];
    f.is = state::fresh, f.index = index_in(r, size), f.rank = r, f.takes = 0, f.at = nullptr;
    block.threads[r] = &f;
  }
  next = sanitizers::thread() ? (next + block.threads.size() + 1) % pool->size() : 0;
  block.last = schedule == 1 ? 0 : static_cast<std::uint32_t>(block.threads.size() - 1);
}
void run_block(std::uint64_t number) {
  start_block(number);
  while (fiber* const f = block.error ? nullptr : next_ready()) resume(*f);
  if (block.finished == block.threads.size()) return;
  if (!block.error) block.error = where() + ": " + stuck();
  for (fiber* f : block.threads)  // unwinds those that are inside the kernel
    if (f->is != state::done && f->is != state::fresh) resume(*f);
}

}  // namespace

void run(grid_run const& r) {
  block.run = &r;
  block.error.reset();
  main_tsan = sanitizers::current_fiber();
  random_order.seed(static_cast<std::uint32_t>(schedule));
  std::vector<std::uint64_t> order(volume(r.grid));
  std::iota(order.begin(), order.end(), 0);
  if (schedule == 1) std::reverse(order.begin(), order.end());
  if (schedule > 1) std::shuffle(order.begin(), order.end(), random_order);
  for (auto number = order.begin(); number != order.end() && !block.error; ++number) run_block(*number);
  sanitizers::acquire(&launch_end);
  if (block.error) kvevict::cuda::raise(*block.error);
}

void fail(std::string const& what) {
  block.error = where() + ", thread " + std::to_string(current->rank) + ": " + what;
  throw aborted{};
}

void* shared(void const* site, std::size_t bytes) {
  bool const fixed = site != nullptr;
  if (!fixed) site = arena->bytes + current->takes++;
  for (shared_array const& a : block.arrays)
    if (a.site == site)
      return a.bytes == bytes ? a.data
                              : (fail("shared: the threads of the block ask for arrays of different sizes"), nullptr);
  std::size_t const sum = block.taken[fixed] += kvevict::cuda::shared_bytes<char>(bytes), given = block.run->shared;
  if (!fixed && sum > given)
    fail("shared: " + std::to_string(sum) + " bytes are taken, the launch gave " + std::to_string(given));
  if (fixed && (sum > limits::static_shared || sum + given > limits::dynamic_shared))
    fail("KVEVICT_SHARED: " + std::to_string(sum) + " bytes, and " + std::to_string(given) +
         " from the launch, are more than a block has");
  auto* const p = arena->bytes + block.used;
  block.used += (bytes + 63) / 64 * 64 + red_zone;
  if (block.used > arena_bytes || block.arrays.size() == most_arrays) fail("too many shared arrays for the emulation");
  sanitizers::unpoison(p, bytes);
  // not memset, which sanitizers watch
  for (std::size_t i = 0; i < bytes; ++i) static_cast<unsigned char volatile*>(p)[i] = 0xff;
  block.arrays.push_back({site, p, bytes});
  return p;
}

std::uint64_t meet(meeting kind, std::uint32_t mask, std::uint64_t value, std::uint32_t source) {
  fiber& f = *current;
  auto const all = static_cast<std::uint32_t>(block.threads.size());
  std::uint32_t const first = kind == meeting::sync_block ? 0 : f.rank / 32 * 32, lane = f.rank - first;
  gathering const fresh{kind, first, kind == meeting::sync_block ? all : std::min(32u, all - first), mask, 0, nullptr};
  auto const refuse = [&](std::string const& what) { fail(text_of(fresh) + ": " + what); };
  if (!fresh.wants(lane)) refuse("called by lane " + std::to_string(lane) + ", which is outside the mask");
  if (fresh.threads < 32 && kind != meeting::sync_block && mask >> fresh.threads != 0)
    refuse("the warp has only " + std::to_string(fresh.threads) + " lanes");
  if (fresh.shuffles() && (source > 31 || !fresh.wants(source)))
    refuse("lane " + std::to_string(lane) + " reads lane " + std::to_string(source) + ", which is outside the mask");
  auto g = std::find_if(block.open.begin(), block.open.end(),
                        [&](gathering const& x) { return x.kind == kind && x.first == first && x.mask == mask; });
  if (g == block.open.end()) {
    block.open.push_back(fresh);  // it was reserved
    g = block.open.end() - 1;
    g->cell = &arena->cells[block.meetings++ % cells];
  }
  std::uint64_t* const cell = g->cell;
  f.value = value, f.source = source, f.at = cell, f.is = state::waiting;
  if (g->orders_memory()) sanitizers::release(cell);
  if (++g->arrived == g->wanted()) {
    finish(*g);
    *g = block.open.back(), block.open.pop_back();
  }
  suspend(f);
  f.at = nullptr;
  if (fresh.orders_memory()) sanitizers::acquire(cell);
  return f.result;
}

void maybe_yield() {
  if (schedule > 1 && random_order() % 4 == 0) suspend(*current);  // it is still ready
}

}  // namespace simt
