// SPDX-License-Identifier: Apache-2.0
// The input's cache with more than keys: values, positions, what a policy remembers.
#pragma once

#include <deque>

#include <kvevict/engines/pages.hpp>

#include "support/input.hpp"

namespace bench {

class layer {
 public:
  layer(shape s, std::int32_t query_tokens) : in(s, query_tokens), view(in.view()), s_(s) {}
  layer(layer const&) = delete;

  /// A component of zeros in the input's pages, as kvevict::pages::tensor names layouts.
  layer& with(kvevict::role what, kvevict::dtype type, std::int32_t width, char const* layout) {
    kvevict::pages::sizes const sizes{
        .pages = s_.N / s_.page(), .page_size = s_.page(), .heads = s_.H, .head_dim = width, .type = type};
    memory_.emplace_back(std::size_t(s_.N) * std::size_t(s_.H * width * kvevict::size_of(type)));
    view = view.with(kvevict::pages::tensor(what, memory_.back().data(), sizes, layout));
    return *this;
  }
  /// f32 values, numbers that differ.
  layer& with_values(char const* layout) {
    with(kvevict::role::v, kvevict::dtype::f32, s_.D, layout);
    std::minstd_rand random(2);
    auto* const x = reinterpret_cast<float*>(memory_.back().data());
    for (std::size_t i = 0; i < memory_.back().size() / 4; ++i) x[i] = static_cast<float>(random()) / 1e9f - 1;
    return *this;
  }

  /// The bytes of the last component that was added.
  lines_of<std::byte>& bytes() { return memory_.back(); }
  template <class T> T& at(kvevict::role what, std::int32_t h, std::int32_t t) {
    return kvevict::element<T>(view, *view.find(what), 0, h, t);
  }
  kvevict::score_rows rows() {
    kvevict::score_rows out = in.out();
    out.total_floats = std::int64_t{s_.H} * s_.N;
    return out;
  }

  input in;
  kvevict::layer_view<> view;

 private:
  shape s_;
  std::deque<lines_of<std::byte>> memory_;
};

}  // namespace bench
