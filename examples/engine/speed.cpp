// SPDX-License-Identifier: Apache-2.0
// How fast the engine is: one prefill, and decode steps of small and large batches; medians of five.
//   engine_speed MODEL_DIR [TOKENS]
#include <charconv>
#include <chrono>
#include <cstdio>

#include "engine.hpp"

using namespace llama;

namespace {

constexpr int decode_steps = 8, rounds = 6, batches[] = {1, 8, 30};

/// Tokens of the prompt, behind which all decode steps still have positions.
int prompt_tokens(config const& cfg, char const* wanted) {
  int const most = cfg.max_positions - int(std::size(batches)) * rounds * decode_steps;
  if (wanted == nullptr && most > 0) return std::min(2000, most);
  int count = 0;
  std::string_view const text = wanted == nullptr ? "1" : wanted;
  auto const [end, error] = std::from_chars(text.data(), text.data() + text.size(), count);
  if (error != std::errc{} || end != text.data() + text.size() || count < 1)
    throw std::invalid_argument("TOKENS is '" + std::string(text) + "'; give a whole number above 0");
  if (count > most)
    throw std::invalid_argument(std::string(text) +
                                " tokens and the decode steps behind them are more than the model's " +
                                std::to_string(cfg.max_positions) + " positions; give at most " + std::to_string(most));
  return count;
}

template <class F> double median_seconds(F&& once) {
  std::vector<double> seconds;
  for (int i = 0; i < rounds; ++i) {
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
  int const count = prompt_tokens(m.cfg, argc > 2 ? argv[2] : nullptr), P = 64, steps = decode_steps;
  engine e(m);
  kv_pool pool(std::int64_t{40} * (count / P + 4) * m.cfg.layers * m.cfg.kv_heads, P, m.cfg.head_dim);
  std::vector<int> text;
  int const first = std::min(100, m.cfg.vocab - 1);
  for (int i = 0; i < count; ++i) text.push_back(int(first + 7919ll * i % std::min(m.cfg.vocab - first, 40000)));

  double const prefill = median_seconds([&] {
    auto seq = e.start(pool);
    e.prefill(seq, text);
  });
  std::printf("prefill %d tokens: %.3f s, %.0f tokens/s\n", count, prefill, count / prefill);
  std::vector<sequence> all;
  all.push_back(e.start(pool));
  e.prefill(all[0], text);
  for (int B : batches) {
    while (int(all.size()) < B) all.push_back(all[0].fork());
    std::vector<sequence*> batch;
    for (auto& s : all) batch.push_back(&s);
    std::vector<int> const next(std::size_t(B), std::min(42, m.cfg.vocab - 1));
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
