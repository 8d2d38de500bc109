// SPDX-License-Identifier: Apache-2.0
// Weights of some window rows of one query head over all tokens of a row of the cache, from queries or softmax rows.
#pragma once

#include <algorithm>

#include <kvevict/core/fill.hpp>
#include <kvevict/kernels/first_row.hpp>
#include <kvevict/kernels/softmax_reader.hpp>
#include <kvevict/kernels/window_rows.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace kernels {

/// Window rows [first, first + rows) of query head g of row r. Weights are 0 where a row does not see a token, and
/// behind the last one.
struct weight_block {
  static constexpr std::int32_t most_rows = 32;  // for which keys are gathered once

  std::int64_t r;
  std::int32_t g, first, rows;
  std::int64_t stride;  // tokens, padded to whole tiles
  float* weights;       // (rows padded to whole row blocks, stride)
  float* lse;           // (rows) natural, or NaN

  float* row(std::int32_t i) const { return weights + i * stride; }
};

/// From queries and keys, by the engine's LSE or without one.
template <class Entry> class query_blocks {
 public:
  query_blocks(layer_view<Entry> const& view, query_rows const& q, window_options const& o, score_rows const& out)
      : view_(view), q_(q), o_(o), out_(out), shape_(window_shape_of(q, o, out, false)) {
    expect_window(view, q, o, out);
  }
  static constexpr std::int64_t query_floats(std::int64_t D) {
    return padded(query_block_floats(weight_block::most_rows, D), 16);
  }
  /// Of scratch that read() takes.
  static constexpr std::int64_t floats(std::int64_t D) { return query_floats(D) + tile_floats(D); }
  std::int64_t floats() const { return floats(q_.head_dim); }
  std::int32_t group() const { return shape_.group; }
  window_rows const& window(std::int64_t r) const { return windows_[r]; }

  void prepare(frame& f) {
    windows_ = f.allocate<window_rows>(out_.count());
    if (shape_.normalised) checked_ = weight_sums(f, out_.count() * shape_.group * shape_.window);
    for (std::int64_t r = 0; r < out_.count(); ++r) {
      row const& in = out_.rows[r];
      windows_[r] = {};
      if (!in.active) continue;
      windows_[r] = newest_rows(view_, q_, in.sequence, in.tokens, o_.rows, o_.place);
      read_sights(f, view_, q_, in.sequence, in.head, in.tokens, o_.place, windows_[r]);
    }
  }

  void read(weight_block const& to, float* memory) {
    row const& in = out_.rows[to.r];
    query_block q = make_query_block(memory, to.rows, q_.head_dim);
    query_rows const own = q_.of(in.sequence);
    pack_queries(q, own, windows_[to.r], to.first, to.rows, in.head * shape_.group + to.g, 1, nullptr);
    q.tokens = in.tokens, q.orders = out_.positions_of(to.r);
    if (q.orders != nullptr) q.all = {0, 0};
    float* const tile = memory + query_floats(q_.head_dim);
    for (std::int64_t t = 0; t < in.tokens; t += tile_tokens) {
      bool const hidden = q.sees_none(t);
      if (!hidden) pack_keys(view_, in.sequence, in.head, t, in.tokens, tile);
      tile_ahead ahead(view_, in.sequence, in.head, t + tile_tokens, in.tokens, padded(to.rows, row_block) / row_block);
      for (std::int32_t i = 0; i < to.rows; i += row_block) {
        ahead.step();
        vec z[row_block][tile_vectors];
        if (hidden)
          for (auto& x : z) kvevict::fill_n(x, tile_vectors, splat(-__builtin_inff()));
        else
          logits(q, i, tile, t, z);
        for (std::int32_t k = 0; k < row_block; ++k) std::memcpy(to.row(i + k) + t, z[k], sizeof z[k]);
      }
    }
    for (std::int32_t i = 0; i < to.rows; ++i) normalise(own, q, to, i);
  }

  /// What the weights by the engine's LSE have added up to.
  void check(float* tile) const {
    for (std::int64_t r = 0; shape_.normalised && r < out_.count(); ++r) {
      row const& in = out_.rows[r];
      double norm = -1;
      for (std::int32_t g = 0; in.active && g < shape_.group; ++g)
        expect_sums(view_, *view_.find(role::k), q_.of(in.sequence), windows_[r], 0, windows_[r].count,
                    std::int64_t{in.head} * shape_.group + g, in, q_.sum,
                    checked_.from((r * shape_.group + g) * shape_.window), tile, norm);
    }
  }

 private:
  /// From logits in base 2 to weights.
  void normalise(query_rows const& own, query_block const& q, weight_block const& to, std::int32_t i) const {
    float* const x = to.row(i);
    std::int64_t const hq = std::int64_t{out_.rows[to.r].head} * shape_.group + to.g, w = to.first + i;
    vec top = splat(below_all_logits), sums = {};
    for (std::int64_t j = 0; j < to.stride && !shape_.normalised; j += lanes) top = max(load(x + j), top);
    float const base =
        shape_.normalised ? engine_lse(own, windows_[to.r], static_cast<std::int32_t>(w), hq) : max_of(top);
    for (std::int64_t j = 0; j < to.stride; j += lanes) {
      vec const e = exp2(load(x + j) - splat(base));
      store(x + j, e), sums += e;
    }
    float const sum = sum_of(sums);
    float lse = base;
    if (shape_.normalised) {
      checked_.add((to.r * shape_.group + to.g) * shape_.window + w, sum);
    } else {
      lse = lse_of(base, sum, [&] { return q.row_sees_any(i); });
      if (q_.sink_logits != nullptr) lse = lse_with(lse, q_.sink_logits[hq] * 1.44269504088896341f);
      vec const share = exp2(splat(base - lse));
      for (std::int64_t j = 0; j < to.stride; j += lanes) store(x + j, load(x + j) * share);
    }
    to.lse[i] = lse * 0.69314718055994531f;
  }

  layer_view<Entry> const& view_;
  query_rows const& q_;
  window_options const& o_;
  score_rows const& out_;
  window_shape shape_;
  window_rows* windows_ = nullptr;  // (B·H)
  weight_sums checked_;             // (B·H, G, W), with the engine's LSE
};

