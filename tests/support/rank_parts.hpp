// SPDX-License-Identifier: Apache-2.0
// Some heads of a stack's random scores: what one rank of several holds.
#pragma once

#include "support/stack_scores.hpp"

namespace support {

/// The heads [first, first + heads) of a question, as a question.
inline stack_scores::question part(stack_scores::question const& q, std::int32_t first, std::int32_t heads) {
  stack_scores::question out = q;
  out.m.H = heads;
  out.m.lengths.clear(), out.m.positions.clear(), out.scores.clear();
  for (std::int32_t b = 0; b < q.m.L * q.m.S; ++b)
    for (std::int32_t h = first; h < first + heads; ++h) {
      auto const r = static_cast<std::size_t>(b * q.m.H + h);
      out.m.lengths.push_back(q.m.lengths[r]);
      for (std::size_t j = 0; j < 64; ++j)
        out.m.positions.push_back(q.m.positions[q.m.at(r, j)]), out.scores.push_back(q.scores[q.m.at(r, j)]);
    }
  if (heads == 0) out.m.positions.push_back(0);  // a rank without heads has the component, too
  return out;
}

}  // namespace support
