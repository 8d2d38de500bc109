// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <limits>

#include <kvevict/kernels/exp2.hpp>

#include "support/catch.hpp"

namespace kernels_exp2_test {

namespace kernels = kvevict::kernels;

namespace {

float of_one(float x) { return kernels::exp2(kernels::splat(x))[0]; }

}  // namespace

TEST_CASE("powers of two are within two units of the last place, between 0 and 2^126") {
  double worst = 0;
  for (int i = -126 * 64; i <= 126 * 64; ++i) {
    float const x = static_cast<float>(i) / 64 + 0.003f * static_cast<float>(i % 5);
    if (x > 126 || x < -126) continue;
    double const exact = std::exp2(static_cast<double>(x));
    worst = std::max(worst, std::abs(static_cast<double>(of_one(x)) / exact - 1));
  }
  CHECK(worst <= 2 * 0x1p-23);
  CHECK(of_one(0) == 1);
  CHECK(of_one(-126) == 0x1p-126f);
  CHECK(of_one(126) == 0x1p126f);
  for (float const x : {126.5f, 1000.0f, std::numeric_limits<float>::max(), std::numeric_limits<float>::infinity()})
    CHECK(of_one(x) == 0x1p126f);
  for (float const x : {-126.75f, -127.0f, -127.5f, -128.0f, -1000.0f, -std::numeric_limits<float>::max(),
                        -std::numeric_limits<float>::infinity()})
    CHECK(of_one(x) == 0);
  CHECK(std::isnan(of_one(std::numeric_limits<float>::quiet_NaN())));
}

TEST_CASE("tanh is within 3e-7 of itself, however small it is") {
  auto const tanh_of = [](float x) { return kernels::tanh(kernels::splat(x))[0]; };
  double worst = 0;
  for (float x = 1e-20f; x < 20; x *= 1.0173f)
    for (float const at : {x, -x}) {
      double const exact = std::tanh(static_cast<double>(at));
      worst = std::max(worst, std::abs(static_cast<double>(tanh_of(at)) / exact - 1));
    }
  CHECK(worst <= 3e-7);
  CHECK(tanh_of(0) == 0);
  CHECK(tanh_of(std::numeric_limits<float>::infinity()) == 1);
  CHECK(tanh_of(-std::numeric_limits<float>::infinity()) == -1);
  CHECK(std::isnan(tanh_of(std::numeric_limits<float>::quiet_NaN())));
}

TEST_CASE("several vectors' powers have the bits of each one's") {
  kernels::vec all[3];
  for (int v = 0; v < 3; ++v)
    for (int i = 0; i < kernels::lanes; ++i) all[v][i] = -131.0f + 5.37f * static_cast<float>(v * kernels::lanes + i);
  kernels::vec const before[3] = {all[0], all[1], all[2]};
  kernels::exp2(all);
  for (int v = 0; v < 3; ++v)
    for (int i = 0; i < kernels::lanes; ++i) CHECK(all[v][i] == of_one(before[v][i]));
}

}  // namespace kernels_exp2_test
