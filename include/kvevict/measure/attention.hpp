// SPDX-License-Identifier: Apache-2.0
// Attention of an engine's rows over the tokens of a cache, block by block: what measures read.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include <kvevict/apply/reading.hpp>
#include <kvevict/evidence/rows.hpp>
#include <kvevict/evidence/validate.hpp>
#include <kvevict/kernels/expect_window.hpp>
#include <kvevict/kernels/first_row.hpp>
#include <kvevict/kernels/softmax_reader.hpp>
#include <kvevict/kernels/window_rows.hpp>
#include <kvevict/measure/query_weights.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace measure {

/// Which rows of the evidence are measured: of every sequence the newest ones that it provides, by default all.
struct options {
  std::int32_t rows = std::numeric_limits<std::int32_t>::max();
};

/// The rows of attention that the evidence provides, weighed in double. No sequence is read further back than its
/// shortest row of the cache has tokens.
template <class Evidence> class attention {
  static_assert(has_attention<Evidence>,
                "measure: the evidence has no rows of attention; use prompt(cache, queries), "
                "prompt(cache, attention_rows) or future(cache, queries)");

 public:
  using view_type = std::remove_cvref_t<decltype(std::declval<Evidence const&>().cache)>;
  using entry = typename view_type::table_entry;
  static constexpr std::int32_t block_rows = 8;

  /// Checks the evidence. Scratch: a description of every row, and a float of every token.
  attention(host& ctx, frame& scratch, Evidence const& e, options const& o)
      : ctx_(ctx), given_(e.attention), rows_{e.cache, {}, nullptr, 1, place} {
    KVEVICT_EXPECTS(o.rows >= 1, "measure: ", o.rows, " rows of attention are asked for; give at least one");
    kernels::validate(ctx, e, page_use::read);
    expect_visibility(given_.sees);
    rows_.all = planning::make_rows(false, scratch, e.cache, budget{}, e.sees);
    rows_.group = view().heads() == 0 ? 1 : given_.heads / view().heads();
    auto* const counts = scratch.allocate<std::int32_t>(view().sequences());
    for (std::int32_t b = 0; b < view().sequences(); ++b) {
      counts[b] = count_rows(b, o.rows), blocks_ += blocks_of(counts[b]);
      for (std::int32_t h = 0; h < view().heads() && counts[b] != 0; ++h) expect_row(b, h, counts[b]);
    }
    rows_.counts = counts;
    KVEVICT_EXPECTS(blocks_ != 0,
                    "measure: no sequence provides a row of attention over a token; give the queries, or "
                    "the softmax rows, of some of its tokens");
  }

  view_type const& view() const { return rows_.view; }
  std::int32_t group() const { return rows_.group; }
  std::int64_t blocks() const { return blocks_; }
  row_block block(std::int64_t i) const {
    std::int32_t b = 0;
    for (; i >= blocks_of(rows_.counts[b]); ++b) i -= blocks_of(rows_.counts[b]);
    auto const first = static_cast<std::int32_t>(i) * block_rows;
    return {b, first, std::min(rows_.counts[b], first + block_rows)};
  }

  /// f(block, number, head, weights, worker) for every block of query rows and every KV head, one head after the other.
  /// Errors   contract_violation: rows whose weights do not add up to what they should, or are not finite.
  template <class F> void for_each(F const& f) const {
    frame scratch(ctx_.scratch());
    auto* const memory = scratch.allocate<block_weights>(ctx_.concurrency());
    for (std::int32_t i = 0; i < ctx_.concurrency(); ++i) memory[i] = make_weights(scratch);
    kernels::first_row unsound;
    ctx_.for_each(blocks_, [&](std::int64_t i, std::int32_t worker) {
      row_block const at = block(i);
      for (std::int32_t h = 0; h < view().heads(); ++h)
        if (weigh(at, h, memory[worker], false))
          f(at, i, h, memory[worker], worker);
        else
          unsound.add(i * view().heads() + h);
    });
    if (!unsound.found()) return;
    auto const h = static_cast<std::int32_t>(unsound.get() % view().heads());
    weigh(block(unsound.get() / view().heads()), h, memory[0], true);
  }

 private:
  static constexpr row_place place = has<Evidence, facts::future> ? row_place::behind_cache : row_place::in_cache;
  static std::int64_t blocks_of(std::int32_t rows) { return (rows + block_rows - 1) / block_rows; }

  std::int32_t count_rows(std::int32_t b, std::int32_t asked) const {
    std::int32_t n = view().heads() == 0 ? 0 : std::min(asked, given_.rows(b));
    for (std::int32_t h = 0; h < view().heads() && place == row_place::in_cache; ++h)
      n = std::min(n, view().length(b, h));
    return n;
  }
  void expect_row(std::int32_t b, std::int32_t h, std::int32_t count) const {
    row const& in = rows_.all.rows[std::int64_t{b} * view().heads() + h];
    expect_one_row("measure", given_, window_options{count}, rows_.all);
    kernels::expect_sights(view(), given_, in, count, place);
    if constexpr (!has<Evidence, facts::queries>) kernels::expect_cells(view(), given_, in);
  }

  block_weights make_weights(frame& scratch) const {
    std::int64_t const rows = std::int64_t{group()} * block_rows, tokens = rows_.all.most_tokens;
    return {scratch.allocate<double>(rows * tokens), scratch.allocate<double>(rows),
            scratch.allocate<double>(rows * view().key_width()), scratch.allocate<double>(rows),
            scratch.allocate<float>(tokens)};
  }

  bool weigh(row_block const& block, std::int32_t h, block_weights const& out, bool raise) const {
    if constexpr (has<Evidence, facts::queries>)
      return query_weights<entry>(rows_, given_, block, h).write(out, raise);
    else
      return copy_rows(block, std::int64_t{block.sequence} * view().heads() + h, out, raise);
  }
  /// Softmax rows as they were given.
  bool copy_rows(row_block const& block, std::int64_t r, block_weights const& out, bool raise) const {
    row const& in = rows_.all.rows[r];
    kernels::softmax_reader<entry> const reader(view(), given_, window_options{rows_.counts[block.sequence]}, rows_.all,
                                                r, out.buffer);
    bool sound = true;
    for (std::int32_t i = 0; i < group() * block.count(); ++i) {
      std::int32_t const w = block.first + i % block.count(), hq = in.head * group() + i / block.count();
      slice<float const> const x = reader.read(w, hq);
      double* const to = out.of_tokens + i * std::int64_t{in.tokens};
      double sum = 0;
      kvevict::fill_n(to, in.tokens, 0.0);
      for (std::int64_t j = 0; j < x.size; ++j) sum += to[j] = static_cast<double>(x[j]);
      out.of_others[i] = rows_.others(given_.sum, sum, 0);
      auto const fault = kernels::fault_of_row(reader, given_, w, x);
      sound = sound && __builtin_isfinite(sum) && fault == kernels::row_fault::none;
    }
    if (!sound && raise) kernels::violate_row(reader, given_, in, group());
    if (raise) expect_finite(sound, in);
    return sound;
  }

  host& ctx_;
  std::remove_cvref_t<decltype(std::declval<Evidence const&>().attention)> const& given_;
  measured_rows<entry> rows_;
  std::int64_t blocks_ = 0;
};

/// A keep set of the view, in its order.
template <class Entry> void expect_keep_set(host& ctx, layer_view<Entry> const& view, keep_set const& keep) {
  moves::expect_kept_rows("measure", ctx, view, fingerprint_of(view), keep);
}

}  // namespace measure
}  // namespace KVEVICT_ABI
}  // namespace kvevict
