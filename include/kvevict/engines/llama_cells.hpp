// SPDX-License-Identifier: Apache-2.0
// Which cell of a llama.cpp context holds which token: it tells nobody, so the adapter keeps a list of its own.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include <kvevict/cache/layer_view.hpp>
#include <kvevict/core/contract.hpp>
#include <kvevict/core/slice.hpp>

namespace kvevict {
inline namespace KVEVICT_ABI {
namespace engines::llama {

/// The cells of every sequence in order of position, and the position in every cell. A table for views follows by
/// changed(), and with it the epoch.
class cell_lists {
 public:
  explicit cell_lists(std::int32_t sequences) : cells_(static_cast<std::size_t>(sequences)) {}

  void resize(std::int64_t cells) {
    positions_.assign(static_cast<std::size_t>(cells), -1);
    table_.resize(positions_.size() * cells_.size());
  }
  std::int32_t size() const { return static_cast<std::int32_t>(positions_.size()); }
  std::int32_t free() const { return size() - used_; }
  std::int32_t sequences() const { return static_cast<std::int32_t>(cells_.size()); }
  std::int32_t length(std::int32_t s) const { return static_cast<std::int32_t>(of(s).size()); }
  std::int32_t oldest(std::int32_t s) const { return of(s).empty() ? -1 : position(of(s).front()); }
  std::int32_t newest(std::int32_t s) const { return of(s).empty() ? -1 : position(of(s).back()); }
  /// Of token t of sequence s.
  std::int32_t position(std::int32_t s, std::int32_t t) const { return position(of(s)[static_cast<std::size_t>(t)]); }
  std::int32_t const* positions() const { return positions_.data(); }  // (cells), −1: free

  /// The cell is there and free.
  bool takes(std::int64_t cell) const {
    return cell >= 0 && cell < size() && position(static_cast<std::int32_t>(cell)) < 0;
  }
  void take(std::int32_t s, std::int32_t position, std::int64_t cell) {
    positions_[static_cast<std::size_t>(cell)] = position, ++used_;
    of(s).push_back(static_cast<std::int32_t>(cell));
  }
  /// Tokens of s that stay, ascending; the cells of the others are free.
  void keep(std::int32_t s, slice<std::int32_t const> kept) {
    auto& cells = of(s);
    std::int64_t k = 0;
    for (std::int32_t t = 0; t < static_cast<std::int32_t>(cells.size()); ++t) {
      std::int32_t const cell = cells[static_cast<std::size_t>(t)];
      if (k < kept.size && kept[k] == t)
        cells[static_cast<std::size_t>(k++)] = cell;
      else
        release(cell);
    }
    cells.resize(static_cast<std::size_t>(k));
  }
  /// Positions from p0 to before p1 of s go; p1 below 0: all from p0 on.
  void remove(std::int32_t s, std::int32_t p0, std::int32_t p1) {
    auto& cells = of(s);
    std::size_t n = 0;
    for (std::int32_t const cell : cells)
      if (position(cell) < p0 || (p1 >= 0 && position(cell) >= p1))
        cells[n++] = cell;
      else
        release(cell);
    cells.resize(n);
  }

  void changed(std::int32_t layers) {
    lengths_.clear();
    for (std::int32_t l = 0; l < layers; ++l)
      for (auto const& cells : cells_) lengths_.push_back(static_cast<std::int32_t>(cells.size()));
    for (std::size_t s = 0; s < cells_.size(); ++s)
      std::copy(cells_[s].begin(), cells_[s].end(), table_.data() + s * positions_.size());
    ++epoch_;
  }
  /// A stack of that many layers without components.
  layer_view<> view(std::int32_t layers, std::int32_t heads) const {
    layer_view<> v;
    v.pages.entries = table_.data(), v.pages.seq_stride = size(), v.pages.columns = size(), v.pages.page_size = 1;
    v.pages.sequences = layers * sequences(), v.pages.layers = layers, v.pages.heads = heads;
    v.lengths = {lengths_.data(), 1, 0};
    return v.with_epoch(epoch_);
  }

 private:
  std::vector<std::int32_t> const& of(std::int32_t s) const {
    KVEVICT_EXPECTS(s >= 0 && s < sequences(), "llama: sequence ", s, " of ", sequences(),
                    "; give options::sequences the context's n_seq_max");
    return cells_[static_cast<std::size_t>(s)];
  }
  std::vector<std::int32_t>& of(std::int32_t s) {
    return const_cast<std::vector<std::int32_t>&>(static_cast<cell_lists const&>(*this).of(s));
  }
  std::int32_t position(std::int32_t cell) const { return positions_[static_cast<std::size_t>(cell)]; }
  void release(std::int32_t cell) { positions_[static_cast<std::size_t>(cell)] = -1, --used_; }

  std::vector<std::vector<std::int32_t>> cells_;           // of each sequence
  std::vector<std::int32_t> positions_, table_, lengths_;  // (cells); (S, cells); (L·S)
  std::int32_t used_ = 0;
  std::uint64_t epoch_ = 0;
};

}  // namespace engines::llama
}  // namespace KVEVICT_ABI
}  // namespace kvevict
