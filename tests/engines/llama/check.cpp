// SPDX-License-Identifier: Apache-2.0
// kvevict on stock llama.cpp: what the view shows against what the engine stored, scores against its softmax, an
// evicting context against a full one with evicted tokens masked, and what wrong use says.
//   check MODEL.gguf F32.gguf TEXT
#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "session.hpp"

namespace {

using namespace checks;
using kvevict::presets::ahakv, kvevict::presets::h2o, kvevict::presets::snapkv, kvevict::presets::streaming_llm;

std::vector<placed> part(std::vector<llama_token> const& text, int from, int count, int sequence = 0) {
  std::vector<placed> out;
  for (int p = from; p < from + count; ++p) out.push_back({sequence, p, text[static_cast<std::size_t>(p)]});
  return out;
}

float element(kvevict::layer_view<> const& v, kvevict::component const& c, int b, int h, int t, int d) {
  std::byte const* const at = v.row(c, b, h, t) + c.rows.unit_offset(d, kvevict::size_of(c.type));
  return kvevict::with_type(c.type, [&](auto zero) {
    std::memcpy(&zero, at, sizeof zero);
    return kvevict::to_float(zero);
  });
}

/// Every element of K and V that the view shows, after evictions, is what SET_ROWS was given for that position.
void stored_values(report& out, llama_model* model, std::vector<llama_token> const& text, setup s) {
  session run(model, s);
  std::map<std::pair<std::string, int>, std::vector<float>> stored;  // tensor and position: H·D floats
  int from = 0, count = 0;
  run.wants = [](ggml_tensor* t) {
    return t->op == GGML_OP_SET_ROWS && std::strncmp(root_of(t)->name, "cache_", 6) == 0;
  };
  run.computed = [&](ggml_tensor* t) {
    std::vector<float> rows(static_cast<std::size_t>(ggml_nelements(t->src[0])));
    ggml_backend_tensor_get(t->src[0], rows.data(), 0, rows.size() * 4);
    std::size_t const width = rows.size() / static_cast<std::size_t>(count);
    for (int i = 0; i < count; ++i)
      stored[{root_of(t)->name, from + i}].assign(
          rows.begin() + static_cast<std::ptrdiff_t>(width * static_cast<std::size_t>(i)),
          rows.begin() + static_cast<std::ptrdiff_t>(width * static_cast<std::size_t>(i + 1)));
  };
  kvevict::host host;
  auto const policy = llama::one_set(snapkv({.window = 16}));
  int evictions = 0;
  for (; from < 448; from += count) {
    count = 32;
    if (run.cells.free() < count) run.cells.evict(host, run.ctx, policy, run.cells.window(), 160), ++evictions;
    run.decode(part(text, from, count));
  }
  auto const v = run.cells.view();
  kvevict::component const& position = *v.find(kvevict::role::position);
  long long compared = 0, differ = 0, disorder = 0;
  for (kvevict::role what : {kvevict::role::k, kvevict::role::v})
    for (int b = 0; b < v.sequences(); ++b)
      for (int h = 0; h < v.heads(); ++h)
        for (int t = 0; t < v.length(b, h); ++t) {
          std::string const name = (what == kvevict::role::k ? "cache_k_l" : "cache_v_l") + std::to_string(b);
          auto const& row = stored.at({name, kvevict::element<std::int32_t>(v, position, b, h, t)});
          auto const D = static_cast<int>(v.find(what)->width());
          for (int d = 0; d < D; ++d, ++compared) {
            float const x = row[static_cast<std::size_t>(h * D + d)];
            float const want = s.k == GGML_TYPE_F16 ? kvevict::to_float(kvevict::from_float<kvevict::f16>(x)) : x;
            differ += element(v, *v.find(what), b, h, t, d) != want;
          }
        }
  for (int t = 1; t < v.length(0, 0); ++t) disorder += v.pages.entry(0, 0, t) < v.pages.entry(0, 0, t - 1);
  out.check(compared > 0 && differ == 0 && evictions >= 2 && disorder > 0,
            "view against what was stored, %s, flash attention %s: %lld elements, %lld differ (%d evictions, cells out "
            "of order)",
            ggml_type_name(s.k), s.flash ? "on" : "off", compared, differ, evictions);
}

/// SnapKV's scores, unpooled, are the mean of the engine's own softmax rows.
void softmax_rows(report& out, llama_model* model, std::vector<llama_token> const& text, setup s) {
  constexpr int W = 32;
  session run(model, s);
  std::vector<std::vector<float>> rows(64);  // of a layer: (Hq, T, n_kv)
  std::int64_t n_kv = 0, Hq = 0;
  run.wants = [](ggml_tensor* t) { return t->op == GGML_OP_SOFT_MAX; };
  run.computed = [&](ggml_tensor* t) {
    auto& layer = rows.at(static_cast<std::size_t>(std::atoi(std::strrchr(t->name, '-') + 1)));
    layer.resize(static_cast<std::size_t>(ggml_nelements(t)));
    ggml_backend_tensor_get(t, layer.data(), 0, layer.size() * 4);
    n_kv = t->ne[0], Hq = t->ne[2];
  };
  kvevict::host host;
  int evictions = 0;
  for (int from = 0; from < 448; from += W) {
    if (run.cells.free() < W)
      run.cells.evict(host, run.ctx, llama::one_set(snapkv({.window = W})), run.cells.window(), 160), ++evictions;
    run.decode(part(text, from, W));
  }
  auto const v = run.cells.view();
  std::vector<float> ours;
  kvevict::scores(host, snapkv({.window = W, .pool = 1}), run.cells.window(),
                  {.tokens_per_head = 64, .layer_count = run.cells.layers()}, ours);
  double worst = 0, largest = 0;
  std::size_t at = 0;
  for (int b = 0; b < v.sequences(); ++b)
    for (int h = 0; h < v.heads(); ++h)
      for (int t = 0; t < v.length(b, h); ++t, ++at) {
        if (t >= v.length(b, h) - W) continue;  // protected: no score
        auto const G = static_cast<int>(Hq) / v.heads();
        double sum = 0;
        for (int g = 0; g < G; ++g)
          for (int w = 0; w < W; ++w)
            sum += rows[static_cast<std::size_t>(b)]
                       [static_cast<std::size_t>(((h * G + g) * W + w) * n_kv + v.pages.entry(b, h, t))];
        worst = std::max(worst, std::abs(sum / (W * G) - ours[at])), largest = std::max(largest, sum / (W * G));
      }
  out.check(worst <= 1e-4 && largest > 0.01 && evictions >= 2 && at == ours.size(),
            "scores against the engine's softmax, K %s: at most %.1e apart, the largest is %.3f (%d evictions)",
            ggml_type_name(s.k), worst, largest, evictions);
}

/// Scores of quantised keys are those of the floats that ggml makes of them.
void quantised_keys(report& out, llama_model* model, std::vector<llama_token> const& text, ggml_type type) {
  setup s;
  s.batch = 32, s.k = type, s.v = GGML_TYPE_F16;
  session run(model, s);
  kvevict::host host;
  int evictions = 0;
  for (int from = 0; from < 384; from += 32) {
    if (run.cells.free() < 32)
      run.cells.evict(host, run.ctx, llama::one_set(snapkv()), run.cells.window(), 160), ++evictions;
    run.decode(part(text, from, 32));
  }
  kvevict::budget const budget{.tokens_per_head = 64, .layer_count = run.cells.layers()};
  std::vector<float> ours, theirs, floats;
  kvevict::scores(host, snapkv(), run.cells.window(), budget, ours);
  auto copy = run.cells.window();
  kvevict::component& k = copy.cache.components[0];
  auto const cells = k.rows.page_count, layers = std::int64_t{run.cells.layers()}, H = std::int64_t{copy.cache.heads()};
  auto const D = copy.cache.key_width();
  floats.resize(static_cast<std::size_t>(layers * cells * H * D));
  for (std::int64_t l = 0; l < layers; ++l)
    for (std::int64_t c = 0; c < cells; ++c)
      ggml_get_type_traits(type)->to_float(k.rows.base + l * k.rows.layer_stride + c * k.rows.page_stride,
                                           floats.data() + (l * cells + c) * H * D, H * D);
  k.type = kvevict::dtype::f32, k.scope = kvevict::quant_scope::none, k.group = 0, k.quant = {};
  k.rows.base = reinterpret_cast<std::byte*>(floats.data()), k.rows.layer_stride = cells * H * D * 4;
  k.rows.page_stride = H * D * 4, k.rows.head_stride = D * 4, k.rows.run_bytes = static_cast<std::int32_t>(D * 4);
  kvevict::scores(host, snapkv(), copy, budget, theirs);
  double worst = 0;
  for (std::size_t i = 0; i < ours.size(); ++i) worst = std::max<double>(worst, std::abs(ours[i] - theirs[i]));
  out.check(ours.size() == theirs.size() && worst <= 1e-6 && evictions >= 2,
            "keys of %s: scores at most %.1e from those of the floats that ggml makes of them (%d evictions)",
            ggml_type_name(type), worst, evictions);
}

struct agreement {
  double largest = 0, kl = 0;
  int same = 0, tokens = 0, evictions = 0, evicted = 0;

