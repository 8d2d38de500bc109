// SPDX-License-Identifier: Apache-2.0
// Gate inference on a device: the host's probabilities and memory to float rounding, in chunks and in any schedule the
// same bits.
#include <cstring>
#include <limits>
#include <string>

#include <kvevict/cuda/gate/gate.hpp>
#include <kvevict/kernels/host.hpp>

#include "simt/device_cache.hpp"
#include "support/catch.hpp"
#include "support/gate_case.hpp"
#include "support/keep_sets.hpp"

namespace gate_test {

using namespace simt_test;
using namespace support;
using Catch::Contains;
using kvevict::dtype;
using kvevict::gate_mask;
namespace cuda = kvevict::cuda;
namespace kernels = kvevict::kernels;

namespace {

constexpr gate_mask masks[] = {gate_mask::causal, gate_mask::bidirectional};

/// What a call leaves behind: p (T,H), the gate's memory, and why it was refused.
struct outcome {
  std::vector<float> p, rows;
  std::string refused;
};

std::vector<float> unwritten(gate_case const& c, kvevict::feature_rows const& x) {
  std::int32_t const T = x.row_begin[c.B()] - x.row_begin[0];
  return std::vector<float>(static_cast<std::size_t>(std::max(T, 0) * c.shape.H), garbage);
}

outcome on_host(gate_case const& c, kvevict::feature_rows in, gate_mask sees = gate_mask::causal,
                gate_rows const* memory = nullptr) {
  kvevict::host ctx;
  outcome out{unwritten(c, in), {}, {}};
  gate_rows copy = memory != nullptr ? *memory : gate_rows(0, 0, 0);
  if (memory != nullptr) in.memory = copy.view();
  out.refused = refusal([&] { kernels::gate(ctx, c.weights(), in, sees, c.sequences(), c.shape.H, out.p.data()); });
  out.rows = copy.rows;
  return out;
}

/// The same with everything in device memory; `in.most_rows` unless it is 0.
outcome on_gpu(cuda::device& ctx, gate_case const& c, kvevict::feature_rows const& x,
               gate_mask sees = gate_mask::causal, gate_rows const* memory = nullptr) {
  device_memory there;
  kvevict::feature_rows in = on_device_rows(there, x, c.sequences());
  if (x.most_rows != 0) in.most_rows = x.most_rows;
  on_device<float> const rows(memory != nullptr ? memory->rows : std::vector<float>(1)), p(unwritten(c, x));
  if (memory != nullptr) in.memory = {rows.data(), memory->stride, memory->capacity, there.put(memory->tokens)};
  auto const w = on_device_gate(there, c.weights());
  outcome out;
  out.refused = refusal([&] {
    kernels::gate(ctx, w, in, sees, c.sequences(), c.shape.H, p.data());
    ctx.wait();
  });
  out.p = p.read();
  if (memory != nullptr) out.rows = rows.read();
  return out;
}

bool same(std::vector<float> const& a, std::vector<float> const& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}
double worst(std::vector<float> const& got, std::vector<float> const& want) {
  REQUIRE(got.size() == want.size());
  double out = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    if (std::isnan(got[i]) || std::isnan(want[i]))
      out = std::isnan(got[i]) && std::isnan(want[i]) ? out : 1e9;
    else
      out = std::max(out, std::abs(double{got[i]} - want[i]) / (1 + std::abs(want[i])));
  }
  return out;
}
void close(outcome const& got, outcome const& want) {
  CHECK(got.refused == want.refused);
  CHECK(worst(got.p, want.p) < 1e-5);
  CHECK(worst(got.rows, want.rows) < 1e-5);
}

/// All tokens, the first ones `at_once`, in chunks of random sizes, 0 and 1 among them, another one for every sequence;
/// in the order of a whole prompt.
outcome in_chunks(cuda::device& ctx, gate_case const& c, gate_rows memory, std::uint64_t seed, std::size_t most,
                  std::size_t at_once = 0) {
  reference::generator random(seed);
  std::size_t const H = static_cast<std::size_t>(c.shape.H);
  std::vector<std::size_t> from(c.B(), 0), to(c.B(), 0);
  std::vector<std::vector<float>> parts(c.B());
  while (from != c.lengths()) {
    for (std::size_t b = 0; b < c.B(); ++b)
      to[b] = std::min(c.X[b].size(), from[b] == 0 && at_once != 0 ? at_once : from[b] + random.below(most + 1));
    hidden const x = c.states(from, to);
    if (x.begin.back() == 0) continue;
    outcome const part = on_gpu(ctx, c, x.rows(), gate_mask::causal, &memory);
    REQUIRE(part.refused == "");
    memory.rows = part.rows;
    for (std::size_t b = 0, at = 0; b < c.B(); ++b)
      for (std::size_t i = 0; i < (to[b] - from[b]) * H; ++i) parts[b].push_back(part.p[at++]);
    for (std::size_t b = 0; b < c.B(); ++b) memory.tokens[b] = int32(to[b]);
    from = to;
  }
  outcome out{{}, memory.rows, {}};
  for (auto const& part : parts) out.p.insert(out.p.end(), part.begin(), part.end());
  return out;
}

gate_shape ragged(std::uint64_t seed) {
  return {.N = {67, 0, 1, 64, 37}, .H = 2, .group = 2, .heads = 2, .width = 5, .features = 37, .seed = seed};
}

/// Rows of a plan with random lengths, `fresh` of all tokens at the end in `in`. Positions, if any, are a random order.
struct plan_case {
  std::vector<kvevict::row> rows;
  std::vector<std::int64_t> begin{0};
  std::vector<std::int32_t> positions, row_begin{2};
  bool scattered;
  std::vector<float> values;
  std::int32_t B, H;
  std::int64_t most = 0;

