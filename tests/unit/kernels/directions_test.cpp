// SPDX-License-Identifier: Apache-2.0
// Sums of directions and products with a vector on the host: of rows as they lie, decoded, and turned back.
#include <kvevict/kernels/direction_sums.hpp>
#include <kvevict/kernels/each.hpp>
#include <kvevict/kernels/rope_steps.hpp>
#include <kvevict/kernels/row_products.hpp>
#include <kvevict/threads.hpp>

#include "support/ropes.hpp"
#include "support/row_case.hpp"

namespace kernels_directions_test {

using namespace kvevict;

namespace {

struct put_product {
  void operator()(float product, float& score) const { score = score * 0.5f + product; }
};
struct result {
  std::vector<float> sums, scores;
  bool operator==(result const& o) const { return sums == o.sums && scores == o.scores; }
};

layouts::cache_shape shape_of(std::int32_t head_dim, dtype type) {
  layouts::cache_shape s;
  s.lengths = {530, 7, 0, 17}, s.heads = 2, s.head_dim = head_dim, s.type = type, s.page_size = 4;
  return s;
}
/// Heads are at positions of their own, which meet here and there.
int position_of(int b, int h, int t) { return 3 * t + (t % 5 == 0 ? 0 : 100 * h) + 990000 * b; }

/// Both kernels on all rows, serially or not.
template <class Elements> result of_host(host& ctx, Elements const& of, reference::selection_input in) {
  score_rows const rows = support::host_rows(in);
  std::vector<float> vectors;
  for (std::int64_t i = 0; i < rows.count() * of.of.width(); ++i)
    vectors.push_back(std::cos(static_cast<float>(i * i)));
  result out;
  out.sums.assign(vectors.size(), 77.0f);
  kernels::direction_sums(ctx, rows, of, out.sums.data());
  kernels::row_products(ctx, rows, of, vectors.data(), put_product{});
  out.scores = in.values;
  return out;
}

/// The same in double, of the numbers that the element's reader gives.
template <class Elements> void check(result const& got, Elements const& of, reference::selection_input in) {
  auto const D = static_cast<std::int32_t>(of.of.width());
  score_rows const rows = support::host_rows(in);
  std::size_t wrong = 0;
  for (std::int64_t r = 0; r < rows.count(); ++r) {
    row const& it = rows.rows[r];
    std::vector<double> sums(static_cast<std::size_t>(D));
    for (std::int64_t j = 0; j < it.tokens && it.active; ++j) {
      std::vector<double> x;
      double squares = 0, product = 0;
      for (std::int32_t d = 0; d < D; d += row_chunk) {
        float e[row_chunk];
        of.reader(it).read(j, d, e);
        x.insert(x.end(), e, e + row_chunk);
      }
      for (double const e : x) squares += e * e;
      for (std::int32_t d = 0; d < D; ++d) {
        auto const i = static_cast<std::size_t>(d);
        sums[i] += x[i] / std::sqrt(squares);
        product += x[i] * static_cast<double>(std::cos(static_cast<float>((r * D + d) * (r * D + d))));
      }
      double const want = 0.5 / std::sqrt(squares) + product;
      wrong += !(std::abs(static_cast<double>(got.scores[static_cast<std::size_t>(rows.begin[r] + j)]) - want) < 2e-5);
    }
    for (std::int32_t d = 0; d < D; ++d) {
      float const sum = got.sums[static_cast<std::size_t>(r * D + d)];
      wrong +=
          it.active ? !(std::abs(static_cast<double>(sum) - sums[static_cast<std::size_t>(d)]) < 1e-4) : sum != 77.0f;
    }
  }
  CHECK(wrong == 0);
}

turning turning_by(host& ctx, rope const& r, std::int32_t width, std::vector<std::uint64_t>& steps) {
  steps.resize(static_cast<std::size_t>(width / 2));
  kernels::rope_steps(ctx, r, width, steps.data());
  return {steps.data(), width, r.pairs, static_cast<float>(1 / r.amplitude())};
}

template <class MakeElements> void same_in_all_layouts(std::int32_t head_dim, dtype type, MakeElements make) {
  threads three(3);
  result first;
  layouts::for_each_layout(shape_of(head_dim, type), [&](auto& cache) {
    CAPTURE(cache.name(), head_dim, name_of(type));
    cache.fill([](int b, int h, int t, int d) { return 0.3 + std::sin(b + 3 * h + 7 * t + 11 * d); },
               [](int, int, int, int) { return 0; });
    cache.fill(role::position, [](int b, int h, int t, int) { return position_of(b, h, t); });
    auto const of = make(cache.view, *cache.view.find(role::k));
    auto const in = support::rows_of(cache);
    host serial, threaded(three.as_executor(0));
    result const got = of_host(serial, of, in);
    CHECK(got == of_host(threaded, of, in));
    if (first.sums.empty()) first = got, check(got, of, in);
    CHECK(got == first);
  });
}

}  // namespace

TEST_CASE("directions and products are what they are in double, the same bits in every layout, by every rope") {
  host ctx;
  std::vector<std::uint64_t> steps;
  for (dtype const type : {dtype::f32, dtype::f16, dtype::bf16})
    for (std::int32_t const D : {24, 64})
      same_in_all_layouts(D, type, [](auto const& v, component const& c) { return row_elements{v, c}; });
  for (support::known_rope const& r : support::small_ropes())
    for (std::int32_t const D : {24, 64}) {
      CAPTURE(r.name, r.width, r.interleaved());
      turning const by = turning_by(ctx, r.ours, r.width == 24 ? D : r.width, steps);
      same_in_all_layouts(D, D == 24 ? dtype::f32 : dtype::bf16, [&](auto const& v, component const& c) {
        return unrotated_elements{v, c, by};
      });
    }
}

TEST_CASE("a token of zeros has no direction, and what is not finite is seen in the sums of its head alone") {
  layouts::with_layout(layouts::layout::hnd, shape_of(24, dtype::f32), [](auto& cache) {
    cache.fill(role::k, [](int b, int h, int t, int d) {
      return t == 3 ? 0.0 : t == 4 && b == 0 && h == 1 && d == 5 ? double{__builtin_inff()} : 1.0;
    });
    host ctx;
    auto in = support::rows_of(cache);
    result const got = of_host(ctx, row_elements{cache.view, *cache.view.find(role::k)}, in);
    CHECK(got.scores[3] == 0);
    CHECK(got.sums[0] == Approx(529 / std::sqrt(24.0)));
    CHECK(!std::isfinite(got.sums[24]));
    CHECK(std::isfinite(got.sums[48]));
  });
}

TEST_CASE("few rows at a time have the sums and products that all have together") {
  layouts::with_layout(layouts::layout::hnd, shape_of(24, dtype::f32), [](auto& cache) {
    cache.fill(role::k, [](int b, int h, int t, int d) { return 0.3 + std::sin(b + 3 * h + 7 * t + 11 * d); });
    threads three(3);
    host ctx(three.as_executor(0));
    row_elements const of{cache.view, *cache.view.find(role::k)};
    auto in = support::rows_of(cache);
    result const want = of_host(ctx, of, in);
    constexpr std::int64_t room = std::int64_t{4} << 20;
    using sizes_of_slices = std::vector<std::int64_t>;  // of rows of 530, 530, 7, 7, 0, 0, 17 and 17 tokens
    for (auto const& [bytes, slices] : {std::pair<std::int64_t, sizes_of_slices>{0, {8}},
                                        {room / 1108, {8}},
                                        {room / 540, {1, 2, 5}},
                                        {room / 530, {1, 1, 6}},
                                        {2 * room, {1, 1, 1, 1, 2, 1, 1}}}) {
      auto again = in;
      score_rows const all = support::host_rows(again);
      std::vector<float> sums(want.sums.size(), 77.0f), vectors(sums.size());
      for (std::size_t i = 0; i < vectors.size(); ++i) vectors[i] = std::cos(static_cast<float>(i * i));
      std::vector<std::int64_t> sizes;
      kernels::few_rows(ctx, all, bytes, [&](score_rows const& rows) {
        std::int64_t const first = (rows.rows - all.rows) * 24;
        kernels::direction_sums(ctx, rows, of, sums.data() + first);
        kernels::row_products(ctx, rows, of, vectors.data() + first, put_product{});
        sizes.push_back(rows.count());
      });
      CAPTURE(bytes);
      CHECK(sizes == slices);
      CHECK(sums == want.sums);
      CHECK(again.values == want.scores);
    }
  });
}

TEST_CASE("workspace_bytes of directions and products bound their scratch") {
  layouts::with_layout(layouts::layout::x_packed, shape_of(24, dtype::f32), [](auto& cache) {
    host ctx;
    std::vector<std::uint64_t> steps;
    turning const by = turning_by(ctx, {.base = 10000, .pairs = rope_pairs::neighbours}, 24, steps);
    of_host(ctx, unrotated_elements{cache.view, *cache.view.find(role::k), by}, support::rows_of(cache));
    cache_shape const s{4, 2, 2, 24, 530};
    CHECK(static_cast<std::int64_t>(ctx.scratch().high_water()) <=
          std::max(kernels::direction_sums.bytes(ctx, s), kernels::row_products.bytes(ctx, s)));
  });
}

}  // namespace kernels_directions_test
