// SPDX-License-Identifier: Apache-2.0
#include <kvevict/kernels/move_rows.hpp>
#include <kvevict/threads.hpp>

#include "support/catch.hpp"
#include "support/random.hpp"

namespace kernels_move_rows_test {

using namespace kvevict;

namespace {

/// One sequence on three pages of `slots` slots; rows of runs, bytes apart by what the arguments say.
struct strip {
  std::vector<std::byte> pool;
  std::int32_t entries[3] = {2, 0, 1};
  std::int32_t length;
  layer_view<> view;

  strip(reference::generator& random, std::int32_t run_bytes, std::int32_t n_runs, bool transposed, std::int32_t slots)
      : length(3 * slots) {
    component c;
    c.type = dtype::opaque;
    row_map& m = c.rows;
    m.run_bytes = run_bytes, m.n_runs = n_runs;
    m.slot_stride = transposed ? run_bytes : run_bytes * n_runs + 3;
    m.run_stride = transposed ? run_bytes * slots : run_bytes;
    m.page_stride = slots * (m.row_bytes() + 3) + 5;
    m.page_count = 3, m.offset = 7;
    pool.resize(static_cast<std::size_t>(7 + 3 * m.page_stride));
    for (std::byte& x : pool) x = static_cast<std::byte>(random.bits());
    m.base = pool.data();
    view.pages.sequences = view.pages.heads = 1, view.pages.columns = 3, view.pages.page_size = slots;
    view = view.with(c);
  }
  layer_view<> look() {
    view.pages.entries = entries, view.lengths.data = &length, view.components[0].rows.base = pool.data();
    return view;
  }
};

move_plan plan_of(std::vector<std::int32_t> from, std::vector<std::int32_t> to) {
  move_plan p;
  p.sequences = p.heads = 1;
  p.row_begin = {0, static_cast<std::int64_t>(from.size())};
  p.sources = std::move(from), p.destinations = std::move(to);
  return p;
}

}  // namespace

TEST_CASE("move_rows: every width and number of runs, one move after the other, byte for byte") {
  std::uint64_t seed = 0;
  for (std::int32_t const bytes : {1, 2, 3, 4, 6, 8, 12, 16, 20, 32, 64, 128, 132, 256, 656})
    for (std::int32_t const runs : {1, 5, 16})
      for (bool const transposed : {false, true})
        for (std::int32_t const slots : {1, 50}) {
          reference::generator random(++seed);
          strip s(random, bytes, runs, transposed, slots);
          // not only the shapes that compaction makes: sources may have been written before
          std::vector<std::int32_t> from, to;
          for (int i = 0; i < 150; ++i) {
            from.push_back(static_cast<std::int32_t>(random.below(static_cast<std::size_t>(s.length))));
            to.push_back(static_cast<std::int32_t>(random.below(static_cast<std::size_t>(s.length))));
            if (from.back() == to.back()) from.pop_back(), to.pop_back();
          }
          auto expected = s.pool;
          row_map const& m = s.view.components[0].rows;
          auto const at = [&](std::int32_t slot) {
            return static_cast<std::size_t>(7 + s.entries[slot / slots] * m.page_stride + slot % slots * m.slot_stride);
          };
          for (std::size_t i = 0; i < from.size(); ++i)
            for (std::int32_t run = 0; run < runs; ++run)
              for (std::int32_t k = 0; k < bytes; ++k) {
                auto const e = static_cast<std::size_t>(run * m.run_stride + k);
                expected[at(to[i]) + e] = expected[at(from[i]) + e];
              }
          host ctx;
          kernels::move_rows(ctx, s.look(), plan_of(from, to));
          CAPTURE(bytes, runs, transposed, slots);
          REQUIRE(s.pool == expected);
          CHECK(ctx.scratch().high_water() == 0);
        }
}

TEST_CASE("move_rows: more than caches hold, rows at and beside the start of a line, threads or one") {
  std::int32_t const H = 3, N = 4000, moves = 3000;  // of 2 KiB: rows are streamed
  reference::generator random(5);
  move_plan plan;
  plan.sequences = 1, plan.heads = H, plan.row_begin = {0};
  for (std::int32_t h = 0; h < H; ++h) {
    for (std::int32_t i = 0; i < moves - h; ++i) plan.sources.push_back(i + 1 + h), plan.destinations.push_back(i);
    plan.row_begin.push_back(static_cast<std::int64_t>(plan.sources.size()));
  }
  for (std::int64_t const off : {0, 16, 1})
    for (int const threads : {1, 2}) {
      std::int32_t const slots = 16, bytes = 2048, pages = N / slots;
      std::vector<std::byte> pool(static_cast<std::size_t>(64 + off + std::int64_t{N} * H * bytes));
      for (std::size_t i = 0; i < pool.size(); i += 97) pool[i] = static_cast<std::byte>(random.bits());
      auto const start = reinterpret_cast<std::uintptr_t>(pool.data()) % 64;
      component c;
      c.type = dtype::opaque;
      c.rows = {pool.data(),
                static_cast<std::int64_t>((64 - start) % 64) + off,
                pages,
                slots * H * bytes,
                bytes,
                H * bytes,
                0,
                bytes,
                1};
      std::vector<std::int32_t> entries;
      for (std::int32_t i = 0; i < pages; ++i) entries.push_back(pages - 1 - i);
      std::int32_t const length = N;
      layer_view<> view;
      view.pages.entries = entries.data(), view.pages.sequences = 1, view.pages.heads = H, view.pages.columns = pages;
      view.pages.page_size = slots, view.lengths.data = &length;
      view = view.with(c);
      auto const row = [&](std::byte* base, std::int32_t h, std::int32_t t) {
        return base + c.rows.offset + (std::int64_t{entries[std::size_t(t / slots)]} * slots + t % slots) * H * bytes +
               std::int64_t{h} * bytes;
      };
      std::vector<std::byte> want = pool;
      for (std::int32_t h = 0; h < H; ++h)
        for (std::int32_t i = 0; i < moves - h; ++i)
          std::memcpy(row(want.data(), h, i), row(want.data(), h, i + 1 + h), std::size_t(bytes));
      kvevict::threads team(threads);
      host ctx(team.as_executor());
      kernels::move_rows(ctx, view, plan);
      CHECK(pool == want);
    }
}

TEST_CASE("move_rows: an alias is not moved a second time") {
  reference::generator random(1);
  strip s(random, 8, 1, false, 4);
  auto alias = s.look().components[0];
  alias.what = role::v, alias.alias_of = 0;
  s.view = s.view.with(alias);
  auto const before = s.pool;
  host ctx;
  kernels::move_rows(ctx, s.look(), plan_of({1, 2}, {0, 1}));  // moved twice, slot 0 would end with what was in slot 2
  row_map const& m = s.view.components[0].rows;
  auto const at = [&](int slot) { return 7 + 2 * m.page_stride + slot * m.slot_stride; };
  CHECK(std::equal(s.pool.begin() + at(0), s.pool.begin() + at(0) + 8, before.begin() + at(1)));
  CHECK(std::equal(s.pool.begin() + at(1), s.pool.begin() + at(1) + 8, before.begin() + at(2)));
}

}  // namespace kernels_move_rows_test
