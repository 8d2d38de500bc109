// SPDX-License-Identifier: Apache-2.0
// One field of a sound input, broken. Never so that memory which the library must believe in (see README) is left:
// strides and counts become smaller, negative or too large to be summed, entries name other pages.
#pragma once

#include <limits>

#include "fuzz/policies.hpp"

namespace fuzz {

enum class field { none, view, evidence, budget, options, keep, moves };
inline constexpr field fields[] = {field::view,   field::view,    field::evidence, field::evidence,
                                   field::budget, field::options, field::keep,     field::moves};

inline std::int32_t wild32(input& in) {
  constexpr std::int32_t all[] = {-1, std::numeric_limits<std::int32_t>::min(),
                                  std::numeric_limits<std::int32_t>::max(), 1 << 30, 0};
  return in.pick(all);
}
/// No larger than it was, or negative.
template <class T> void shrink(input& in, T& x) {
  T const least = std::numeric_limits<T>::min();
  switch (in.below(5)) {
    case 0: x = 0; break;
    case 1: x = -1; break;
    case 2: x = least; break;
    case 3: x = static_cast<T>(-x); break;
    default: x = x > 1 ? static_cast<T>(in.bits() % static_cast<std::uint64_t>(x)) : T{0};
  }
}

template <class Entry> class view_breaker {
 public:
  view_breaker(input& in, cache<Entry>& c) : in_(in), cache_(c) {}

  void operator()(kvevict::layer_view<Entry>& v) {
    auto& p = v.pages;
    switch (in_.below(14)) {
      case 0: shrink(in_, p.sequences); break;
      case 1: shrink(in_, p.heads); break;
      case 2: p.columns = in_.one_in(2) ? wild32(in_) : in_.below(4); break;
      case 3: p.layers = in_.one_in(2) ? 0 : -p.layers; break;
      case 4: shrink(in_, p.page_size); break;
      case 5: shrink(in_, p.seq_stride); break;
      case 6: shrink(in_, p.head_stride); break;
      case 7: shrink(in_, p.layer_stride); break;
      case 8: entry(v); break;
      case 9: length(v); break;
      case 10:
        read_only_.assign(static_cast<std::size_t>(v.sequences()), 0);
        in_.pick(read_only_) = in_.one_in(2) ? wild32(in_) : in_.between(1, 50);
        v.read_only = read_only_.data();
        break;
      case 11:
        v.order =
            v.order == kvevict::row_order::ascending ? kvevict::row_order::scattered : kvevict::row_order::ascending;
        break;
      case 12: nothing(v); break;
      default: part(v, v.components[in_.below(static_cast<std::size_t>(v.component_count))]);
    }
  }

 private:
  void entry(kvevict::layer_view<Entry>& v) {
    if (v.pages.is_identity()) return;
    auto& any = in_.pick(cache_.entries);
    if constexpr (cache<Entry>::of_pointers) {
      Entry const other = in_.pick(cache_.entries);
      any = in_.one_in(4) ? nullptr : other;
    } else {
      any = in_.one_in(2) ? static_cast<Entry>(wild32(in_)) : in_.pick(cache_.entries);
      if (sizeof(Entry) == 8 && in_.one_in(4)) any = static_cast<Entry>(std::numeric_limits<std::int64_t>::min());
    }
  }
  void length(kvevict::layer_view<Entry>& v) {
    std::int32_t const b = in_.below(v.sequences()), h = in_.below(v.heads());
    std::int64_t const room = v.pages.capacity(b, h);
    cache_.set_length(b, h,
                      in_.one_in(2)   ? wild32(in_)
                      : in_.one_in(2) ? static_cast<std::int32_t>(room) + 1
                                      : in_.below(v.length(b, h) + 1));
  }
  void nothing(kvevict::layer_view<Entry>& v) {
    switch (in_.below(4)) {
      case 0: v.lengths.data = nullptr; break;
      case 1: v.pages.entries = nullptr; break;
      case 2: v.component_count = wild32(in_) == 0 ? 0 : in_.pick({-1, 0, 9, 1 << 20}); break;
      default:
        if (v.pages.row_begin != nullptr) in_.pick(cache_.row_begin) = in_.one_in(2) ? -1 : 0;
    }
  }
  void part(kvevict::layer_view<Entry>& v, component& c) {
    auto& r = c.rows;
    std::int64_t* const strides[] = {&r.page_stride,  &r.head_stride, &r.slot_stride, &r.run_stride,
                                     &r.layer_stride, &r.offset,      &r.page_count};
    std::int32_t* const of_codes[] = {&c.group, &c.quant.stride, &c.quant.data_at, &c.quant.scale_at};
    switch (in_.below(c.is_quantised() ? 8 : 6)) {
      case 6: shrink(in_, *in_.pick(of_codes)); break;
      case 7:
        c.scope = kvevict::quant_scope::token_head;
        c.quant.entries = nullptr;
        break;
      case 0:
      case 1: shrink(in_, *in_.pick(strides)); break;
      case 2: shrink(in_, r.run_bytes); break;
      case 3: shrink(in_, r.n_runs); break;
      case 4: c.alias_of = in_.pick({-2, 0, 1, 7, 77}); break;
      default:
        if (in_.one_in(2))
          c.scope = kvevict::quant_scope::page_channel;
        else if (!cache<Entry>::of_pointers)
          r.base = nullptr;
    }
    static_cast<void>(v);
  }

  input& in_;
  cache<Entry>& cache_;
  std::vector<std::int32_t> read_only_;
};

inline void break_number(input& in, float& x) {
  float const inf = std::numeric_limits<float>::infinity();
  x = in.pick({std::numeric_limits<float>::quiet_NaN(), inf, -inf, -1.0f, 3e38f, 0.0f, -3e38f});
}

inline void break_evidence(input& in, evidence& e) {
  auto& q = e.queries;
  auto& a = e.rows;
  auto& f = e.features;
  switch (in.below(18)) {
    case 0: shrink(in, q.heads), a.heads = q.heads; break;
    case 1: shrink(in, q.head_dim), shrink(in, f.width); break;
    case 2: shrink(in, q.token_stride), shrink(in, a.token_stride), shrink(in, f.token_stride); break;
    case 3: shrink(in, q.head_stride), shrink(in, a.head_stride); break;
    case 4: shrink(in, q.lse_token_stride); break;
    case 5: shrink(in, q.lse_head_stride); break;
    case 6: in.pick(e.begin) = -in.below(3); break;
    case 7: in.pick(e.begin) = in.below(e.begin.back() + 1); break;
    case 8: q.data = a.weights = nullptr, f.data = nullptr; break;
    case 9: q.lse = nullptr; break;
    case 10: break_number(in, q.scale); break;
    case 11: break_number(in, q.softcap); break;
    case 12:
      if (!e.positions.empty()) in.pick(e.positions) = wild32(in);
      break;
    case 13: break_number(in, in.pick(e.lse)), break_number(in, in.pick(e.weights)); break;
    case 14: {
      float const x = std::numeric_limits<float>::quiet_NaN();
      std::memcpy(e.states.data() + in.below(e.states.size() / 4) * 4, &x, 4);
      for (int i = 0; i < 4; ++i) e.q[in.bits() % e.q.size()] = static_cast<std::byte>(0x7f + 0x80 * (i % 2));
      break;
    }
    case 15:
    case 16:  // padding, which may be one that can be
      e.first_token.resize(e.begin.size() - 1);
      for (std::int32_t& slot : e.first_token) slot = in.one_in(4) ? wild32(in) : in.below(12);
      e.sees.first_token = e.first_token.data();
      break;
    default: shrink(in, a.slots), q.row_begin = a.row_begin = f.row_begin = in.one_in(2) ? nullptr : q.row_begin;
  }
}

inline void break_budget(input& in, kvevict::budget& b, std::vector<std::int32_t>& per_sequence) {
  switch (in.below(4)) {
    case 0: b.tokens_per_head = wild32(in); break;
    case 1: b.layer = wild32(in); break;
    case 2: b.layer_count = wild32(in); break;
    default: in.pick(per_sequence) = wild32(in), b.per_sequence = per_sequence.data();
  }
}

inline void break_keep(input& in, kvevict::keep_set& k) {
  auto const any = [&](auto& of) { return of.empty() ? 0 : in.below(of.size()); };
  switch (in.below(7)) {
    case 0:
      if (!k.tokens.empty()) k.tokens[any(k.tokens)] = wild32(in);
      break;
    case 1:
      if (!k.tokens.empty()) k.tokens[any(k.tokens)] = k.tokens[any(k.tokens)];
      break;
    case 2:
      if (!k.lengths.empty()) k.lengths[any(k.lengths)] += in.pick({-1, 1, 1 << 30});
      break;
    case 3: k.row_begin[any(k.row_begin)] += in.pick({-1, 1, 100}); break;
    case 4: in.one_in(2) ? k.sequences += in.pick({-1, 1}) : k.heads += in.pick({-1, 1}); break;
    case 5: k.tokens.resize(k.tokens.size() / 2); break;
    default: k.lengths.clear();
  }
}

/// Any number of the stored plan, or some bytes more or fewer.
inline void break_bytes(input& in, std::vector<std::byte>& stored) {
  if (in.one_in(5)) return stored.resize(in.one_in(2) ? in.below(stored.size()) : stored.size() + 5);
  std::size_t const at = in.bits() % (stored.size() / 4) * 4;
  std::int32_t x = in.one_in(3) ? wild32(in) : in.between(0, 45);
  std::memcpy(stored.data() + at, &x, 4);
}

}  // namespace fuzz
