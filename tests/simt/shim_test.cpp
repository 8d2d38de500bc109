// SPDX-License-Identifier: Apache-2.0
// Each feature of the device shim computes, under the emulation, what CUDA says, in every schedule.
#include <cmath>
#include <cstring>
#include <numeric>
#include <vector>

#include "simt/kernels.hpp"
#include "simt/on_device.hpp"
#include "support/catch.hpp"
#include "support/random.hpp"

namespace shim_test {

using namespace simt_test;

namespace {

constexpr std::uint64_t schedules[] = {0, 1, 2, 3, 4, 5, 6, 7};

std::vector<std::uint32_t> numbers(std::size_t count) {
  reference::generator random(count);
  std::vector<std::uint32_t> out(count);
  for (auto& x : out) x = static_cast<std::uint32_t>(random.below(1000));
  return out;
}

template <class T> void product_equals_naive() {
  reference::generator random(7);
  std::vector<T> a(256), b(128);
  for (T& x : a) x = kvevict::from_float<T>(static_cast<float>(random.normal()));
  for (T& x : b) x = kvevict::from_float<T>(static_cast<float>(random.normal()));
  auto const before = random.normals<float>(128);
  on_device<T> da(a), db(b);
  on_device<float> dd(before);
  cuda::launch(dd.stream(), {1}, {32}, 0, matrix_product<T>{da.data(), db.data(), dd.data()});
  auto const d = dd.read();
  for (std::size_t i = 0; i < 16; ++i)
    for (std::size_t j = 0; j < 8; ++j) {
      double sum = before[i * 8 + j];
      for (std::size_t k = 0; k < 16; ++k)
        sum += double{kvevict::to_float(a[i * 16 + k])} * kvevict::to_float(b[k * 8 + j]);
      CAPTURE(i, j);
      CHECK(std::abs(d[i * 8 + j] - sum) <= 1e-5);
    }
}

}  // namespace

TEST_CASE("blocks add up with barriers") {
  auto const in = numbers(1000);
  for (auto const schedule : schedules) {
    scheduled const s(schedule);
    on_device<std::uint32_t> din(in), out(std::vector<std::uint32_t>(4));
    cuda::launch(out.stream(), {4}, {256}, cuda::shared_bytes<std::uint32_t>(256),
                 block_sum{din.data(), out.data(), 1000});
    auto const sums = out.read();
    for (std::size_t b = 0; b < 4; ++b)
      CHECK(sums[b] ==
            std::accumulate(in.data() + 256 * b, in.data() + std::min<std::size_t>(1000, 256 * b + 256), 0u));
  }
}

TEST_CASE("warps scan with shuffles") {
  auto const in = numbers(128);
  for (auto const schedule : schedules) {
    scheduled const s(schedule);
    on_device<std::uint32_t> din(in), sums(in), pairs(in);
    on_device<double> below(std::vector<double>(128));
    cuda::launch(sums.stream(), {2}, {32, 2}, 0, warp_scan{din.data(), sums.data(), pairs.data(), below.data()});
    auto const s1 = sums.read(), p = pairs.read();
    auto const lower = below.read();
    for (std::size_t i = 0; i < 128; ++i) {
      auto const first = in.begin() + static_cast<int>(i / 32 * 32);
      CHECK(s1[i] == std::accumulate(first, in.begin() + static_cast<int>(i) + 1, 0u));
      CHECK(p[i] == in[i] + in[i ^ 1]);
      CHECK(lower[i] == 0.5 * in[i / 32 * 32 + (i + 31) % 32]);
    }
  }
}

TEST_CASE("half warps vote and meet") {
  for (auto const schedule : schedules) {
    scheduled const s(schedule);
    on_device<std::uint32_t> out(std::vector<std::uint32_t>(96));
    cuda::launch(out.stream(), {1}, {32}, 0, half_warps{out.data()});
    auto const o = out.read();
    std::uint32_t thirds = 0;
    for (std::uint32_t l = 0; l < 32; l += 3) thirds |= 1u << l;
    for (std::uint32_t l = 0; l < 32; ++l) {
      CHECK(o[l * 3] == (thirds & (l < 16 ? 0xffffu : 0xffff0000u)));
      CHECK(o[l * 3 + 1] == (l ^ 15) * (l ^ 15));
      CHECK(o[l * 3 + 2] == (l ^ 3));
    }
  }
}

TEST_CASE("atomics lose nothing") {
  for (auto const schedule : schedules) {
    scheduled const s(schedule);
    on_device<std::uint32_t> words(std::vector<std::uint32_t>(4));
    on_device<std::int32_t> largest(std::vector<std::int32_t>{-1000});
    on_device<std::uint64_t> wide(std::vector<std::uint64_t>{0});
    cuda::launch(words.stream(), {5}, {64}, 0, counters{words.data(), largest.data(), wide.data()});
    auto const w = words.read();
    CHECK(w[0] == 320 * 319 / 2);
    CHECK(w[1] == 319);
    CHECK(w[2] == ~0u);
    CHECK((w[3] >= 1 && w[3] <= 320));
    CHECK(largest.read()[0] == 0);
    CHECK(wide.read()[0] == std::uint64_t{320} << 33);
  }
}

TEST_CASE("asynchronous copies arrive at the wait and not before") {
  reference::generator random(3);
  auto const in = random.normals<float>(256);
  for (auto const schedule : schedules) {
    scheduled const s(schedule);
    on_device<float> din(in), out(in);
    on_device<std::uint32_t> early(std::vector<std::uint32_t>{0});
    cuda::launch(out.stream(), {1}, {32}, cuda::shared_bytes<float>(256),
                 reverse_async{din.data(), out.data(), 254, early.data()});
    auto const o = out.read();
    for (std::size_t i = 0; i < 256; ++i) CHECK(o[i] == (255 - i < 254 ? in[255 - i] : 0.0f));
    CHECK(early.read()[0] == 0);
  }
}

TEST_CASE("the matrix instruction equals the naive product in f16") { product_equals_naive<kvevict::f16>(); }
TEST_CASE("the matrix instruction equals the naive product in bf16") { product_equals_naive<kvevict::bf16>(); }

TEST_CASE("conversions and arithmetic") {
  std::vector<float> in{0.1f, 1.0f, 2.5f, 1000.0f};
  on_device<float> din(in), out(std::vector<float>(24));
  cuda::launch(out.stream(), {1}, {4}, 0, arithmetic{din.data(), out.data()});
  auto const o = out.read();
  for (std::size_t i = 0; i < 4; ++i) {
    CHECK(o[i * 6] == kvevict::to_float(kvevict::from_float<kvevict::bf16>(in[i])));
    CHECK(o[i * 6 + 1] == kvevict::to_float(kvevict::from_float<kvevict::f16>(in[i])));
    CHECK(o[i * 6 + 2] == std::fma(in[i], in[i], -1.0f));
    CHECK(o[i * 6 + 3] == Approx(std::exp2(in[i])));
    CHECK(std::abs(o[i * 6 + 4] - std::log2(in[i])) <= 2.5e-7f * (1 + std::abs(std::log2(in[i]))));
    CHECK(o[i * 6 + 5] == static_cast<float>(kvevict::bits::as_uint(in[i]) >> 23));
  }
}

}  // namespace shim_test
