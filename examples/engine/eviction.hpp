// SPDX-License-Identifier: Apache-2.0
// Where the engine meets kvevict: its pages as a view, its records as evidence, its threads as an executor.
#pragma once

#include <omp.h>

#include <kvevict/kvevict.hpp>

#include "engine.hpp"

namespace llama {

/// The engine's own threads, lent to the library.
inline kvevict::executor openmp() {
  return {[](void*, std::int64_t count, kvevict::executor::task_function task, void* state) {
#pragma omp parallel for schedule(static, 1)
            for (std::int64_t i = 0; i < count; ++i) task(state, i);
          },
          nullptr, omp_get_max_threads()};
}

/// Rows of `width` 4-byte elements, one per slot of the pool.
inline kvevict::component per_slot(kv_pool const& pool, void* data, kvevict::role what, kvevict::dtype type,
                                   int width) {
  kvevict::component c;
  c.what = what;
  c.type = type;
  c.rows = {.base = static_cast<std::byte*>(data),
            .page_count = pool.pages(),
            .page_stride = 4ll * pool.page_size() * width,
            .slot_stride = 4ll * width,
            .run_bytes = 4 * width};
  return c;
}

/// One layer of several sequences, or a stack of layers from that one on. The view points into the tables: keep the
/// object while the view is used.
struct layer_cache {
  layer_cache(std::span<sequence* const> batch, int layer, int layers = 1)
      : batch_(batch), layer_(layer), layers_(layers), tables_(tables_of(batch, layer, layers)) {}

  kvevict::layer_view<> view() const {
    auto const& pool = batch_[0]->pool();
    int const B = int(batch_.size()), H = batch_[0]->kv_heads(), D = pool.head_dim();
    kvevict::layer_view<> v;
    v.pages = {.entries = tables_.entries.data(),
               .seq_stride = std::int64_t{H} * tables_.columns,
               .head_stride = tables_.columns,
               .sequences = layers_ * B,
               .heads = H,
               .columns = tables_.columns,
               .layers = layers_,
               .layer_stride = std::int64_t{B} * H * tables_.columns,
               .page_size = pool.page_size()};
    v.lengths = {tables_.lengths.data(), H, 1};
    v = v.with(per_slot(pool, pool.keys(), kvevict::role::k, kvevict::dtype::f32, D).turned(kvevict::rotation::rope))
            .with(per_slot(pool, pool.values(), kvevict::role::v, kvevict::dtype::f32, D))
            .with(per_slot(pool, pool.positions(), kvevict::role::position, kvevict::dtype::i32, 1));
    return pool.keep() ? v.with(per_slot(pool, pool.keep(), kvevict::role::state, kvevict::dtype::f32, 1)) : v;
  }

  /// After compact(): shorter lengths, and the pages behind them back to the pool.
  void truncate(kvevict::slice<std::int32_t const> lengths) const {
    for (int l = layer_, i = 0; l < layer_ + layers_; ++l)
      for (sequence* s : batch_)
        for (int h = 0; h < s->kv_heads(); ++h, ++i) s->truncate(l, h, lengths[i]);
  }

 private:
  std::span<sequence* const> batch_;
  int layer_, layers_;
  layer_tables tables_;
};

/// What turns the model's keys. A GGUF says the factors of Llama 3's scaling, not the numbers that they follow from:
/// all of its models have these, but for the largest factor.
inline kvevict::rope rope_of(config const& cfg) {
  kvevict::rope out{.base = cfg.rope_base};
  if (cfg.rope_factors.empty()) return out;
  out.scaling = kvevict::rope_scaling::llama3, out.original = 8192;
  out.factor = *std::max_element(cfg.rope_factors.begin(), cfg.rope_factors.end());
  return out;
}

/// The recorded queries of sequences [first, first + B) of a pass; their LSE goes in with
/// `with_lse(seen.lse[layer].data(), Hq, 1)`.
inline kvevict::query_rows queries_of(record const& seen, config const& cfg, int layer, int first = 0) {
  return {.data = seen.queries[std::size_t(layer)].data(),
          .token_stride = std::int64_t{cfg.heads} * cfg.head_dim,
          .head_stride = cfg.head_dim,
          .heads = cfg.heads,
          .head_dim = cfg.head_dim,
          .row_begin = seen.row_begin.data() + first,
          .positions = seen.positions.data()};
}

/// What a recorded prompt says of a layer: all its queries with their LSE; and what the model knows of itself: what
/// turned the keys, and W_O.
template <class View> auto prompt_of(View const& view, record const& seen, engine const& e, int layer, int first = 0) {
  config const& cfg = e.cfg();
  tensor const& o = e.weights(layer).o;  // (hidden, Hq·D)
  return kvevict::prompt(view, queries_of(seen, cfg, layer, first))
      .with_rope(rope_of(cfg))
      .with_output({o.data, o.rows, 1, o.cols})
      .with_lse(seen.lse[std::size_t(layer)].data(), cfg.heads, 1);
}

/// A recorded prompt's rows of all layers of its one sequence, for a view of the stack: where each layer's lie, no
/// copy.
class stack_rows {
 public:
  stack_rows(record const& seen, config const& cfg) : seen_(&seen), cfg_(&cfg) {
    for (auto const& q : seen.queries) queries_.push_back(q.data());
    for (auto const& l : seen.lse) lse_.push_back(l.data());
  }

