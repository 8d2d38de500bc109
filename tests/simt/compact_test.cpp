// SPDX-License-Identifier: Apache-2.0
// Compaction and replacement on a device: the host's bytes, lengths and pages, in every layout and schedule; and what
// is refused.
#include <numeric>

#include <kvevict/cuda/apply/compact.hpp>
#include <kvevict/cuda/apply/replace.hpp>
#include <kvevict/kernels/host.hpp>

#include <kvevict/apply/compact.hpp>
#include <kvevict/apply/replace.hpp>

#include "simt/device_cache.hpp"
#include "simt/device_stack.hpp"
#include "support/catch.hpp"
#include "support/keep_sets.hpp"

namespace compact_test {

using namespace simt_test;
namespace cuda = kvevict::cuda;
using kvevict::compaction;

namespace {

template <class T> std::vector<T> vector_of(kvevict::slice<T const> s) { return {s.begin(), s.end()}; }

/// Contents of the pages that still belong to rows, which is all that a compaction promises.
template <class Cache>
std::vector<std::byte> kept_bytes(Cache& cache, std::vector<std::vector<std::byte>> const& pool,
                                  std::vector<std::int32_t> const& lengths) {
  auto const before = cache.snapshot();
  cache.restore(pool);
  std::vector<std::byte> out;
  for (auto const& c : cache.view)
    for (std::int32_t b = 0, r = 0; b < cache.view.sequences(); ++b)
      for (std::int32_t h = 0; h < cache.view.heads(); ++h, ++r)
        for (std::int32_t t = 0; t < lengths[static_cast<std::size_t>(r)]; ++t)
          for (std::int32_t run = 0; run < c.rows.n_runs; ++run) {
            std::byte const* const p = cache.view.row(c, b, h, t) + run * c.rows.run_stride;
            out.insert(out.end(), p, p + c.rows.run_bytes);
          }
  cache.restore(before);
  return out;
}

template <class Entry>
void same_compaction(layouts::cache<Entry>& cache, kvevict::keep_set const& keep, compaction mode,
                     std::uint64_t schedule) {
  scheduled const s(schedule);
  device_cache<Entry> there(cache);
  cuda::device ctx(default_stream());
  cuda::keep_set on_device;
  on_device.assign(ctx, keep);
  cuda::compacted<Entry> got;
  compact(ctx, there.view, on_device, mode, got);
  CHECK_THROWS_AS(got.freed_pages(), kvevict::contract_violation);
  got.wait(ctx);
  auto const pool = there.snapshot(), before = cache.snapshot();
  kvevict::host host;
  auto const want = compact(host, cache.view, keep, mode);
  auto const lengths = vector_of(want.lengths());
  CHECK(vector_of(got.lengths()) == lengths);
  CHECK(got.order() == want.order());
  CHECK(got.bytes_moved() == want.bytes_moved());
  CHECK(got.freed_pages().size == want.freed_pages().size);
  if constexpr (!std::is_pointer_v<Entry>) CHECK(vector_of(got.freed_pages()) == vector_of(want.freed_pages()));
  CHECK(kept_bytes(cache, pool, lengths) == kept_bytes(cache, cache.snapshot(), lengths));
  cache.restore(before);
}

layouts::cache_shape small(kvevict::dtype type, std::int32_t page_size) {
  layouts::cache_shape s;
  s.lengths = {37, 0, 5, 1}, s.heads = 2, s.head_dim = 16, s.page_size = page_size, s.type = type, s.state_floats = 3;
  return s;
}

/// What a device says of a keep set; and the pool is as it was.
template <class Entry> std::string refused(layouts::cache<Entry>& cache, kvevict::keep_set const& keep) {
  device_cache<Entry> there(cache);
  cuda::device ctx(default_stream());
  cuda::keep_set on_device;
  on_device.assign(ctx, keep);
  cuda::compacted<Entry> out;
  std::string const text = support::refusal([&] {
    compact(ctx, there.view, on_device, compaction::stable, out);
    out.wait(ctx);
  });
  CHECK(there.snapshot() == cache.snapshot());
  CHECK_FALSE(out.ok());
  for (std::int32_t b = 0; b < cache.view.sequences() && out.lengths_on_device() != nullptr; ++b)
    for (std::int32_t h = 0; h < cache.view.heads(); ++h) {
      std::int32_t after = -1;
      cuda::copy_to_host(ctx.queue(), &after, out.lengths_on_device() + b * cache.view.heads() + h, sizeof after);
      cuda::synchronize(ctx.queue());
      CHECK(after == cache.view.length(b, h));
    }
  CHECK(support::refusal([&] { ctx.wait(); }).empty());  // said once
  return text;
}

}  // namespace

TEST_CASE("a device compacts to the host's bytes, in every layout") {
  reference::generator random(11);
  for (auto const type : {kvevict::dtype::f32, kvevict::dtype::bf16})
    for (std::int32_t const P : {1, 4, 16})
      layouts::for_each_layout(small(type, P), [&](auto& cache) {
        for (auto const mode : {compaction::stable, compaction::fill_holes}) {
          auto const keep = support::random_keep(random, cache.view, cache.per_head());
          CAPTURE(cache.name(), P, static_cast<int>(mode));
          same_compaction(cache, keep, mode, random.below(4));
        }
      });
}

TEST_CASE("rows that keep nothing are empty, also where no row keeps anything") {
  for (auto const mode : {compaction::stable, compaction::fill_holes})
    layouts::for_each_layout(small(kvevict::dtype::f32, 4), [&](auto& cache) {
      CAPTURE(cache.name(), static_cast<int>(mode));
      same_compaction(cache, support::keep_of(cache.view, std::vector<std::vector<std::int32_t>>(8)), mode, 0);
    });
}

TEST_CASE("long rows move batch by batch") {
  reference::generator random(12);
  for (auto const layout : {layouts::layout::head_pages, layouts::layout::transposed_v})
    for (std::uint64_t schedule = 0; schedule < 3; ++schedule) {
      layouts::cache_shape s;
      s.lengths = {900, 3000}, s.heads = 1, s.head_dim = 8, s.page_size = 16, s.seed = schedule + 1;
      layouts::with_layout(layout, s, [&](auto& cache) {
        for (auto const mode : {compaction::stable, compaction::fill_holes}) {
          CAPTURE(cache.name(), schedule, static_cast<int>(mode));
          same_compaction(cache, support::random_keep(random, cache.view, true), mode, schedule);
        }
      });
    }
}

TEST_CASE("of many rows a block fills the holes of several batches") {
  reference::generator random(19);
  layouts::cache_shape s;
  s.lengths.assign(256, 30), s.heads = 2, s.head_dim = 256, s.type = kvevict::dtype::bf16;
  layouts::with_layout(layouts::layout::transposed_v, s, [&](auto& cache) {  // 256 units a row, four moves a batch
    same_compaction(cache, support::random_keep(random, cache.view, cache.per_head()), compaction::fill_holes, 2);
  });
}

TEST_CASE("rows of any width, however many, are cut into slices that all hold something") {
  reference::generator random(20);
  for (std::int32_t const floats : {100, 132, 164, 192, 256, 288})  // 164: vLLM's fp8 MLA; 288: MLA in bf16
    for (std::size_t const rows : {1u, 31u, 45u, 61u}) {
      layouts::cache_shape s;
      s.lengths.assign(rows, 5), s.heads = 1, s.head_dim = floats, s.positions = 0;
      layouts::with_layout(layouts::layout::hnd, s, [&](auto& cache) {
        CAPTURE(floats, rows);
        same_compaction(cache, support::random_keep(random, cache.view, false), compaction::stable, 0);
      });
    }
}

TEST_CASE("the next compaction reads its lengths from the last one's result, into which it writes") {
  reference::generator random(18);
  for (std::uint64_t schedule = 0; schedule < 8; ++schedule) {
    scheduled const in_turn(schedule);
    layouts::cache<std::int32_t> cache(layouts::layout::head_pages,
                                       {.lengths = {90, 33}, .heads = 2, .head_dim = 8, .page_size = 4});
    device_cache<std::int32_t> there(cache);
    cuda::device ctx(default_stream());
    cuda::keep_set keep;
    cuda::compacted<std::int32_t> done;
    kvevict::host host;
    auto view = there.view;
    for (int step = 0; step < 3; ++step) {
      auto const planned = support::random_keep(random, cache.view, true);
      keep.assign(ctx, planned);
      compact(ctx, view, keep, compaction::stable, done);
      view.lengths = {done.lengths_on_device(), 2, 1};
      done.wait(ctx);
      auto const want = compact(host, cache.view, planned);
      auto const lengths = vector_of(want.lengths());
      CAPTURE(schedule, step);
      CHECK(vector_of(done.lengths()) == lengths);
      CHECK(vector_of(done.freed_pages()) == vector_of(want.freed_pages()));
      CHECK(kept_bytes(cache, there.snapshot(), lengths) == kept_bytes(cache, cache.snapshot(), lengths));
      cache.lengths() = lengths;
    }
    auto rest = view;  // the first sequence has ended
    rest.lengths.data += 2, rest.pages.entries += rest.pages.seq_stride, rest.pages.sequences = 1;
    auto host_rest = cache.view;
    host_rest.lengths.data += 2, host_rest.pages.entries += host_rest.pages.seq_stride, host_rest.pages.sequences = 1;
    auto const planned = support::random_keep(random, host_rest, true);
    keep.assign(ctx, planned);
    CHECK(support::refusal([&] {
            compact(ctx, rest, keep, compaction::stable, done);
          }).find("as rows of other numbers; provide another one") != std::string::npos);
    cuda::compacted<std::int32_t> other;
    compact(ctx, rest, keep, compaction::stable, other);
    other.wait(ctx);
    CHECK(vector_of(other.lengths()) == vector_of(compact(host, host_rest, planned).lengths()));
    layouts::cache<std::int32_t> larger(layouts::layout::head_pages,
                                        {.lengths = {400, 400}, .heads = 2, .head_dim = 8, .page_size = 4});
    device_cache<std::int32_t> elsewhere(larger);
    keep.assign(ctx, support::random_keep(random, larger.view, true));
    elsewhere.view.lengths.data = done.lengths_on_device();
    CHECK(support::refusal([&] {
            compact(ctx, elsewhere.view, keep, compaction::stable, done);
          }).find("provide another one") != std::string::npos);
  }
}

TEST_CASE("read-only prefixes stay, rows common to all heads move once") {
  reference::generator random(13);
  layouts::cache<std::int32_t> cache(layouts::layout::hnd,
                                     {.lengths = {23, 40}, .heads = 3, .head_dim = 8, .page_size = 4});
  std::int32_t const fixed[] = {8, 0};
  cache.view.read_only = fixed;
  auto keep = support::random_keep(random, cache.view, false);
  same_compaction(cache, keep, compaction::stable, 2);
  std::vector<std::int32_t> common(64 * 4);
  kvevict::component positions;
  positions.rows = {cache.buffer(1).data(), 0, cache.view.components[0].rows.page_count, 16, 0, 4, 0, 4, 1};
  positions.type = kvevict::dtype::i32, positions.what = kvevict::role::indexer;
  cache.view.components[2] = positions;  // in place of the positions per head
  std::vector<std::vector<std::int32_t>> rows;
  for (std::int32_t const n : {23, 40}) rows.insert(rows.end(), 3, support::random_row(random, n, 15, n == 23 ? 8 : 0));
  same_compaction(cache, support::keep_of(cache.view, rows), compaction::stable, 3);
  rows[1][14] = rows[1][14] == 22 ? 21 : 22;
  std::sort(rows[1].begin(), rows[1].end());
  rows[1].erase(std::unique(rows[1].begin(), rows[1].end()), rows[1].end());
  if (rows[1].size() == 15)
    CHECK(refused(cache, support::keep_of(cache.view, rows))
              .find("of sequence 0 move different tokens, but component indexer") != std::string::npos);
}

TEST_CASE("a device refuses keep sets of another cache, and nothing moves") {
  reference::generator random(14);
  layouts::cache<std::int32_t> cache(layouts::layout::nhd,
                                     {.lengths = {23, 40}, .heads = 2, .head_dim = 8, .page_size = 4});
  auto const keep = support::random_keep(random, cache.view, false);
  auto const says = [&](kvevict::keep_set const& k, char const* part) {
    std::string const text = refused(cache, k);
    INFO(text);
    CHECK(text.find(part) != std::string::npos);
  };
  auto other = keep;
  other.lengths[1] = 22;
  says(other, "planned for 22");
  other = support::keep_of(cache.view, {{1, 2, 3}, {1, 2, 3}, {5, 4, 6}, {1, 2, 3}});
  says(other, "not strictly ascending");
  other = support::keep_of(cache.view, {{1, 2, 3}, {1, 2, 2}, {3, 4, 6}, {1, 2, 3}});
  says(other, "not strictly ascending");
  other = support::keep_of(cache.view, {{1, 2, 3}, {1, 2, 23}, {3, 4, 6}, {1, 2, 3}});
  says(other, "not strictly ascending");
  other = support::keep_of(cache.view, {{1, 2, 3}, {1, 2}, {3, 4, 6}, {1, 2, 3}});
  says(other, "share a page table");
  std::int32_t const fixed[] = {4, 0};
  cache.view.read_only = fixed;
  says(support::keep_of(cache.view, {{1, 2, 3}, {1, 2, 3}, {3, 4, 6}, {1, 2, 3}}), "read-only prefix");
  says(support::keep_of(cache.view, {{0, 1, 2, 3, 9}, {0, 1, 2, 4, 9}, {0, 3, 4, 6, 7}, {0, 1, 2, 3, 4}}),
       "read-only prefix");
  cache.view.read_only = nullptr;
  device_cache<std::int32_t> there(cache);
  cuda::device ctx(default_stream());
  cuda::keep_set wrong;
  wrong.resize(ctx, 1, 2, 40);
  cuda::compacted<std::int32_t> out;
  CHECK_THROWS_AS(compact(ctx, there.view, wrong, compaction::stable, out), kvevict::contract_violation);
  wrong.assign(ctx, keep);
  CHECK(support::refusal([&] {
          compact(ctx, there.view, wrong, static_cast<compaction>(7), out);
        }).find("compact: there is no compaction 7; ") == 0);
  auto view = there.view;
  view.pages.seq_stride = -1;
  CHECK(support::refusal([&] { compact(ctx, view, wrong, compaction::stable, out); }).find("neither may be negative") !=
        std::string::npos);
  view = there.view;
  view.component_count = 1;
  view.components[0].rows.page_count = 40'000'000'000;
  CHECK(support::refusal([&] {
          compact(ctx, view, wrong, compaction::stable, out);
        }).find("a pool of 40000000000 pages") != std::string::npos);
  ctx.wait();
  CHECK(there.snapshot() == cache.snapshot());
}

TEST_CASE("a keep set whose arrays do not fit is not copied to a device") {
  layouts::cache<std::int32_t> cache(layouts::layout::nhd,
                                     {.lengths = {3, 4}, .heads = 2, .head_dim = 8, .page_size = 4});
  auto const good = support::keep_of(cache.view, {{0, 2}, {1, 2}, {0, 1, 3}, {0, 1, 2}});
  cuda::device ctx(default_stream());
  cuda::keep_set there;
  there.assign(ctx, good);
  auto const refuses = [&](auto damage, char const* words) {
    auto keep = good;
    damage(keep);
    std::string const text = support::refusal([&] { there.assign(ctx, keep); });
    INFO(text);
    CHECK(text.find(words) != std::string::npos);
    CHECK(there.read(ctx).tokens == good.tokens);
  };
  refuses([](auto& k) { k.lengths[1] = 1; }, "assign: row 1 keeps 2 tokens of 1; ");
  refuses([](auto& k) { k.lengths = {0, 0, 0, -1}; }, "assign: row 0 keeps 2 tokens of 0; ");
  refuses([](auto& k) { k.lengths.pop_back(); }, "do not describe its tokens");
  refuses([](auto& k) { k.row_begin.pop_back(); }, "do not describe its tokens");
  refuses([](auto& k) { k.row_begin[1] = 90; }, "do not describe its tokens");
  refuses([](auto& k) { k.tokens.pop_back(); }, "do not describe its tokens");
  refuses([](auto& k) { k.sequences = k.heads = -2; }, "do not describe its tokens");
}

TEST_CASE("on a device a page that layers share is freed once, when none of them needs it") {
  using support::placed;
  auto const in = support::random_batch(7, {.Hq = 2, .H = 2, .D = 8, .N = {19, 8, 30, 8, 11, 9}});
  for (placed const where : {placed::layers_apart, placed::layer_in_page, placed::own_tables})
    for (bool const heads_apart : {true, false}) {
      CAPTURE(int(where), heads_apart);
      support::stack s(in, 3, where, heads_apart);
      device_stack const there(s);
      reference::generator random(3);
      auto const kept = support::random_keep(random, s.whole(), heads_apart);
      cuda::device ctx(default_stream());
      cuda::keep_set keep;
      keep.assign(ctx, kept);
      cuda::compacted<std::int32_t> done;
      compact(ctx, there.whole(), keep, compaction::stable, done);
      done.wait(ctx);
      kvevict::host host;
      auto const want = compact(host, s.whole(), kept);
      CHECK(vector_of(done.freed_pages()) == vector_of(want.freed_pages()));
      std::int64_t const rows = (where == placed::own_tables ? 6 : 2) * (heads_apart ? 2 : 1);
      for (std::int64_t r = 0; r < rows; ++r) {
        CHECK(vector_of(done.freed_pages(r)) == vector_of(want.freed_pages(r)));
        CHECK((done.columns(r).first == want.columns(r).first && done.columns(r).last == want.columns(r).last));
      }
      CHECK_THROWS_AS(done.freed_pages(rows), kvevict::contract_violation);
    }
}

TEST_CASE("a device's result has only its own rows") {
  layouts::cache<std::int32_t> cache(layouts::layout::head_pages,
                                     {.lengths = {10, 7}, .heads = 2, .head_dim = 8, .page_size = 4});
  device_cache<std::int32_t> there(cache);
  cuda::device ctx(default_stream());
  cuda::keep_set keep;
  keep.assign(ctx, support::keep_of(cache.view, {{0, 2, 5, 9}, {1, 2, 3}, {0, 3}, {2, 5, 6}}));
  cuda::compacted<std::int32_t> done;
  compact(ctx, there.view, keep, compaction::stable, done);
  done.wait(ctx);
  CHECK(done.length(1, 1) == 3);
  CHECK(done.freed_pages(0).size == 2);
  CHECK_THROWS_AS(done.length(2, 0), kvevict::contract_violation);
  CHECK_THROWS_AS(done.length(0, 2), kvevict::contract_violation);
  CHECK_THROWS_AS(done.length(-1, 2), kvevict::contract_violation);
  CHECK_THROWS_AS(done.freed_pages(4), kvevict::contract_violation);
  CHECK_THROWS_AS(done.freed_pages(-1), kvevict::contract_violation);
}

TEST_CASE("where scales are page-wise a device drops the tail, and moves and replaces nothing, as the host does") {
  layouts::cache<std::int32_t> cache(layouts::layout::head_pages,
                                     {.lengths = {10, 7}, .heads = 2, .head_dim = 8, .page_size = 4});
  cache.view.components[1].scope = kvevict::quant_scope::page_channel;
  for (std::uint64_t schedule = 0; schedule < 2; ++schedule) {
    scheduled const s(schedule);
    same_compaction(cache, support::keep_of(cache.view, {{0, 1, 2}, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, {}, {0}}),
                    compaction::stable, schedule);
    same_compaction(cache, support::keep_of(cache.view, {{0, 1, 2}, {0}, {}, {0}}), compaction::fill_holes, schedule);
    CHECK(refused(cache, support::keep_of(cache.view, {{0, 1, 2}, {0, 2}, {}, {0}}))
              .find("compact: component v is quantised per page and channel") == 0);
  }
  std::vector<std::int32_t> const all{0, 1, 2, 3, 4, 5, 6}, most{0, 1, 2, 3, 4, 5};
  layouts::cache<std::int32_t> even(layouts::layout::head_pages,
                                    {.lengths = {7}, .heads = 2, .head_dim = 8, .page_size = 4});
  even.view.components[1].scope = kvevict::quant_scope::page_channel;
  device_cache<std::int32_t> there(even);
  cuda::device ctx(default_stream());
  on_device<std::int32_t> slots(std::vector<std::int32_t>{5, 5});
  for (auto const& rows : {std::vector{all, all}, std::vector{all, most}}) {
    cuda::keep_set keep;
    keep.assign(ctx, support::keep_of(even.view, rows));
    replace(ctx, there.view, keep, slots.data());
    std::string const device = support::refusal([&] { ctx.wait(); });
    kvevict::host host;
    std::string const on_host = support::refusal([&] { replace(host, even.view, support::keep_of(even.view, rows)); });
    CHECK(device == on_host);
    CHECK(device.empty() == (rows[1].size() == 7));
  }
  CHECK(slots.read()[0] == -1);
}

TEST_CASE("a device finds what is wrong with a table, and nothing moves") {
  reference::generator random(15);
  layouts::cache<std::int32_t> cache(layouts::layout::nhd,
                                     {.lengths = {23, 40}, .heads = 2, .head_dim = 8, .page_size = 4});
  auto const keep = support::random_keep(random, cache.view, false);
  auto const says = [&](char const* part) {
    std::string const text = refused(cache, keep);
    INFO(text);
    CHECK(text.find(part) != std::string::npos);
  };
  auto& entries = cache.entries();
  auto const at = static_cast<std::size_t>(cache.view.pages.seq_stride);
  std::int32_t const first = entries[0], second = entries[at];
  entries[0] = 1 << 20;
  says("page 0 of sequence 0, head 0 has id 1048576, but component k has");
  entries[0] = -1;
  says("page 0 of sequence 0, head 0 has id -1, but component k has");
  entries[0] = second;
  says("page 0 of sequence 1, head 0 is also page 0 of sequence 0, head 0 and would be written by both");
  entries[0] = entries[1];
  says("pages 0 and 1 of sequence 0, head 0 are the same page");
  entries[0] = first;
  cache.lengths()[1] = 41;
  says("sequence 1, head 0 has 41 tokens, but its table addresses 40");
  cache.lengths()[1] = -1;
  says("the length of sequence 1, head 0 is -1");
}

TEST_CASE("a device looks at the pages that V has of its own as the host does, in a pool of their own") {
  reference::generator random(18);
  layouts::cache<std::int32_t> cache(layouts::layout::own_pages,
                                     {.lengths = {23, 40}, .heads = 2, .head_dim = 8, .page_size = 4});
  auto const keep = support::random_keep(random, cache.view, false);
  std::int32_t& own = cache.entries()[static_cast<std::size_t>(cache.view.components[1].table_offset)];
  std::int32_t const sound = own;
  for (std::int32_t const id : {-1, 1 << 20}) {
    own = id;
    std::string const host = support::refusal([&] { kvevict::validate(cache.view); });
    CHECK(host.find("has id " + std::to_string(id) + ", but component v has") != std::string::npos);
    CHECK(refused(cache, keep) == host);
  }
  own = sound;
  same_compaction(cache, keep, compaction::stable, 1);
  cache.view.components[1].rows = cache.view.components[0].rows;
  CHECK(refused(cache, keep).find("lie in one pool, and a device does not compare those; give each a pool") !=
        std::string::npos);
}

TEST_CASE("a device finds pages that two rows write, and doubles in a read-only prefix, by id and by address") {
  reference::generator random(17);
  for (auto const layout : {layouts::layout::hnd, layouts::layout::pointers, layouts::layout::own_pages})
    layouts::with_layout(layout, {.lengths = {23, 40, 1}, .heads = 2, .head_dim = 8, .page_size = 4}, [&](auto& cache) {
      CAPTURE(cache.name());
      std::int32_t fixed[] = {8, 16, 0};
      auto const keep = support::keep_of(cache.view, {{0, 1, 2, 3, 4, 5, 6, 7, 9},
                                                      {0, 1, 2, 3, 4, 5, 6, 7, 9},
                                                      {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
                                                      {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
                                                      {0},
                                                      {0}});
      auto& entries = cache.entries();
      auto const sound = entries;
      auto const place = [&](std::int32_t b, std::int64_t i) {
        return static_cast<std::size_t>(cache.view.pages.entries_of(b, 0) - entries.data() + i +
                                        cache.view.components[1].table_offset);  // of V's pages where it has its own
      };
      auto const check = [&](char const* what, bool prefixes, std::int32_t b, std::int64_t i, std::int32_t b2,
                             std::int64_t i2, bool refuse) {
        CAPTURE(what);
        cache.view.read_only = prefixes ? fixed : nullptr;
        entries[place(b, i)] = entries[place(b2, i2)];
        std::string const host = support::refusal([&] {
          kvevict::host h;
          kvevict::validate(cache.view, h.scratch());
        });
        CHECK(host.empty() == !refuse);
        for (std::uint64_t schedule = 0; schedule < 4; ++schedule) {
          scheduled const s(schedule);
          if (refuse) {
            std::string const text = refused(cache, keep);
            INFO(text);
            CHECK(text == host);
          } else {
            same_compaction(cache, keep, compaction::stable, schedule);
          }
        }
        entries = sound;
        cache.view.read_only = nullptr;
      };
      check("two rows write it", false, 0, 5, 1, 9, true);
      check("one row writes it twice", false, 1, 9, 1, 0, true);
      check("a row writes another's prefix", true, 1, 4, 0, 1, true);
      check("a row writes its own prefix", true, 1, 9, 1, 3, true);
      check("a prefix has it twice", true, 1, 3, 1, 0, true);
      check("two rows share a page of their prefixes", true, 1, 0, 0, 0, false);
      check("two rows share one at other places", true, 1, 3, 0, 0, false);
    });
}

TEST_CASE("replacement on a device names the host's slots") {
  reference::generator random(16);
  layouts::for_each_layout(small(kvevict::dtype::f32, 4), [&](auto& cache) {
    using entry = typename std::decay_t<decltype(cache.view)>::table_entry;
    CAPTURE(cache.name());
    std::vector<std::vector<std::int32_t>> rows;
    for (std::int32_t b = 0; b < cache.view.sequences(); ++b)
      for (std::int32_t h = 0; h < cache.view.heads(); ++h) {
        std::int32_t const n = cache.view.length(b, h);
        rows.push_back(support::random_row(random, n, std::max(0, b == 2 ? n : n - 1)));
      }
    auto const keep = support::keep_of(cache.view, rows);
    device_cache<entry> there(cache);
    cuda::device ctx(default_stream());
    cuda::keep_set on_device_keep;
    on_device_keep.assign(ctx, keep);
    on_device<std::int32_t> slots(std::vector<std::int32_t>(rows.size()));
    replace(ctx, there.view, on_device_keep, slots.data());
    ctx.wait();
    kvevict::host host;
    CHECK(slots.read() == vector_of(replace(host, cache.view, keep).slots()));
  });
}

TEST_CASE("replacement on a device refuses more than one victim") {
  layouts::cache<std::int32_t> cache(layouts::layout::hnd, small(kvevict::dtype::f32, 4));
  std::vector<std::vector<std::int32_t>> rows;
  for (std::int32_t b = 0; b < cache.view.sequences(); ++b)
    for (std::int32_t h = 0; h < cache.view.heads(); ++h) {
      std::vector<std::int32_t> all(static_cast<std::size_t>(std::max(0, cache.view.length(b, h) - 2)));
      std::iota(all.begin(), all.end(), 0);
      rows.push_back(all);
    }
  device_cache<std::int32_t> there(cache);
  cuda::device ctx(default_stream());
  cuda::keep_set keep;
  keep.assign(ctx, support::keep_of(cache.view, rows));
  on_device<std::int32_t> slots(std::vector<std::int32_t>(rows.size()));
  replace(ctx, there.view, keep, slots.data());
  std::string const message = support::refusal([&] { ctx.wait(); });
  INFO(message);
  CHECK(message.find("evicts 2 tokens, but one token comes next") != std::string::npos);
  keep.resize(ctx, cache.view.sequences(), cache.view.heads(), 40);
  auto stale = support::keep_of(cache.view, rows);
  stale.lengths[0] = 36;
  keep.assign(ctx, stale);
  replace(ctx, there.view, keep, slots.data());
  CHECK(support::refusal([&] {
          ctx.wait();
        }).find("replace: sequence 0, head 0 has 37 tokens, but the keep set was planned for 36") == 0);
}

}  // namespace compact_test
