// SPDX-License-Identifier: Apache-2.0
// Naive references in double precision, independent of the library. Include this one.
#pragma once

#include "support/reference_ahakv.hpp"
#include "support/reference_attention.hpp"
#include "support/reference_budgets.hpp"
#include "support/reference_decode.hpp"
#include "support/reference_policies.hpp"
#include "support/reference_scores.hpp"
#include "support/reference_select.hpp"
#include "support/reference_theory.hpp"
