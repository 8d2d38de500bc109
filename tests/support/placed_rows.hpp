// SPDX-License-Identifier: Apache-2.0
// Rows of attention where engines have them: apart, padded left and right, token by token and head by head, of a stack
// in one tensor or in one of each layer. What lies between them is no number.
#pragma once

#include <limits>
#include <vector>

#include "support/batch.hpp"

namespace support {

struct placing {
  enum class kind : std::uint8_t { packed, apart, left, right } how = kind::packed;
  bool heads_first = false, lse_heads_first = false;  // (B,Hq,T,…) in place of (B,T,Hq,…)
  std::int32_t layers = 0;                            // of a stack whose rows lie layer by layer; 0: none
  bool own_tensors = false;                           // each layer's
};

inline std::vector<placing> placings() {
  std::vector<placing> out;
  for (auto const how : {placing::kind::apart, placing::kind::left, placing::kind::right})
    for (bool const heads : {false, true})
      if (how != placing::kind::apart || !heads) out.push_back({how, heads, false}), out.push_back({how, heads, true});
  out.erase(out.begin() + 1);  // rows apart have one order
  return out;
}

/// The rows of `a`, which are packed, in another place. put(vector) → what a context reads.
class placed_rows {
 public:
  placed_rows(attention const& a, placing p) : p_(p), Hq_(a.Hq), D_(a.D), slots_(a.slots) {
    std::size_t const B = a.begin.size() - 1;
    S_ = p.layers == 0 ? B : B / static_cast<std::size_t>(p.layers);
    for (std::size_t b = 0; b < S_; ++b) {
      counts_.push_back(a.begin[b + 1] - a.begin[b]);
      T_ = std::max(T_, counts_.back() + 3);
    }
    std::int32_t next = 2;
    for (std::size_t b = 0; b < S_; ++b) {
      begin_.push_back(apart() ? next : p.how == placing::kind::left ? T_ - counts_[b] : 0);
      next += counts_[b] + 1 + static_cast<std::int32_t>(b % 2);
    }
    if (apart()) T_ = next;
    std::size_t const L = B / std::max<std::size_t>(S_, 1), part = apart() ? 1 : S_;
    auto const resize = [&](auto& to, std::size_t width) {
      to.assign(L, {});
      for (auto& x : to) x.assign(part * static_cast<std::size_t>(T_) * width, std::numeric_limits<float>::quiet_NaN());
    };
    resize(q_, Hq_ * D_), resize(lse_, Hq_), resize(weights_, Hq_ * slots_);
    positions_.assign(part * static_cast<std::size_t>(T_), -1);
    for (std::size_t b = 0; b < B; ++b)
      for (std::int32_t i = 0; i < counts_[b % S_]; ++i) put_row(a, b, i);
    for (auto const& [from, to] :
         {std::pair(&q_, &whole_[0]), std::pair(&lse_, &whole_[1]), std::pair(&weights_, &whole_[2])})
      for (auto const& l : *from) to->insert(to->end(), l.begin(), l.end());
  }