  plan_case(std::uint64_t seed, std::int32_t B_, std::int32_t H_, bool scattered_)
      : scattered(scattered_), B(B_), H(H_) {
    reference::generator random(seed);
    for (std::int32_t b = 0; b < B; ++b) {
      std::int32_t const n = int32(scattered ? random.below(2) : random.below(300));
      row_begin.push_back(row_begin.back() + n);
      for (std::int32_t h = 0; h < H; ++h) {
        std::int32_t const N = n + int32(random.below(300)) + 1;
        std::int32_t const from = b % 2 == 0 ? 5000 : std::numeric_limits<std::int32_t>::min();  // all start at zero
        rows.push_back({b, h, N, 0, N, N, N, random.below(4) != 0, from});
        std::size_t const newest = random.below(static_cast<std::size_t>(N));
        for (std::int32_t j = 0; j < N && scattered; ++j) positions.push_back(j == int32(newest) ? 5000 : j);
        begin.push_back(begin.back() + N);
        most = std::max<std::int64_t>(most, N);
      }
    }
    values.assign(static_cast<std::size_t>(begin.back()), garbage);
  }
  kvevict::score_rows view(kvevict::row* r, std::int64_t const* starts, float* to, std::int32_t const* at) const {
    return {r, B, H, starts, to, scattered ? at : nullptr, 0, 1, most, begin.back()};
  }
};

}  // namespace

