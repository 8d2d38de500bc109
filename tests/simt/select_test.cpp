// SPDX-License-Identifier: Apache-2.0
// Selection, head budgets and the small score kernels on a device, against std::sort and the host.
#include <cmath>
#include <limits>
#include <utility>

#include <kvevict/cuda/scores/each.hpp>
#include <kvevict/cuda/scores/multiply_by_share.hpp>
#include <kvevict/cuda/scores/pool.hpp>
#include <kvevict/cuda/scores/require_finite.hpp>
#include <kvevict/cuda/select/count_above.hpp>
#include <kvevict/cuda/select/count_best.hpp>
#include <kvevict/cuda/select/select_best.hpp>
#include <kvevict/heads/adaptive.hpp>
#include <kvevict/heads/forced_floor.hpp>
#include <kvevict/heads/threshold.hpp>
#include <kvevict/kernels/host.hpp>

#include "simt/device_cache.hpp"
#include "simt/device_rows.hpp"
#include "support/catch.hpp"
#include "support/keep_sets.hpp"
#include "support/selection.hpp"

namespace select_test {

using namespace simt_test;
namespace cuda = kvevict::cuda;
namespace kernels = kvevict::kernels;

namespace {

template <class F> void over_inputs(F f) {
  reference::generator random(5);
  for (std::uint64_t trial = 0; trial < 36; ++trial) {
    reference::selection_shape shape;
    shape.sequences = 2, shape.heads = 3, shape.most_tokens = trial % 6 == 0 ? 2100 : 90;
    shape.scattered = trial % 2 == 1, shape.gaps_in_positions = trial % 4 == 3;
    constexpr std::size_t levels[] = {0, 1, 2, 5, 40};
    shape.levels = levels[trial % 5];
    auto in = reference::random_selection(random, shape);
    scheduled const schedule(trial % 5);
    CAPTURE(trial, shape.scattered, shape.levels);
    f(in, random);
  }
}
/// Heads of a sequence are cut together, as plan() does.
void alike(reference::selection_input& in, std::size_t trial) {
  for (std::size_t r = 0; r < in.rows.size(); ++r)
    in.rows[r].active = (r / static_cast<std::size_t>(in.heads) + trial) % 4 != 0;
}

/// One more sequence, of one row: n tokens, of which those of [first, last) may be evicted and a share of them stays (1
/// ‰: one, 999 ‰: all but one).
struct row_maker {
  std::size_t levels = 0;
  bool scattered = false, twice = false;  // twice: every position
  reference::generator random{levels + 11};
  reference::selection_input in{};

