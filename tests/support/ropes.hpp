// SPDX-License-Identifier: Apache-2.0
// Ropes in the library's words and in the reference's, and keys that they have turned.
#pragma once

#include <kvevict/core/rope.hpp>

#include "support/reference_rope.hpp"

namespace support {

/// `width` elements turn, of rows that have as many or more.
struct known_rope {
  char const* name;
  kvevict::rope ours;
  reference::rope_config theirs;
  int width;

  bool interleaved() const { return ours.pairs == kvevict::rope_pairs::neighbours; }
  /// A row before rotation at a position, in long double.
  std::vector<reference::real> turned(std::vector<reference::real> const& x, reference::real position) const {
    return reference::rotated(x, reference::inverse_frequencies(theirs, width), position, interleaved(),
                              static_cast<reference::real>(ours.amplitude()));
  }
  /// The same backwards.
  std::vector<reference::real> turned_back(std::vector<reference::real> const& x, reference::real position) const {
    return reference::rotated(x, reference::inverse_frequencies(theirs, width), -position, interleaved(),
                              1 / static_cast<reference::real>(ours.amplitude()));
  }
};

/// Every scaling, with the numbers of models.
inline std::vector<known_rope> scaled_ropes() {
  using kvevict::rope_scaling;
  std::vector<known_rope> out;
  kvevict::rope r;
  reference::rope_config c;
  auto const add = [&](char const* name, int width) { out.push_back({name, r, c, width}); };
  r.base = 10000;
  add("plain", 128);
  add("plain, few", 8);
  r.base = 500000, c.base = 500000;
  add("plain, Llama 3", 128);
  r.scaling = rope_scaling::linear, c.type = "linear", r.factor = 4, c.factor = 4;
  add("linear", 64);
  r.scaling = rope_scaling::llama3, c.type = "llama3", r.factor = 8, c.factor = 8, r.original = 8192, c.original = 8192;
  add("Llama 3.1", 128);
  r.factor = 32, c.factor = 32, r.low_factor = 2, c.low_freq_factor = 2;
  add("llama3 with other ends", 64);
  r.scaling = rope_scaling::yarn, c.type = "yarn", r.base = 10000, c.base = 10000, r.factor = 40, c.factor = 40;
  r.original = 4096, c.original = 4096;
  add("DeepSeek", 64);
  r.base = 150000, c.base = 150000, r.factor = 32, c.factor = 32, r.whole_pairs = false, c.truncate = false;
  add("gpt-oss", 64);
  r.whole_pairs = true, c.truncate = true, r.base = 1000000, c.base = 1000000, r.factor = 4, c.factor = 4,
  r.original = 32768, c.original = 32768;
  add("Qwen", 128);
  r.beta_fast = 4000, c.beta_fast = 4000, r.beta_slow = 3999, c.beta_slow = 3999;  // both ends on one pair
  add("yarn of one pair", 16);
  r.beta_fast = 1e6, c.beta_fast = 1e6L, r.beta_slow = 1e5, c.beta_slow = 1e5L;  // before the first pair
  add("yarn, all slow", 16);
  return out;
}

/// For rows of 24 elements: whole and in part, both kinds of pairs, an attention factor.
inline std::vector<known_rope> small_ropes() {
  using kvevict::rope_pairs;
  std::vector<known_rope> out;
  for (int const width : {24, 16, 12, 2})
    for (rope_pairs const pairs : {rope_pairs::halves, rope_pairs::neighbours}) {
      kvevict::rope r;
      r.base = 10000, r.width = width == 24 ? 0 : width, r.pairs = pairs;
      out.push_back({"plain", r, {}, width});
    }
  known_rope yarn{"yarn", {}, {}, 16};
  yarn.ours.base = 10000, yarn.ours.width = 16, yarn.ours.scaling = kvevict::rope_scaling::yarn;
  yarn.ours.factor = 8, yarn.ours.original = 4096, yarn.ours.attention_factor = 1.5;
  yarn.theirs.type = "yarn", yarn.theirs.factor = 8, yarn.theirs.original = 4096;
  out.push_back(yarn);
  return out;
}

}  // namespace support