TEST_CASE("a gate's probabilities and memory on a device are the host's") {
  std::vector<gate_shape> const shapes{
      {.N = {70, 0, 3}, .H = 2, .heads = 1, .width = 3, .features = 7, .seed = 1},
      {.N = {64, 65},
       .H = 1,
       .group = 4,
       .heads = 2,
       .width = 16,
       .features = 32,
       .weights = dtype::bf16,
       .states = dtype::bf16,
       .seed = 2},
      {.N = {1, 130},
       .H = 3,
       .heads = 2,
       .width = 8,
       .features = 33,
       .weights = dtype::f16,
       .states = dtype::f32,
       .gap = 3,
       .seed = 3},
      {.N = {40},
       .H = 2,
       .group = 2,
       .heads = 1,
       .width = 40,
       .features = 100,
       .weights = dtype::f32,
       .states = dtype::f16,
       .spread = 4,
       .seed = 4},
      {.N = {9, 33, 5},
       .H = 4,
       .group = 3,
       .heads = 3,
       .width = 13,
       .features = 64,
       .weights = dtype::bf16,
       .states = dtype::f16,
       .gap = 1,
       .seed = 5},
      {.N = {35}, .H = 1, .heads = 1, .width = 200, .features = 5, .seed = 6},
      {.N = {12, 3},
       .H = 150,
       .heads = 5,
       .width = 7,
       .features = 65,
       .weights = dtype::f16,
       .states = dtype::f16,
       .seed = 7},
      {.N = {11}, .H = 1, .heads = 1, .width = 700, .features = 3, .seed = 8},
  };
  for (gate_shape const& s : shapes)
    for (gate_mask const sees : masks)
      for (std::uint64_t schedule = 0; schedule < 3; ++schedule) {
        CAPTURE(s.seed, static_cast<int>(sees), schedule);
        scheduled const order(schedule);
        gate_case const c(s);
        hidden const x = c.states();
        gate_rows const memory = c.memory(131, 5);
        cuda::device ctx(default_stream());
        outcome const with = on_gpu(ctx, c, x.rows(), sees, &memory), without = on_gpu(ctx, c, x.rows(), sees);
        close(with, on_host(c, x.rows(), sees, &memory));
        CHECK(same(with.p, without.p));
      }
}

TEST_CASE("hidden states on a device may begin anywhere, and most_rows may be more than any sequence has") {
  gate_case const c(ragged(11));
  hidden x = c.states();
  outcome const want = on_host(c, x.rows());
  hidden later = x;
  later.bytes.insert(later.bytes.begin(), static_cast<std::size_t>(3 * x.stride) * sizeof(float), std::byte{0xff});
  for (std::int32_t& b : later.begin) b += 3;
  cuda::device ctx(default_stream());
  outcome const first = on_gpu(ctx, c, x.rows());
  close(first, want);
  for (std::int32_t const most : {0, 68, 500}) {
    auto in = later.rows();
    in.most_rows = most;
    CHECK(same(on_gpu(ctx, c, in).p, first.p));
  }
}

TEST_CASE("a gate on a device in chunks has the bits of one in one go, in every schedule") {
  for (std::uint64_t seed = 0; seed < 6; ++seed) {
    gate_shape s = ragged(20 + seed);
    if (seed % 3 == 1) s.weights = s.states = dtype::bf16, s.features = 32;
    if (seed % 3 == 2) s.heads = 1, s.width = 33, s.gap = 2;
    gate_case const c(s);
    hidden const x = c.states();
    gate_rows const memory = c.memory(67 + int32(seed), 3);
    cuda::device ctx(default_stream());
    outcome const whole = on_gpu(ctx, c, x.rows(), gate_mask::causal, &memory);
    close(whole, on_host(c, x.rows(), gate_mask::causal, &memory));
    CAPTURE(seed);
    scheduled const order(seed);
    outcome const parts = in_chunks(ctx, c, memory, seed, seed < 2 ? 5 : 70);
    CHECK(same(parts.p, whole.p));
    CHECK(same(parts.rows, whole.rows));
  }
}

TEST_CASE("a few new tokens share the memory's rows out to blocks, and get the bits of a whole prompt") {
  std::vector<gate_shape> const shapes{
      {.N = {530, 100, 513}, .H = 2, .group = 2, .heads = 2, .width = 5, .features = 9, .seed = 11},
      {.N = {290, 7, 270}, .H = 1, .heads = 2, .width = 12, .features = 5, .seed = 13},
      {.N = {300, 260}, .H = 1, .heads = 1, .width = 70, .features = 5, .spread = 4, .seed = 12},
  };
  for (gate_shape const& s : shapes) {
    gate_case const c(s);
    CAPTURE(s.width);
    cuda::device ctx(default_stream());
    hidden const x = c.states();
    gate_rows const memory(c.B(), 540, s.heads * s.width);
    outcome const whole = on_gpu(ctx, c, x.rows(), gate_mask::causal, &memory);
    close(whole, on_host(c, x.rows(), gate_mask::causal, &memory));
    for (std::uint64_t seed : {0u, 1u, 5u}) {
      scheduled const order(seed);
      outcome const parts = in_chunks(ctx, c, memory, seed, 8, s.N[0] - 20);
      CHECK(same(parts.p, whole.p));
      CHECK(same(parts.rows, whole.rows));
    }
  }
}

