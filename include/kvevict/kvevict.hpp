// SPDX-License-Identifier: Apache-2.0
// Everything that runs on the host, but for the thread pool (threads.hpp).
#pragma once

#include <kvevict/version.hpp>

#include <kvevict/kernels/host.hpp>

#include <kvevict/apply/compact.hpp>
#include <kvevict/apply/replace.hpp>
#include <kvevict/cache/move_plan_bytes.hpp>
#include <kvevict/heads/forced_floor.hpp>
#include <kvevict/policy.hpp>
#include <kvevict/presets/ada_pyramidkv.hpp>
#include <kvevict/presets/ada_snapkv.hpp>
#include <kvevict/presets/ahakv.hpp>
#include <kvevict/presets/attention_gate.hpp>
#include <kvevict/presets/full.hpp>
#include <kvevict/presets/h2o.hpp>
#include <kvevict/presets/oracle.hpp>
#include <kvevict/presets/pyramidkv.hpp>
#include <kvevict/presets/random.hpp>
#include <kvevict/presets/snapkv.hpp>
#include <kvevict/presets/streaming_llm.hpp>
