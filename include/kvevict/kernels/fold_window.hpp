// SPDX-License-Identifier: Apache-2.0
// What a function makes of every weight of the last query rows.
#pragma once

#include <algorithm>
#include <type_traits>

#include <kvevict/cache/row_reader.hpp>
#include <kvevict/core/shape.hpp>
#include <kvevict/kernels/pool.hpp>
#include <kvevict/kernels/row_outputs.hpp>
#include <kvevict/kernels/weight_blocks.hpp>
#include <kvevict/kernels/window_fold.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace kernels {

void has_kernel(fold_window_tag, host&);

/// A window row's weights of a tile, added to what is kept of its tokens. Never part of its caller, so that no bit
/// depends on the layout.
template <class Fold>
[[gnu::noinline]] void fold_tile(Fold const& fold, float const* weights, float const* distances, float lse,
                                 float (*sums)[tile_tokens]) {
  for (int j = 0; j < tile_tokens; ++j) {
    float now[Fold::sums], next[Fold::sums];
    for (int i = 0; i < Fold::sums; ++i) now[i] = next[i] = sums[i][j];
    fold.add({weights[j], lse, distances[j]}, next);
    for (int i = 0; i < Fold::sums; ++i) sums[i][j] = weights[j] != 0 ? next[i] : now[i];
  }
}
/// From what is kept of a tile's tokens to a number for each.
template <class Fold>
[[gnu::noinline]] void finish_tile(Fold const& fold, float (*sums)[tile_tokens], std::int32_t rows, std::int64_t count,
                                   float* to) {
  for (std::int64_t j = 0; j < count; ++j) {
    float of[Fold::sums];
    for (int i = 0; i < Fold::sums; ++i) of[i] = sums[i][j];
    to[j] = fold.finish(of, rows);
  }
}

/// What a worker needs, in floats.
struct fold_memory {
  std::int64_t weights, lse, sums, outputs, values, blocks;

  /// `value_width` 0: outputs are not read.
  constexpr fold_memory(std::int64_t tokens, std::int64_t sums_of_token, std::int64_t value_width,
                        std::int32_t pool_width, std::int64_t of_blocks)
      : weights(weight_block::most_rows * padded(tokens, tile_tokens)),
        lse(weight_block::most_rows),
        sums(sums_of_token * padded(tokens, tile_tokens)),
        outputs(value_width == 0 ? 0 : row_outputs::floats(value_width)),
        values(value_width == 0 ? pool_width == 1 ? 0 : pool_row_floats(tokens, pool_width)
                                : std::max(tile_tokens * row_outputs::wide(value_width), tile_floats(value_width))),
        blocks(of_blocks) {}
  constexpr std::int64_t floats() const {
    return padded(padded(weights, 16) + lse + padded(sums, 16) + padded(outputs, 16) + padded(values, 16) + blocks, 16);
  }
};

template <class Entry, class Blocks, class Fold> class fold_pass {
 public:
  fold_pass(host& ctx, layer_view<Entry> const& view, visibility const& sees, Blocks& blocks, window_options const& o,
            Fold const& fold, score_rows const& out)
      : ctx_(ctx),
        view_(view),
        sees_(sees),
        blocks_(blocks),
        o_(o),
        fold_(fold),
        out_(out),
        values_(fold.reads_outputs() ? &readable("fold_window", view, role::v) : nullptr),
        memory_(longest(out), Fold::sums, values_ == nullptr ? 0 : values_->width(), o.pool_each_row.width,
                blocks.floats()) {}

  void run() {
    std::int64_t const G = blocks_.group(), floats = out_.begin[out_.count()], share = memory_.floats();
    frame f(ctx_.scratch());
    blocks_.prepare(f);
    float* const memory = f.allocate<float>(share * ctx_.concurrency());
    float* const heads = G == 1 ? out_.values : f.allocate<float>(G * floats);  // (G, B·H, N)
    auto const one_head = [&](std::int64_t i, std::int32_t slot) {
      std::int64_t const r = i / G, g = i % G;
      if (out_.rows[r].active && out_.rows[r].tokens != 0)
        fold_head(r, static_cast<std::int32_t>(g), memory + slot * share, heads + g * floats + out_.begin[r]);
    };
    ctx_.for_each(out_.count() * G, one_head);
    blocks_.check(memory);
    if (G == 1) return;
    ctx_.for_each(
        out_.count(),
        [&](std::int64_t r, std::int32_t) {
          if (out_.rows[r].active) reduce(heads + out_.begin[r], floats, r);
        },
        G * floats / 8);
  }

 private:
  static std::int64_t longest(score_rows const& out) {
    std::int64_t tokens = 0;
    for (std::int64_t r = 0; r < out.count(); ++r)
      if (out.rows[r].active) tokens = std::max<std::int64_t>(tokens, out.rows[r].tokens);
    return tokens;
  }

  /// All window rows of query head g of row r.
  void fold_head(std::int64_t r, std::int32_t g, float* memory, float* to) {
    row const& in = out_.rows[r];
    std::int64_t const stride = padded(in.tokens, tile_tokens);
    std::int32_t const rows = blocks_.window(r).count;
    weight_block of{r, g, 0, 0, stride, memory, memory + padded(memory_.weights, 16)};
    float* const sums = of.lse + memory_.lse;  // (tiles, sums, tile_tokens)
    float* const rest = sums + padded(memory_.sums, 16);
    kvevict::fill_n(sums, Fold::sums * stride, 0.0f);
    for (; of.first < rows; of.first += weight_block::most_rows) {
      of.rows = std::min(weight_block::most_rows, rows - of.first);
      fold_block(of, sums, rest);
    }
    for (std::int64_t t = 0; t < in.tokens; t += tile_tokens)
      finish_tile(fold_, tile_of(sums, t), rows, std::min<std::int64_t>(tile_tokens, in.tokens - t), to + t);
  }
  static float (*tile_of(float* sums, std::int64_t first))[tile_tokens] {
    return reinterpret_cast<float(*)[tile_tokens]>(sums + Fold::sums * first);
  }

  void fold_block(weight_block const& of, float* sums, float* memory) {
    row const& in = out_.rows[of.r];
    float* const values = memory + padded(memory_.outputs, 16);
    blocks_.read(of, values + padded(memory_.values, 16));
    std::int64_t const begin = sees_.padding(in.sequence);
    if (o_.pool_each_row.width > 1 && begin < in.last)
      for (std::int32_t i = 0; i < of.rows; ++i)
        pool_weights(o_.pool_each_row, of.row(i) + begin, in.last - begin, values);
    row_outputs const outputs{memory, values_ == nullptr ? 0 : values_->width()};
    if (values_ != nullptr) add_up_values(view_, *values_, in, of, outputs, values);
    for (std::int64_t t = 0; t < in.tokens; t += tile_tokens) {
      if (values_ != nullptr) pack_tokens(view_, *values_, in.sequence, in.head, t, in.tokens, values);
      for (std::int32_t i = 0; i < of.rows; i += row_block) {
        float distances[row_block][tile_tokens] = {};
        if (values_ != nullptr) squared_distances(outputs.block(i), values, outputs.width, distances);
        for (std::int32_t k = 0; k < std::min(row_block, of.rows - i); ++k)
          fold_tile(fold_, of.row(i + k) + t, distances[k], of.lse[i + k], tile_of(sums, t));
      }
    }
  }

  void reduce(float const* heads, std::int64_t stride, std::int64_t r) const {
    std::int32_t const G = blocks_.group();
    float const share = o_.group == group_reduce::mean ? 1.0f / static_cast<float>(G) : 1.0f;
    slice<float> const to = out_.scores(r);
    for (std::int64_t j = 0; j < to.size; ++j) {
      float x = heads[j];
      for (std::int32_t g = 1; g < G; ++g) {
        float const next = heads[g * stride + j];
        x = o_.group == group_reduce::max ? larger_or_nan(next, x) : x + next;
      }
      to.data[j] = x * share;
    }
  }

  host& ctx_;
  layer_view<Entry> const& view_;
  visibility const sees_;
  Blocks& blocks_;
  window_options const& o_;
  Fold const& fold_;
  score_rows const& out_;
  component const* values_;
  fold_memory memory_;
};

