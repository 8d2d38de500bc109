// SPDX-License-Identifier: Apache-2.0
// The work of the gate kernel: which tile reads and writes what.
#pragma once

#include <cmath>

#include <kvevict/kernels/first_row.hpp>
#include <kvevict/kernels/gate_attention.hpp>
#include <kvevict/kernels/gate_shape.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace kernels {
/// One call: features → Q', K', V' of the new tokens, then their attention and probabilities, a tile of tokens at a
/// time.
class gate_pass {
 public:
  gate_pass(host& ctx, gate_weights const& w, feature_rows const& in, gate_mask sees, std::int32_t sequences,
            std::int32_t heads, float* p)
      : ctx_(ctx), w_(w), in_(in), sees_(sees), sequences_(sequences), heads_(heads), group_(w.flags / heads), p_(p) {}

  void run() {
    gate_shape const shape = shape_of();
    frame f(ctx_.scratch());
    weights_ = f.allocate<float>(shape.weight_floats());
    queries_ = f.allocate<float>(shape.query_floats());
    own_ = f.allocate<float>(shape.memory_floats());
    std::int64_t const share = shape.share_floats(), work = shape.tokens * w_.features * w_.width() / 8;
    auto* const shares = f.allocate<float>(ctx_.concurrency() * share);
    read_weights();
    ctx_.for_each(
        shape.tiles, [&](std::int64_t i, std::int32_t slot) { project(i, shares + slot * share); }, work);
    ctx_.for_each(
        shape.tiles, [&](std::int64_t i, std::int32_t slot) { attend(shape.tiles - 1 - i, shares + slot * share); },
        work);
    if (bad_.found()) messages::gate_not_a_number(static_cast<std::int32_t>(bad_.get()));
    remember();
  }

 private:
  gate_shape shape_of() const {
    gate_shape s{w_.features, w_.width(), w_.flags, 0, 0};
    for (std::int32_t b = 0; b < sequences_; ++b) {
      s.tokens += in_.rows(b);
      s.tiles += (in_.rows(b) + tile_tokens - 1) / tile_tokens;
    }
    return s;
  }

  gate_tile tile(std::int64_t index) const {
    std::int64_t row = 0;
    for (std::int32_t b = 0;; ++b) {
      std::int64_t const here = (in_.rows(b) + tile_tokens - 1) / tile_tokens;
      if (index < here) {
        auto const first = static_cast<std::int32_t>(index * tile_tokens);
        return {b, first, std::min(tile_tokens, in_.rows(b) - first), row + first};
      }
      index -= here;
      row += in_.rows(b);
    }
  }

  std::int32_t earlier(std::int32_t b) const { return in_.memory.rows == nullptr ? 0 : in_.memory.tokens[b]; }
  /// K' and V' of the new tokens of sequence b, in scratch.  (tokens, 2·Hg·dg)
  float* fresh(std::int32_t b) const { return own_ + rows_before(in_, b) * 2 * w_.width(); }
  /// Those of the earlier ones.
  float* memory(std::int32_t b) const {
    return in_.memory.rows == nullptr ? nullptr : in_.memory.rows + b * in_.memory.seq_stride;
  }
  /// The new ones into the memory, when nothing can be refused any more.
  void remember() const {
    std::int64_t const row = std::int64_t{2} * w_.width();
    for (std::int32_t b = 0; b < sequences_ && in_.memory.rows != nullptr; ++b)
      kvevict::copy_n(fresh(b), in_.rows(b) * row, memory(b) + earlier(b) * row);
  }

  /// All weights as floats: Wq (scaled to logits in base 2), Wk, Wv, rows padded with zeros to whole row blocks, then
  /// Wo and b.
  void read_weights() {
    float const scale = 1.442695040888963f / __builtin_sqrtf(static_cast<float>(w_.head_dim));
    std::int64_t const matrix = std::int64_t{w_.width()} * w_.features;
    with_type(w_.type, [&](auto type) {
      using T = decltype(type);
      float* to = weights_;
      auto const copy = [&](void const* from, std::int64_t n, float factor) {
        auto const* const x = static_cast<T const*>(from);
        for (std::int64_t i = 0; i < n; ++i) to[i] = to_float(x[i]) * factor;
        to += n;
      };
      copy(w_.q, matrix, scale), copy(w_.k, matrix, 1.0f), copy(w_.v, matrix, 1.0f);
      float* const end = weights_ + padded(3 * w_.width(), row_block) * w_.features;
      kvevict::fill(to, end, 0.0f);
      output_ = to = end;
      copy(w_.o, std::int64_t{w_.flags} * w_.width(), 1.0f), copy(w_.bias, w_.flags, 1.0f);
    });
  }

