// SPDX-License-Identifier: Apache-2.0
// A cache of layouts.hpp and what an engine provides beside it, copied to device memory.
#pragma once

#include <algorithm>
#include <deque>
#include <type_traits>
#include <vector>

#include <kvevict/core/attention_rows.hpp>
#include <kvevict/core/gate.hpp>
#include <kvevict/core/queries.hpp>

#include "simt/on_device.hpp"
#include "support/layouts.hpp"

namespace simt_test {

/// Vectors of any types in device memory, for as long as it lives.
class device_memory {
 public:
  template <class T> T* put(T const* data, std::size_t count) {
    auto const* const bytes = reinterpret_cast<std::byte const*>(data);
    copies_.emplace_back(std::vector<std::byte>(bytes, bytes + count * sizeof(T)));
    return reinterpret_cast<T*>(copies_.back().data());
  }
  template <class T> T* put(std::vector<T> const& from) { return put(from.data(), from.size()); }
  std::byte* start(std::size_t i) const { return copies_[i].data(); }
  std::vector<std::byte> read(std::size_t i) const { return copies_[i].read(); }

 private:
  std::deque<on_device<std::byte>> copies_;
};

/// `view` is the host's with every pointer to device memory.
template <class Entry> class device_cache {
 public:
  explicit device_cache(layouts::cache<Entry>& host) : view(host.view), buffers_(host.snapshot().size()) {
    for (std::size_t i = 0; i < buffers_; ++i) memory_.put(host.buffer(i));
    auto const moved = [&](std::byte* p) {
      for (std::size_t i = 0; i < buffers_; ++i)
        if (auto& b = host.buffer(i); p >= b.data() && p < b.data() + b.size())
          return memory_.start(i) + (p - b.data());
      return p;
    };
    for (std::int32_t c = 0; c < view.component_count; ++c)
      view.components[static_cast<std::size_t>(c)].rows.base =
          moved(host.view.components[static_cast<std::size_t>(c)].rows.base);
    for (std::int32_t c = 0; c < view.component_count; ++c)
      if (kvevict::component& it = view.components[static_cast<std::size_t>(c)]; it.quant.entries != nullptr) {
        std::int64_t const heads = it.scope == kvevict::quant_scope::head ? view.heads() : 1,
                           bytes = (view.pages.layers - 1) * it.quant.layer_stride + heads * it.quant.stride;
        it.quant.entries =
            memory_.put(static_cast<std::byte const*>(it.quant.entries), static_cast<std::size_t>(bytes));
      }
    if (view.pages.entries != nullptr) {
      auto entries = host.entries();
      if constexpr (std::is_pointer_v<Entry>)
        for (Entry& e : entries) e = moved(e);
      view.pages.entries = memory_.put(entries);
    }
    if (view.pages.row_begin != nullptr) {
      auto const& begin = host.row_begin();
      for (std::size_t i = 1; i < begin.size(); ++i)
        view.pages.columns = std::max(view.pages.columns, begin[i] - begin[i - 1]);
      view.pages.row_begin = memory_.put(begin);
    }
    view.lengths.data = memory_.put(host.lengths());
    if (view.read_only != nullptr)
      view.read_only = memory_.put(view.read_only, static_cast<std::size_t>(view.sequences()));
  }

  kvevict::layer_view<Entry> view;

  std::byte* start(std::size_t buffer) const { return memory_.start(buffer); }
  /// Every byte of the pool, as layouts::cache::snapshot().
  std::vector<std::vector<std::byte>> snapshot() const {
    std::vector<std::vector<std::byte>> out;
    for (std::size_t i = 0; i < buffers_; ++i) out.push_back(memory_.read(i));
    return out;
  }

 private:
  device_memory memory_;
  std::size_t buffers_;
};

/// Query rows, softmax rows or hidden states with every pointer to device memory, and `most_rows` said.
template <class Rows> std::int32_t most_rows_of(Rows const& rows, std::int32_t sequences) {
  std::int32_t most = 1;
  for (std::int32_t b = 0; b < sequences; ++b) most = std::max(most, rows.rows(b));
  return most;
}
inline kvevict::visibility on_device_sees(device_memory& m, kvevict::visibility v, std::int32_t sequences) {
  if (v.first_token != nullptr) v.first_token = m.put(v.first_token, static_cast<std::size_t>(sequences));
  return v;
}
inline kvevict::query_rows on_device_rows(device_memory& m, kvevict::query_rows q, std::int32_t sequences) {
  auto const T = static_cast<std::size_t>(q.row_begin[sequences]);
  q.most_rows = most_rows_of(q, sequences);
  std::size_t const elements = T == 0 ? 0
                                      : (T - 1) * static_cast<std::size_t>(q.token_stride) +
                                            static_cast<std::size_t>((q.heads - 1) * q.head_stride + q.head_dim);
  if (q.lse != nullptr)
    q.lse = m.put(q.lse, T == 0 ? 0
                                : (T - 1) * static_cast<std::size_t>(q.lse_token_stride) +
                                      static_cast<std::size_t>((q.heads - 1) * q.lse_head_stride + 1));
  q.data = m.put(static_cast<std::byte const*>(q.data), elements * static_cast<std::size_t>(kvevict::size_of(q.type)));
  if (q.positions != nullptr) q.positions = m.put(q.positions, T);
  q.row_begin = m.put(q.row_begin, static_cast<std::size_t>(sequences) + 1);
  q.sees = on_device_sees(m, q.sees, sequences);
  if (q.sink_logits != nullptr) q.sink_logits = m.put(q.sink_logits, static_cast<std::size_t>(q.heads));
  return q;
}
inline kvevict::attention_rows on_device_rows(device_memory& m, kvevict::attention_rows a, std::int32_t sequences) {
  auto const T = static_cast<std::size_t>(a.row_begin[sequences]);
  a.most_rows = most_rows_of(a, sequences);
  a.weights = m.put(a.weights, T == 0 ? 0
                                      : (T - 1) * static_cast<std::size_t>(a.token_stride) +
                                            static_cast<std::size_t>((a.heads - 1) * a.head_stride + a.slots));
  if (a.positions != nullptr) a.positions = m.put(a.positions, T);
  a.row_begin = m.put(a.row_begin, static_cast<std::size_t>(sequences) + 1);
  a.sees = on_device_sees(m, a.sees, sequences);
  return a;
}
inline kvevict::feature_rows on_device_rows(device_memory& m, kvevict::feature_rows x, std::int32_t sequences) {
  auto const T = static_cast<std::size_t>(x.row_begin[sequences]);
  x.most_rows = most_rows_of(x, sequences);
  std::size_t const elements =
      T == 0 ? 0 : (T - 1) * static_cast<std::size_t>(x.token_stride) + static_cast<std::size_t>(x.width);
  x.data = m.put(static_cast<std::byte const*>(x.data), elements * static_cast<std::size_t>(kvevict::size_of(x.type)));
  x.row_begin = m.put(x.row_begin, static_cast<std::size_t>(sequences) + 1);
  return x;
}
inline kvevict::gate_weights on_device_gate(device_memory& m, kvevict::gate_weights w) {
  auto const put = [&](void const*& p, std::int64_t count) {
    p = m.put(static_cast<std::byte const*>(p), static_cast<std::size_t>(count * kvevict::size_of(w.type)));
  };
  std::int64_t const A = w.width();
  put(w.q, A * w.features), put(w.k, A * w.features), put(w.v, A * w.features), put(w.o, w.flags * A),
      put(w.bias, w.flags);
  return w;
}

}  // namespace simt_test
