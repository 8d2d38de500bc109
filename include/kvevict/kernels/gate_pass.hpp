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

  /// All weights as floats: Wq (scaled to logits in base 2), Wk, Wv in the order in which `project` reads them (blocks
  /// of features, of rows; packed_rows), zeros behind the last row, then Wo and b.
  void read_weights() {
    std::int64_t const A = w_.width(), E = w_.features, rows = padded(3 * A, row_block);
    void const* const matrices[] = {w_.q, w_.k, w_.v};
    float const scales[] = {1.442695040888963f / __builtin_sqrtf(static_cast<float>(w_.head_dim)), 1, 1};
    with_type(w_.type, [&](auto type) {
      using T = decltype(type);
      for (std::int64_t from = 0; from < E; from += feature_block)
        for (std::int64_t r = 0; r < rows; ++r) {
          auto const* const x = r < 3 * A ? static_cast<T const*>(matrices[r / A]) + r % A * E + from : nullptr;
          float* const to = weights(from, r) + r % row_block;
          for (std::int64_t e = 0; e < std::min<std::int64_t>(feature_block, E - from); ++e)
            to[e * row_block] = x == nullptr ? 0.0f : to_float(x[e]) * scales[r / A];
        }
      float* to = output_ = weights_ + rows * E;
      auto const copy = [&](void const* from, std::int64_t n) {
        for (std::int64_t i = 0; i < n; ++i) *to++ = to_float(static_cast<T const*>(from)[i]);
      };
      copy(w_.o, std::int64_t{w_.flags} * A), copy(w_.bias, w_.flags);
    });
  }
  /// Of the block of features from e on, the block of rows that r is in.
  float* weights(std::int64_t e, std::int64_t r) const {
    r -= r % row_block;
    return weights_ + e * padded(3 * w_.width(), row_block) +
           r * std::min<std::int64_t>(feature_block, w_.features - e);
  }

  /// Features [from, from + count) of a tile, whose tokens' rows are given; lanes are tokens.
  /// → (count, tile_tokens), and zeros up to a whole vector of features
  void pack(std::byte const* const (&rows)[tile_tokens], std::int32_t from, std::int32_t count, float* to) const {
    with_type(in_.type, [&](auto type) {
      using T = decltype(type);
      row_map one;
      one.n_runs = 1;
      one.run_bytes = in_.width * static_cast<std::int32_t>(sizeof(T));
      for (int v = 0; v < tile_tokens; v += lanes)
        for (std::int32_t e = 0; e < count; e += lanes) {
          vec x[lanes];
          unroll<lanes>([&](auto i) { x[i] = read_chunk<T>(rows[v + i], one, from + e, in_.width); });
          transpose(x);
          unroll<lanes>([&](auto i) { store(to + (e + i) * std::int64_t{tile_tokens} + v, x[i]); });
        }
    });
  }
  /// The features of a tile's tokens; beyond them those of the last one again.
  void find_rows(gate_tile const& t, std::byte const* (&rows)[tile_tokens]) const {
    for (int j = 0; j < tile_tokens; ++j)
      rows[j] = static_cast<std::byte const*>(in_.data) +
                in_.at(t.sequence, t.first + std::min(j, t.count - 1)) * size_of(in_.type);
  }

  /// Q' of a tile to scratch, lanes are tokens; its K' and V', too.
  void project(std::int64_t index, float* sums) const {
    gate_tile const t = tile(index);
    std::int64_t const A = w_.width(), rows = padded(3 * A, row_block);
    float* const features = sums + rows * tile_tokens;
    std::byte const* tokens[tile_tokens];
    find_rows(t, tokens);
    kvevict::fill_n(sums, rows * tile_tokens, 0.0f);  // (3·Hg·dg, tile_tokens)
    for (std::int32_t e = 0; e < w_.features; e += feature_block) {
      std::int32_t const count = std::min(feature_block, w_.features - e), behind = e + count;
      row_map next;
      next.run_bytes = std::min(feature_block, w_.features - behind) * size_of(in_.type);
      pack(tokens, e, count, features);
      for (std::int64_t r = 0; r < rows; r += row_block) {
        for (std::int64_t j = r * tile_tokens / rows; j < (r + row_block) * tile_tokens / rows; ++j)
          fetch_row(tokens[j] + behind * size_of(in_.type), next);
        add_features({weights(e, r)}, count, features, sums + r * tile_tokens);
      }
    }
    kvevict::copy_n(sums, A * tile_tokens, queries_ + index * A * tile_tokens);
    float* const to = fresh(t.sequence) + t.first * 2 * A;
    for (std::int64_t i = 0; i < 2 * A; ++i)
      for (int j = 0; j < t.count; ++j) to[j * 2 * A + i] = sums[(A + i) * tile_tokens + j];
  }
  static void add_features(packed_rows const& rows, std::int64_t depth, float const* features, float* sums) {
    vec sum[row_block][tile_vectors];
    unroll<row_block>(
        [&](auto r) { unroll<tile_vectors>([&](auto v) { sum[r][v] = load(sums + r * tile_tokens + v * lanes); }); });
    add_products(rows, depth, features, sum);
    unroll<row_block>(
        [&](auto r) { unroll<tile_vectors>([&](auto v) { store(sums + r * tile_tokens + v * lanes, sum[r][v]); }); });
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