TEST_CASE("a batch of gates on a device is its sequences, bit by bit") {
  gate_case const c(ragged(31));
  for (gate_mask const sees : masks) {
    cuda::device ctx(default_stream());
    std::vector<float> all, one_by_one;
    all = on_gpu(ctx, c, c.states().rows(), sees).p;
    for (std::size_t b = 0; b < c.B(); ++b) {
      auto from = c.lengths(), to = c.lengths();
      from[b] = 0;
      if (to[b] == 0) continue;
      auto const part = on_gpu(ctx, c, c.states(from, to).rows(), sees).p;
      one_by_one.insert(one_by_one.end(), part.begin(), part.end());
    }
    CHECK(same(all, one_by_one));
  }
}

TEST_CASE("tokens that come later change no bit of a causal gate on a device, not even values that are not finite") {
  cuda::device ctx(default_stream());
  for (std::int32_t const width : {5, 70}) {
    gate_shape s = ragged(34);
    s.N = {45}, s.width = width;
    gate_case c(s);
    auto const before = on_gpu(ctx, c, c.states().rows()).p;
    for (std::size_t const last : {40u, 33u, 32u, 31u, 8u, 1u}) {
      for (std::size_t t = last; t < 45; ++t)
        c.X[0][t].assign(c.X[0][t].size(), std::numeric_limits<double>::infinity());
      c.store();
      auto after = on_gpu(ctx, c, c.states().rows()).p, same_as = before;
      after.resize(last * 2), same_as.resize(last * 2);
      CAPTURE(width, last);
      CHECK(same(after, same_as));
    }
  }
}

TEST_CASE("gates on a device saturate without overflow") {
  cuda::device ctx(default_stream());
  gate_case const c({.N = {50}, .H = 2, .heads = 2, .width = 6, .features = 12, .spread = 400, .seed = 33});
  hidden const x = c.states();
  for (gate_mask const sees : masks) {
    outcome const got = on_gpu(ctx, c, x.rows(), sees), want = on_host(c, x.rows(), sees);
    CHECK(got.refused == "");
    CHECK(worst(got.p, want.p) < 1e-2);  // one logit in 1e5 has few digits behind the point
  }
}

TEST_CASE("probabilities go to the scores on a device as on the host") {
  for (std::uint64_t seed = 0; seed < 8; ++seed) {
    plan_case c(40 + seed, 3, 2, seed % 2 == 1);
    CAPTURE(seed);
    scheduled const order(seed);
    reference::generator random(seed);
    std::vector<float> p;
    for (std::int32_t i = 0; i < c.row_begin.back() * c.H; ++i) p.push_back(static_cast<float>(random.normal()));
    kvevict::feature_rows in;
    in.row_begin = c.row_begin.data();
    kvevict::host host;
    std::vector<float> want = c.values;
    kernels::put_rows(host, in, p.data(), c.view(c.rows.data(), c.begin.data(), want.data(), c.positions.data()));
    device_memory there;
    on_device<float> const values(c.values);
    cuda::device ctx(default_stream());
    in.row_begin = there.put(c.row_begin), in.most_rows = 300;
    kernels::put_rows(
        ctx, in, there.put(p),
        c.view(there.put(c.rows), there.put(c.begin), values.data(), c.scattered ? there.put(c.positions) : nullptr));
    ctx.wait();
    CHECK(same(values.read(), want));
  }
}