  /// The features of a tile, lanes are tokens; beyond its tokens the last one again.  → (E, tile_tokens)
  void pack(gate_tile const& t, float* to) const {
    with_type(in_.type, [&](auto type) {
      using T = decltype(type);
      row_map one;
      one.n_runs = 1;
      one.run_bytes = in_.width * static_cast<std::int32_t>(sizeof(T));
      for (int v = 0; v < tile_tokens; v += lanes)
        for (std::int32_t e = 0; e < in_.width; e += lanes) {
          vec x[lanes];
          unroll<lanes>([&](auto i) { x[i] = read_chunk<T>(row_at<T>(t, v + i), one, e, in_.width); });
          transpose(x);
          for (int i = 0; i < std::min(lanes, in_.width - e); ++i)
            store(to + (e + i) * std::int64_t{tile_tokens} + v, x[i]);
        }
    });
  }
  template <class T> std::byte const* row_at(gate_tile const& t, int lane) const {
    return static_cast<std::byte const*>(in_.data) +
           in_.at(t.sequence, t.first + std::min(lane, t.count - 1)) * static_cast<std::int64_t>(sizeof(T));
  }

  /// Q' of a tile to scratch, lanes are tokens; its K' and V', too.
  void project(std::int64_t index, float* features) const {
    gate_tile const t = tile(index);
    pack(t, features);
    std::int64_t const A = w_.width();
    float* const queries = queries_ + index * A * tile_tokens;
    float* const rows = fresh(t.sequence) + t.first * 2 * A;
    for (std::int64_t r = 0; r < 3 * A; r += row_block) {
      vec sums[row_block][tile_vectors] = {};
      float const* scalars[row_block];
      for (int i = 0; i < row_block; ++i) scalars[i] = weights_ + (r + i) * w_.features;
      add_products(scalars, w_.features, features, sums);
      for (std::int64_t i = r; i < std::min<std::int64_t>(r + row_block, 3 * A); ++i) {
        float out[tile_tokens];
        float* const to = i < A ? queries + i * tile_tokens : out;
        for (int v = 0; v < tile_vectors; ++v) store(to + v * lanes, sums[i - r][v]);
        for (int j = 0; i >= A && j < t.count; ++j) rows[j * 2 * A + i - A] = out[j];
      }
    }
  }

  /// The attention of a tile's tokens and their probabilities.
  void attend(std::int64_t index, float* values) {
    gate_tile const t = tile(index);
    std::int64_t const A = w_.width(), now = earlier(t.sequence) + t.first;
    std::int64_t const seen = sees_ == gate_mask::causal ? now + t.count : earlier(t.sequence) + in_.rows(t.sequence);
    for (std::int32_t h = 0; h < w_.heads; ++h) {
      std::int64_t const at = std::int64_t{h} * w_.head_dim;
      std::int64_t const remembered = earlier(t.sequence);
      gate_tokens const tokens{remembered == 0 ? nullptr : memory(t.sequence) + at, fresh(t.sequence) + at, remembered};
      gate_attention(queries_ + (index * A + at) * tile_tokens, tokens, A, w_.head_dim, sees_, now, seen,
                     values + at * tile_tokens);
    }
    write(t, values);
  }

  /// p of a tile's tokens: sigmoid of the output weights over C, the largest of each KV head's group.
  void write(gate_tile const& t, float const* values) {
    std::int64_t const A = w_.width();
    float const* const bias = output_ + w_.flags * A;
    for (std::int32_t h = 0; h < heads_; ++h) {
      float p[tile_tokens];
      for (int v = 0; v < tile_vectors; ++v) {
        vec best = {};
        for (std::int32_t f = h * group_; f < (h + 1) * group_; ++f) {
          vec z = splat(bias[f]);
          for (std::int64_t a = 0; a < A; ++a)
            z = multiply_add(splat(output_[f * A + a]), load(values + a * tile_tokens + v * lanes), z);
          best = max_or_nan(1.0f / (1.0f + exp2(z * -1.442695040888963f)), best);
        }
        store(p + v * lanes, best);
      }
      for (int j = 0; j < t.count; ++j) {
        if (p[j] != p[j]) bad_.add(t.sequence);
        p_[(t.row + j) * heads_ + h] = p[j];
      }
    }
  }

  host& ctx_;
  gate_weights const& w_;
  feature_rows const& in_;
  gate_mask sees_;
  std::int32_t sequences_, heads_, group_;
  float* p_;
  float *weights_ = nullptr, *output_ = nullptr, *queries_ = nullptr, *own_ = nullptr;
  first_row bad_;  // sequence
};

}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
