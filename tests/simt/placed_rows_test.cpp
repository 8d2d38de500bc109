// SPDX-License-Identifier: Apache-2.0
// Rows of evidence where engines have them, on a device: what is planned and observed is what packed rows give, bit for
// bit, and what the host refuses is refused.
#include "support/placed_rows.hpp"
#include "simt/device_stack.hpp"
#include "simt/same_words.hpp"
#include "support/gate_case.hpp"

namespace placed_rows_test {

using namespace simt_test;

namespace {

/// The scores of a policy, and the state after observing the same rows.
template <class Policy, class Cache, class Rows> auto results(Policy const& policy, Cache& cache, Rows const& rows_on) {
  using entry = typename std::decay_t<decltype(cache.view)>::table_entry;
  device_cache<entry> there(cache);
  on_gpu gpu;
  auto const rows = rows_on(gpu.memory);
  std::vector<float> values;
  kvevict::scores(gpu.ctx, policy, kvevict::prompt(there.view, rows), twenty, values);
  if constexpr (requires { policy.score.state_floats(); })
    observe(gpu.ctx, policy, kvevict::step(there.view, rows), twenty), gpu.finish();
  return std::pair(values, there.snapshot());
}

kvevict::query_rows with_lse(kvevict::query_rows q, attention const& a, device_memory& m) {
  q.lse = m.put(a.lse), q.lse_token_stride = a.lse_stride(), q.lse_head_stride = 1;
  return q;
}

}  // namespace

TEST_CASE("placed rows on a device: plans and states are those of packed rows") {
  room r, four(layout::head_pages, 4);
  attention const last = rows_of(r.in, whole_cache(r.in), {33, 24}, r.in.N);
  auto const policy = presets::ahakv({.recent = 4});
  for (placing const& p : placings()) {
    CAPTURE(static_cast<int>(p.how), p.heads_first, p.lse_heads_first);
    placed_rows const in(last, p);
    auto const packed = [&](device_memory& m) { return on_device_rows(m, last.queries(), 2); };
    auto const placed = [&](device_memory& m) { return in.queries([&](auto const& x) { return m.put(x); }); };
    auto const packed_lse = [&](device_memory& m) { return with_lse(packed(m), last, m); };
    auto const placed_lse = [&](device_memory& m) { return in.with_lse([&](auto const& x) { return m.put(x); }); };
    auto const packed_weights = [&](device_memory& m) { return on_device_rows(m, last.rows(), 2); };
    auto const placed_weights = [&](device_memory& m) { return in.rows([&](auto const& x) { return m.put(x); }); };
    auto const window = presets::snapkv({.window = 4, .pool = 3});
    CHECK((results(window, r.cache, placed) == results(window, r.cache, packed)));
    CHECK((results(window, r.cache, placed_lse) == results(window, r.cache, packed_lse)));
    CHECK((results(policy, four.cache, placed) == results(policy, four.cache, packed)));
    CHECK((results(policy, four.cache, placed_weights) == results(policy, four.cache, packed_weights)));
  }
}

TEST_CASE("placed rows on a device: a stack's rows by a layer stride, or in a tensor of each layer") {
  batch const in = random_batch(96, {.Hq = 4, .H = 2, .D = 8, .N = {30, 26, 30, 26, 30, 26}, .future = 0});
  attention const last = rows_of(in, whole_cache(in), {25, 22, 25, 22, 25, 22}, in.N);
  stack layers(in, 3, placed::layers_apart, true);
  device_stack const there(layers);
  auto const window = presets::snapkv({.window = 4, .pool = 3});
  auto const scores = [&](auto const& rows_on) {
    std::vector<float> out;
    on_gpu gpu;
    kvevict::scores(gpu.ctx, window, kvevict::prompt(there.whole(), rows_on(gpu.memory)),
                    {.tokens_per_head = 12, .layer_count = 3}, out);
    return out;
  };
  auto const packed = [&](device_memory& m) { return on_device_rows(m, last.queries(), 6); };
  auto const packed_lse = [&](device_memory& m) { return with_lse(packed(m), last, m); };
  auto const packed_weights = [&](device_memory& m) { return on_device_rows(m, last.rows(), 6); };
  auto every = placings();
  every.push_back({});
  for (placing p : every)
    for (bool const own : {false, true}) {
      CAPTURE(static_cast<int>(p.how), p.heads_first, own);
      p.layers = 3, p.own_tensors = own;
      placed_rows const of(last, p);
      auto const put = [](device_memory& m) { return [&m](auto const& x) { return m.put(x); }; };
      CHECK(scores([&](auto& m) { return of.queries(put(m)); }) == scores(packed));
      CHECK(scores([&](auto& m) { return of.with_lse(put(m)); }) == scores(packed_lse));
      CHECK(scores([&](auto& m) { return of.rows(put(m)); }) == scores(packed_weights));
    }
}

TEST_CASE("placed rows on a device: hidden states, padded") {
  room r;
  gate_case const gate({.N = {40, 30}, .H = 2});
  auto const packed = gate.states({0, 0}, {40, 30});
  auto const from = packed.rows();
  std::int64_t const width = from.token_stride, T = 43;
  std::vector<std::int32_t> const count{40, 30}, left{3, 13};
  for (bool const on_left : {false, true}) {
    std::vector<float> padded(static_cast<std::size_t>(2 * T * width), no_number);
    for (std::size_t b = 0; b < 2; ++b)
      std::copy_n(static_cast<float const*>(from.data) + from.row_begin[b] * width, count[b] * width,
                  padded.begin() + (static_cast<std::int64_t>(b) * T + (on_left ? left[b] : 0)) * width);
    auto const after = [&](bool placed) {
      device_cache<std::int32_t> there(r.cache);
      on_gpu gpu;
      auto rows = gpu.rows(from);
      if (placed) {
        rows.data = gpu.memory.put(padded), rows.row_begin = on_left ? gpu.memory.put(left) : nullptr;
        rows.row_count = gpu.memory.put(count), rows.seq_stride = T * width;
      }
      observe(gpu.ctx, presets::attention_gate(gpu.gate(gate.weights())), kvevict::prompt(there.view, rows),
              {.tokens_per_head = 40});
      gpu.finish();
      return there.snapshot();
    };
    CHECK((after(true) == after(false)));
  }
}

TEST_CASE("both contexts say the same of rows that reach into padding") {
  room r;
  attention const last = last_rows(r.in, 5);
  for (bool const heads : {false, true}) {
    placed_rows const in(last, {placing::kind::right, heads, false});
    std::vector<std::int32_t> const more{5, 9}, begin{0, 4}, negative{5, -1};
    auto const says = [&](std::vector<std::int32_t> const& from, std::vector<std::int32_t> const& count,
                          std::string const& what) {
      alike(r.cache, what, [&](auto& on, auto const& view) {
        auto q = in.queries([&](auto const& x) { return on.put(x); });
        q.row_begin = on.put(from), q.row_count = on.put(count), q.most_rows = 9;
        plan(on.ctx, snapkv, kvevict::prompt(view, q), twenty);
      });
    };
    says({0, 0}, more, "sequence 1 provides 9 rows from row 0 on, which reach behind its part");
    says(begin, {5, 5}, "sequence 1 provides 5 rows from row 4 on, which reach behind its part");
    says({0, 0}, negative, "sequence 1 provides -1 rows from row 0 on; give row_begin and row_count");
  }
}

}  // namespace placed_rows_test
