// SPDX-License-Identifier: Apache-2.0
#include <kvevict/kernels/host.hpp>
#include <kvevict/threads.hpp>

#include <cmath>
#include <string>

#include "support/allocations.hpp"
#include "support/catch.hpp"
#include "support/gate_case.hpp"
#include "support/keep_sets.hpp"
#include "support/selection.hpp"

namespace kernels_gate_test {

using namespace support;
using Catch::Contains;
using kvevict::gate_mask;
using reference::gate_sight;

namespace {

constexpr std::size_t tile = kvevict::kernels::tile_tokens;

/// p of all new tokens, (T,H).
std::vector<float> run(kvevict::host& ctx, kvevict::gate_weights const& w, kvevict::feature_rows const& in,
                       gate_mask sees, std::int32_t B, std::int32_t H) {
  std::vector<float> p(static_cast<std::size_t>((in.row_begin[B] - in.row_begin[0]) * H), garbage);
  kvevict::kernels::gate(ctx, w, in, sees, B, H, p.data());
  return p;
}
std::vector<float> run(kvevict::host& ctx, gate_case const& c, gate_mask sees = gate_mask::causal) {
  hidden const x = c.states();
  return run(ctx, c.weights(), x.rows(), sees, c.sequences(), c.shape.H);
}

double worst(gate_case const& c, std::vector<float> const& p, gate_mask sees) {
  double out = 0;
  std::size_t at = 0, H = static_cast<std::size_t>(c.shape.H);
  for (std::size_t b = 0; b < c.B(); ++b) {
    rows const want = c.expected(b, sees == gate_mask::causal ? gate_sight::causal : gate_sight::whole);
    for (std::size_t t = 0; t < c.X[b].size(); ++t)
      for (std::size_t h = 0; h < H; ++h, ++at) {
        double const got = static_cast<double>(p.at(at));
        out = std::max(out, std::isfinite(got) ? std::abs(got - want[h][t]) : 1e9);
      }
  }
  REQUIRE(at == p.size());
  return out;
}

constexpr gate_mask masks[] = {gate_mask::causal, gate_mask::bidirectional};

/// p chunk by chunk, in the order of a whole prompt. Chunk sizes are random, 0 and 1 among them, another one for every
/// sequence.
std::vector<float> in_chunks(kvevict::host& ctx, gate_case const& c, gate_rows& memory, std::uint64_t seed,
                             std::size_t most) {
  reference::generator random(seed);
  std::size_t const H = static_cast<std::size_t>(c.shape.H);
  std::vector<std::size_t> from(c.B(), 0), to(c.B(), 0);
  std::vector<std::vector<float>> parts(c.B());
  while (from != c.lengths()) {
    for (std::size_t b = 0; b < c.B(); ++b) to[b] = std::min(c.X[b].size(), from[b] + random.below(most + 1));
    hidden const x = c.states(from, to);
    auto const p = run(ctx, c.weights(), x.rows(memory.view()), gate_mask::causal, c.sequences(), c.shape.H);
    for (std::size_t b = 0, at = 0; b < c.B(); ++b)
      for (std::size_t i = 0; i < (to[b] - from[b]) * H; ++i) parts[b].push_back(p[at++]);
    for (std::size_t b = 0; b < c.B(); ++b) memory.tokens[b] = int32(to[b]);
    from = to;
  }
  std::vector<float> out;
  for (auto const& part : parts) out.insert(out.end(), part.begin(), part.end());
  return out;
}

std::size_t longest(gate_case const& c) {
  std::size_t out = 0;
  for (auto const& x : c.X) out = std::max(out, x.size());
  return out;
}

gate_shape ragged(std::uint64_t seed) {
  return {
      .N = {2 * tile + 3, 0, 1, tile, 37}, .H = 2, .group = 2, .heads = 3, .width = 5, .features = 21, .seed = seed};
}

}  // namespace

TEST_CASE("gate probabilities are the reference's") {
  kvevict::host ctx;
  std::uint64_t seed = 1;
  for (std::int32_t const E : {1, 5, 16, 24, 67})
    for (std::int32_t const Hg : {1, 2, 3})
      for (std::int32_t const dg : {1, 3, 4, 7}) {
        gate_case const c({.N = {tile + 1, 5, 0, tile, 1, tile - 1, Hg == 2 ? 150u : 33u},
                           .H = 1 + dg % 3,
                           .group = 1 + Hg % 3,
                           .heads = Hg,
                           .width = dg,
                           .features = E,
                           .spread = 2,
                           .seed = ++seed});
        for (gate_mask const sees : masks) {
          CAPTURE(E, Hg, dg, seed, static_cast<int>(sees));
          CHECK(worst(c, run(ctx, c, sees), sees) < 1e-5);
        }
      }
}

TEST_CASE("gate weights and hidden states may be f32, f16 or bf16") {
  kvevict::host ctx;
  for (auto const w : {kvevict::dtype::f32, kvevict::dtype::f16, kvevict::dtype::bf16})
    for (auto const x : {kvevict::dtype::f32, kvevict::dtype::f16, kvevict::dtype::bf16})
      for (std::int32_t const E : {16, 35}) {
        gate_case const c({.N = {70, 9},
                           .H = 3,
                           .group = 2,
                           .heads = 2,
                           .width = 5,
                           .features = E,
                           .weights = w,
                           .states = x,
                           .seed = 21});
        CAPTURE(name_of(w), name_of(x), E);
        CHECK(worst(c, run(ctx, c), gate_mask::causal) < 1e-5);
      }
}

TEST_CASE("hidden states may be strided, and begin anywhere") {
  kvevict::host ctx;
  for (auto const type : {kvevict::dtype::f32, kvevict::dtype::bf16}) {
    gate_shape s{.N = {50, 0, 13}, .states = type, .seed = 22};
    gate_case const dense(s);
    auto const want = run(ctx, dense);
    s.gap = 7;
    gate_case const wide(s);
    CHECK(run(ctx, wide) == want);
    hidden const x = wide.states();
    auto in = x.rows();
    std::vector<std::int32_t> later;
    for (std::int32_t const b : x.begin) later.push_back(b + 4);
    in.row_begin = later.data();
    // four rows of NaN
    std::vector<std::byte> all(static_cast<std::size_t>(4 * x.stride * size_of(type)), std::byte{0xff});
    all.insert(all.end(), x.bytes.begin(), x.bytes.end());
    in.data = all.data();
    CHECK(run(ctx, wide.weights(), in, gate_mask::causal, 3, 2) == want);
  }
}

TEST_CASE("gates saturate without overflow") {
  kvevict::host ctx;
  for (double const bias : {-1e4, -100.0, 100.0, 1e4}) {
    gate_case c({.N = {40}, .spread = 40, .seed = 23});
    for (double& b : c.gate.bias) b = bias;
    c.store();
    for (gate_mask const sees : masks) {
      auto const p = run(ctx, c, sees);
      CHECK(worst(c, p, sees) < 1e-5);
      CHECK(std::all_of(p.begin(), p.end(), [](float x) { return x >= 0 && x <= 1; }));
    }
  }
}

TEST_CASE("a gate in chunks has the bits of one in one go") {
  kvevict::host ctx;
  for (std::uint64_t const seed : {31u, 32u, 33u}) {
    gate_case const c(ragged(seed));
    auto const want = run(ctx, c);
    for (std::size_t const most : {1u, 2u, 7u, 40u, 500u}) {
      gate_rows memory = c.memory(int32(longest(c)), 5);
      CAPTURE(seed, most);
      CHECK(in_chunks(ctx, c, memory, seed + most, most) == want);
    }
  }
}

TEST_CASE("the memory holds K' and V' of every token and nothing else is written") {
  kvevict::host ctx;
  gate_case const c({.N = {30, 0, 11}, .heads = 2, .width = 3, .features = 10, .seed = 34});
  gate_rows memory = c.memory(32, 5);
  in_chunks(ctx, c, memory, 1, 6);
  for (std::size_t b = 0; b < c.B(); ++b)
    for (std::size_t i = 0; i < static_cast<std::size_t>(memory.stride); ++i) {
      float const got = memory.rows[b * static_cast<std::size_t>(memory.stride) + i];
      std::size_t const t = i / 12, a = i % 12;
      if (t >= c.X[b].size())
        CHECK(std::isnan(got));
      else
        CHECK(double{got} == Approx(reference::linear(a < 6 ? c.gate.wk : c.gate.wv, c.X[b][t])[a % 6]).margin(1e-5));
    }
}

TEST_CASE("a batch of gates is its sequences, bit by bit") {
  kvevict::host ctx;
  for (gate_mask const sees : masks) {
    gate_case const c(ragged(35));
    auto const all = run(ctx, c, sees);
    std::size_t at = 0;
    for (std::size_t b = 0; b < c.B(); ++b) {
      gate_case one = c;
      one.X = {c.X[b]};
      auto const p = run(ctx, one, sees);
      CHECK(p == std::vector<float>(all.begin() + static_cast<std::ptrdiff_t>(at),
                                    all.begin() + static_cast<std::ptrdiff_t>(at + p.size())));
      at += p.size();
    }
  }
}

TEST_CASE("no bit of a gate depends on threads") {
  kvevict::threads three(3), five(5);
  kvevict::host serial, few(three.as_executor(0)), many(five.as_executor(0));
  gate_case const c(ragged(36));
  for (gate_mask const sees : masks) {
    auto const want = run(serial, c, sees);
    for (int i = 0; i < 20; ++i) {
      CHECK(run(few, c, sees) == want);
      CHECK(run(many, c, sees) == want);
    }
  }
  gate_rows memory = c.memory(200);
  CHECK(in_chunks(few, c, memory, 5, 60) == run(serial, c));
}

TEST_CASE("tokens that come later change no bit of a causal gate") {
  kvevict::host ctx;
  gate_case const c({.N = {150}, .H = 3, .heads = 2, .width = 6, .features = 19, .seed = 37});
  auto const all = run(ctx, c);
  for (std::size_t const n : {0u, 1u, 2u, 11u, 12u, 13u, 47u, 48u, 49u, 96u, 149u}) {
    gate_case some = c;
    some.X[0].resize(n);
    CAPTURE(n);
    CHECK(run(ctx, some) == std::vector<float>(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(3 * n)));
  }
  gate_case some = c;
  some.X[0].resize(100);
  auto const whole = run(ctx, c, gate_mask::bidirectional), part = run(ctx, some, gate_mask::bidirectional);
  CHECK(!std::equal(part.begin(), part.end(), whole.begin()));  // a bidirectional one reads them
}

TEST_CASE("the heads of a gate are independent") {
  kvevict::host ctx;
  for (std::int32_t const group : {1, 3}) {
    gate_case const c({.N = {60, 7}, .H = 3, .group = group, .seed = 38});
    auto const before = run(ctx, c);
    for (std::size_t h = 0; h < 3; ++h) {
      gate_case other = c;
      std::size_t const A = 8, flag = h * static_cast<std::size_t>(group);
      for (std::size_t a = 0; a < A; ++a) other.gate.wo[flag * A + a] *= -3;
      other.gate.bias[flag] += 4;
      other.store();
      auto const after = run(ctx, other);
      bool same = true, changed = false;
      for (std::size_t i = 0; i < after.size(); ++i)
        (i % 3 == h ? changed : same) = i % 3 == h ? changed || after[i] != before[i] : same && after[i] == before[i];
      CHECK(same);
      CHECK(changed);
    }
  }
}

TEST_CASE("flags of query heads are joined by OR: p is the largest of the group") {
  kvevict::host ctx;
  for (std::int32_t const group : {2, 3, 4}) {
    gate_case const c({.N = {60, 7}, .H = 2, .group = group, .seed = 39});
    hidden const x = c.states();
    auto const joined = run(ctx, c), each = run(ctx, c.weights(), x.rows(), gate_mask::causal, 2, 2 * group);
    auto const G = static_cast<std::size_t>(group);
    for (std::size_t i = 0; i < joined.size(); ++i) {
      CHECK(joined[i] == *std::max_element(each.begin() + static_cast<std::ptrdiff_t>(i * G),
                                           each.begin() + static_cast<std::ptrdiff_t>((i + 1) * G)));
      bool any = false;
      for (std::size_t g = 0; g < G; ++g) any = any || each[i * G + g] > 0.5f;
      CHECK(any == (joined[i] > 0.5f));
    }
  }
}

TEST_CASE("a gate of no tokens writes nothing") {
  kvevict::host ctx;
  gate_case const none({.N = {0, 0}}), empty({.N = {}});
  CHECK(run(ctx, none).empty());
  CHECK(run(ctx, empty).empty());
  std::int32_t const begin[] = {0, 0, 0};
  CHECK_NOTHROW(kvevict::kernels::gate(ctx, none.weights(),
                                       kvevict::feature_rows{nullptr, kvevict::dtype::f32, 24, 24, begin, {}},
                                       gate_mask::causal, 2, 2, nullptr));
}

TEST_CASE("a gate allocates once and stays within its scratch bound") {
  kvevict::threads three(3);
  for (bool const remembers : {false, true}) {
    kvevict::host ctx(three.as_executor(0));
    gate_case const c(ragged(40));
    gate_rows memory = c.memory(200);
    hidden const x = c.states();
    auto const in = x.rows(remembers ? memory.view() : kvevict::gate_memory{});
    std::vector<float> p = run(ctx, c.weights(), in, gate_mask::causal, c.sequences(), 2);
    auto const before = allocations();
    for (int i = 0; i < 20; ++i)
      kvevict::kernels::gate(ctx, c.weights(), in, gate_mask::causal, c.sequences(), 2, p.data());
    CHECK(allocations() == before);
    auto const bound = kvevict::kernels::gate.bytes(
        ctx, kvevict::cache_shape{5, 4, 2, 8, static_cast<std::int64_t>(longest(c))}, c.weights());
    CHECK(static_cast<std::int64_t>(ctx.scratch().high_water()) <= bound);
  }
  for (std::size_t const n : {tile, 10 * tile + 1})  // every sequence is the longest: the bound is met
    for (bool const threaded : {false, true}) {
      kvevict::host ctx = threaded ? kvevict::host(three.as_executor(0)) : kvevict::host();
      gate_case const c({.N = {n, n}, .H = 1, .heads = 1, .width = 3, .features = 5});
      run(ctx, c);
      kvevict::cache_shape const shape{2, 1, 1, 8, static_cast<std::int64_t>(n)};
      CHECK(static_cast<std::int64_t>(ctx.scratch().high_water()) ==
            kvevict::kernels::gate.bytes(ctx, shape, c.weights()));
    }
}

TEST_CASE("probabilities go to the scores of the newest tokens, of active rows") {
  kvevict::host ctx;
  std::vector<kvevict::row> r{{0, 0, 5, 0, 5, 5, 5, true},
                              {0, 1, 3, 0, 3, 3, 3, true},
                              {1, 0, 4, 0, 4, 4, 4, true},
                              {1, 1, 4, 0, 4, 4, 4, false}};
  std::int64_t const begin[] = {0, 5, 8, 12, 16};
  std::int32_t const rows_of[] = {0, 2, 2};
  std::vector<float> values(16, -1.0f);
  std::vector<float> const p{0.1f, 0.2f, 0.3f, 0.4f};
  kvevict::feature_rows in;
  in.row_begin = rows_of;
  kvevict::kernels::put_rows(ctx, in, p.data(), kvevict::score_rows{r.data(), 2, 2, begin, values.data(), nullptr, 0});
  CHECK(values == std::vector<float>{-1, -1, -1, 0.1f, 0.3f, -1, 0.2f, 0.4f, -1, -1, -1, -1, -1, -1, -1, -1});
  std::int32_t const one_of[] = {7, 8, 9};  // scattered: the newest token is found by its position
  std::int32_t const positions[] = {9, 2, 0, 5, 3, 1, 9, 4, 0, 9, 2, 5, 9, 0, 1, 2};
  std::fill(values.begin(), values.end(), -1.0f);
  for (auto& x : r) x.new_from = 9;
  in.row_begin = one_of;
  kvevict::kernels::put_rows(ctx, in, p.data(),
                             kvevict::score_rows{r.data(), 2, 2, begin, values.data(), positions, 0});
  std::vector<float> const newest{0.1f, -1, -1, -1, -1, -1, 0.2f, -1, -1, 0.3f, -1, -1, -1, -1, -1, -1};
  CHECK(values == newest);
  std::fill(values.begin(), values.end(), -1.0f);
  for (auto& x : r) x.new_from = std::numeric_limits<std::int32_t>::min();  // of rows that start at zero, too
  kvevict::kernels::put_rows(ctx, in, p.data(),
                             kvevict::score_rows{r.data(), 2, 2, begin, values.data(), positions, 0});
  CHECK(values == newest);
}

TEST_CASE("count_above counts the evictable tokens above a threshold") {
  kvevict::threads three(3);
  kvevict::host serial, threaded(three.as_executor(0));
  reference::generator random(41);
  for (bool const scattered : {false, true})
    for (int i = 0; i < 20; ++i) {
      auto in = reference::random_selection(
          random,
          {.sequences = 2, .heads = 3, .most_tokens = 80, .scattered = scattered, .levels = i % 2 == 0 ? 5u : 0u});
      auto const s = in.view();
      for (float const tau : {-1.0f, 0.0f, 1.0f}) {  // 0 and ±1 are levels: a tie is not above
        std::vector<std::int32_t> got(6, -1), other(6, -1), want;
        for (std::int64_t r = 0; r < 6; ++r) {
          want.push_back(0);
          for (std::int32_t j = 0; j < s.rows[r].tokens; ++j)
            want.back() += s.rows[r].active && s.evictable(r, j) && s.scores(r)[j] > tau;
        }
        kvevict::kernels::count_above(serial, s, tau, got.data());
        kvevict::kernels::count_above(threaded, s, tau, other.data());
        CHECK(got == want);
        CHECK(other == want);
      }
    }
}

TEST_CASE("bad input: a gate kernel refuses what cannot be right and writes no probability") {
  kvevict::host ctx;
  gate_case const c({.N = {20, 6}, .H = 2, .seed = 42});
  hidden const x = c.states();
  gate_rows memory = c.memory(20);
  auto const refuses = [&](auto change, std::string const& what, std::string const& remedy,
                           gate_mask sees = gate_mask::causal) {
    auto w = c.weights();
    auto in = x.rows();
    std::int32_t H = 2;
    std::fill(memory.tokens.begin(), memory.tokens.end(), 0);
    change(w, in, H);
    std::vector<float> p(52, -3.0f);
    auto const message = refusal([&] { kvevict::kernels::gate(ctx, w, in, sees, 2, H, p.data()); });
    CHECK_THAT(message, Contains(what) && Contains(remedy) && Contains("gate: ") && Contains("; "));
    CHECK(p == std::vector<float>(52, -3.0f));
    CHECK(std::all_of(memory.rows.begin(), memory.rows.end(), [](float m) { return std::isnan(m); }));
  };
  using weights = kvevict::gate_weights;
  for (auto const missing : {&weights::q, &weights::k, &weights::v, &weights::o, &weights::bias})
    refuses([&](auto& w, auto&, auto&) { w.*missing = nullptr; }, "a weight is missing", "give q, k, v, o and bias");
  refuses([](auto& w, auto&, auto&) { w.type = kvevict::dtype::i32; }, "their type i32 is not f32, f16 or bf16",
          "give");
  refuses([](auto& w, auto&, auto&) { w.type = kvevict::dtype::opaque; }, "their type opaque", "give");
  for (std::int32_t const bad : {0, -1}) {
    refuses([=](auto& w, auto&, auto&) { w.heads = bad; }, std::to_string(bad) + " gate heads", "give sizes above 0");
    refuses([=](auto& w, auto&, auto&) { w.head_dim = bad; }, "of width " + std::to_string(bad), "give sizes above 0");
    refuses([=](auto& w, auto&, auto&) { w.features = bad; }, "on " + std::to_string(bad) + " features",
            "give sizes above 0");
    refuses([=](auto& w, auto&, auto&) { w.flags = bad; }, std::to_string(bad) + " flags for 2 KV heads",
            "one per KV head");
  }
  refuses([](auto& w, auto&, auto&) { w.heads = 1 << 20, w.head_dim = 1 << 20; }, "gate heads", "at most 4096");
  refuses([](auto& w, auto&, auto&) { w.features = (1 << 20) + 1; }, "features", "give sizes");
  refuses([](auto& w, auto&, auto&) { w.flags = 3; }, "3 flags for 2 KV heads", "one per query head");
  refuses([](auto&, auto&, auto& H) { H = 4; }, "2 flags for 4 KV heads", "one per KV head");
  refuses([](auto&, auto& in, auto&) { in.width = 23; }, "hidden states of 23 elements",
          "the input of this layer's q/k/v projections");
  refuses([](auto&, auto& in, auto&) { in.type = kvevict::dtype::i32; }, "of type i32",
          "the input of this layer's q/k/v projections");
  refuses([](auto&, auto& in, auto&) { in.data = nullptr; }, "without data or row_begin", "(B+1) offsets");
  refuses([](auto&, auto& in, auto&) { in.row_begin = nullptr; }, "without data or row_begin", "(B+1) offsets");
  std::int32_t const descending[] = {0, 20, 15};
  refuses([&](auto&, auto& in, auto&) { in.row_begin = descending; }, "row_begin descends at sequence 1",
          "ascending offsets");
  refuses([&](auto&, auto& in, auto&) { in.memory = memory.view(), in.memory.tokens = nullptr; },
          "without its token counts", "gate_memory::tokens");
  refuses([&](auto&, auto& in, auto&) { memory.tokens[1] = 15, in.memory = memory.view(); },
          "15 + 6 tokens of sequence 1 do not fit the memory's 20", "larger");
  refuses([&](auto&, auto& in, auto&) { memory.tokens[0] = -1, in.memory = memory.view(); },
          "-1 + 20 tokens of sequence 0", "larger");
  refuses([&](auto&, auto& in, auto&) { memory.tokens[1] = 1, in.memory = memory.view(); },
          "sequence 1 continues after 1 tokens", "use gate_mask::causal", gate_mask::bidirectional);
}

TEST_CASE("bad input: a gate's rows that overlap") {
  kvevict::host ctx;
  gate_case const c({.N = {20, 6}, .H = 2, .seed = 44});
  hidden const x = c.states();
  gate_rows memory = c.memory(20);
  std::vector<float> p(52);
  for (std::int64_t const stride : {0, 23}) {  // 0: the default
    auto in = x.rows();
    in.token_stride = stride;
    CHECK_THROWS_WITH(kvevict::kernels::gate(ctx, c.weights(), in, gate_mask::causal, 2, 2, p.data()),
                      Contains("token_stride") && Contains("; "));
  }
  for (std::int64_t const stride : {std::int64_t{0}, memory.stride - 1}) {
    auto in = x.rows(memory.view());
    in.memory.seq_stride = stride;
    CHECK_THROWS_WITH(kvevict::kernels::gate(ctx, c.weights(), in, gate_mask::causal, 2, 2, p.data()),
                      Contains("seq_stride") && Contains("; "));
  }
}

TEST_CASE("bad input: a gate whose probability is not a number says so") {
  kvevict::host ctx;
  for (int const where : {0, 1, 2, 3, 4, 5}) {
    gate_case c({.N = {tile + 5, 6}, .H = 2, .seed = 43});
    double const nan = std::numeric_limits<double>::quiet_NaN();
    if (where == 5)
      c.X[1][2][3] = nan;
    else
      (where == 0   ? c.gate.wq
       : where == 1 ? c.gate.wk
       : where == 2 ? c.gate.wv
       : where == 3 ? c.gate.wo
                    : c.gate.bias)
          .back() = nan;
    c.store();
    for (gate_mask const sees : masks) {
      CAPTURE(where);
      CHECK_THROWS_WITH(run(ctx, c, sees), Contains("a keep probability is not a number") &&
                                               Contains("look for values that are not finite"));
    }
  }
  gate_case good({.N = {6}});
  CHECK_NOTHROW(run(ctx, good));  // the context goes on
}

}  // namespace kernels_gate_test