TEST_CASE("a device expects hidden states of the whole cache") {
  struct expected {
    std::vector<std::int32_t> rows_of, tokens;  // of sequences; empty: no memory
    bool second_active;
    std::string what;
  };
  std::vector<expected> const cases{
      {{4, 9, 15}, {}, true, ""},
      {{4, 9, 14}, {}, false, ""},  // nobody reads the scores of a row that keeps all
      {{4, 9, 15}, {0, 0}, true, ""},
      {{4, 9, 14}, {}, true, "gate: sequence 1 provides 5 hidden states for 6 tokens"},
      {{4, 9, 16}, {}, true, "gate: sequence 1 provides 7 hidden states for 6 tokens"},
      {{4, 9, 15}, {0, 3}, true, "gate: the memory already holds 3 tokens of sequence 1"},
      {{4, 9, 15}, {0, 3}, false, "gate: the memory already holds 3 tokens of sequence 1"},
      {{4, 9, 9}, {0, 3}, false, ""},  // of an idle one it may
  };
  for (expected const& e : cases)
    for (std::uint64_t schedule = 0; schedule < 3; ++schedule) {
      CAPTURE(e.what, schedule);
      scheduled const order(schedule);
      device_memory there;
      kvevict::feature_rows in;
      in.row_begin = there.put(e.rows_of), in.most_rows = 7;
      if (!e.tokens.empty()) in.memory = {there.put(std::vector<float>(8)), 4, 1, there.put(e.tokens)};
      std::vector<kvevict::row> const rows{{0, 0, 5, 0, 5, 5, 3, true}, {1, 0, 6, 0, 6, 6, 3, e.second_active}};
      kvevict::score_rows out{
          there.put(rows), 2, 1, there.put(std::vector<std::int64_t>{0, 6, 12}), nullptr, nullptr, 0, 1, 6, 12};
      cuda::device ctx(default_stream());
      auto const message = refusal([&] { kernels::expect_prompt(ctx, in, out), ctx.wait(); });
      if (e.what.empty())
        CHECK(message == "");
      else
        CHECK_THAT(message, Contains(e.what) && Contains("; "));
      // gate() says what is missing, once the prompt is right
      in.memory = {there.put(std::vector<float>(8)), 4, 1, nullptr};
      if (e.what.empty()) CHECK(refusal([&] { kernels::expect_prompt(ctx, in, out), ctx.wait(); }) == "");
      out.positions = there.put(std::vector<std::int32_t>(12));
      CHECK_THAT(refusal([&] { kernels::expect_prompt(ctx, in, out); }),
                 Contains("plan from a whole prompt") && Contains("; "));
    }
}

TEST_CASE("bad input: a gate on a device says what the host says, and writes nothing") {
  gate_case const c({.N = {20, 6}, .H = 2, .seed = 42});
  hidden const x = c.states();
  gate_rows memory = c.memory(20);
  kvevict::host host;
  device_memory there;
  on_device<float> const rows(memory.rows), p(std::vector<float>(52, -3.0f));
  auto const w_there = on_device_gate(there, c.weights());
  auto in_there = on_device_rows(there, x.rows(), 2);
  in_there.memory = {rows.data(), memory.stride, memory.capacity, there.put(memory.tokens)};
  cuda::device ctx(default_stream());
  auto const of_device = [&](auto change) {
    auto w = w_there;
    auto in = in_there;
    std::int32_t H = 2;
    change(w, in, H);
    auto const message = refusal([&] { kernels::gate(ctx, w, in, gate_mask::causal, 2, H, p.data()), ctx.wait(); });
    CHECK(p.read() == std::vector<float>(52, -3.0f));
    CHECK(same(rows.read(), memory.rows));
    return message;
  };
  auto const refuses = [&](auto change) {
    auto w = c.weights();
    auto in = x.rows(memory.view());
    std::int32_t H = 2;
    change(w, in, H);
    std::vector<float> unused(52);
    auto const want = refusal([&] { kernels::gate(host, w, in, gate_mask::causal, 2, H, unused.data()); });
    CHECK(want != "");
    CHECK(of_device(change) == want);
  };
  using weights = kvevict::gate_weights;
  for (auto const missing : {&weights::q, &weights::k, &weights::v, &weights::o, &weights::bias})
    refuses([&](auto& w, auto&, auto&) { w.*missing = nullptr; });
  refuses([](auto& w, auto&, auto&) { w.type = dtype::i32; });
  for (auto const size : {&weights::heads, &weights::head_dim, &weights::features, &weights::flags})
    refuses([&](auto& w, auto&, auto&) { w.*size = 0; });
  refuses([](auto& w, auto&, auto&) { w.heads = 1 << 20, w.head_dim = 1 << 20; });
  refuses([](auto& w, auto&, auto&) { w.flags = 3; });
  refuses([](auto&, auto&, auto& H) { H = 4; });
  refuses([](auto&, auto& in, auto&) { in.width = 23; });
  refuses([](auto&, auto& in, auto&) { in.type = dtype::i32; });
  refuses([](auto&, auto& in, auto&) { in.row_begin = nullptr; });
  refuses([](auto&, auto& in, auto&) { in.data = nullptr; });
  refuses([](auto&, auto& in, auto&) { in.token_stride = 23; });
  refuses([](auto&, auto& in, auto&) { --in.memory.seq_stride; });
  refuses([](auto&, auto& in, auto&) { in.memory.tokens = nullptr; });
  CHECK_THAT(of_device([](auto&, auto& in, auto&) { in.most_rows = 0; }), Contains("most_rows") && Contains("; "));
}

