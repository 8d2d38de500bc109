// SPDX-License-Identifier: Apache-2.0
// How fast the engine is: one prefill, and decode steps of small and large batches; medians of five.
//   engine_speed MODEL_DIR [TOKENS]
#include <chrono>
#include <cstdio>

#include "engine.hpp"

using namespace llama;

namespace {

template <class F> double median_seconds(F&& once) {
  std::vector<double> seconds;
  for (int i = 0; i < 6; ++i) {
    auto const start = std::chrono::steady_clock::now();
    once();
    if (i > 0) seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  std::sort(seconds.begin(), seconds.end());
  return seconds[seconds.size() / 2];
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc < 2) throw std::invalid_argument("usage: engine_speed MODEL_DIR [TOKENS]");
  model const m(argv[1]);
  int const count = argc > 2 ? std::stoi(argv[2]) : 2000, P = 64, steps = 8;
  engine e(m);
  kv_pool pool(40 * (count / P + 4) * m.cfg.layers * m.cfg.kv_heads, P, m.cfg.head_dim);
  std::vector<int> text;
  for (int i = 0; i < count; ++i) text.push_back(int(100 + 7919ll * i % std::min(m.cfg.vocab - 100, 40000)));

  double const prefill = median_seconds([&] {
    auto seq = e.start(pool);
    e.prefill(seq, text);
  });
  std::printf("prefill %d tokens: %.3f s, %.0f tokens/s\n", count, prefill, count / prefill);
  std::vector<sequence> all;
  all.push_back(e.start(pool));
  e.prefill(all[0], text);
  for (int B : {1, 8, 30}) {
    while (int(all.size()) < B) all.push_back(all[0].fork());
    std::vector<sequence*> batch;
    for (auto& s : all) batch.push_back(&s);
    std::vector<int> const next(std::size_t(B), 42);
    double const step = median_seconds([&] {
                          for (int i = 0; i < steps; ++i) e.decode(batch, next);
                        }) /
                        steps;
    std::printf("decode B %2d at %d tokens: %.2f ms a step, %.0f tokens/s\n", B, all[0].next_position, 1e3 * step,
                B / step);
  }
} catch (std::exception const& error) {
  std::fprintf(stderr, "engine_speed: %s\n", error.what());
  return 2;
}
