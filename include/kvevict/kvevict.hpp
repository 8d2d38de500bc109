// SPDX-License-Identifier: Apache-2.0
// Everything that runs on the host, but for the thread pool (threads.hpp).
#pragma once

#include <kvevict/version.hpp>

#include <kvevict/kernels/host.hpp>

#include <kvevict/apply/compact.hpp>
#include <kvevict/apply/drop_pages.hpp>
#include <kvevict/apply/evicted_runs.hpp>
#include <kvevict/apply/mask.hpp>
#include <kvevict/apply/relocate.hpp>
#include <kvevict/apply/replace.hpp>
#include <kvevict/apply/rerotate.hpp>
#include <kvevict/apply/rewrite_table.hpp>
#include <kvevict/cache/stored.hpp>
#include <kvevict/heads/forced_floor.hpp>
#include <kvevict/heads/over_layers.hpp>
#include <kvevict/heads/over_ranks.hpp>
#include <kvevict/heads/table.hpp>
#include <kvevict/layers/dispersion.hpp>
#include <kvevict/layers/entropy.hpp>
#include <kvevict/layers/table.hpp>
#include <kvevict/layers/together.hpp>
#include <kvevict/policy.hpp>
#include <kvevict/presets/all.hpp>
#include <kvevict/score/pooled.hpp>
#include <kvevict/score/running_diversity.hpp>