TEST_CASE("a bidirectional gate on a device takes a prompt beside a sequence that is idle") {
  gate_case const c({.N = {20, 0}, .H = 2, .seed = 45});
  gate_rows memory = c.memory(20);
  memory.tokens[1] = 7;
  cuda::device ctx(default_stream());
  CHECK(on_gpu(ctx, c, c.states().rows(), gate_mask::bidirectional, &memory).refused == "");
}

TEST_CASE("bad input: what only the device sees stops a gate before it writes") {
  gate_case const c({.N = {20, 6}, .H = 2, .seed = 44});
  hidden const x = c.states();
  auto const refuses = [&](auto change, std::string const& what, gate_mask sees = gate_mask::causal) {
    for (std::uint64_t schedule = 0; schedule < 3; ++schedule) {
      scheduled const order(schedule);
      gate_rows memory = c.memory(20);
      auto in = x.rows();
      change(in, memory);
      cuda::device ctx(default_stream());
      outcome const got = on_gpu(ctx, c, in, sees, &memory);
      CHECK_THAT(got.refused, Contains(what) && Contains("; "));
      CHECK(same(got.p, std::vector<float>(got.p.size(), garbage)));
      CHECK(same(got.rows, memory.rows));
      CHECK(on_gpu(ctx, c, x.rows(), sees).refused == "");  // the context goes on
    }
  };
  refuses([](auto&, auto& m) { m.tokens[1] = 15; }, "gate: 15 + 6 tokens of sequence 1 do not fit the memory's 20");
  refuses([](auto&, auto& m) { m.tokens[0] = -1; }, "gate: -1 + 20 tokens of sequence 0");
  refuses([](auto&, auto& m) { m.tokens[1] = std::numeric_limits<std::int32_t>::max(); },
          "gate: 2147483647 + 6 tokens of sequence 1");
  refuses([](auto&, auto& m) { m.tokens[1] = 1; }, "gate: sequence 1 continues after 1 tokens",
          gate_mask::bidirectional);
  refuses([](auto& in, auto&) { in.most_rows = 19; }, "sequence 0 provides 20 rows, but most_rows is 19");
  std::int32_t const descending[] = {0, 20, 15};
  refuses([&](auto& in, auto&) { in.row_begin = descending; }, "row_begin descends at sequence 1");
}

TEST_CASE("bad input: a gate on a device whose probability is not a number says so") {
  cuda::device ctx(default_stream());
  for (int const where : {0, 1, 2, 3, 4, 5}) {
    gate_case c({.N = {39, 6}, .H = 2, .group = 2, .seed = 43});
    double const nan = std::numeric_limits<double>::quiet_NaN();
    if (where == 5)
      c.X[1][2][3] = nan;
    else
      (where == 0   ? c.gate.wq
       : where == 1 ? c.gate.wk
       : where == 2 ? c.gate.wv
       : where == 3 ? c.gate.wo
                    : c.gate.bias)
          .front() = nan;
    c.store();
    hidden const x = c.states();
    for (gate_mask const sees : masks) {
      CAPTURE(where, static_cast<int>(sees));
      auto const message = on_gpu(ctx, c, x.rows(), sees).refused;
      CHECK_THAT(message, Contains("gate: a keep probability is not a number; look"));
    }
  }
}