/// From softmax rows that the engine provides.
template <class Entry> class softmax_blocks {
 public:
  softmax_blocks(layer_view<Entry> const& view, attention_rows const& a, window_options const& o, score_rows const& out)
      : view_(view), a_(a), o_(o), out_(out) {
    expect_softmax_window("fold_window", view, a, o, out);
    for (std::int64_t r = 0; r < out.count(); ++r) longest_ = std::max<std::int64_t>(longest_, out.rows[r].tokens);
  }
  std::int64_t floats() const { return longest_; }
  std::int32_t group() const { return out_.count() == 0 ? 1 : a_.heads / out_.heads; }
  window_rows window(std::int64_t r) const {
    return newest_rows(view_, a_, out_.rows[r].sequence, out_.rows[r].tokens, o_.rows, o_.place);
  }
  void prepare(frame&) {}

  void read(weight_block const& to, float* memory) {
    softmax_reader<Entry> const reader(view_, a_, o_, out_, to.r, memory);
    for (std::int32_t i = 0; i < to.rows; ++i) {
      slice<float const> const x = reader.read(to.first + i, out_.rows[to.r].head * group() + to.g);
      if (fault_of_row(reader, a_, to.first + i, x) != row_fault::none) unsound_.add(to.r);
      kvevict::copy_n(x.data, x.size, to.row(i));
      kvevict::fill_n(to.row(i) + x.size, to.stride - x.size, 0.0f);
      to.lse[i] = __builtin_nanf("");
    }
  }
  void check(float* memory) const {
    if (!unsound_.found()) return;
    std::int64_t const r = unsound_.get();
    violate_row(softmax_reader<Entry>(view_, a_, o_, out_, r, memory), a_, out_.rows[r], group());
  }

 private:
  layer_view<Entry> const& view_;
  attention_rows const& a_;
  window_options const& o_;
  score_rows const& out_;
  std::int64_t longest_ = 0;
  first_row unsound_;
};

}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
