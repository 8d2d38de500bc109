// SPDX-License-Identifier: Apache-2.0
// What a function makes of every weight of the last query rows, on a device.
#pragma once

#include <kvevict/cuda/attention/attention.hpp>
#include <kvevict/cuda/attention/window_outputs.hpp>
#include <kvevict/kernels/window_fold.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

void has_kernel(kernels::fold_window_tag, device&);

/// A warp takes 32 tokens and goes over the window rows 16 at a time, head by head. A lane keeps what belongs to four
/// tokens under a quarter of the rows; its four lanes' parts then make a token's.
///
/// Shapes   grid (128 tokens, row) → scores (B·H, N).
template <class Entry, class Source, class Fold> struct fold_window_kernel {
  static constexpr int max_threads = 128, tokens = 4;  // of a lane
  watched watch;
  Source from;
  Fold fold;
  component values;         // where the fold reads outputs
  outputs_of_rows outputs;  // or null

  KVEVICT_DEVICE void operator()(thread& t) const {
    auto const& c = from.call();
    if (watch.stopped(t)) return;
    auto const rows = static_cast<std::uint32_t>(c.out.count());
    std::int64_t const r = t.block().x % rows, begin = std::int64_t{t.block().x / rows} * 128 + t.warp() * 32;
    row const& it = c.out.rows[r];
    if (!it.active || begin >= it.tokens) return;
    auto const first = static_cast<std::int32_t>(begin);
    window_rows const in = c.window_of(it);
    typename Source::keys keys;
    from.load(t, it, first, keys);
    float result[tokens] = {};
    for (std::int32_t g = 0; g < c.group; ++g) {
      float sums[tokens][Fold::sums] = {};
      for (std::int32_t w = 0; w < in.count; w += 16) add_rows(t, it, r, g, in, keys, w, first, sums);
      KVEVICT_UNROLL
      for (int i = 0; i < tokens; ++i) {
        merge_lanes(t, sums[i]);
        result[i] = with_head(c.o.group, g, result[i], fold.finish(sums[i], in.count));
      }
    }
    KVEVICT_UNROLL
    for (int i = 0; i < tokens; ++i) {
      std::int32_t const token = weight_places::token_of(t, first, element_of(i));
      if (t.lane() % 4 == 0 && token < it.tokens)
        c.out.values[c.out.begin[r] + token] = multiply(result[i], over_heads(c.o.group, c.group));
    }
  }

 private:
  /// The first of the lane's weights that belong to its i-th token.
  KVEVICT_DEVICE static constexpr int element_of(int i) { return i / 2 * 8 + i % 2 * 2; }
  KVEVICT_DEVICE static constexpr int token_of_element(int k) { return k / 8 * 2 + k % 4 / 2; }

  KVEVICT_DEVICE void add_rows(thread& t, row const& it, std::int64_t r, std::int32_t g, window_rows const& in,
                               typename Source::keys const& keys, std::int32_t w, std::int32_t first,
                               float (&sums)[tokens][Fold::sums]) const {
    tile_weights z;
    from.weigh(t, it, r, g, in, keys, w, first, z);
    if constexpr (requires { from.tile; })
      if (std::uint64_t* const checked = from.sums(r, g); checked != nullptr)
        from.tile.add_to_sums(t, z, w, in.count, first, first, it.tokens, checked);
    float distances[weight_places::size] = {};
    if (outputs.values != nullptr) measure(t, it, r, g, in, w, first, distances);
    KVEVICT_UNROLL
    for (int k = 0; k < weight_places::size; ++k) {
      std::int32_t const of = weight_places::row_of(t, w, k);
      float const x = weight_places::at(z, k);
      if (x != 0) fold.add({x, from.lse(it, r, g, in, of), distances[k]}, sums[token_of_element(k)]);
    }
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
  if (fold.reads_outputs()) {
    values = readable("fold_window", c.view, role::v);
    expect_decodable(values);
    outputs = window_outputs<Entry>(ctx, scratch, from, values);
  }
  ctx.launch({static_cast<std::uint32_t>(c.out.count()) * blocks_for(c.out.most_tokens, 128)}, {128}, 0,
             fold_window_kernel<Entry, Source, Fold>{ctx.watch(), from, fold, values, outputs});
}

/// The host's results (kernels/fold_window.hpp) to float rounding.
///
/// Cost     products as in window_scores, once more for folds that read outputs, whose Σ p·v and distances run on
///          plain cores: 5·Hq·W·N·D flop. Scratch of those: 4·Hq·W·D bytes, and as many for every 2 048 tokens.
/// Errors   as on the host; what needs a look at the rows by fault::queries, fault::weight_sum, fault::softmax_sum.
template <class Entry, kernels::window_fold Fold>
void kernel(kernels::fold_window_tag, device& ctx, layer_view<Entry> const& view, query_rows const& q,
            window_options const& o, Fold const& fold, score_rows const& out) {
  expect_window_options(q, o, out), kernels::expect_fold(o);
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
  kernels::expect_fold(o);
  frame scratch(ctx.scratch());
  with_softmax_rows(
      "fold_window", ctx, scratch, view, a, o, out, reading_of(out, reading::window),
      [&](weights_call<Entry> const& c) { fold_weights<Entry>(ctx, scratch, given_weights<Entry>{c}, fold); });
}

}  // namespace kvevict::inline KVEVICT_ABI::cuda
