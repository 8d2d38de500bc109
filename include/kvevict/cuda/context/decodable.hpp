// SPDX-License-Identifier: Apache-2.0
// Which components a device can read as numbers.
#pragma once

#include <kvevict/cache/layer_view.hpp>
#include <kvevict/core/contract.hpp>

namespace kvevict::inline KVEVICT_ABI::cuda {

/// A function of the host's decodes nothing here.
inline void expect_decodable(component const& c) {
  KVEVICT_EXPECTS(c.quant.decode == nullptr, "validate: rows of component ", name_of(c.what),
                  " are decoded by a function, which a device cannot call; plan on the host, or leave quant.decode out "
                  "of the view where nothing reads them");
}

}  // namespace kvevict::inline KVEVICT_ABI::cuda
