// SPDX-License-Identifier: Apache-2.0
#include <kvevict/apply/mask.hpp>

#include <algorithm>
#include <cmath>
#include <limits>

#include "support/allocations.hpp"
#include "support/catch.hpp"
#include "support/keep_sets.hpp"
#include "support/layouts.hpp"

namespace apply_mask_test {

using namespace kvevict;
using reference::generator;
using support::contains, support::keep_of, support::refusal;

namespace {

bool kept(keep_set const& keep, int b, int h, int t) {
  return std::count(keep(b, h).begin(), keep(b, h).end(), t) != 0;
}

}  // namespace

TEST_CASE("mask: bits in words and in bytes say what is kept, and the words behind a row's stay") {
  host ctx;
  for (std::uint64_t seed = 0; seed < 4; ++seed)
    layouts::for_each_layout({.lengths = {50, 0, 64, 33}, .heads = 3, .seed = seed}, [&](auto& c) {
      CAPTURE(c.name(), seed);
      generator random(seed);
      keep_set const keep = support::random_keep(random, c.view, true);
      auto const before = c.snapshot();
      std::vector<std::uint32_t> words(12 * 4, 0xdeadbeefu);
      std::vector<std::uint8_t> bytes(12 * 10, 0x5a);
      mask(ctx, c.view, keep, bit_rows<std::uint32_t>{words.data(), 70, 4});
      mask(ctx, c.view, keep, bit_rows<std::uint8_t>{bytes.data(), 66, 10});
      bool right = true;
      for (int r = 0; r < 12; ++r) {
        for (int t = 0; t < 96; ++t)
          right &= (words[static_cast<std::size_t>(r * 4 + t / 32)] >> t % 32 & 1) == kept(keep, r / 3, r % 3, t);
        for (int t = 0; t < 72; ++t)
          right &= (bytes[static_cast<std::size_t>(r * 10 + t / 8)] >> t % 8 & 1) == kept(keep, r / 3, r % 3, t);
        right &= words[static_cast<std::size_t>(r * 4 + 3)] == 0xdeadbeefu;
        right &= bytes[static_cast<std::size_t>(r * 10 + 9)] == 0x5a;
      }
      CHECK(right);
      CHECK(c.snapshot() == before);
    });
}

TEST_CASE("mask: additive rows hide what is evicted and what lies behind the length, in any order of axes") {
  host ctx;
  layouts::cache<std::int32_t> c(layouts::layout::nhd, {.lengths = {20, 7}, .heads = 3});
  generator random(9);
  keep_set const keep = support::random_keep(random, c.view, true);
  constexpr float inf = std::numeric_limits<float>::infinity();
  struct strides {
    std::int64_t sequence, head;
  };
  for (strides const s : {strides{3 * 25, 25}, strides{25, 2 * 25}}) {  // (B,H,25), (H,B,25); 24 are the mask's
    std::vector<float> x(2 * 3 * 25, 7.0f);
    std::vector<bf16> half(2 * 3 * 25, bf16{1});
    mask(ctx, c.view, keep, additive_rows(x.data(), 24, s.sequence, s.head));
    mask(ctx, c.view, keep, additive_rows(half.data(), 24, s.sequence, s.head));
    for (int b = 0; b < 2; ++b)
      for (int h = 0; h < 3; ++h)
        for (int t = 0; t < 25; ++t) {
          auto const i = static_cast<std::size_t>(b * s.sequence + h * s.head + t);
          float const wanted = t == 24 ? 7.0f : kept(keep, b, h, t) ? 0.0f : -inf;
          CHECK(x[i] == wanted);
          if (t < 24) CHECK(to_float(half[i]) == wanted);
        }
  }
  std::vector<std::uint8_t> flags(2 * 3 * 20);
  mask(ctx, c.view, keep, element_rows<std::uint8_t>{flags.data(), 20, 60, 20, 1, 0});
  for (int i = 0; i < 120; ++i) CHECK(flags[static_cast<std::size_t>(i)] == kept(keep, i / 60, i / 20 % 3, i % 20));
}

TEST_CASE("mask: attention with the mask is attention over the kept tokens") {
  host ctx;
  layouts::cache<std::int32_t> c(layouts::layout::nhd, {.lengths = {30}, .heads = 2});
  generator random(4);
  keep_set const keep = support::random_keep(random, c.view, true);
  std::vector<float> row(2 * 32);
  mask(ctx, c.view, keep, additive_rows(row.data(), 32, 64, 32));
  for (int h = 0; h < 2; ++h) {
    std::vector<double> const logits = random.normals(32);
    double masked = 0, alone = 0;
    for (std::size_t t = 0; t < 32; ++t)
      masked += std::exp(logits[t] + double{row[static_cast<std::size_t>(h) * 32 + t]});
    for (std::int32_t const t : keep(0, h)) alone += std::exp(logits[static_cast<std::size_t>(t)]);
    CHECK(masked == Approx(alone).epsilon(1e-12));
  }
}

TEST_CASE("mask: what a mask cannot say is refused, and nothing is written") {
  host ctx;
  layouts::cache<std::int32_t> c(layouts::layout::nhd, {.lengths = {20, 7}, .heads = 2});
  std::vector<std::int32_t> const a{0, 19}, b{0, 18}, d{6};
  std::vector<float> x(200, 7.0f);
  auto const says = [&](std::vector<std::vector<std::int32_t>> const& rows, std::int64_t width,
                        std::int64_t of_sequence, std::int64_t of_head, float* data) {
    std::string const text =
        refusal([&] { mask(ctx, c.view, keep_of(c.view, rows), additive_rows(data, width, of_sequence, of_head)); });
    if (!text.empty()) CHECK(std::count(x.begin(), x.end(), 7.0f) == 200);
    return text;
  };
  CHECK(
      contains(says({a, b, d, d}, 19, 40, 20, x.data()), "sequence 0, head 0 has 20 tokens and a row of the mask 19"));
  CHECK(contains(says({a, b, d, d}, 20, 20, 20, x.data()), "overlap"));
  CHECK(contains(says({a, b, d, d}, 20, 40, 19, x.data()), "overlap"));
  CHECK(contains(says({a, b, d, d}, 20, 0, 20, x.data()), "overlap"));
  CHECK(contains(says({a, b, d, d}, 20, std::int64_t{1} << 62, 20, x.data()), "overlap"));
  CHECK(contains(says({a, b, d, d}, 20, 40, 20, nullptr), "no memory"));
  CHECK(contains(says({a, b, d, d}, 20, 20, 0, x.data()), "heads 0 and 1 of sequence 0 keep different tokens"));
  CHECK(contains(says({b, {19, 0}, d, d}, 20, 40, 20, x.data()), "not strictly ascending"));
  CHECK(says({a, a, d, d}, 20, 20, 0, x.data()).empty());
  CHECK((x[0] == 0 && x[18] < 0 && x[19] == 0 && x[26] == 0 && x[40] == 7.0f));
  std::uint32_t word = 1;
  CHECK(contains(
      refusal([&] {
        mask(ctx, c.view, keep_of(c.view, {a, a, d, d}), bit_rows<std::uint32_t>{&word, 32, std::int64_t{1} << 60});
      }),
      "overlap"));
  for (std::int64_t const width : {std::numeric_limits<std::int64_t>::max(), (std::int64_t{1} << 31) + 1})
    CHECK(contains(refusal([&] {
                     mask(ctx, c.view, keep_of(c.view, {a, a, d, d}), bit_rows<std::uint32_t>{&word, width, width});
                   }),
                   "columns; give one for every slot that a row can have"));
  CHECK(word == 1);
}

}  // namespace apply_mask_test