  void compare(float const* a, float const* b, int n) {
    double const top_a = *std::max_element(a, a + n), top_b = *std::max_element(b, b + n);
    double za = 0, zb = 0, cross = 0;
    for (int i = 0; i < n; ++i) za += std::exp(a[i] - top_a), zb += std::exp(b[i] - top_b);
    for (int i = 0; i < n; ++i) {
      largest = std::max<double>(largest, std::abs(a[i] - b[i]));
      double const la = a[i] - top_a - std::log(za), lb = b[i] - top_b - std::log(zb);
      cross += std::exp(lb) * (lb - la);
    }
    kl += cross, ++tokens, same += std::max_element(a, a + n) - a == std::max_element(b, b + n) - b;
  }
};

/// Decodes the text in an evicting context and in one that holds all of it, in which −∞ is written into the logits of
/// evicted tokens. `evict(session&)` frees cells of the first.
template <class After, class Evict>
agreement evicted_and_masked(llama_model* model, std::vector<llama_token> const& text, setup s, int tokens, After after,
                             Evict evict) {
  session a(model, s);
  setup full = s;
  full.cells = 2048, full.flash = false, full.options = {.sequences = s.sequences, .window = 0};
  session b(model, full);
  std::vector<std::int32_t> masked;  // cells of b
  b.wants = [](ggml_tensor* t) {
    return t->op == GGML_OP_MUL_MAT && std::strncmp(root_of(t->src[0])->name, "cache_k_l", 9) == 0;
  };
  b.computed = [&](ggml_tensor* t) {
    auto* const x = static_cast<float*>(t->data);
    for (std::int64_t row = 0; row < t->ne[1] * t->ne[2]; ++row)
      for (std::int32_t const cell : masked) x[row * t->ne[0] + cell] = -INFINITY;
  };
  agreement out;
  int const count = static_cast<int>(s.batch) / s.sequences;
  for (int from = 0; from < tokens; from += count) {
    std::vector<placed> both;
    for (int i = 0; i < count; ++i)  // interleaved, as parallel requests are
      for (int q = 0; q < s.sequences; ++q)
        both.push_back({q, from + i, text[static_cast<std::size_t>(from + i == 0 ? 0 : q * tokens + from + i)]});
    if (a.cells.free() < static_cast<int>(both.size())) {
      out.evicted += evict(a), ++out.evictions;
      auto const va = a.cells.view(), vb = b.cells.view();
      masked.clear();
      for (int q = 0; q < s.sequences; ++q)
        for (int t = 0, kept = 0; t < vb.length(q, 0); ++t) {
          if (kept < va.length(q, 0) &&
              kvevict::element<std::int32_t>(va, *va.find(kvevict::role::position), q, 0, kept) == t)
            ++kept;
          else
            masked.push_back(vb.pages.entry(q, 0, t));
        }
    }
    if (a.decode(both) != 0 || b.decode(both) != 0) return {};
    after(a);
    for (int i = 0; out.evictions > 0 && i < static_cast<int>(both.size()); ++i)
      out.compare(a.logits(i), b.logits(i), a.vocabulary());
  }
  return out;
}

void masks(report& out, llama_model* model, std::vector<llama_token> const& text) {
  kvevict::host host;
  setup s;
  auto const nothing = [](session&) {};
  auto const expect = [&](char const* name, agreement const& r) {
    out.check(r.tokens > 0 && r.largest <= 1e-4 && r.same == r.tokens && r.evictions >= 2,
              "evicted against masked, %s: logits at most %.1e apart, KL %.0e, same top token %d of %d (%d evictions "
              "of %d tokens)",
              name, r.largest, r.kl / r.tokens, r.same, r.tokens, r.evictions, r.evicted);
  };
  auto const by_window = [&](auto policy) {
    return [&host, policy](session& a) {
      return a.cells.evict(host, a.ctx, llama::one_set(policy), a.cells.window(), 160);
    };
  };
  expect("snapkv", evicted_and_masked(model, text, s, 512, nothing, by_window(snapkv())));
  expect("ahakv", evicted_and_masked(model, text, s, 384, nothing, by_window(ahakv())));
  s.options = {.window = 0};
  expect("streaming_llm", evicted_and_masked(model, text, s, 384, nothing, [&](session& a) {
           return a.cells.evict(host, a.ctx, llama::one_set(streaming_llm()), a.cells.contents(), 160);
         }));
  auto const heavy = llama::one_set(h2o());
  s.options = {.window = 0, .state_floats = heavy.score.state_floats()};
  expect("h2o, observed",
         evicted_and_masked(
             model, text, s, 384, [&](session& a) { a.cells.observe(host, heavy, 160); },
             [&](session& a) { return a.cells.evict(host, a.ctx, heavy, a.cells.remembered(), 160); }));
  s.sequences = 2, s.options = {.sequences = 2};
  expect("two sequences in one buffer, snapkv", evicted_and_masked(model, text, s, 256, nothing, [&](session& a) {
           return a.cells.evict(host, a.ctx, llama::one_set(snapkv()), a.cells.window(), 80);
         }));
  s = {}, s.flash = true;
  agreement const r = evicted_and_masked(model, text, s, 512, nothing, by_window(snapkv()));
  out.check(r.tokens > 0 && r.kl / r.tokens <= 1e-5 && r.evictions >= 2,
            "the same with flash attention: KL %.0e, logits at most %.1e apart, same top token %d of %d",
            r.kl / r.tokens, r.largest, r.same, r.tokens);
}

/// The message of what `f` raises must hold `text`.
template <class F> void refused(report& out, char const* what, char const* text, F f) {
  std::string said = "nothing was raised";
  try {
    f();
  } catch (kvevict::contract_violation const& e) {
    said = e.what();
  }
  out.check(said.find(text) != std::string::npos, "%s: \"%s\"", what, said.c_str());
}

void wrong_use(report& out, llama_model* model, std::vector<llama_token> const& text) {
  kvevict::host host;
  setup s;
  s.k = s.v = GGML_TYPE_F16;
  auto const snap = llama::one_set(snapkv());
  {
    setup drafts = s;
    drafts.options.window = 64;  // a window of 32, and as many drafts
    session a(model, drafts);
    refused(out, "a view before anything is decoded", "call decode() first", [&] { a.cells.view(); });
    a.decode(part(text, 0, 64));
    refused(out, "the newest token evicted", "the cache needs the newest token", [&] {
      a.cells.evict(host, a.ctx, llama::one_set(kvevict::presets::random({.recent = 0})), a.cells.contents(), 40);
    });
    refused(out, "a set for each head", "add .with(heads::together{})",
            [&] { a.cells.evict(host, a.ctx, snapkv(), a.cells.window(), 40); });
    a.decode(part(text, 64, 64)), a.decode(part(text, 128, 64)), a.decode(part(text, 192, 64));
    int const full = a.decode(part(text, 256, 64)), before = a.cells.length(0);
    int const freed = a.cells.evict(host, a.ctx, snap, a.cells.window(), 160), again = a.decode(part(text, 256, 64));
    out.check(full == 1 && before == 256 && freed == 96 && again == 0 && a.cells.length(0) == 224,
              "a full table: llama_decode returns %d, %d tokens stay; evicted %d, then it returns %d", full, before,
              freed, again);
    bool const gone = a.cells.remove(a.ctx, 0, 300, -1);
    int const redone = a.decode(part(text, 300, 20));
    int const after = a.cells.length(0);
    a.cells.remove(a.ctx, 0, 310, -1);
    int const evicted = a.cells.evict(host, a.ctx, snap, a.cells.window(), 160), last = a.decode(part(text, 310, 10));
    out.check(gone && redone == 0 && after == 224 && evicted == 54 && last == 0 && a.cells.length(0) == 170,
              "rejected drafts are removed and decoded again: %d tokens; removed and evicted: %d", after,
              a.cells.length(0));
    llama_memory_seq_add(llama_get_memory(a.ctx), 0, 0, -1, -1);
    refused(out, "a shift behind the adapter", "shift nothing",
            [&] { a.cells.evict(host, a.ctx, snap, a.cells.window(), 160); });
  }
  {
    session a(model, s);
    for (int from = 0; from < 256; from += 64) a.decode(part(text, from, 64));
    llama_memory_seq_rm(llama_get_memory(a.ctx), 0, 40, 120);
    refused(out, "cells freed behind the adapter", "which another token has", [&] { a.decode(part(text, 256, 64)); });
    refused(out, "and from then on", "make another context", [&] { a.decode(part(text, 320, 16)); });
  }
  {
    setup apart = s;
    apart.sequences = 2, apart.unified = false, apart.cells = 512, apart.options.sequences = 2;
    session a(model, apart);
    refused(out, "several streams", "set llama_context_params::kv_unified", [&] { a.decode(part(text, 0, 32)); });
  }
  {
    setup two = s;
    two.sequences = 2;
    session a(model, two);
    refused(out, "a sequence more than the adapter knows", "give options::sequences",
            [&] { a.decode(part(text, 0, 32, 1)); });
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) return std::fprintf(stderr, "check MODEL.gguf F32.gguf TEXT\n"), 2;
  llama_log_set([](ggml_log_level, char const*, void*) {}, nullptr);
  llama_backend_init();
  if (!std::ifstream(argv[2])) {
    llama_model_quantize_params q = llama_model_quantize_default_params();
    q.ftype = LLAMA_FTYPE_ALL_F32, q.allow_requantize = true, q.nthread = 1;
    if (llama_model_quantize(argv[1], argv[2], &q) != 0) return std::fprintf(stderr, "cannot make %s\n", argv[2]), 2;
  }
  report out;
  llama_model* model = load(argv[1]);
  auto const text = tokens_of(model, argv[3], 1024);
  setup s;
  s.batch = 32, s.k = s.v = GGML_TYPE_F16;
  stored_values(out, model, text, s), softmax_rows(out, model, text, s);
  for (ggml_type const type : {GGML_TYPE_Q8_0, GGML_TYPE_Q4_0, GGML_TYPE_Q5_1}) quantised_keys(out, model, text, type);
  s.flash = true;
  stored_values(out, model, text, s);
  wrong_use(out, model, text);
  llama_model_free(model), model = load(argv[2]);
  masks(out, model, text);
  llama_model_free(model);
  return out.close();
}
