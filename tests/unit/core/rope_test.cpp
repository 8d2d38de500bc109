// SPDX-License-Identifier: Apache-2.0
// Frequencies, angles and messages of a rope, against long double.
#include <limits>

#include <kvevict/core/rope.hpp>

#include "support/catch.hpp"
#include "support/random.hpp"
#include "support/ropes.hpp"

namespace core_rope_test {

using kvevict::rope;
using kvevict::rope_scaling;
using reference::real;

TEST_CASE("frequencies are those of the modelling code, for every scaling") {
  for (auto const& [name, ours, theirs, width] : support::scaled_ropes()) {
    CAPTURE(name);
    auto const want = reference::inverse_frequencies(theirs, width);
    for (int i = 0; i < width / 2; ++i) {
      auto const w = static_cast<double>(want[static_cast<std::size_t>(i)]);
      CAPTURE(i, w);
      CHECK(std::abs(ours.frequency(i, width) / w - 1) < 4e-15);
    }
    CHECK_NOTHROW(kvevict::contract::expect_rope("test", ours, width));
  }
}

TEST_CASE("angles at positions up to ten million are known to 1.5e-7, back and forth") {
  reference::generator random(3);
  double worst = 0;
  for (auto const& [name, ours, theirs, width] : support::scaled_ropes()) {
    auto const inverse = reference::inverse_frequencies(theirs, width);
    for (int i = 0; i < width / 2; ++i) {
      std::uint64_t const step = ours.step(i, width);
      for (int n = 0; n < 200; ++n) {
        auto const most = n % 2 == 0 ? 1000000u : 10000000u;
        auto const p = n == 0 ? 1000000 : static_cast<std::int64_t>(random.below(most));
        for (std::int64_t const position : {p, -p}) {
          auto const [cos, sin] = kvevict::turn_by(position, step);
          real const angle = static_cast<real>(position) * inverse[static_cast<std::size_t>(i)];
          double const error = static_cast<double>(std::max(std::abs(static_cast<real>(cos) - std::cos(angle)),
                                                            std::abs(static_cast<real>(sin) - std::sin(angle))));
          worst = std::max(worst, error);
        }
      }
    }
  }
  std::printf("largest error of a cosine or sine: %.3g\n", worst);
  CHECK(worst < 1.5e-7);
}

TEST_CASE("cosines and sines of all quarters, and whole turns drop out") {
  constexpr auto one = kvevict::turn_of(0);
  static_assert(one.cos == 1 && one.sin == 0);
  for (std::uint32_t i = 0; i < 4096; ++i) {
    std::uint32_t const angle = i * 0x100000u + (i % 7) * 12345u;
    auto const [cos, sin] = kvevict::turn_of(angle);
    real const x = reference::two_pi * angle / 4294967296.0L;
    CHECK(std::abs(static_cast<double>(cos - std::cos(x))) < 1.2e-7);
    CHECK(std::abs(static_cast<double>(sin - std::sin(x))) < 1.2e-7);
  }
  std::uint64_t const step = 0x123456789abcdef0u;
  for (std::int64_t p : {0, 1, 77, 1 << 20, std::numeric_limits<std::int32_t>::max()}) {
    auto const here = kvevict::turn_by(p, step), back = kvevict::turn_by(-p, step);
    CHECK(here.cos == back.cos);
    CHECK(here.sin == -back.sin);
    auto const exact = kvevict::turn_of(static_cast<std::uint32_t>(static_cast<std::uint64_t>(p) * step >> 32));
    CHECK(here.cos == exact.cos);
    CHECK(here.sin == exact.sin);
  }
}

TEST_CASE("what multiplies turned elements: yarn's attention factor, else 1") {
  rope r{10000};
  CHECK(r.amplitude() == 1);
  r.factor = 8, r.attention_factor = 3;
  CHECK(r.amplitude() == 1);
  r.scaling = rope_scaling::yarn;
  CHECK(r.amplitude() == 3);
  r.attention_factor = 0;
  CHECK(r.amplitude() == Approx(1 + 0.1 * std::log(8.0)));
  r.factor = 1;
  CHECK(r.amplitude() == 1);
}

TEST_CASE("a rope that is none is refused, and the message says what is missing") {
  rope const sound{10000};
  auto const refused = [&](auto change, std::int64_t row = 64) {
    rope r = sound;
    change(r);
    try {
      kvevict::contract::expect_rope("mine", r, row);
    } catch (kvevict::contract_violation const& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  auto const contains = [](std::string const& text, char const* part) {
    CAPTURE(text, part);
    CHECK(text.find(part) != std::string::npos);
  };
  CHECK(refused([](rope&) {}).empty());
  contains(refused([](rope& r) { r.base = 0; }), "mine: a rope of base 0.000000; give the model's own (rope_theta");
  contains(refused([](rope& r) { r.base = std::numeric_limits<double>::quiet_NaN(); }), "base");
  contains(refused([](rope& r) { r.width = 66; }), "turns 66 elements of rows of 64; it turns pairs");
  contains(refused([](rope& r) { r.width = 31; }), "turns 31 elements");
  contains(refused([](rope&) {}, 33), "turns 33 elements of rows of 33");
  contains(refused([](rope& r) { r.factor = 0.5; }), "stretched by 0.500000");
  contains(refused([](rope& r) { r.scaling = rope_scaling::yarn, r.original = 4096, r.attention_factor = -1; }),
           "amplified by -1.000000");
  contains(refused([](rope& r) { r.scaling = rope_scaling::llama3; }), "give original_max_position_embeddings");
  contains(refused([](rope& r) { r.scaling = rope_scaling::llama3, r.original = 8192, r.low_factor = 4; }),
           "factors are 4.000000 to 4.000000");
  contains(refused([](rope& r) { r.scaling = rope_scaling::yarn, r.original = 8192, r.beta_slow = 40; }),
           "betas 40.000000 to 32.000000");
  double const inf = std::numeric_limits<double>::infinity();
  contains(refused([&](rope& r) { r.scaling = rope_scaling::yarn, r.original = 8192, r.beta_fast = inf; }), "to inf");
  contains(refused([&](rope& r) { r.scaling = rope_scaling::llama3, r.original = 8192, r.high_factor = inf; }),
           "to inf");
  contains(refused([](rope& r) { r.scaling = static_cast<rope_scaling>(9); }), "pairs or scaling out of range");
}

}  // namespace core_rope_test
