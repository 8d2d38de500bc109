// SPDX-License-Identifier: Apache-2.0
// What a function makes of every weight of the last query rows, on a device.
#pragma once

#include <kvevict/cuda/attention/attention.hpp>
#include <kvevict/cuda/attention/window_outputs.hpp>
#include <kvevict/kernels/window_fold.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

void has_kernel(kernels::fold_window_tag, device&);

/// A warp takes 32 tokens and goes over the window rows 16 at a time, head by head. A lane keeps what belongs to four
/// tokens under a quarter of the rows; its four lanes' parts then make a token's. A block that pools rows writes those
/// of its 128 tokens whose neighbours it has.
///
/// Shapes   grid (128 tokens, row) → scores (B·H, N).
template <class Entry, class Source, class Fold> struct fold_window_kernel {
  static constexpr int max_threads = 128, tokens = 4;  // of a lane
  watched watch;
  Source from;
  Fold fold;
  component values;         // where the fold reads outputs
  outputs_of_rows outputs;  // where it does, or of rows that are pooled two sums; else none
  std::int32_t pool;        // width

  static constexpr std::int32_t written(std::int32_t pool) { return 128 - pool / 2 * 2; }

  KVEVICT_DEVICE void operator()(thread& t) const {
    auto const& c = from.call();
    if (watch.stopped(t)) return;
    KVEVICT_SHARED(t, float, weights, pooled_rows * 128);
    auto const rows = static_cast<std::uint32_t>(c.out.count());
    std::int64_t const r = t.block().x % rows, chunk = t.block().x / rows;
    auto const begin = static_cast<std::int32_t>(chunk * written(pool) - pool / 2),
               first = begin + static_cast<std::int32_t>(t.warp() * 32);
    row const& it = c.out.rows[r];
    if (!it.active || begin + pool / 2 >= it.tokens || (pool == 1 && first >= it.tokens)) return;
    window_rows const in = c.window_of(it);
    place const here{it, in, r, begin, first};
    typename Source::keys keys;
    from.load(t, it, first, keys);
    float result[tokens] = {};
    for (std::int32_t g = 0; g < c.group; ++g) {
      float sums[tokens][Fold::sums] = {};
      for (std::int32_t w = 0; w < in.count; w += 16) add_rows(t, here, g, keys, w, weights, sums);
      KVEVICT_UNROLL
      for (int i = 0; i < tokens; ++i) {
        merge_lanes(t, sums[i]);
        result[i] = with_head(c.o.group, g, result[i], fold.finish(sums[i], in.count));
      }
    }
    KVEVICT_UNROLL
    for (int i = 0; i < tokens; ++i) {
      std::int32_t const token = weight_places::token_of(t, first, element_of(i));
      if (t.lane() % 4 == 0 && is_written(here, token))
        c.out.values[c.out.begin[r] + token] = multiply(result[i], over_heads(c.o.group, c.group));
    }
  }

 private:
  static constexpr int pooled_rows = 16;
  /// What a block, and a warp of it, works on.
  struct place {
    row const& it;
    window_rows const& in;
    std::int64_t r;
    std::int32_t begin, first;  // tokens
  };

  /// The first of the lane's weights that belong to its i-th token.
  KVEVICT_DEVICE static constexpr int element_of(int i) { return i / 2 * 8 + i % 2 * 2; }
  KVEVICT_DEVICE static constexpr int token_of_element(int k) { return k / 8 * 2 + k % 4 / 2; }
  KVEVICT_DEVICE bool is_written(place const& here, std::int32_t token) const {
    std::int32_t const from_begin = token - here.begin, half = pool / 2;
    return token < here.it.tokens && from_begin >= half && from_begin < 128 - half;
  }

  KVEVICT_DEVICE void add_rows(thread& t, place const& here, std::int32_t g, typename Source::keys const& keys,
                               std::int32_t w, float* weights, float (&sums)[tokens][Fold::sums]) const {
    tile_weights z;
    from.weigh(t, here.it, here.r, g, here.in, keys, w, here.first, z);
    if constexpr (requires { from.tile; })
      if (std::uint64_t* const checked = from.sums(here.r, g); checked != nullptr)
        from.tile.add_to_sums(t, z, w, here.in.count, here.first, here.begin + pool / 2,
                              std::min(here.begin + 128 - pool / 2, here.it.tokens), checked);
    float distances[weight_places::size] = {};
    if (pool > 1)
      pool_weights(t, here, g, w, weights, z);
    else if (outputs.values != nullptr)
      measure(t, here.it, here.r, g, here.in, w, here.first, distances);
    KVEVICT_UNROLL
    for (int k = 0; k < weight_places::size; ++k) {
      std::int32_t const of = weight_places::row_of(t, w, k);
      float const x = weight_places::at(z, k);
      if (x != 0) fold.add({x, from.lse(here.it, here.r, g, here.in, of), distances[k]}, sums[token_of_element(k)]);
    }
  }
  /// Of tokens between padding and the recent ones the average of each row's weights around them, to the sum that these
  /// had.
  KVEVICT_DEVICE void pool_weights(thread& t, place const& here, std::int32_t g, std::int32_t w, float* weights,
                                   tile_weights& z) const {
    std::int32_t const half = pool / 2, last = here.it.last - here.begin,
                       from_first = from.call().handed().sees.padding(here.it.sequence) - here.begin,
                       none_before = from_first > 0 ? from_first : 0;
    KVEVICT_UNROLL
    for (int k = 0; k < weight_places::size; ++k)
      weights[weight_places::row_of(t, 0, k) * 128 + weight_places::token_of(t, here.first - here.begin, k)] =
          weight_places::at(z, k);
    t.sync_block();
    KVEVICT_UNROLL
    for (int k = 0; k < weight_places::size; ++k) {
      std::int32_t const j = weight_places::token_of(t, here.first - here.begin, k),
                         of = weight_places::row_of(t, w, k);
      if (of >= here.in.count || !is_written(here, here.begin + j) || j < from_first || j >= last) continue;
      float const* const x = weights + (of - w) * 128;
      float sum = 0;
      for (std::int32_t i = std::max(j - half, none_before); i <= std::min(j + half, last - 1); ++i) sum += x[i];
      float const* const masses = outputs.of(here.r, g, of);
      float const share = masses[1] == 0 ? 1.0f : masses[0] / masses[1];
      weight_places::at(z, k) = sum / static_cast<float>(pool) * share;
    }
    t.sync_block();  // before the next rows' are written
  }
  /// ‖v − o‖² of the lane's four tokens and four rows.
  KVEVICT_DEVICE void measure(thread& t, row const& it, std::int64_t r, std::int32_t g, window_rows const& in,
                              std::int32_t w, std::int32_t first, float (&to)[weight_places::size]) const {
    row_reader<Entry> const v(from.call().view, values, it);
    KVEVICT_KEEP_LOOP
    for (std::int32_t d = 0; d < v.width(); d += row_chunk) {
      float x[tokens][row_chunk];
      KVEVICT_UNROLL
      for (int i = 0; i < tokens; ++i)
        v.read(std::min(weight_places::token_of(t, first, element_of(i)), it.tokens - 1), d, x[i]);
      KVEVICT_UNROLL
      for (int n = 0; n < 4; ++n) {  // two rows of every eight
        int const k = n / 2 * 4 + n % 2;
        float const* const o = outputs.of(r, g, std::min(weight_places::row_of(t, w, k), in.count - 1)) + d;
        KVEVICT_UNROLL
        for (int e = 0; e < row_chunk; ++e) KVEVICT_UNROLL
        for (int i = 0; i < tokens; ++i) {
          float const apart = x[i][e] - o[e];
          float& sum = to[k + element_of(i)];
          sum = fma(apart, apart, sum);
        }
      }
    }
  }
  KVEVICT_DEVICE void merge_lanes(thread& t, float (&sums)[Fold::sums]) const {
    for (std::uint32_t lanes = 1; lanes < 4; lanes *= 2) {
      float other[Fold::sums];
      KVEVICT_UNROLL
      for (int i = 0; i < Fold::sums; ++i) other[i] = shuffle_xor(t, sums[i], lanes);
      fold.merge(other, sums);
    }
  }
};