/// What a fold makes of the weights of the last W query rows, for every token.
///
///   s(h,j) = reduce_g finish( Σ_w add( p(g,w,j), lse(g,w), ‖v_j − o(g,w)‖² ) ),   o(g,w) = Σ_n p(g,w,n)·v_n
///
/// Weights as in window_scores: by the engine's LSE or without, or softmax rows; what a row does not see has none, and
/// weights of 0 are left out; o.pool_each_row pools each row's weights of the tokens between padding and the recent
/// ones, to the sum that they had. o.reduce is not read: finish() has the number of rows. Of partial rows o is what the
/// cache holds of the output.
///
/// Shapes   queries (T,Hq,D) ragged or softmax rows, keys and values (H,N,D) → scores (B·H rows, N) float.
/// Cost     2·Hq·W·N·D flop, and of folds that read outputs 2 + 3 more (Σ p·v, differences and their squares); K is
///          gathered once for 32 rows, V twice. Scratch: 32·N floats a worker, N floats a query head; never W·N a head.
/// Errors   as window_scores; contract_violation for pools, gains and rows behind the cache, and if a fold that reads
///          outputs finds no V that can be read.
template <class Entry, class Rows, window_fold Fold>
void kernel(fold_window_tag, host& ctx, layer_view<Entry> const& view, Rows const& rows, window_options const& o,
            Fold const& fold, score_rows const& out) {
  using blocks_of = std::conditional_t<std::is_same_v<Rows, query_rows>, query_blocks<Entry>, softmax_blocks<Entry>>;
  expect_fold(o, fold.reads_outputs());
  blocks_of blocks(view, rows, o, out);
  fold_pass<Entry, blocks_of, Fold>(ctx, view, rows.sees, blocks, o, fold, out).run();
}

/// Scratch of fold_window, whatever the evidence is.
template <class Fold>
std::int64_t workspace(fold_window_tag, host const& ctx, cache_shape const& s, window_options const& o,
                       Fold const& fold) {
  std::int64_t const G = s.q_heads / s.kv_heads, W = std::min<std::int64_t>(o.rows, s.tokens),
                     of_blocks = std::max(query_blocks<std::int32_t>::floats(s.head_dim), s.tokens);
  fold_memory const memory(s.tokens, Fold::sums, fold.reads_outputs() ? s.head_dim : 0, o.pool_each_row.width,
                           of_blocks);
  return padded(memory.floats() * 4 * ctx.concurrency(), 64) + padded(G * s.rows() * s.tokens * 4, 64) +
         padded(s.rows() * static_cast<std::int64_t>(sizeof(window_rows)), 64) +
         s.rows() * padded(W * static_cast<std::int64_t>(sizeof(sight)), 64) + weight_sums::bytes(s.rows() * G * W);
}

}  // namespace kernels
}  // namespace KVEVICT_ABI
}  // namespace kvevict
