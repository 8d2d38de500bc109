// SPDX-License-Identifier: Apache-2.0
// Moving the kept fifth of a layer to the front, beside memcpy of as many bytes; and of values that lie transposed,
// beside reading every cache line once that moves touch.
#include <kvevict/kvevict.hpp>

#include "support/layer.hpp"

namespace {

using namespace bench;

/// A layer, what moves in it, and what its compaction costs at least.
struct cut {
  cut(shape s, char const* values, bool values_alone) : of(s, s.W) {
    of.with_values(values);
    kvevict::host ctx;
    keep = kvevict::plan(ctx, kvevict::presets::snapkv({.window = s.W}), kvevict::prompt(of.view, of.in.queries()),
                         {.tokens_per_head = s.N / 5});
    moving = of.view;
    if (!values_alone) return;
    moving.components[0] = moving.components[1], moving.components[0].what = kvevict::role::k;  // a cache has keys
    moving.component_count = 1;
  }
  layer of;
  kvevict::layer_view<> moving;
  kvevict::keep_set keep;
  kvevict::compacted<std::int32_t> out;
};

/// f(address) of every run of a row.
template <class F>
void each_run(kvevict::layer_view<> const& v, kvevict::component const& c, std::int64_t r, std::int32_t token, F f) {
  std::byte* const row = v.row(c, 0, static_cast<std::int32_t>(r), token);
  for (std::int32_t i = 0; i < c.rows.n_runs; ++i) f(row + i * c.rows.run_stride);
}

/// f(row, source, destination) of every move.
template <class F> void each_move(kvevict::move_plan const& moves, F f) {
  for (std::size_t r = 0; r + 1 < moves.row_begin.size(); ++r)
    for (auto i = std::size_t(moves.row_begin[r]); i < std::size_t(moves.row_begin[r + 1]); ++i)
      f(std::int64_t(r), moves.sources[i], moves.destinations[i]);
}

/// Bytes of all cache lines that moves read or write, each once.
double touched_bytes(cut const& of, shape const& s) {
  double lines = 0;
  for (kvevict::component const& c : of.moving) {
    std::vector<bool> seen(std::size_t(s.N) * std::size_t(s.H * s.D) * 4 / 64 + 1);
    each_move(of.out.moves(), [&](std::int64_t r, std::int32_t from, std::int32_t to) {
      for (std::int32_t const token : {from, to})
        each_run(of.moving, c, r, token, [&](std::byte const* p) {
          for (std::int32_t b = 0; b < c.rows.run_bytes; b += 64) {
            auto line = seen[std::size_t(p + b - c.rows.base) / 64];
            lines += line ? 0 : 1;
            line = true;
          }
        });
    });
  }
  return lines * 64;
}

/// The first compaction: every row holds its kept tokens, each with the bytes that it had before.
bool moved(kvevict::host& ctx, cut& of, shape const& s, kvevict::compaction mode) {
  std::size_t const bytes = std::size_t(s.N) * std::size_t(s.H * s.D) * 4;
  std::vector<std::vector<std::byte>> copies;
  kvevict::layer_view<> before = of.moving;
  for (std::int32_t c = 0; c < before.component_count; ++c) {
    auto& base = before.components[std::size_t(c)].rows.base;
    copies.emplace_back(base, base + bytes);
    base = copies.back().data();
  }
  kvevict::compact(ctx, of.moving, of.keep, mode, of.out);
  std::vector<std::vector<std::int32_t>> tokens;
  for (std::int64_t r = 0; r < of.keep.rows(); ++r) {
    tokens.emplace_back(std::size_t(of.keep.row(r).size));
    std::iota(tokens.back().begin(), tokens.back().end(), 0);
  }
  each_move(of.out.moves(), [&](std::int64_t r, std::int32_t from, std::int32_t to) {
    tokens[std::size_t(r)][std::size_t(to)] = from;
  });
  bool right = true;
  for (std::int64_t r = 0; r < of.keep.rows(); ++r) {
    auto& row = tokens[std::size_t(r)];
    for (std::size_t i = 0; i < row.size(); ++i)
      for (std::int32_t c = 0; c < before.component_count; ++c) {
        kvevict::component const& now = of.moving.components[std::size_t(c)];
        std::ptrdiff_t const there = before.components[std::size_t(c)].rows.base - now.rows.base;
        each_run(of.moving, now, r, row[i], [&, run = std::int64_t{0}](std::byte const* p) mutable {
          std::byte const* const to = of.moving.row(now, 0, std::int32_t(r), std::int64_t(i)) + run;
          right &= std::memcmp(to, p + there, std::size_t(now.rows.run_bytes)) == 0;
          run += now.rows.run_stride;
        });
      }
    std::sort(row.begin(), row.end());
    right &= std::equal(row.begin(), row.end(), of.keep.row(r).begin(), of.keep.row(r).end());
  }
  return right;
}

/// The cache is cut again and again: the same rows move, whatever they hold.
void compact(benchmark::State& state, shape s, int threads, kvevict::compaction mode, char const* values) {
  context& c = on(threads);
  bool const transposed = values == std::string_view("BHDN");
  cut& of = *once(s.name() + values, [&] { return std::make_unique<cut>(s, values, transposed); });
  std::string const of_mode = s.name() + values + std::to_string(int(mode));
  if (!once(of_mode + host_name(threads), [&] { return moved(c.ctx, of, s, mode); }))
    return state.SkipWithError("a row is not where it should be");
  kvevict::compact(c.ctx, of.moving, of.keep, mode, of.out);
  for (auto _ : state) kvevict::compact(c.ctx, of.moving, of.keep, mode, of.out);
  if (transposed)
    count(state, c, s.N, 0, once(s.name() + std::to_string(int(mode)), [&] { return touched_bytes(of, s); }),
          bound::memory);
  else
    count(state, c, s.N, 0, 2.0 * double(of.out.bytes_moved()), bound::copying);
}

}  // namespace

int main(int argc, char** argv) {
  using kvevict::compaction;
  for (std::int32_t const N : {4096, 32768})
    for (int const threads : {1, 2})
      for (auto const mode : {compaction::stable, compaction::fill_holes})
        for (char const* const values : {"BNHD", "BHDN"})
          for (bool const contiguous : {false, true}) {
            if (contiguous && values == std::string_view("BNHD")) continue;
            shape const s{32, 8, N, 128, 32, kvevict::dtype::f32, contiguous};
            std::string name = mode == compaction::stable ? "compact/stable/" : "compact/fill_holes/";
            name.append(values).append("/").append(host_name(threads)).append("/").append(s.name());
            add(name, threads, [=](benchmark::State& state) { compact(state, s, threads, mode, values); });
          }
  return run_added(argc, argv);
}
