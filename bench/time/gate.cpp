// SPDX-License-Identifier: Apache-2.0
// Keep probabilities of a prompt by the gate of one layer, whose roof is multiplying.
#include <kvevict/kernels/gate.hpp>

#include "support/input.hpp"

namespace {

using namespace bench;

struct gate_input {
  std::int32_t N, E, H, heads, dim;
  std::vector<float> x, w, o, bias, p;
  std::int32_t begin[2];

  gate_input(std::int32_t n, std::int32_t e, std::int32_t h, std::int32_t hg, std::int32_t dg)
      : N(n), E(e), H(h), heads(hg), dim(dg), begin{0, n} {
    std::minstd_rand random(1);
    auto const fill = [&](std::vector<float>& to, std::int64_t count, float size) {
      to.resize(std::size_t(count));
      for (float& y : to) y = size * (static_cast<float>(random()) / 1073741823.5f - 1);
    };
    fill(x, std::int64_t{N} * E, 1), fill(w, std::int64_t{3} * A() * E, 3.6f / std::sqrt(static_cast<float>(E))),
        fill(o, std::int64_t{H} * A(), 1), fill(bias, H, 1), fill(p, std::int64_t{N} * H, 0);
  }
  std::int32_t A() const { return heads * dim; }
  kvevict::gate_weights weights() const {
    float const* q = w.data();
    return {q, q + A() * E, q + 2 * A() * E, o.data(), bias.data(), kvevict::dtype::f32, heads, dim, E, H};
  }
  kvevict::feature_rows features() const { return {x.data(), kvevict::dtype::f32, E, E, begin}; }
  // causal: half of the pairs
  double flops() const { return 6.0 * N * E * A() + 2.0 * N * N * A() + 2.0 * N * A() * H; }
  std::string name() const {
    return "E:" + std::to_string(E) + "/H:" + std::to_string(H) + "/N:" + std::to_string(N) +
           "/Hg:" + std::to_string(heads) + "/dg:" + std::to_string(dim);
  }

  /// The plainest loops.  → (N,H)
  template <class Number> std::vector<Number> naive() const {
    auto const size = [](std::int32_t n) { return static_cast<std::size_t>(n); };
    std::vector<Number> y(size(N) * size(3 * A())), c(size(A())), z(size(N)), out(p.size());
    for (std::int32_t t = 0; t < N; ++t)
      for (std::int32_t r = 0; r < 3 * A(); ++r) {
        Number sum = 0;
        for (std::int32_t e = 0; e < E; ++e)
          sum += Number(x[std::size_t(t * E + e)]) * Number(w[std::size_t(r * E + e)]);
        y[std::size_t(t * 3 * A() + r)] = sum;
      }
    auto const at = [&](std::int32_t t, std::int32_t which, std::int32_t d) {
      return y[std::size_t(t * 3 * A() + which * A() + d)];
    };
    for (std::int32_t t = 0; t < N; ++t) {
      for (std::int32_t g = 0; g < heads; ++g) {
        Number top = Number(-1e30), sum = 0;
        for (std::int32_t j = 0; j <= t; ++j) {
          Number dot = 0;
          for (std::int32_t d = 0; d < dim; ++d) dot += at(t, 0, g * dim + d) * at(j, 1, g * dim + d);
          z[std::size_t(j)] = dot / Number(std::sqrt(double(dim)));
          top = std::max(top, z[std::size_t(j)]);
        }
        for (std::int32_t j = 0; j <= t; ++j) sum += z[std::size_t(j)] = std::exp(z[std::size_t(j)] - top);
        for (std::int32_t d = 0; d < dim; ++d) {
          Number total = 0;
          for (std::int32_t j = 0; j <= t; ++j) total += z[std::size_t(j)] * at(j, 2, g * dim + d);
          c[std::size_t(g * dim + d)] = total / sum;
        }
      }
      for (std::int32_t h = 0; h < H; ++h) {
        Number s = Number(bias[std::size_t(h)]);
        for (std::int32_t a = 0; a < A(); ++a) s += Number(o[std::size_t(h * A() + a)]) * c[std::size_t(a)];
        out[std::size_t(t * H + h)] = 1 / (1 + std::exp(-s));
      }
    }
    return out;
  }
};

void ours(benchmark::State& state, gate_input& in, int threads) {
  context& c = on(threads);
  auto const run = [&] {
    kvevict::kernels::gate(c.ctx, in.weights(), in.features(), kvevict::gate_mask::causal, 1, in.H, in.p.data());
  };
  run();
  auto const right = [&] {
    auto const expected = in.naive<double>();
    return std::equal(in.p.begin(), in.p.end(), expected.begin(),
                      [](float got, double want) { return std::abs(double(got) - want) < 1e-5; });
  };
  if (!once(in.name() + host_name(threads), right)) return state.SkipWithError("wrong probabilities");
  for (auto _ : state) run();
  count(state, c, in.N, in.flops(), 0, bound::arithmetic);
}

void naive(benchmark::State& state, gate_input const& in) {
  for (auto _ : state) benchmark::DoNotOptimize(in.naive<float>());
  count(state, on(1), in.N, in.flops(), 0, bound::arithmetic);
}

}  // namespace

int main(int argc, char** argv) {
  static std::vector<gate_input> inputs;
  inputs.emplace_back(2048, 576, 3, 1, 32);
  for (std::int32_t const N : {512, 1024, 2048, 4096}) inputs.emplace_back(N, 4096, 8, 2, 16);
  for (gate_input& in : inputs) {
    for (int const threads : {1, 2})
      add("gate/attention_gate/" + host_name(threads) + "/" + in.name(), threads,
          [&in, threads](benchmark::State& state) { ours(state, in, threads); });
    if (in.N == 2048) add("gate/naive/host/" + in.name(), 1, [&in](benchmark::State& state) { naive(state, in); });
  }
  return run_added(argc, argv);
}
