// SPDX-License-Identifier: Apache-2.0
// The gate kernel against the gate that is trained: probabilities of PyTorch, written by
// examples/attention_gate/vectors.py.
#include <cmath>
#include <fstream>

#include <kvevict/kvevict.hpp>
#include <nlohmann/json.hpp>

#include "support/catch.hpp"

namespace kernels_gate_torch_test {

namespace {

/// A matrix of the file, turned so that a row is an output.
std::vector<float> turned(nlohmann::json const& m) {
  auto const rows = m.at("shape").at(0).get<std::size_t>(), columns = m.at("data").size() / rows;
  std::vector<float> out(rows * columns);
  for (std::size_t i = 0; i < rows; ++i)
    for (std::size_t o = 0; o < columns; ++o) out[o * rows + i] = m.at("data").at(i * columns + o).get<float>();
  return out;
}

}  // namespace

TEST_CASE("gate: the probabilities of the gate that PyTorch trains") {
  auto const file = nlohmann::json::parse(std::ifstream(KVEVICT_INCLUDE_DIR "/../../tests/unit/data/gate_torch.json"));
  auto const q = turned(file.at("Wq")), k = turned(file.at("Wk")), v = turned(file.at("Wv")), o = turned(file.at("Wo"));
  auto const bias = file.at("b").at("data").get<std::vector<float>>(),
             x = file.at("X").at("data").get<std::vector<float>>();
  auto const N = file.at("X").at("shape").at(0).get<std::int32_t>(),
             E = file.at("X").at("shape").at(1).get<std::int32_t>();
  auto const H = static_cast<std::int32_t>(bias.size());
  kvevict::gate_weights const w{q.data(),
                                k.data(),
                                v.data(),
                                o.data(),
                                bias.data(),
                                kvevict::dtype::f32,
                                file.at("gate_heads"),
                                file.at("gate_width"),
                                E,
                                H};
  std::int32_t const begin[] = {0, N};
  std::vector<float> p(static_cast<std::size_t>(N * H));
  kvevict::host ctx;
  kvevict::kernels::gate(ctx, w, kvevict::feature_rows{x.data(), kvevict::dtype::f32, E, E, begin},
                         kvevict::gate_mask::causal, 1, H, p.data());
  auto const torch = file.at("p_causal").at("data").get<std::vector<double>>();  // (H,N)
  double worst = 0, low = 1, high = 0;
  for (std::int32_t h = 0; h < H; ++h)
    for (std::int32_t t = 0; t < N; ++t) {
      double const theirs = torch[static_cast<std::size_t>(h * N + t)];
      worst = std::max(worst, std::abs(double{p[static_cast<std::size_t>(t * H + h)]} - theirs));
      low = std::min(low, theirs), high = std::max(high, theirs);
    }
  CHECK(high - low > 0.5);  // else anything would do
  CHECK(worst < 1e-5);
}

}  // namespace kernels_gate_torch_test
