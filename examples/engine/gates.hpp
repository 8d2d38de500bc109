// SPDX-License-Identifier: Apache-2.0
// Trained gates: their file, and a prefill under their flags.
#pragma once

#include <cmath>

#include "eviction.hpp"

namespace llama {

/// 64-bit FNV-1a over the gains of the first and of the last norm: tells a model from another of the same shape.
inline std::string fingerprint(model const& m) {
  std::uint64_t value = 0xcbf29ce484222325;
  for (auto const& t : {m.layers[0].input_norm, m.norm})
    for (auto const* b = reinterpret_cast<unsigned char const*>(t.data);
         b != reinterpret_cast<unsigned char const*>(t.data + t.rows); ++b)
      value = (value ^ *b) * 0x100000001b3;
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(value));
  return text;
}

/// A gate for every layer of one model, from the safetensors file that examples/attention_gate/train.py writes: tensors
/// layers.L.{q,k,v} (Hg·dg,hidden), layers.L.o (H,Hg·dg), layers.L.bias (H), in BF16, F16 or F32; metadata as in its
/// README.
class gates {
 public:
  gates(std::filesystem::path const& path, model const& m) try : file_(path) {
    auto const facts = file_.index().value("__metadata__", json::object());
    auto const fact = [&](char const* name) {
      if (!facts.contains(name) || !facts.at(name).is_string())
        throw model_error(std::string("metadata has no ") + name + "; these are no gates of train.py");
      return facts.at(name).get<std::string>();
    };
    auto const number = [&](char const* name, double low, double high) {
      std::string const text = fact(name);
      char* end = nullptr;
      double const x = std::strtod(text.c_str(), &end);
      if (text.empty() || *end != 0 || !(x >= low && x <= high))
        throw model_error(std::string(name) + " is " + text + ", expected a number from " + json(low).dump() + " to " +
                          json(high).dump());
      return x;
    };
    if (fact("format") != "kvevict.attention_gate.1")
      throw model_error("format is " + fact("format") + ", expected kvevict.attention_gate.1");
    if (fact("model_fingerprint") != fingerprint(m))
      throw model_error("trained for another model, " + fact("model") +
                        "; train gates for this one with examples/attention_gate/train.sh");
    int const heads = int(number("gate_heads", 1, 64)), width = int(number("gate_dim", 1, 1024)), A = heads * width;
    threshold = float(number("tau", 0, 1));
    if (threshold == 1) throw model_error("tau is 1, expected a number in [0,1): nothing would be kept");
    sinks = int(number("sinks", 0, 1 << 20));
    sees = fact("causal") == "true" ? kvevict::gate_mask::causal : kvevict::gate_mask::bidirectional;
    target = number("target_keep", 0, 1);
    auto const type = file_.index().value("/layers.0.q/dtype"_json_pointer, std::string("F32"));
    kvevict::dtype const dtype = type == "BF16"  ? kvevict::dtype::bf16
                                 : type == "F16" ? kvevict::dtype::f16
                                                 : kvevict::dtype::f32;
    for (int l = 0; l < m.cfg.layers; ++l) {
      auto const get = [&](char const* part, tensor_file::shape const& shape) {
        std::string const name = "layers." + std::to_string(l) + "." + part;
        auto const* data =
            file_.get(name, shape, type == "BF16" || type == "F16" ? type : "F32", std::size_t(size_of(dtype)));
        expect_finite(name, data, shape, dtype);
        return data;
      };
      int const E = m.cfg.hidden, H = m.cfg.kv_heads;
      layers_.push_back({get("q", {A, E}), get("k", {A, E}), get("v", {A, E}), get("o", {H, A}), get("bias", {H}),
                         dtype, heads, width, E, H});
    }
  } catch (std::exception const& e) {
    throw model_error(path.string() + ": " + e.what());
  }

  kvevict::gate_weights const& layer(int l) const { return layers_[std::size_t(l)]; }
  /// The preset with this layer's gate.
  auto policy(int l, int recent = 32) const {
    return kvevict::presets::attention_gate(layer(l),
                                            {.threshold = threshold, .sinks = sinks, .recent = recent, .sees = sees});
  }

  float threshold;
  int sinks;
  kvevict::gate_mask sees;
  double target;  // share of tokens that they were trained to keep

 private:
  static void expect_finite(std::string const& name, void const* data, tensor_file::shape const& shape,
                            kvevict::dtype type) {
    std::int64_t n = 1;
    for (auto x : shape) n *= x;
    kvevict::with_type(type, [&](auto t) {
      for (auto const* x = static_cast<decltype(t) const*>(data); n-- > 0; ++x)
        if (!std::isfinite(kvevict::to_float(*x))) throw model_error("tensor " + name + ": a weight is not finite");
    });
  }

  tensor_file file_;
  std::vector<kvevict::gate_weights> layers_;
};

/// (T,hidden) of a pass, for a layer's gate.
inline kvevict::feature_rows features_of(float const* data, int hidden, std::int32_t const* row_begin) {
  return {.data = data, .type = kvevict::dtype::f32, .token_stride = hidden, .width = hidden, .row_begin = row_begin};
}

/// One sequence that is prefilled, chunk by chunk, under the flags of its gates: deeper layers see what the gates left.
/// The pool needs add_keep(). Afterwards plan(ctx, gates.policy(layer), remembered(view), cap) says what the cache
/// keeps.
class flagged_prefill {
 public:
  flagged_prefill(engine& e, kvevict::host& ctx, gates const& g, sequence& seq, int capacity)
      : e_(e), ctx_(ctx), gates_(g), seq_(&seq), capacity_(capacity), memory_(std::size_t(seq.layers())) {
    for (auto& rows : memory_) rows.resize(std::size_t(capacity) * 2 * std::size_t(g.layer(0).width()));
  }

  logits run(std::span<int const> tokens, int tail = 1, record* seen = nullptr) {
    gating const under{[&](int l, activations const& input) { decide(l, input); }, {gates_.threshold, gates_.sinks}};
    auto const out = e_.prefill(*seq_, tokens, tail, seen, &under);
    tokens_ += std::int32_t(tokens.size());
    return out;
  }

  double gate_s = 0;  // time spent in the gates

 private:
  void decide(int l, activations const& input) {
    double const start = omp_get_wtime();
    std::int32_t const begin[] = {0, std::int32_t(input.cols())};
    auto features = features_of(input.data(), int(input.rows()), begin);
    features.memory = {memory_[std::size_t(l)].data(), 0, capacity_, &tokens_};
    layer_cache const cache({&seq_, 1}, l);
    kvevict::observe(ctx_, gates_.policy(l), kvevict::prompt(cache.view(), features),
                     {.tokens_per_head = kvevict::budget::no_cap});
    gate_s += omp_get_wtime() - start;
  }

  engine& e_;
  kvevict::host& ctx_;
  gates const& gates_;
  sequence* seq_;
  std::int32_t capacity_, tokens_ = 0;
  std::vector<std::vector<float>> memory_;  // L x (capacity,2·Hg·dg)
};

}  // namespace llama