  template <class View> auto prompt(View const& view) const {
    auto rows = queries_of(*seen_, *cfg_, 0);
    rows.data = nullptr, rows.layers = queries_.data(), rows.sequences = 1;
    rows.lse_layers = lse_.data(), rows.lse_token_stride = cfg_->heads, rows.lse_head_stride = 1;
    return kvevict::prompt(view, rows).with_rope(rope_of(*cfg_));
  }

 private:
  record const* seen_;
  config const* cfg_;
  std::vector<void const*> queries_;  // (L)
  std::vector<float const*> lse_;     // (L)
};

/// The last queries of a batch in every layer: for policies that read them while decoding.
class last_queries {
 public:
  last_queries(config const& cfg, int sequences, int window) : cfg_(&cfg), sequences_(sequences), window_(window) {
    std::size_t const rows = std::size_t(cfg.layers) * std::size_t(sequences) * 2 * std::size_t(window);
    data_.resize(rows * std::size_t(cfg.heads) * std::size_t(cfg.head_dim));
    positions_.resize(rows), begin_.resize(rows), count_.resize(rows);
  }

  kvevict::query_ring ring(int layer) {
    std::size_t const b = std::size_t(layer) * std::size_t(sequences_), row = b * 2 * std::size_t(window_);
    return {.data = data_.data() + row * std::size_t(cfg_->heads) * std::size_t(cfg_->head_dim),
            .window = window_,
            .heads = cfg_->heads,
            .head_dim = cfg_->head_dim,
            .positions = positions_.data() + row,
            .begin = begin_.data() + b,
            .count = count_.data() + b};
  }
  /// The rows of a pass, of its sequences from `first` on.
  void push(kvevict::host& ctx, record const& seen, int first) {
    for (int l = 0; l < cfg_->layers; ++l) kvevict::push(ctx, ring(l), queries_of(seen, *cfg_, l, first), sequences_);
  }
  /// The rows of one prompt, which all sequences have.
  void push_to_all(kvevict::host& ctx, record const& seen) {
    std::vector<std::int32_t> const begin(std::size_t(sequences_), 0), count(begin.size(), seen.row_begin.back());
    for (int l = 0; l < cfg_->layers; ++l) {
      auto rows = queries_of(seen, *cfg_, l);
      rows.row_begin = begin.data(), rows.row_count = count.data();
      kvevict::push(ctx, ring(l), rows, sequences_);
    }
  }

 private:
  config const* cfg_;
  int sequences_, window_;
  std::vector<float> data_;                              // (L,B,2·W,Hq,D)
  std::vector<std::int32_t> positions_, begin_, count_;  // (L,B,2·W), (L,B)
};

/// A prompt's record continued by a later chunk of the same, single sequence.
inline void append(record& to, record const& more) {
  for (std::size_t l = 0; l < to.queries.size(); ++l) {
    to.queries[l].insert(to.queries[l].end(), more.queries[l].begin(), more.queries[l].end());
    to.lse[l].insert(to.lse[l].end(), more.lse[l].begin(), more.lse[l].end());
    to.input[l].insert(to.input[l].end(), more.input[l].begin(), more.input[l].end());
  }
  to.positions.insert(to.positions.end(), more.positions.begin(), more.positions.end());
  to.row_begin.back() += more.row_begin.back();
}

}  // namespace llama
