// SPDX-License-Identifier: Apache-2.0
// The threads of a block as coroutines, one after the other on the calling thread. No sanitizer instruments this file: what it does on a
// CUDA thread's behalf is not that thread's access. What they call is watched all the same (malloc, memmove): no vector may grow, and no
// element may be erased from the middle of one, on behalf of a thread.
#include <sys/mman.h>

#include <algorithm>
#include <boost/context/fiber.hpp>
#include <numeric>
#include <optional>
#include <vector>

#include "support/simt/layer.hpp"
#include "support/simt/sanitizers.hpp"

extern "C" char const* __tsan_default_options() { return "atexit_sleep_ms=0"; }  // else each program waits a second for its fibers

namespace simt {
namespace {

using kvevict::cuda::limits::block_threads;
namespace context = boost::context;

constexpr std::size_t stack_bytes = 256 << 10, guard_bytes = 4096, arena_bytes = 2 << 20, red_zone = 64, pending_copies = 64, arrays = 256;
constexpr char const* names[] = {"sync_warp", "shuffle", "shuffle_up", "shuffle_xor", "ballot", "multiply_add"};

struct aborted {};
enum class state : std::uint8_t { fresh, ready, at_barrier, in_meeting, done };

struct fiber {  // serves one CUDA thread after another
  context::fiber self, back;
  unsigned char* stack = nullptr;
  void *tsan = nullptr, *fake = nullptr;
  state is = state::done;
  extent index{};
  std::uint32_t rank = 0, takes = 0, group = 0, source = 0;
  std::uint64_t value = 0, result = 0;
  std::vector<async_copy> copies;
};
struct gathering {
  meeting kind;
  std::uint32_t mask, arrived, cell;
};
struct warp_type {
  std::vector<gathering> gatherings;
  std::uint32_t cells = 0;
};
struct shared_array {
  void const* site;
  void* data;
  std::size_t bytes;
};
struct arena_type {  // a block's shared memory, and before it the addresses that its barriers synchronise on
  std::uint64_t block_cells[2], warp_cells[32][64];
  alignas(64) unsigned char bytes[arena_bytes];
};

std::vector<fiber*>& pool() {
  static auto* all = new std::vector<fiber*>;  // suspended for ever, so never destroyed
  return *all;
}
fiber* current = nullptr;
void *main_tsan = nullptr, *main_fake = nullptr;
void const* main_stack = nullptr;
std::size_t main_stack_bytes = 0, pool_next = 0;
arena_type* arena = nullptr;
std::uint64_t launch_end;  // what a launch's threads release and the host acquires
std::uint64_t random_state = 1;

std::uint64_t random() {
  random_state ^= random_state << 13, random_state ^= random_state >> 7, random_state ^= random_state << 17;
  return random_state * 0x2545f4914f6cdd1dull >> 16;
}

struct block_type {
  grid_run const* run;
  extent index;
  std::uint32_t threads, arrived, generation, finished;
  std::vector<fiber*> members;
  fiber* ready[block_threads];  // a ring: `waiting` of them from `head` on
  std::size_t head, waiting;
  std::vector<warp_type> warps;
  std::vector<shared_array> fixed, dynamic;
  std::size_t fixed_bytes, dynamic_bytes, used;
  std::optional<std::string> error;
};
block_type block;

std::string where() { return std::string("kernel ") + block.run->name + ", block " + kvevict::cuda::text_of(block.index); }

void make_ready(fiber& f) {
  f.is = state::ready;
  block.ready[(block.head + block.waiting++) % block_threads] = &f;
}
fiber& next_ready() {
  auto const at = [](std::size_t i) -> fiber*& { return block.ready[(block.head + i) % block_threads]; };
  if (options().schedule == 1) std::swap(at(0), at(block.waiting - 1));
  if (options().schedule > 1) std::swap(at(0), at(random() % block.waiting));
  fiber& f = *at(0);
  block.head = (block.head + 1) % block_threads, --block.waiting;
  return f;
}

void resume(fiber& f) {
  current = &f;
  sanitizers::start_switch(&main_fake, f.stack + guard_bytes, stack_bytes);
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

void call(fiber& f) {
  try {
    kvevict::cuda::thread t(f.index, block.index, block.run->block, block.run->grid);
    block.run->call(block.run->kernel, t);
    if (!f.copies.empty()) fail("an asynchronous copy is never waited for; commit_async and wait_async before the kernel ends");
  } catch (aborted const&) {
  }
  f.is = state::done;
  ++block.finished;
  sanitizers::release(&launch_end);
}
fiber* make_fiber() {
  auto* const f = new fiber;
  f->copies.reserve(pending_copies);
  f->stack = static_cast<unsigned char*>(
      mmap(nullptr, guard_bytes + stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0));
  mprotect(f->stack, guard_bytes, PROT_NONE);
  f->tsan = sanitizers::create_fiber();
  struct no_free {
    context::stack_context allocate() { return {}; }
    void deallocate(context::stack_context&) {}
  };
  context::stack_context space;
  space.size = stack_bytes;
  space.sp = f->stack + guard_bytes + stack_bytes;
  f->self = context::fiber(std::allocator_arg, context::preallocated(space.sp, space.size, space), no_free{}, [f](context::fiber&& from) {
    f->back = std::move(from);
    sanitizers::finish_switch(nullptr, &main_stack, &main_stack_bytes);
    for (;;) call(*f), leave(*f);
    return std::move(f->back);
  });
  return f;
}

void* take_array(std::vector<shared_array>& taken, void const* site, std::size_t bytes) {
  auto* const p = arena->bytes + block.used;
  block.used += (bytes + 63) / 64 * 64 + red_zone;
  if (block.used > arena_bytes || taken.size() == arrays) fail("too many shared arrays for the emulation");
  sanitizers::unpoison(p, bytes);
  for (std::size_t i = 0; i < bytes; ++i) static_cast<unsigned char volatile*>(p)[i] = 0xff;  // not memset, which sanitizers watch
  taken.push_back({site, p, bytes});
  return p;
}
void clear_arena() {
  if (arena == nullptr || sanitizers::thread()) {  // a new mapping: ThreadSanitizer forgets what the last block did to it
    if (arena != nullptr) munmap(arena, sizeof(arena_type));
    arena = static_cast<arena_type*>(mmap(arena, sizeof(arena_type), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  }
  sanitizers::poison(arena->bytes, sanitizers::address() && block.used == 0 ? arena_bytes : block.used);
  block.used = 0;
  block.fixed.clear(), block.dynamic.clear();
  block.fixed.reserve(arrays), block.dynamic.reserve(arrays);
  block.fixed_bytes = block.dynamic_bytes = 0;
}

void multiply(fiber* const* lanes) {  // fragment layouts: PTX ISA, mma.m16n8k16, written down once more on purpose
  double a[16][16], b[16][8];
  for (int lane = 0; lane < 32; ++lane) {
    auto const& part = *reinterpret_cast<matrix_part const*>(lanes[lane]->value);
    int const group = lane >> 2, in_group = lane & 3;
    auto const element = [&](std::uint32_t const* r, int i) { return part.widen(static_cast<std::uint16_t>(r[i >> 1] >> (16 * (i & 1)))); };
    for (int i = 0; i < 8; ++i)
      a[(i < 2 || (i >= 4 && i < 6)) ? group : group + 8][in_group * 2 + (i & 1) + (i >= 4 ? 8 : 0)] = element(part.a, i);
    for (int i = 0; i < 4; ++i) b[in_group * 2 + (i & 1) + (i >= 2 ? 8 : 0)][group] = element(part.b, i);
  }
  for (int lane = 0; lane < 32; ++lane) {
    auto const& part = *reinterpret_cast<matrix_part const*>(lanes[lane]->value);
    for (int i = 0; i < 4; ++i) {
      int const row = i < 2 ? lane >> 2 : (lane >> 2) + 8, column = (lane & 3) * 2 + (i & 1);
      double sum = part.d[i];
      for (int k = 0; k < 16; ++k) sum += a[row][k] * b[k][column];
      part.d[i] = static_cast<float>(sum);
    }
  }
}

std::string hex(std::uint32_t mask) {
  char text[16];
  std::snprintf(text, sizeof text, "0x%08x", mask);
  return text;
}
void finish(gathering const& g, std::uint32_t warp) {
  fiber* const* const lanes = &block.members[warp * 32];
  std::uint32_t votes = 0;
  for (std::uint32_t l = 0; l < 32; ++l)
    if (g.mask >> l & 1) votes |= static_cast<std::uint32_t>(lanes[l]->value != 0) << l;
  bool const shuffles = g.kind >= meeting::shuffle && g.kind <= meeting::shuffle_xor;
  for (std::uint32_t l = 0; l < 32; ++l)
    if (g.mask >> l & 1) lanes[l]->result = shuffles ? lanes[lanes[l]->source]->value : votes;
  if (g.kind == meeting::multiply_add) multiply(lanes);
}

std::string stuck() {  // nobody can go on: what is waited for, and by whom not
  auto const doing = [](fiber const& f) { return "thread " + std::to_string(f.rank) + (f.is == state::done ? " has returned" : " waits elsewhere"); };
  for (std::uint32_t w = 0; w < block.warps.size(); ++w)
    for (gathering const& g : block.warps[w].gatherings) {
      std::uint32_t const missing = g.mask & ~g.arrived;
      return std::string(names[static_cast<int>(g.kind)]) + " with mask " + hex(g.mask) + " in warp " + std::to_string(w) + ": lanes " +
             hex(missing) + " do not arrive: " + doing(*block.members[w * 32 + static_cast<std::uint32_t>(__builtin_ctz(missing))]);
    }
  for (fiber const* f : block.members)
    if (f->is != state::at_barrier)
      return "the block barrier is reached by " + std::to_string(block.arrived) + " of " + std::to_string(block.threads) + " threads: " + doing(*f);
  return "no thread can go on";
}

void start_block(std::uint64_t number) {
  extent const grid = block.run->grid, size = block.run->block;
  block.index = {static_cast<std::uint32_t>(number % grid.x), static_cast<std::uint32_t>(number / grid.x % grid.y),
                 static_cast<std::uint32_t>(number / grid.x / grid.y)};
  block.threads = static_cast<std::uint32_t>(volume(size));
  block.arrived = block.generation = block.finished = 0;
  clear_arena();
  block.members.clear(), block.head = block.waiting = 0;
  block.warps.resize((block.threads + 31) / 32);
  for (warp_type& w : block.warps) w.gatherings.clear(), w.gatherings.reserve(32), w.cells = 0;
  // Under ThreadSanitizer blocks take turns with the fibers, shifted by one: one that served two blocks would order them.
  std::size_t const wanted = block.threads * (sanitizers::thread() && volume(grid) > 1 ? 2 : 1);
  while (pool().size() < wanted) pool().push_back(make_fiber());
  for (std::uint32_t r = 0; r < block.threads; ++r) {
    fiber& f = *pool()[(pool_next + r) % pool().size()];
    f.index = {r % size.x, r / size.x % size.y, r / size.x / size.y};
    f.rank = r, f.takes = f.group = 0;
    f.copies.clear();
    block.members.push_back(&f);
    make_ready(f);
    f.is = state::fresh;
  }
  pool_next = sanitizers::thread() ? (pool_next + block.threads + 1) % pool().size() : 0;
}
void run_block(std::uint64_t number) {
  start_block(number);
  while (block.waiting != 0 && !block.error) {
    fiber& f = next_ready();
    f.is = state::ready;
    resume(f);
  }
  if (block.finished == block.threads) return;
  if (!block.error) block.error = where() + ": " + stuck();
  for (fiber* f : block.members)  // unwinds those that are inside the kernel
    if (f->is != state::done && f->is != state::fresh) resume(*f);
}

}  // namespace

options_type& options() {
  static options_type o;
  return o;
}

void run(grid_run const& r) {
  block.run = &r;
  block.error.reset();
  main_tsan = sanitizers::current_fiber();
  random_state = options().schedule * 0x9e3779b97f4a7c15ull | 1;
  std::uint64_t const count = volume(r.grid);
  std::uint64_t step = options().schedule > 1 ? random() % count + 1 : 1;
  while (std::gcd(step, count) != 1) ++step;
  for (std::uint64_t i = 0; i < count && !block.error; ++i) run_block(options().schedule == 1 ? count - 1 - i : (i * step + step - 1) % count);
  sanitizers::acquire(&launch_end);
  if (block.error) kvevict::cuda::raise(*block.error);
}

void fail(std::string const& what) {
  block.error = where() + ", thread " + std::to_string(current->rank) + ": " + what;
  throw aborted{};
}

void* shared_dynamic(std::size_t bytes) {
  if (current->takes < block.dynamic.size()) {
    shared_array const& array = block.dynamic[current->takes++];
    if (array.bytes != bytes) fail("shared: the threads of the block ask for arrays of different sizes");
    return array.data;
  }
  ++current->takes;
  block.dynamic_bytes += kvevict::cuda::shared_bytes<char>(bytes);
  if (block.dynamic_bytes > block.run->shared)
    fail("shared: " + std::to_string(block.dynamic_bytes) + " bytes are taken, the launch gave " + std::to_string(block.run->shared));
  return take_array(block.dynamic, nullptr, bytes);
}
void* shared_static(void const* site, std::size_t bytes) {
  for (shared_array const& array : block.fixed)
    if (array.site == site) return array.data;
  block.fixed_bytes += kvevict::cuda::shared_bytes<char>(bytes);
  if (block.fixed_bytes > kvevict::cuda::limits::static_shared || block.fixed_bytes + block.run->shared > options().shared_limit)
    fail("KVEVICT_SHARED: " + std::to_string(block.fixed_bytes) + " bytes, and " + std::to_string(block.run->shared) +
         " from the launch, are more than a block has");
  return take_array(block.fixed, site, bytes);
}

void sync_block() {
  fiber& f = *current;
  void* const cell = &arena->block_cells[block.generation % 2];  // by turns: a thread may arrive again before all have left
  sanitizers::release(cell);
  f.is = state::at_barrier;
  if (++block.arrived == block.threads) {
    block.arrived = 0, ++block.generation;
    for (fiber* member : block.members) make_ready(*member);
  }
  suspend(f);
  sanitizers::acquire(cell);
}

std::uint64_t meet(meeting kind, std::uint32_t mask, std::uint64_t value, std::uint32_t source) {
  fiber& f = *current;
  warp_type& warp = block.warps[f.rank / 32];
  std::uint32_t const lane = f.rank % 32, lanes = std::min(32u, block.threads - f.rank / 32 * 32);
  auto const refuse = [&](std::string const& what) { fail(names[static_cast<int>(kind)] + (" with mask " + hex(mask)) + ": " + what); };
  if (!(mask >> lane & 1)) refuse("called by lane " + std::to_string(lane) + ", which is outside the mask");
  if (lanes < 32 && mask >> lanes != 0) refuse("the warp has only " + std::to_string(lanes) + " lanes");
  if (kind >= meeting::shuffle && kind <= meeting::shuffle_xor && (source > 31 || !(mask >> source & 1)))
    refuse("lane " + std::to_string(lane) + " reads lane " + std::to_string(source) + ", which is outside the mask");
  f.value = value, f.source = source;
  auto g = std::find_if(warp.gatherings.begin(), warp.gatherings.end(), [&](gathering const& x) { return x.kind == kind && x.mask == mask; });
  if (g == warp.gatherings.end()) warp.gatherings.push_back({kind, mask, 0, warp.cells++ % 64}), g = warp.gatherings.end() - 1;
  g->arrived |= 1u << lane;
  void* const cell = &arena->warp_cells[f.rank / 32][g->cell];
  if (kind == meeting::sync_warp) sanitizers::release(cell);
  f.is = state::in_meeting;
  if (g->arrived == mask) {
    gathering const complete = *g;
    *g = warp.gatherings.back(), warp.gatherings.pop_back();
    finish(complete, f.rank / 32);
    for (std::uint32_t l = 0; l < 32; ++l)
      if (mask >> l & 1) make_ready(*block.members[f.rank / 32 * 32 + l]);
  }
  suspend(f);
  if (kind == meeting::sync_warp) sanitizers::acquire(cell);
  return f.result;
}

void maybe_yield() {
  if (options().schedule < 2 || random() % 4 != 0) return;
  make_ready(*current);
  suspend(*current);
}

void begin(async_copy const& c) {
  if (current->copies.size() == pending_copies) fail("copy_async16: more copies under way than the emulation holds");
  current->copies.push_back({c.to, c.from, c.valid, current->group});
}
void commit() { ++current->group; }
bool arrives(std::uint32_t pending, async_copy& c) {
  auto& copies = current->copies;
  if (copies.empty() || copies.front().group + pending >= current->group) return false;
  c = copies.front();
  copies.erase(copies.begin());
  return true;
}

}  // namespace simt
