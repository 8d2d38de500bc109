// SPDX-License-Identifier: Apache-2.0
// Selection, head budgets and the small score kernels on a device, against std::sort and the host.
#include <cmath>
#include <limits>

#include <kvevict/cuda/count_above.hpp>
#include <kvevict/cuda/count_best.hpp>
#include <kvevict/cuda/each.hpp>
#include <kvevict/cuda/multiply_by_share.hpp>
#include <kvevict/cuda/pool.hpp>
#include <kvevict/cuda/require_finite.hpp>
#include <kvevict/cuda/select_best.hpp>
#include <kvevict/cuda/squared_norms.hpp>
#include <kvevict/heads/adaptive.hpp>
#include <kvevict/heads/forced_floor.hpp>
#include <kvevict/heads/threshold.hpp>
#include <kvevict/kernels/host.hpp>

#include "simt/device_cache.hpp"
#include "support/catch.hpp"
#include "support/keep_sets.hpp"
#include "support/selection.hpp"

using namespace simt_test;
namespace cuda = kvevict::cuda;
namespace kernels = kvevict::kernels;

namespace {

/// The rows of a selection_input as a device keeps them: every row as long as the longest.
struct device_rows {
  device_memory memory;
  kvevict::score_rows view;
  std::vector<std::int32_t> tokens;

  explicit device_rows(kvevict::score_rows const& s) {
    std::size_t const n = static_cast<std::size_t>(s.count());
    std::int64_t most = 1;
    for (std::size_t r = 0; r < n; ++r) most = std::max<std::int64_t>(most, s.rows[r].tokens), tokens.push_back(s.rows[r].tokens);
    std::size_t const stride = static_cast<std::size_t>((most + 3) / 4 * 4);
    std::vector<std::int64_t> begin(n + 1);
    std::vector<float> values(n * stride, std::numeric_limits<float>::quiet_NaN());
    std::vector<std::int32_t> positions(n * stride, -7);
    for (std::size_t r = 0; r < n; ++r) {
      begin[r] = static_cast<std::int64_t>(r * stride);
      for (std::size_t j = 0; j < static_cast<std::size_t>(tokens[r]); ++j) {
        values[r * stride + j] = s.values[static_cast<std::size_t>(s.begin[r]) + j];
        positions[r * stride + j] = s.rank(static_cast<std::int64_t>(r), static_cast<std::int64_t>(j));
      }
    }
    view = s;
    view.rows = memory.put(s.rows, n);
    view.values = memory.put(values);
    view.begin = memory.put(begin);
    view.positions = s.positions == nullptr ? nullptr : memory.put(positions);
    view.most_tokens = most, view.total_floats = static_cast<std::int64_t>(n * stride);
  }
  std::vector<float> values(cuda::device& ctx) const {  // of active rows, zeros elsewhere
    std::vector<float> out;
    kernels::read_scores(ctx, view, out);
    return out;
  }
  std::vector<kvevict::row> rows() const {
    auto const bytes = memory.read(0);
    std::vector<kvevict::row> out(bytes.size() / sizeof(kvevict::row));
    if (!out.empty()) std::memcpy(out.data(), bytes.data(), bytes.size());
    return out;
  }
};

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
  for (std::size_t r = 0; r < in.rows.size(); ++r) in.rows[r].active = (r / static_cast<std::size_t>(in.heads) + trial) % 4 != 0;
}

}  // namespace

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
    kvevict::pooled_best what{trial % 3 == 0 ? 0 : static_cast<std::int32_t>(random.below(1001)), trial % 2 == 0 ? weights : nullptr};
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
      auto const want = of[0].active ? reference::best_of_heads(s, b, pooled, static_cast<std::int32_t>(forced), what.weights) : std::vector<std::int32_t>(3, 0);
      CHECK(std::vector<std::int32_t>(got.begin() + b * 3, got.begin() + b * 3 + 3) == want);
    }
  });
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
    auto in = reference::random_selection(random, {.sequences = 2, .heads = 2, .most_tokens = 600});
    for (float& x : in.values) x = trial == 7 && random.below(20) == 0 ? std::numeric_limits<float>::infinity() : std::abs(static_cast<float>(random.normal()));
    kvevict::pool_options const o{static_cast<std::int32_t>(2 * (trial % 4) + 1), trial % 2 == 0 ? kvevict::pooling::max : kvevict::pooling::average};
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
    for (std::size_t i = 0; i < got.size(); ++i) wrong += !(std::isfinite(want[i]) ? std::abs(got[i] - want[i]) <= 1e-6f * std::abs(want[i]) : !std::isfinite(got[i]));
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
    in.rows[0] = {0, 0, static_cast<std::int32_t>(in.values.size()), 0, static_cast<std::int32_t>(in.values.size()), static_cast<std::int32_t>(in.values.size()), 1, true};
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

TEST_CASE("norms on a device are the host's, in every layout") {
  for (auto const type : {kvevict::dtype::f32, kvevict::dtype::f16, kvevict::dtype::bf16})
    for (std::int32_t const D : {8, 64}) {
      layouts::cache_shape shape;
      shape.lengths = {37, 0, 5}, shape.heads = 2, shape.head_dim = D, shape.type = type, shape.page_size = 4;
      std::vector<float> first;
      layouts::for_each_layout(shape, [&](auto& cache) {
        using entry = typename std::decay_t<decltype(cache.view)>::table_entry;
        CAPTURE(cache.name(), D);
        reference::generator random(8);
        cache.fill([&](int b, int h, int t, int d) { return std::sin(b + 3 * h + 7 * t + 11 * d); }, [&](int b, int h, int t, int d) { return std::cos(b + 3 * h + 7 * t + 11 * d); });
        reference::selection_input in;
        in.sequences = 3, in.heads = 2;
        for (std::int32_t b = 0; b < 3; ++b)
          for (std::int32_t h = 0; h < 2; ++h) {
            std::int32_t const n = cache.view.length(b, h);
            in.rows.push_back({b, h, n, 0, n, n, n, true});
            in.begin.push_back(in.begin.back() + n);
          }
        in.values.resize(static_cast<std::size_t>(in.begin.back()));
        device_rows const rows(in.view());
        device_cache<entry> there(cache);
        cuda::device ctx(default_stream());
        kvevict::host host;
        kernels::squared_norms(ctx, there.view, *there.view.find(kvevict::role::v), rows.view);
        kernels::squared_norms(host, cache.view, *cache.view.find(kvevict::role::v), in.view());
        auto const got = rows.values(ctx);
        REQUIRE(got.size() == in.values.size());
        std::size_t wrong = 0;
        for (std::size_t i = 0; i < got.size(); ++i) wrong += !(std::abs(got[i] - in.values[i]) <= 2e-6f * in.values[i]);
        CHECK(wrong == 0);
      });
    }
}
