// SPDX-License-Identifier: Apache-2.0
// Reading and writing what decoding keeps per slot: H2O's one float, AhaKV's ring of 32, the positions of scattered
// rows; whether positions ascend; and AhaKV's observe of a prompt beside its plan of the same rows.
#include <cstring>

#include <kvevict/kernels/host.hpp>
#include <kvevict/presets/ahakv.hpp>

#include "support/layer.hpp"

namespace {

using namespace bench;

/// A layer with values, positions and `floats` of state a slot, all in pages of 16.
class remembering : public layer {
 public:
  remembering(shape s, std::int32_t floats, std::int32_t query_tokens = 1) : layer(s, query_tokens) {
    with(kvevict::role::v, kvevict::dtype::f32, s.D, "BHND")
        .with(kvevict::role::position, kvevict::dtype::i32, 1, "BHND");
    with(kvevict::role::state, kvevict::dtype::f32, floats, "BHND");
    for (std::int32_t h = 0; h < s.H; ++h)
      for (std::int32_t t = 0; t < s.N; ++t) {
        position(h, t) = (t * 5 + h) % s.N;
        for (std::int32_t c = 0; c < floats; ++c) (&state(h, t))[c] = static_cast<float>((t + c + h) % 977);
      }
  }
  std::int32_t& position(std::int32_t h, std::int32_t t) { return at<std::int32_t>(kvevict::role::position, h, t); }
  float& state(std::int32_t h, std::int32_t t) { return at<float>(kvevict::role::state, h, t); }
};

void sum_state(benchmark::State& state, shape s, std::int32_t floats) {
  context& c = on(1);
  remembering r(s, floats);
  auto const run = [&] { kernels::sum_state(c.ctx, r.view, *r.view.find(kvevict::role::state), r.rows()); };
  run();
  for (std::int32_t h = 0; h < s.H; ++h)
    for (std::int32_t t = 0; t < s.N; ++t) {
      float want = 0;
      for (std::int32_t i = 0; i < floats; ++i) want += (&r.state(h, t))[i];
      if (r.in.scores(h)[t] != want) return state.SkipWithError("wrong sums");
    }
  for (auto _ : state) run();
  count(state, c, double(s.H) * s.N, 0, double(s.H) * s.N * 4 * (floats + 1), bound::cache);
}

void update_state(benchmark::State& state, shape s, std::int32_t floats) {
  context& c = on(1);
  remembering r(s, floats);
  kvevict::score_rows const from = r.rows();
  for (std::int64_t r_ = 0; r_ < from.count(); ++r_) from.rows[r_].new_from = s.N - 1;
  std::fill_n(from.values, from.total_floats, 0.5f);
  float const before = r.state(0, 3);
  auto const run = [&] {
    kernels::update_state(c.ctx, r.view, *r.view.find(kvevict::role::state), kvevict::update_options{}, from);
  };
  run();
  if (r.state(0, 3) != before + 0.5f || r.state(0, s.N - 1) != 0.5f) return state.SkipWithError("wrong state");
  for (auto _ : state) run();
  count(state, c, double(s.H) * s.N, 0, double(s.H) * s.N * 12, bound::cache);
}

void positions(benchmark::State& state, shape s) {
  context& c = on(1);
  remembering r(s, 1);
  auto const scattered = r.view.with_order(kvevict::row_order::scattered);
  for (auto _ : state) {
    kvevict::frame scratch(c.ctx.scratch());
    auto const rows = kvevict::planning::make_rows(false, scratch, scattered, {});
    benchmark::DoNotOptimize(rows.positions);
    if (rows.positions[s.N + 7] != 36) return state.SkipWithError("wrong positions");
  }
  count(state, c, double(s.H) * s.N, 0, double(s.H) * s.N * 8, bound::cache);
}

/// The look at every position that a plan of ascending rows begins with.
void order(benchmark::State& state, shape s) {
  context& c = on(1);
  remembering r(s, 1);
  kvevict::component const& positions = *r.view.find(kvevict::role::position);
  for (std::int32_t h = 0; h < s.H; ++h)
    for (std::int32_t t = 0; t < s.N; ++t) kvevict::element<std::int32_t>(r.view, positions, 0, h, t) = t;
  auto const look = [&] { kvevict::planning::expect_order(r.view, {}); };
  look();
  std::int32_t& last = kvevict::element<std::int32_t>(r.view, positions, 0, s.H - 1, s.N - 1);
  last = s.N - 2;
  try {
    look();
    return state.SkipWithError("two equal positions are not found");
  } catch (kvevict::contract_violation const&) {
    last = s.N - 1;
  }
  for (auto _ : state) look();
  count(state, c, double(s.H) * s.N, 0, double(s.H) * s.N * 4, bound::memory);
}

/// What the machine reads in the same pieces in the same order, a page's positions at a time: the roof of `order` where
/// pages lie anywhere. `ahead`: pages that are fetched before they are read, 0: none.
void pieces(benchmark::State& state, shape s, std::int64_t ahead) {
  context& c = on(1);
  remembering r(s, 1);
  kvevict::component const& positions = *r.view.find(kvevict::role::position);
  for (std::int32_t h = 0; h < s.H; ++h)
    for (std::int32_t t = 0; t < s.N; ++t) kvevict::element<std::int32_t>(r.view, positions, 0, h, t) = t;
  auto const at = r.view.rows_of(positions, 0, 0);
  std::int64_t const P = r.view.pages.page_size, pages = s.N / P, bytes = P * s.H * 4;
  auto const sum = [&] {
    kernels::ivec sums = {};
    for (std::int64_t page = 0; page < pages; ++page) {
      for (std::int64_t b = 0; page + ahead < pages && ahead != 0 && b < bytes; b += 64)
        __builtin_prefetch(at.slot(page + ahead, 0) + b);
      std::byte const* const p = at.slot(page, 0);
      for (std::int64_t b = 0; b < bytes; b += std::int64_t{sizeof sums}) {
        kernels::ivec v;
        std::memcpy(&v, p + b, sizeof v);
        sums += v;
      }
    }
    std::uint32_t all = 0;
    for (int i = 0; i < kernels::lanes; ++i) all += static_cast<std::uint32_t>(sums[i]);
    return all;
  };
  std::uint64_t const N = static_cast<std::uint64_t>(s.N);
  if (sum() != static_cast<std::uint32_t>(N * (N - 1) / 2 * static_cast<std::uint64_t>(s.H)))
    return state.SkipWithError("not every position is read once");
  for (auto _ : state) benchmark::DoNotOptimize(sum());
  count(state, c, double(s.H) * s.N, 0, double(s.H) * s.N * 4, bound::memory);
}

/// A prompt's last 32 rows: the plan of them, or the ring filled with them.
void prompt(benchmark::State& state, shape s, bool observed) {
  context& c = on(1);
  auto const policy = kvevict::presets::ahakv({.recent = s.W});
  remembering r(s, s.W, s.W);
  std::vector<std::int32_t> where;
  for (std::int32_t i = s.N - s.W; i < s.N; ++i) where.push_back(i);
  auto q = r.in.queries();
  q.positions = where.data();
  kvevict::budget const ask{.tokens_per_head = 1024};
  kvevict::keep_set keep;
  auto const run = [&] {
    if (observed)
      kvevict::observe(c.ctx, policy, kvevict::step(r.view, q), ask);
    else
      kvevict::plan(c.ctx, policy, kvevict::prompt(r.view, q), ask, keep);
  };
  run();
  if (observed) {  // a row of attention sums to 1
    double sum = 0;
    for (std::int32_t t = 0; t < s.N; ++t) sum += double{(&r.state(0, t))[5]};
    if (std::abs(sum - 1) > 1e-3) return state.SkipWithError("wrong ring");
  } else if (keep.tokens.size() != std::size_t(s.H) * 1024)
    return state.SkipWithError("wrong keep set");
  for (auto _ : state) run();
  count(state, c, s.N, 0, s.key_bytes(), bound::cache);
}

}  // namespace