  template <class Put> kvevict::query_rows queries(Put put) const {
    kvevict::query_rows out;
    std::int64_t const T = T_, D = static_cast<std::int64_t>(D_), Hq = static_cast<std::int64_t>(Hq_);
    out.heads = int32(Hq_), out.head_dim = int32(D_);
    out.token_stride = p_.heads_first ? D : Hq * D, out.head_stride = p_.heads_first ? T * D : D;
    place(out, put);
    if (!apart()) out.seq_stride = T * Hq * D, out.lse_seq_stride = T * Hq;
    out.data = put(whole_[0]);
    if (p_.layers == 0) return out;
    out.layer_stride = static_cast<std::int64_t>(q_[0].size());
    if (!p_.own_tensors) return out;
    out.layers = reinterpret_cast<void const* const*>(tensors(q_, put));
    out.data = nullptr, out.layer_stride = 0, out.layer_alignment = 16;
    return out;
  }
  template <class Put> kvevict::query_rows with_lse(Put put) const {
    kvevict::query_rows out = queries(put);
    std::int64_t const T = T_, Hq = static_cast<std::int64_t>(Hq_);
    out.lse = put(whole_[1]);
    out.lse_token_stride = p_.lse_heads_first ? 1 : Hq, out.lse_head_stride = p_.lse_heads_first ? T : 1;
    if (p_.layers == 0) return out;
    out.lse_layer_stride = static_cast<std::int64_t>(lse_[0].size());
    if (p_.own_tensors) out.lse_layers = tensors(lse_, put), out.lse = nullptr;
    return out;
  }
  template <class Put> kvevict::attention_rows rows(Put put) const {
    kvevict::attention_rows out;
    std::int64_t const T = T_, W = static_cast<std::int64_t>(slots_), Hq = static_cast<std::int64_t>(Hq_);
    out.heads = int32(Hq_), out.slots = int32(slots_);
    out.token_stride = p_.heads_first ? W : Hq * W, out.head_stride = p_.heads_first ? T * W : W;
    place(out, put);
    if (!apart()) out.seq_stride = T * Hq * W;
    out.weights = put(whole_[2]);
    if (p_.layers == 0) return out;
    out.layer_stride = static_cast<std::int64_t>(weights_[0].size());
    if (!p_.own_tensors) return out;
    out.layers = tensors(weights_, put), out.weights = nullptr, out.layer_stride = 0;
    return out;
  }

 private:
  using parts = std::vector<std::vector<float>>;  // of layers

  [[nodiscard]] bool apart() const { return p_.how == placing::kind::apart || p_.how == placing::kind::packed; }
  /// (sequence, row, head) → row of floats.
  [[nodiscard]] std::size_t place_of(std::size_t s, std::int32_t i, std::size_t hq, bool heads_first) const {
    auto const t = static_cast<std::size_t>(begin_[s] + i), T = static_cast<std::size_t>(T_), from = apart() ? 0 : s;
    return heads_first ? (from * Hq_ + hq) * T + t : (from * T + t) * Hq_ + hq;
  }
  void put_row(attention const& a, std::size_t b, std::int32_t i) {
    std::size_t const s = b % S_, l = b / S_, row = static_cast<std::size_t>(a.begin[b] + i);
    positions_[(apart() ? 0 : s * static_cast<std::size_t>(T_)) + static_cast<std::size_t>(begin_[s] + i)] =
        a.positions[row];
    for (std::size_t hq = 0; hq < Hq_; ++hq) {
      auto const copy = [&](std::vector<float> const& from, parts& to, std::size_t width, bool heads_first) {
        std::copy_n(from.begin() + static_cast<std::ptrdiff_t>((row * Hq_ + hq) * width), width,
                    to[l].begin() + static_cast<std::ptrdiff_t>(place_of(s, i, hq, heads_first) * width));
      };
      copy(a.q, q_, D_, p_.heads_first), copy(a.lse, lse_, 1, p_.lse_heads_first);
      copy(a.weights, weights_, slots_, p_.heads_first);
    }
  }
  template <class Rows, class Put> void place(Rows& out, Put put) const {
    out.row_begin = p_.how == placing::kind::right ? nullptr : put(begin_);
    out.row_count = put(counts_), out.positions = put(positions_);
    out.position_stride = apart() ? 0 : T_;
    out.sequences = p_.layers == 0 ? 0 : int32(S_);
    out.most_rows = *std::max_element(counts_.begin(), counts_.end());
  }
  template <class Put> float const* const* tensors(parts const& x, Put put) const {
    auto& to = kept_[&x == &q_ ? 0 : &x == &lse_ ? 1 : 2];
    to.clear();
    for (auto const& l : x) to.push_back(put(l));
    return put(to);
  }

  placing p_;
  std::size_t Hq_, D_, slots_, S_ = 0;
  std::int32_t T_ = 0;
  std::vector<std::int32_t> begin_, counts_, positions_;
  parts q_, lse_, weights_;
  std::vector<float> whole_[3];
  mutable std::vector<float const*> kept_[3];
};

}  // namespace support
