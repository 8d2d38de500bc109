// SPDX-License-Identifier: Apache-2.0
// A step of decoding at a fixed budget: H2O's observe, plan and replace, beside the attention of the same layer. Eight
// layers take turns, so that a layer's keys and values come from memory, as in a model.
#include <kvevict/kvevict.hpp>

#include "support/layer.hpp"

namespace {

using namespace bench;
using kernels::lanes, kernels::vec;

constexpr shape s{32, 8, 2048, 128, 1};
constexpr std::int32_t G = s.Hq / s.H, newest = s.N - 1;

/// One layer in NHD pages whose slots are scattered, with H2O's float a slot; its queries are those of one token.
struct decoded : layer {
  decoded() : layer(s, 1) {
    with_values("BNHD");
    with(kvevict::role::position, kvevict::dtype::i32, 1, "BHND");
    with(kvevict::role::state, kvevict::dtype::f32, 1, "BHND");
    for (std::int32_t h = 0; h < s.H; ++h)
      for (std::int32_t t = 0; t < s.N; ++t) at<std::int32_t>(kvevict::role::position, h, t) = (t * 5 + h) % s.N;
    view = view.with_order(kvevict::row_order::scattered);
    for (std::int32_t t = 0; t < s.N + 4; ++t) {  // the last slots are their own next ones
      keys[t] = &at<float>(kvevict::role::k, 0, std::min(t, newest));
      values[t] = &at<float>(kvevict::role::v, 0, std::min(t, newest));
    }
    rows.weights = weights.data(), rows.token_stride = std::int64_t{s.Hq} * s.N, rows.head_stride = s.N;
    rows.heads = s.Hq, rows.slots = s.N, rows.row_begin = begin, rows.positions = &newest;
  }
  lines_of<float> weights = lines_of<float>(std::size_t(s.Hq * s.N)), out = lines_of<float>(s.Hq * s.D);
  float const *keys[s.N + 4], *values[s.N + 4];  // head 0 of every slot, whose other heads lie behind it
  std::int32_t begin[2] = {0, 1};
  kvevict::attention_rows rows;
  kvevict::keep_set keep;
  kvevict::replaced slots;
};

/// Logits of the G heads of one key; the key of the next slot is fetched.
inline void multiply(float const* q, float const* k, float const* next, float* z) {
  vec sum[G] = {};
  for (std::int32_t d = 0; d < s.D; d += lanes) {
    vec const x = kernels::load(k + d);
    __builtin_prefetch(next + d);
    kernels::unroll<G>([&](auto g) { sum[g] = kernels::multiply_add(kernels::load(q + g * s.D + d), x, sum[g]); });
  }
  vec const all = kernels::reduce<G>(sum, kernels::add{});
  for (std::int32_t g = 0; g < G; ++g) z[g * s.N] = all[g * (lanes / G)];
}

/// Four values by their weights, added to the outputs of the G heads; those of the next slots are fetched.
inline void add_values(float const* const* v, float const* const* next, float const* w, float* out) {
  for (std::int32_t d = 0; d < s.D; d += lanes) {
    vec x[4];
    kernels::unroll<4>([&](auto i) { x[i] = kernels::load(v[i] + d), __builtin_prefetch(next[i] + d); });
    kernels::unroll<G>([&](auto g) {
      vec sum = kernels::load(out + g * s.D + d);
      kernels::unroll<4>([&](auto i) { sum = kernels::multiply_add(kernels::splat(w[g * s.N + i]), x[i], sum); });
      kernels::store(out + g * s.D + d, sum);
    });
  }
}

/// The weights of one query head from its logits.
void softmax(float* z) {
  vec top = kernels::load(z), sum = {};
  for (std::int32_t t = lanes; t < s.N; t += lanes) top = kernels::max(kernels::load(z + t), top);
  float const most = kernels::max_of(top), scale = 1.44269504f / std::sqrt(float(s.D));
  for (std::int32_t t = 0; t < s.N; t += lanes) {
    vec const e = kernels::exp2((kernels::load(z + t) - most) * scale);
    kernels::store(z + t, e), sum += e;
  }
  float const share = 1 / kernels::sum_of(sum);
  for (std::int32_t t = 0; t < s.N; t += lanes) kernels::store(z + t, kernels::load(z + t) * share);
}

/// The softmax rows and outputs of one token; K and V are read once, as they lie.
void attend(decoded& l) {
  for (std::int32_t t = 0; t < s.N; ++t)
    for (std::int32_t h = 0; h < s.H; ++h)
      multiply(l.in.query(0, h * G), l.keys[t] + h * s.D, l.keys[t + 1] + h * s.D, l.weights.data() + h * G * s.N + t);
  for (std::int32_t hq = 0; hq < s.Hq; ++hq) softmax(l.weights.data() + hq * s.N);
  std::fill(l.out.begin(), l.out.end(), 0.0f);
  for (std::int32_t t = 0; t < s.N; t += 4)
    for (std::int32_t h = 0; h < s.H; ++h) {
      float const *v[4], *next[4];
      for (std::int32_t i = 0; i < 4; ++i) v[i] = l.values[t + i] + h * s.D, next[i] = l.values[t + i + 4] + h * s.D;
      add_values(v, next, l.weights.data() + h * G * s.N + t, l.out.data() + h * G * s.D);
    }
  benchmark::DoNotOptimize(l.out.data());
}

bool right(decoded& l, std::int32_t h) {
  auto const want = naive_attention<double>(l.in.keys(h), l.in, s, 1, h);  // the mean of the group
  std::vector<double> out(s.D);
  float const* const w = l.weights.data() + h * G * s.N;
  for (std::int32_t t = 0; t < s.N; ++t) {
    float const* const v = l.values[t] + h * s.D;
    if (std::abs((double{w[t]} + w[t + s.N] + w[t + 2 * s.N] + w[t + 3 * s.N]) / G - want[std::size_t(t)]) > 1e-6)
      return false;
    for (std::int32_t d = 0; d < s.D; ++d) out[std::size_t(d)] += double{w[t]} * v[d];
  }
  for (std::int32_t d = 0; d < s.D; ++d)
    if (std::abs(out[std::size_t(d)] - l.out[std::size_t(h * G * s.D + d)]) > 1e-5) return false;
  return true;
}

enum class part { attention, step, observe_softmax, observe_lse };

void run(decoded& l, context& c, part which) {
  constexpr auto policy = kvevict::presets::h2o();
  kvevict::budget const ask{.tokens_per_head = newest};
  if (which == part::attention) return attend(l);
  if (which == part::observe_lse) {
    auto q = l.in.queries_with_lse();
    q.positions = &newest;
    return kvevict::observe(c.ctx, policy, kvevict::step(l.view, q), ask);
  }
  kvevict::observe(c.ctx, policy, kvevict::step(l.view, l.rows), ask);
  if (which == part::observe_softmax) return;
  kvevict::plan(c.ctx, policy, kvevict::remembered(l.view), ask, l.keep);
  kvevict::replace(c.ctx, l.view, l.keep, l.slots);
}

void decode(benchmark::State& state, part which) {
  static std::vector<std::unique_ptr<decoded>> layers;
  while (layers.size() < 8) {
    layers.push_back(std::make_unique<decoded>());
    attend(*layers.back());
    if (!right(*layers.back(), 3)) return state.SkipWithError("wrong attention");
  }
  context& c = on(1);
  for (auto& l : layers) run(*l, c, which);
  for (std::int32_t h = 0; which == part::step && h < s.H; ++h) {
    std::int32_t const victim = layers[0]->slots.slot(0, h);
    if (victim < 0 || layers[0]->keep.row(h).size != newest) return state.SkipWithError("no token goes");
  }
  std::size_t i = 0;
  for (auto _ : state) {
    decoded& l = *layers[i++ % layers.size()];
    if (which == part::step || which == part::observe_softmax) {  // as an engine has it, just after attention
      state.PauseTiming();
      attend(l);
      state.ResumeTiming();
    }
    run(l, c, which);
  }
  double const bytes = s.key_bytes() * (which == part::attention ? 2 : 1);
  count(state, c, s.N, 0, bytes, which == part::attention || which == part::observe_lse ? bound::memory : bound::cache);
}

}  // namespace

int main(int argc, char** argv) {
  std::pair<part, char const*> const parts[] = {{part::attention, "attention"},
                                                {part::step, "observe_plan_replace/softmax"},
                                                {part::observe_softmax, "observe/softmax"},
                                                {part::observe_lse, "observe/lse"}};
  for (auto const& [which, name] : parts)
    add(std::string("decode/") + name + "/host/" + s.name(), 1,
        [which = which](benchmark::State& state) { decode(state, which); });
  return run_added(argc, argv);
}