int main(int argc, char** argv) {
  shape const s{32, 8, 8192, 128, 32};
  for (std::int32_t const floats : {1, 32}) {
    std::string const name = "/host/H:8/N:8192/floats:" + std::to_string(floats);
    add("sum_state" + name, 1, [=](benchmark::State& state) { sum_state(state, s, floats); });
    add("update_state" + name, 1, [=](benchmark::State& state) { update_state(state, s, floats); });
  }
  for (std::int32_t const N : {8192, 524288})
    add("order/host/H:8/N:" + std::to_string(N), 1, [=](benchmark::State& state) {
      order(state, {32, 8, N, 8, 1});
    });
  for (std::int64_t const ahead : {0, 8})
    add("pieces/host/H:8/N:524288/ahead:" + std::to_string(ahead), 1, [=](benchmark::State& state) {
      pieces(state, {32, 8, 524288, 8, 1}, ahead);
    });
  add("positions/host/H:8/N:8192", 1, [=](benchmark::State& state) { positions(state, s); });
  add("observe/ahakv/host/" + s.name(), 1, [=](benchmark::State& state) { prompt(state, s, true); });
  add("plan/ahakv/host/" + s.name(), 1, [=](benchmark::State& state) { prompt(state, s, false); });
  return run_added(argc, argv);
}
