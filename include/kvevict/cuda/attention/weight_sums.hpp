// SPDX-License-Identifier: Apache-2.0
// Whether an engine's LSE belongs to the logits, on a device: kernels/weight_sums.hpp.
#pragma once

#include <cstring>

#include <kvevict/cache/row_reader.hpp>
#include <kvevict/core/weight_sum.hpp>
#include <kvevict/cuda/attention/window.hpp>
#include <kvevict/cuda/context/float_at.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

KVEVICT_DEVICE inline std::uint32_t bits_of(float x) {
  std::uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}

/// The sums of weights that column kernels have added up, against one. A warp per query row, which looks at the keys
/// only where the rest of the tolerance does not suffice.
///
/// Shapes   c.sums (B·H, G·most_rows) → faults.
template <class Entry> struct check_sums_kernel {
  static constexpr int max_threads = 128;
  attention_call<Entry> c;
  float scale;

  KVEVICT_DEVICE void operator()(thread& t) const {
    std::int64_t const at = std::int64_t{t.block().x} * 4 + t.warp(), wide = std::int64_t{c.group} * c.most_rows,
                       r = at / wide;
    if (r >= c.out.count() || c.watch.stopped(t) || !c.out.rows[r].active) return;
    auto const g = static_cast<std::int32_t>(at % wide / c.most_rows), w = static_cast<std::int32_t>(at % c.most_rows);
    row const& it = c.out.rows[r];
    window_rows const in = c.window_of(it);
    auto const total = static_cast<std::int64_t>(c.sums[at]);
    if (w >= in.count || (total & weight_sum::not_a_number) != 0 || in.sees_none(w)) return;
    std::int64_t const hq = std::int64_t{it.head} * c.group + g, row_of = in.first + w;
    float const given = c.q.lse_of(it.sequence)[row_of * c.q.lse_token_stride + hq * c.q.lse_head_stride];
    if (given < -3.4e38f) return;
    double const lse = static_cast<double>(given) * (c.q.base == log_base::two ? 0.69314718055994531 : 1.0);
    double sum = weight_sum::value_of(total);
    if (c.q.sink_logits != nullptr) sum += std::exp(static_cast<double>(c.q.sink_logits[hq]) - lse);
    row_sum const expected = c.o.place == row_place::in_cache ? c.q.sum : row_sum::at_most_one;
    double const least = weight_sum::least_tolerance(c.keys.type, c.q.type, lse);
    if (weight_sum::is_sound(sum, expected, least)) return;
    double const bound = static_cast<double>(scale) * query_norm(it, row_of, hq) * key_norm(t, it);
    if (weight_sum::is_sound(sum, expected,
                             least + weight_sum::tolerance_of_logits(c.keys.type, c.q.type, c.q.head_dim, bound)))
      return;
    if (t.lane() == 0)
      c.watch.refuse(t, fault::weight_sum, it.sequence, it.head, bits_of(static_cast<float>(sum)),
                     std::int64_t{bits_of(given)} | std::int64_t{static_cast<std::int32_t>(c.q.base)} << 32,
                     g * in.count + w, static_cast<std::int32_t>(hq),
                     static_cast<std::int32_t>(row_of - c.q.first_row(it.sequence)));
  }

 private:
  KVEVICT_DEVICE double query_norm(row const& it, std::int64_t row_of, std::int64_t hq) const {
    auto const* const p =
        c.q.data_of(it.sequence) + (row_of * c.q.token_stride + hq * c.q.head_stride) * size_of(c.q.type);
    double squares = 0;
    KVEVICT_KEEP_LOOP
    for (std::int32_t d = 0; d < c.q.head_dim; ++d) {
      float const x = float_at(c.q.type, p, d);
      squares += static_cast<double>(x) * static_cast<double>(x);
    }
    return std::sqrt(squares);
  }
  /// The largest of the row's keys up to largest_key, by a warp.
  KVEVICT_DEVICE double key_norm(thread& t, row const& it) const {
    component const* const second = c.view.second_keys();
    row_reader<Entry> const k(c.view, c.keys, it), more(c.view, second == nullptr ? c.keys : *second, it);
    float largest = 0;
    KVEVICT_KEEP_LOOP
    for (std::int64_t j = t.lane(); j < it.tokens; j += warp_size) {
      float squares = 0;
      KVEVICT_KEEP_LOOP
      for (std::int32_t d = 0; d < k.width(); ++d) squares += k(j, d) * k(j, d);
      KVEVICT_KEEP_LOOP
      for (std::int32_t d = 0; second != nullptr && d < more.width(); ++d) squares += more(j, d) * more(j, d);
      if (squares <= weight_sum::largest_key) largest = fmaxf(largest, squares);
    }
    for (std::uint32_t d = 1; d < warp_size; d *= 2) largest = fmaxf(largest, shuffle_xor(t, largest, d));
    return std::sqrt(static_cast<double>(largest));
  }
};

template <class Entry> void check_sums(device& ctx, attention_call<Entry> const& c) {
  std::int64_t const rows = c.out.count() * c.group * c.most_rows;
  ctx.launch({blocks_for(rows, 4)}, {128}, 0, check_sums_kernel<Entry>{c, c.q.logit_scale()});
}

}  // namespace kvevict::inline KVEVICT_ABI::cuda