TEST_CASE("a kernel that has refused stops a gate, and no tokens are no work") {
  gate_case const c({.N = {5, 6}, .H = 1, .seed = 45});
  hidden const x = c.states();
  device_memory there;
  auto in = on_device_rows(there, x.rows(), 2);
  auto const w = on_device_gate(there, c.weights());
  on_device<float> const p(std::vector<float>(11, -3.0f)), values(std::vector<float>(11, -4.0f)),
      memory(std::vector<float>(2 * 6 * 16, -3.0f));
  in.memory = {memory.data(), 6 * 16, 6, there.put(std::vector<std::int32_t>{0, 0})};
  std::vector<kvevict::row> const rows{{0, 0, 5, 0, 5, 5, 3, true}, {1, 0, 6, 0, 6, 6, 3, true}};
  std::vector<kvevict::row> longer = rows;
  longer[0].tokens = 6;
  kvevict::score_rows out{
      there.put(longer), 2, 1, there.put(std::vector<std::int64_t>{0, 5, 11}), values.data(), nullptr, 0, 1, 6, 11};
  cuda::device ctx(default_stream());
  kernels::expect_prompt(ctx, in, out);
  out.rows = there.put(rows);
  kernels::put_rows(ctx, in, p.data(), out);
  kernels::gate(ctx, w, in, gate_mask::causal, 2, 1, p.data());
  CHECK_THAT(refusal([&] { ctx.wait(); }), Contains("provides 5 hidden states for 6 tokens"));
  CHECK(p.read() == std::vector<float>(11, -3.0f));
  CHECK(values.read() == std::vector<float>(11, -4.0f));
  CHECK(memory.read() == std::vector<float>(2 * 6 * 16, -3.0f));
  kernels::gate(ctx, w, in, gate_mask::causal, 0, 1, p.data());
  kernels::expect_prompt(ctx, in, kvevict::score_rows{});
  kernels::put_rows(ctx, in, p.data(), kvevict::score_rows{});
  CHECK_NOTHROW(ctx.wait());
  CHECK(p.read() == std::vector<float>(11, -3.0f));
  gate_case wrong = c;
  wrong.gate.bias[0] = std::numeric_limits<double>::quiet_NaN(), wrong.store();
  kernels::gate(ctx, on_device_gate(there, wrong.weights()), in, gate_mask::causal, 2, 1, p.data());
  kernels::put_rows(ctx, in, p.data(), out);
  CHECK_THAT(refusal([&] { ctx.wait(); }), Contains("is not a number"));
  CHECK(values.read() == std::vector<float>(11, -4.0f));
}

TEST_CASE("a gate's scratch on a device is known beforehand, and the second call takes nothing more") {
  gate_case const c(ragged(46));
  hidden const x = c.states();
  device_memory there;
  auto const in = on_device_rows(there, x.rows(), c.sequences());
  auto const w = on_device_gate(there, c.weights());
  on_device<float> const p(unwritten(c, x.rows()));
  auto const gate = [&](cuda::device& ctx) {
    kernels::gate(ctx, w, in, gate_mask::causal, c.sequences(), c.shape.H, p.data());
  };
  auto const dry = cuda::device::try_out(default_stream(), gate);
  std::int64_t const rows = c.sequences() * in.most_rows, A = w.width();
  CHECK(static_cast<std::int64_t>(dry.scratch_bytes) <= rows * 3 * A * 4 + 256);  // never tokens × tokens
  CHECK(dry.count(cuda::dry_run::kind::launch) <= 4);
  cuda::device ctx(default_stream());
  for (int i = 0; i < 2; ++i) {
    gate(ctx);
    CHECK(ctx.scratch().high_water() == dry.scratch_bytes);
  }
  ctx.wait();
}

}  // namespace gate_test
