// SPDX-License-Identifier: Apache-2.0
// Attention outputs of a block of query rows, before and after an eviction.
#pragma once

#include <cmath>
#include <cstdint>

#include <kvevict/cache/keep_set.hpp>
#include <kvevict/core/projection.hpp>
#include <kvevict/measure/attention.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace measure {

/// Outputs before an eviction, y, and how far they are off after it, y − ŷ: norms over all query rows.
struct difference {
  double l1 = 0, squares = 0;            // Σ‖y − ŷ‖₁, Σ‖y − ŷ‖₂²
  double l1_of_y = 0, squares_of_y = 0;  // Σ‖y‖₁, Σ‖y‖₂²

  double relative_l1() const { return ratio(l1, l1_of_y); }
  double relative_l2() const { return std::sqrt(ratio(squares, squares_of_y)); }

  void add(difference const& x) {
    l1 += x.l1, squares += x.squares, l1_of_y += x.l1_of_y, squares_of_y += x.squares_of_y;
  }
  void add(double y, double off) {
    l1 += std::fabs(off), squares += off * off, l1_of_y += std::fabs(y), squares_of_y += y * y;
  }

 private:
  static double ratio(double part, double of) { return part == 0 ? 0 : of == 0 ? __builtin_inf() : part / of; }
};

/// Adds up a block's outputs, head by head, in a worker's share of scratch.
template <class Evidence> class outputs {
  using entry = typename attention<Evidence>::entry;

 public:
  outputs(host& ctx, frame& scratch, attention<Evidence> const& rows, keep_set const& keep, projection const& wo)
      : rows_(rows),
        keep_(keep),
        wo_(wo),
        values_(readable("measure", rows.view(), role::v)),
        D_(static_cast<std::int32_t>(values_.width())),
        G_(rows.group()),
        share_((2 * G_ * most_rows + 1) * D_ + (2 + 2 * most_rows) * std::int64_t{wo.outputs}),
        memory_(scratch.allocate<double>(share_ * ctx.concurrency())) {}

  /// Of KV head h; heads come in order.
  void add(row_block const& block, std::int32_t h, block_weights const& a, std::int32_t worker, difference& of_head,
           difference& of_layer) const {
    std::int32_t const count = G_ * block.count();
    double *const whole = memory_ + worker * share_, *const kept = whole + count * D_, *const off = kept + count * D_,
                  *const projected = off + D_, *const layer = projected + 2 * wo_.outputs;
    kvevict::fill_n(whole, 2 * count * std::int64_t{D_}, 0.0);
    if (h == 0) kvevict::fill_n(layer, 2 * most_rows * std::int64_t{wo_.outputs}, 0.0);
    add_values(block, h, a, count, whole, kept);
    difference found;
    for (std::int32_t i = 0; i < count; ++i) {
      double const grows = growth(block, h, a, i);
      for (std::int32_t d = 0; d < D_; ++d) off[d] = whole[i * D_ + d] - grows * kept[i * D_ + d];
      if (wo_.is_given())
        project(block, h, i, whole + i * D_, off, projected, layer, found);
      else
        for (std::int32_t d = 0; d < D_; ++d) found.add(whole[i * D_ + d], off[d]);
    }
    of_head.add(found);
    if (!wo_.is_given()) of_layer.add(found);
    if (!wo_.is_given() || h + 1 != keep_.heads) return;
    for (std::int64_t o = 0; o < block.count() * std::int64_t{wo_.outputs}; ++o)
      of_layer.add(layer[2 * o], layer[2 * o + 1]);
  }

 private:
  static constexpr std::int32_t most_rows = attention<Evidence>::block_rows;

  std::int64_t tokens(row_block const& block, std::int32_t h) const {
    return keep_.lengths[static_cast<std::size_t>(std::int64_t{block.sequence} * keep_.heads + h)];
  }
  /// Σ a·v of all tokens and of the kept ones, (G·rows, D) each.
  void add_values(row_block const& block, std::int32_t h, block_weights const& a, std::int32_t count, double* whole,
                  double* kept) const {
    row_reader<entry> const v(rows_.view(), values_, block.sequence, h);
    slice<std::int32_t const> const keep = keep_(block.sequence, h);
    std::int64_t const N = tokens(block, h);
    std::int64_t next = 0;
    for (std::int64_t j = 0; j < N; ++j) {
      bool const stays = next < keep.size && keep[next] == j;
      next += stays;
      for (std::int32_t d = 0; d < D_; d += row_chunk) {
        float x[row_chunk];
        v.read(j, d, x);
        for (std::int32_t i = 0; i < count; ++i) {
          double const w = a.of_tokens[i * N + j];
          for (std::int32_t c = 0; c < row_chunk && d + c < D_ && w != 0; ++c) {
            double const part = w * static_cast<double>(x[c]);
            whole[i * D_ + d + c] += part;
            if (stays) kept[i * D_ + d + c] += part;
          }
        }
      }
    }
  }
  /// By what the weights of kept tokens grow.
  double growth(row_block const& block, std::int32_t h, block_weights const& a, std::int32_t i) const {
    row_mass const m = a.mass(i, tokens(block, h), keep_(block.sequence, h));
    return m.tokens == m.kept ? 1 : m.kept + m.others == 0 ? 0 : (m.tokens + m.others) / (m.kept + m.others);
  }
  void project(row_block const& block, std::int32_t h, std::int32_t i, double const* y, double const* off,
               double* projected, double* layer, difference& found) const {
    std::int64_t const hq = std::int64_t{h} * G_ + i / block.count();
    std::int32_t const of = rows_.view().pages.layer_of(block.sequence), E = wo_.outputs;
    kvevict::fill_n(projected, 2 * std::int64_t{E}, 0.0);
    wo_.add(of, hq, y, D_, projected), wo_.add(of, hq, off, D_, projected + E);
    double* const to = layer + i % block.count() * 2 * std::int64_t{E};
    for (std::int32_t o = 0; o < E; ++o) {
      found.add(projected[o], projected[E + o]);
      to[2 * o] += projected[o], to[2 * o + 1] += projected[E + o];
    }
  }

  attention<Evidence> const& rows_;
  keep_set const& keep_;
  projection const wo_;
  component const& values_;
  std::int32_t const D_, G_;
  std::int64_t const share_;
  double* const memory_;
};

}  // namespace measure
}  // namespace KVEVICT_ABI
}  // namespace kvevict
