// SPDX-License-Identifier: Apache-2.0
// What a decision is worth, for unit tests, comparisons and an engine's metrics. The host's; kvevict.hpp is apart.
#pragma once

#include <kvevict/measure/counters.hpp>
#include <kvevict/measure/explain.hpp>
#include <kvevict/measure/loss_bound.hpp>
#include <kvevict/measure/output_error.hpp>
#include <kvevict/measure/overlap.hpp>
#include <kvevict/measure/retained_mass.hpp>
#include <kvevict/measure/where_kept.hpp>