template <class Entry, class Source, class Fold>
void fold_weights(device& ctx, frame& scratch, Source const& from, Fold const& fold) {
  auto const& c = from.call();
  component values{};
  outputs_of_rows outputs{};
  std::int32_t const pool = c.o.pool_each_row.width;
  if (fold.reads_outputs()) {
    values = readable("fold_window", c.view, role::v);
    expect_decodable(values);
    outputs = window_outputs<Entry>(ctx, scratch, from, summands{values});
  } else if (pool > 1) {
    outputs = window_outputs<Entry>(ctx, scratch, from, summands{{}, pool});
  }
  using kernel = fold_window_kernel<Entry, Source, Fold>;
  ctx.launch({static_cast<std::uint32_t>(c.out.count()) * blocks_for(c.out.most_tokens, kernel::written(pool))}, {128},
             0, kernel{ctx.watch(), from, fold, values, outputs, pool});
}

/// The host's results (kernels/fold_window.hpp) to float rounding.
///
/// Cost     products as in window_scores, once more for folds that read outputs, whose Σ p·v and distances run on
///          plain cores: 5·Hq·W·N·D flop. Scratch of those: 4·Hq·W·D bytes, and as many for every 2 048 tokens.
/// Errors   as on the host; what needs a look at the rows by fault::queries, fault::weight_sum, fault::softmax_sum.
template <class Entry, kernels::window_fold Fold>
void kernel(kernels::fold_window_tag, device& ctx, layer_view<Entry> const& view, query_rows const& q,
            window_options const& o, Fold const& fold, score_rows const& out) {
  expect_window_options(q, o, out), kernels::expect_fold(o, fold.reads_outputs());
  if (out.count() == 0) return;
  expect_most_rows(q.most_rows);
  frame scratch(ctx.scratch());
  attention_call<Entry> const c = make_call(ctx, scratch, view, q, o, out);
  with_weights(ctx, scratch, c, reading_of(out, reading::window),
               [&]<class Product>(weight_tile<Entry, Product> const& tile) {
                 fold_weights<Entry>(ctx, scratch, multiplied_weights<Entry, Product>{tile}, fold);
               });
}
template <class Entry, kernels::window_fold Fold>
void kernel(kernels::fold_window_tag, device& ctx, layer_view<Entry> const& view, attention_rows const& a,
            window_options const& o, Fold const& fold, score_rows const& out) {
  kernels::expect_fold(o, fold.reads_outputs());
  frame scratch(ctx.scratch());
  with_softmax_rows(
      "fold_window", ctx, scratch, view, a, o, out, reading_of(out, reading::window),
      [&](weights_call<Entry> const& c) { fold_weights<Entry>(ctx, scratch, given_weights<Entry>{c}, fold); });
}

}  // namespace kvevict::inline KVEVICT_ABI::cuda