  void add(std::int32_t n, std::int32_t first, std::int32_t last, std::int32_t permille) {
    kvevict::row r{in.sequences++, 0, n, first, last, 0, 0, true};
    for (std::int32_t j = 0; j < n; ++j) {
      std::int32_t const at = scattered ? n - 1 - (twice ? j / 2 * 2 : j) : j;
      bool const in_range = at >= r.first && at < r.last;
      r.candidates += in_range;
      in.values.push_back(in_range ? reference::any_score(random, levels) : std::numeric_limits<float>::quiet_NaN());
      in.positions.push_back(at);
    }
    r.budget = r.protected_tokens() + (permille == 1     ? std::min(1, r.candidates)
                                       : permille == 999 ? std::max(0, r.candidates - 1)
                                                         : r.candidates * permille / 1000);
    in.rows.push_back(r);
    in.begin.push_back(in.begin.back() + n);
    in.heads = 1, in.scattered = scattered;
  }
};

/// Rows at the edges of what there is: no quota, all of it, one token, none, rounds of a small block that end exactly
/// or not.
reference::selection_input edges(std::size_t levels, bool scattered, bool twice) {
  row_maker rows{levels, scattered, twice};
  for (std::int32_t const n : {1, 2, 256, 257, 513, 0})
    for (std::int32_t const permille : {0, 1, 500, 999, 1000}) rows.add(n, n / 10, n - n / 7, permille);
  return rows.in;
}

/// Rows that begin, end and are protected at every place of a vector, and around the ends of a block's rounds.
reference::selection_input vectors(std::size_t levels) {
  row_maker rows{levels};
  for (std::int32_t const n : {1, 2, 3, 4, 5, 6, 7, 8, 9, 1023, 1024, 1025, 1026, 1027, 1028, 1029, 1030})
    for (auto const& [front, back] : {std::pair{0, 0}, {1, 0}, {0, 3}, {3, 2}, {5, 4}, {2, n / 2}})
      for (std::int32_t const permille : {0, 1, 500, 999})
        if (front + back <= n) rows.add(n, front, n - back, permille);
  return rows.in;
}

kvevict::keep_set on_host(reference::selection_input& in) {
  kvevict::host host;
  kvevict::keep_set out;
  kernels::select_best(host, in.view(), out);
  return out;
}

template <class Keys>
cuda::keep_set launched(cuda::device& ctx, kvevict::score_rows const& s, std::uint32_t block, std::uint32_t held) {
  cuda::keep_set out;
  cuda::keep_arrays const to = out.resize(ctx, s.sequences, s.heads, s.most_tokens);
  ctx.launch({static_cast<std::uint32_t>(s.sequences)}, {block}, cuda::shared_bytes<std::uint32_t>(held),
             cuda::select_best_kernel<Keys>{ctx.watch(), s, to, held});
  return out;
}
cuda::keep_set launched(cuda::device& ctx, kvevict::score_rows const& s, std::uint32_t block, std::uint32_t held) {
  if (s.positions != nullptr) return launched<cuda::scattered_keys>(ctx, s, block, held);
  return held != 0 ? launched<cuda::ordered_keys<true>>(ctx, s, block, held)
                   : launched<cuda::ordered_keys<false>>(ctx, s, block, 0);
}

void check_same(kvevict::keep_set const& got, kvevict::keep_set const& want) {
  CHECK(got.tokens == want.tokens);
  CHECK(got.row_begin == want.row_begin);
  CHECK(got.lengths == want.lengths);
}

using held_kernel = cuda::select_best_kernel<cuda::ordered_keys<true>>;

}  // namespace

TEST_CASE("select_best gives the host's keep set with any block, with keys held or read again") {
  for (std::size_t const levels : {0, 1, 2})
    for (int const order : {0, 1, 2}) {  // ascending, scattered, scattered with every position twice
      auto in = edges(levels, order > 0, order == 2);
      auto const want = on_host(in);
      device_rows const there(in.view(), order == 0 ? 0 : 70);
      cuda::device ctx(default_stream());
      for (std::uint32_t const held : {0u, static_cast<std::uint32_t>(there.view.most_tokens + 3) / 4 * 4})
        for (std::uint32_t const block : {64u, 96u, 1024u}) {
          if (block == 1024 && (levels != 1 || order != 2)) continue;
          scheduled const schedule(levels + block + held);
          CAPTURE(levels, order, held, block);
          check_same(launched(ctx, there.view, block, held).read(ctx), want);
        }
    }
}

TEST_CASE("select_best gives the host's keep set wherever a row and its protected ends cut a vector") {
  for (std::size_t const levels : {0, 1, 3}) {
    auto in = vectors(levels);
    auto const want = on_host(in);
    device_rows const there(in.view());
    cuda::device ctx(default_stream());
    for (std::uint32_t const held : {0u, 1032u})
      for (std::uint32_t const block : {64u, 256u}) {
        scheduled const schedule(levels + block + held);
        CAPTURE(levels, held, block);
        check_same(launched(ctx, there.view, block, held).read(ctx), want);
      }
  }
}

TEST_CASE("select_best gives the host's keep set for the longest rows that are held, and longer ones") {
  cuda::device ctx(default_stream());
  auto const most = static_cast<std::int32_t>(held_kernel::most_held(ctx.block_shared_bytes()));
  for (std::int32_t const n : {10240, 12288, most, most + 1})
    for (std::size_t const levels : {0, 1, 2}) {
      row_maker rows{levels};
      rows.add(n, 4, n - 33, 300), rows.add(n - 5, 0, n - 5, 999);
      device_rows const there(rows.in.view());
      cuda::keep_set out;
      CAPTURE(n, levels);
      kernels::select_best(ctx, there.view, out);
      check_same(out.read(ctx), on_host(rows.in));
    }
}

TEST_CASE("select_best is one launch that holds the keys of rows that fit") {
  std::int64_t most = 0;
  auto const shared_of = [&](std::int64_t tokens) {
    kvevict::score_rows s;
    s.sequences = 3, s.heads = 2, s.most_tokens = tokens;
    cuda::keep_set out;
    auto const dry = cuda::device::try_out(default_stream(), [&](cuda::device& ctx) {
      most = held_kernel::most_held(ctx.block_shared_bytes());
      kernels::select_best(ctx, s, out);
    });
    REQUIRE(dry.steps.size() == 1);
    CHECK(cuda::volume(dry.steps[0].grid) == 6);
    CHECK(dry.scratch_bytes == 0);
    return dry.steps[0].bytes;
  };
  CHECK(held_kernel::most_held(99 << 10) == 23260);
  CHECK(held_kernel::most_held(163 << 10) == 39644);
  CHECK(held_kernel::most_held(227 << 10) == 56028);
  CHECK(shared_of(1000) == 4000);
  CHECK(shared_of(1001) == 4016);
  CHECK(shared_of(most) == static_cast<std::size_t>(most * 4));
  CHECK(shared_of(most + 1) == 0);
}

TEST_CASE("rows that do not begin at multiples of 16 bytes are refused") {
  auto in = edges(0, false, false);
  device_rows const there(in.view());
  cuda::device ctx(default_stream());
  auto s = there.view;
  cuda::keep_set out;
  on_device<std::int32_t> counts(std::vector<std::int32_t>(static_cast<std::size_t>(s.count())));
  ++s.values;
  CHECK_THROWS_AS(kernels::select_best(ctx, s, out), kvevict::contract_violation);
  CHECK_THROWS_AS(kernels::count_pooled(ctx, s, kvevict::pooled_best{}, counts.data()), kvevict::contract_violation);
  --s.values, s.total_floats -= s.count();
  CHECK_THROWS_AS(kernels::select_best(ctx, s, out), kvevict::contract_violation);
}

TEST_CASE("select_best on a device equals a sort") {
  over_inputs([](auto& in, auto&) {
    auto const s = in.view();
    device_rows const there(s);
    cuda::device ctx(default_stream());
    cuda::keep_set out;
    kernels::select_best(ctx, there.view, out);
    auto const got = out.read(ctx);
    for (std::int64_t r = 0; r < s.count(); ++r) {
      auto const row = got.row(r);
      CHECK(std::vector<std::int32_t>(row.begin(), row.end()) == reference::best_of_row(s, r));
      CHECK(got.lengths[static_cast<std::size_t>(r)] == s.rows[r].tokens);
    }
  });
}

TEST_CASE("count_pooled on a device equals a sort over all heads") {
  std::size_t trial = 0;
  over_inputs([&](auto& in, auto& random) {
    alike(in, ++trial);
    auto const s = in.view();
    device_rows there(s);
    float const weights[] = {0.5f, 2.0f, 1.25f};
    kvevict::pooled_best what{trial % 3 == 0 ? 0 : static_cast<std::int32_t>(random.below(1001)),
                              trial % 2 == 0 ? weights : nullptr};
    kvevict::pooled_best on = what;
    if (what.weights != nullptr) on.weights = there.memory.put(weights, 3);
    cuda::device ctx(default_stream());
    on_device<std::int32_t> counts(std::vector<std::int32_t>(static_cast<std::size_t>(s.count()), 99));
    kernels::count_pooled(ctx, there.view, on, counts.data());
    ctx.wait();
    auto const got = counts.read();
    for (std::int32_t b = 0; b < s.sequences; ++b) {
      kvevict::slice<kvevict::row> const of{s.rows + std::int64_t{b} * s.heads, s.heads};
      std::int64_t const pooled = pooled_quota(of), forced = what.forced_permille * (pooled / s.heads) / 1000;
      std::int64_t least = 0;
      for (auto const& it : of) least += std::min<std::int64_t>(forced, it.candidates);
      if (least > pooled) continue;  // refused on the host
      auto const want = of[0].active
                            ? reference::best_of_heads(s, b, pooled, static_cast<std::int32_t>(forced), what.weights)
                            : std::vector<std::int32_t>(3, 0);
      CHECK(std::vector<std::int32_t>(got.begin() + b * 3, got.begin() + b * 3 + 3) == want);
    }
  });
}

TEST_CASE("count_pooled gives the host's counts for rows of several chunks, and for nothing but ties") {
  reference::generator random(9);
  float const weights[] = {1.0f, 0.5f};
  for (std::size_t const levels : {0, 1, 3})
    for (bool const scattered : {false, true})
      for (std::int32_t const forced : {0, 700}) {
        reference::selection_input in;
        in.sequences = 3, in.heads = 2, in.scattered = scattered;
        for (std::int32_t const n : {4096, 4097, 8200, 300, 0, 1}) {
          auto const r = static_cast<std::int32_t>(in.rows.size());
          kvevict::row it{r / 2, r % 2, n, n / 5, n - n / 9, n - n / 5 - n / 9, 0, true};
          for (std::int32_t j = 0; j < n; ++j) {
            in.positions.push_back(scattered ? n - 1 - j : j);
            in.values.push_back(in.positions.back() < it.first || in.positions.back() >= it.last
                                    ? std::numeric_limits<float>::quiet_NaN()
                                    : reference::any_score(random, levels));
          }
          it.budget = it.protected_tokens() + it.candidates / 3;
          in.rows.push_back(it);
          in.begin.push_back(in.begin.back() + n);
        }
        in.rows[5].budget = 1;  // all of a sequence that has one token
        device_rows there(in.view(), 5000);
        kvevict::pooled_best const what{forced, scattered ? nullptr : weights};
        kvevict::pooled_best const on{forced, scattered ? nullptr : there.memory.put(weights, 2)};
        kvevict::host host;
        cuda::device ctx(default_stream());
        std::vector<std::int32_t> want(6);
        on_device<std::int32_t> counts(std::vector<std::int32_t>(6, 99));
        scheduled const schedule(levels);
        kernels::count_pooled(host, in.view(), what, want.data());
        kernels::count_pooled(ctx, there.view, on, counts.data());
        ctx.wait();
        CAPTURE(levels, scattered, forced);
        CHECK(counts.read() == want);
      }
}

TEST_CASE("a score that its weight makes infinite is refused, and a weight below 0") {
  reference::generator random(10);
  auto in = reference::random_selection(random, {.sequences = 1, .heads = 2, .most_tokens = 40});
  for (std::size_t r = 0; r < 2; ++r) {
    auto& it = in.rows[r];
    it.first = 0, it.last = it.candidates = it.tokens, it.budget = it.tokens / 2, it.active = true;
  }
  REQUIRE(in.rows[1].tokens > 1);
  std::fill(in.values.begin(), in.values.end(), 1e20f);
  for (float const second : {1.0f, 1e20f, -1.0f}) {
    float const weights[] = {1.0f, second};
    device_rows there(in.view());
    cuda::device ctx(default_stream());
    on_device<std::int32_t> counts(std::vector<std::int32_t>(2));
    kernels::count_pooled(ctx, there.view, kvevict::pooled_best{0, there.memory.put(weights, 2)}, counts.data());
    std::string const text = support::refusal([&] { ctx.wait(); });
    CHECK((text.find("head 1") != std::string::npos && text.find("not finite after its head") != std::string::npos) ==
          (second != 1));
  }
}

TEST_CASE("head budgets on a device are the host's") {
  std::size_t trial = 0;
  over_inputs([&](auto& in, auto&) {
    alike(in, ++trial);
    auto const compare = [&](auto heads) {
      auto copy = in;
      device_rows const there(copy.view());
      cuda::device ctx(default_stream());
      kvevict::host host;
      auto s = copy.view();
      heads(host, s);
      auto on = there.view;
      heads(ctx, on);
      ctx.wait();
      auto const got = there.rows();
      for (std::size_t r = 0; r < got.size(); ++r) CHECK(got[r].budget == copy.rows[r].budget);
    };
    compare(kvevict::heads::adaptive{200});
    compare(kvevict::heads::adaptive{0, kvevict::rounding::authors});
    compare(kvevict::heads::forced_floor{300});
    compare(kvevict::heads::threshold{0.5f, 2});
    compare(kvevict::heads::threshold{0});
  });
}

TEST_CASE("pooling, shares and loops over tokens on a device are the host's") {
  reference::generator random(6);
  for (std::size_t trial = 0; trial < 12; ++trial) {
    auto in =
        reference::random_selection(random, {.sequences = 2, .heads = 2, .most_tokens = trial == 11 ? 12000u : 600u});
    for (float& x : in.values)
      x = trial == 7 && random.below(20) == 0 ? std::numeric_limits<float>::infinity()
                                              : std::abs(static_cast<float>(random.normal()));
    kvevict::pool_options const o{static_cast<std::int32_t>(2 * (trial % 4) + 1),
                                  trial % 2 == 0 ? kvevict::pooling::max : kvevict::pooling::average};
    auto const range = trial % 3 == 0 ? kvevict::pool_range::all : kvevict::pool_range::evictable;
    device_rows const there(in.view()), shares(in.view());
    cuda::device ctx(default_stream());
    kvevict::host host;
    kernels::pool(ctx, o, range, there.view);
    kernels::multiply_by_share(ctx, shares.view, there.view);
    auto copy = in;
    auto s = copy.view();
    s.total_floats = s.begin[s.count()];
    kernels::pool(host, o, range, s);
    kernels::multiply_by_share(host, in.view(), s);
    std::vector<float> want;
    kernels::read_scores(host, s, want);
    auto const got = there.values(ctx);
    REQUIRE(got.size() == want.size());
    std::size_t wrong = 0;
    for (std::size_t i = 0; i < got.size(); ++i)
      wrong +=
          !(std::isfinite(want[i]) ? std::abs(got[i] - want[i]) <= 1e-6f * std::abs(want[i]) : !std::isfinite(got[i]));
    CAPTURE(trial);
    CHECK(wrong == 0);
  }
  auto in = reference::random_selection(random, {.scattered = true});
  device_rows const there(in.view());
  cuda::device ctx(default_stream());
  CHECK_THROWS_AS(kernels::pool(ctx, kvevict::pool_options{3}, there.view), kvevict::contract_violation);
  CHECK_THROWS_AS(kernels::pool(ctx, kvevict::pool_options{2}, there.view), kvevict::contract_violation);
}

TEST_CASE("a score that is not finite is named, and nothing after it runs") {
  reference::generator random(7);
  for (float const bad : {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
    auto in = reference::random_selection(random, {.sequences = 1, .heads = 1, .most_tokens = 300});
    in.rows[0] = {0,
                  0,
                  static_cast<std::int32_t>(in.values.size()),
                  0,
                  static_cast<std::int32_t>(in.values.size()),
                  static_cast<std::int32_t>(in.values.size()),
                  1,
                  true};
    for (float& x : in.values) x = 1;
    in.values.back() = bad;
    device_rows const there(in.view());
    cuda::device ctx(default_stream());
    kernels::require_finite(ctx, there.view);
    cuda::keep_set out;
    kernels::select_best(ctx, there.view, out);
    std::string const text = support::refusal([&] { ctx.wait(); });
    CHECK(text.find("token " + std::to_string(in.values.size() - 1)) != std::string::npos);
    CHECK(text.find(bad != bad ? "is NaN" : "is -inf") != std::string::npos);
    on_device<std::int32_t> untouched(std::vector<std::int32_t>{5});
    CHECK(untouched.read()[0] == 5);
  }
}

}  // namespace select_test
