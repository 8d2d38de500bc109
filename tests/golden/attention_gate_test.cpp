// SPDX-License-Identifier: Apache-2.0
// The gate and its keep sets against the fixture, which was computed from the formulas in double.
#include <kvevict/apply/compact.hpp>
#include <kvevict/kvevict.hpp>

#include "support/batch_cache.hpp"
#include "support/catch.hpp"
#include "support/gate_case.hpp"
#include "support/golden.hpp"

namespace attention_gate_test {

using namespace support;

namespace {

/// (in,out) of the fixture to a row per output.
reference::row turned(golden::tensor const& w) {
  reference::row out;
  for (std::size_t o = 0; o < w.dim(1); ++o)
    for (std::size_t i = 0; i < w.dim(0); ++i) out.push_back(w.data[i * w.dim(1) + o]);
  return out;
}

gate_case fixture(golden::json const& file) {
  golden::tensor const X = golden::as_tensor(file, "X"), wo = golden::as_tensor(file, "Wo");
  gate_shape s{.N = {X.dim(0)},
               .H = int32(wo.dim(1)),
               .heads = golden::value<std::int32_t>(file, "gate_heads"),
               .width = golden::value<std::int32_t>(file, "gate_width"),
               .features = int32(X.dim(1))};
  gate_case out(s);
  out.gate.wq = turned(golden::as_tensor(file, "Wq")), out.gate.wk = turned(golden::as_tensor(file, "Wk")),
  out.gate.wv = turned(golden::as_tensor(file, "Wv"));
  out.gate.wo = turned(wo), out.gate.bias = golden::as_tensor(file, "b").data;
  out.X = {golden::as_rows(X)};
  return out;
}

double largest_difference(rows const& a, rows const& b) {
  double out = 0;
  REQUIRE(a.size() == b.size());
  for (std::size_t h = 0; h < a.size(); ++h) {
    REQUIRE(a[h].size() == b[h].size());
    for (std::size_t t = 0; t < a[h].size(); ++t) out = std::max(out, std::abs(a[h][t] - b[h][t]));
  }
  return out;
}

}  // namespace

TEST_CASE("golden: Attention-Gate's probabilities, causal and bidirectional") {
  golden::json const file = golden::load("attention_gate");
  gate_case in = fixture(file);
  struct {
    char const* key;
    kvevict::gate_mask sees;
    reference::gate_sight naive;
  } const masks[] = {{"p_causal", kvevict::gate_mask::causal, reference::gate_sight::causal},
                     {"p_bidirectional", kvevict::gate_mask::bidirectional, reference::gate_sight::whole}};
  for (auto const& m : masks) {
    CAPTURE(m.key);
    rows const want = golden::rows(file, m.key);
    CHECK(largest_difference(in.expected(0, m.naive), want) < 1e-12);
    gate_case stored = in;
    stored.store();
    kvevict::host ctx;
    hidden const x = stored.states();
    std::vector<float> p(want.size() * want[0].size());
    kvevict::kernels::gate(ctx, stored.weights(), x.rows(), m.sees, 1, int32(want.size()), p.data());
    rows ours(want.size());
    for (std::size_t i = 0; i < p.size(); ++i) ours[i % want.size()].push_back(static_cast<double>(p[i]));
    CHECK(largest_difference(ours, want) < 1e-5);
  }
}

TEST_CASE("golden: Attention-Gate's keep sets") {
  golden::json const file = golden::load("attention_gate");
  gate_case in = fixture(file);
  auto const want = golden::index_rows(file, "keep_causal_sinks2_recent4");
  double const tau = golden::value<double>(file, "tau");
  CHECK(reference::keep_gate(in.flags(0), want.size(), {tau, 2, 4}) == want);
  in.store();
  REQUIRE(reference::gate_margin(in.expected(0), tau) > 1e-5);
  batch const kv = random_batch(1, {.Hq = want.size(), .H = want.size(), .D = 8, .N = {in.X[0].size()}, .future = 0});
  with_cache(kv, [&](auto& cache) {
    kvevict::host ctx;
    hidden const x = in.states();
    auto const policy =
        kvevict::presets::attention_gate(in.weights(), {.threshold = static_cast<float>(tau), .sinks = 2, .recent = 4});
    auto const keep =
        kvevict::plan(ctx, policy, kvevict::prompt(cache.view, x.rows()), {.tokens_per_head = kvevict::budget::no_cap});
    CHECK(rows_of_sequence(keep, 0) == want);
    auto const done = kvevict::compact(ctx, cache.view, keep);
    for (std::size_t h = 0; h < want.size(); ++h) CHECK(done.length(0, int32(h)) == int32(want[h].size()));
  });
}

}  // namespace attention_gate_test
