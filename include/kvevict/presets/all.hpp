// SPDX-License-Identifier: Apache-2.0
// The one list of presets. A preset that is missing from the umbrellas, the laws, the comparison or the README's table
// fails tests/unit/presets_test.cpp.
#pragma once

#include <kvevict/presets/ada_criticalkv.hpp>
#include <kvevict/presets/ada_pyramidkv.hpp>
#include <kvevict/presets/ada_snapkv.hpp>
#include <kvevict/presets/ahakv.hpp>
#include <kvevict/presets/attention_gate.hpp>
#include <kvevict/presets/cake.hpp>
#include <kvevict/presets/capkv.hpp>
#include <kvevict/presets/chunkkv.hpp>
#include <kvevict/presets/criticalkv.hpp>
#include <kvevict/presets/defensivekv.hpp>
#include <kvevict/presets/distinct_and_attended.hpp>
#include <kvevict/presets/distinct_keys.hpp>
#include <kvevict/presets/dropkv.hpp>
#include <kvevict/presets/expected_attention.hpp>
#include <kvevict/presets/full.hpp>
#include <kvevict/presets/h2o.hpp>
#include <kvevict/presets/keydiff.hpp>
#include <kvevict/presets/knorm.hpp>
#include <kvevict/presets/lagkv.hpp>
#include <kvevict/presets/lava.hpp>
#include <kvevict/presets/layer_defensivekv.hpp>
#include <kvevict/presets/leverage.hpp>
#include <kvevict/presets/manifoldkv.hpp>
#include <kvevict/presets/oracle.hpp>
#include <kvevict/presets/pyramidkv.hpp>
#include <kvevict/presets/random.hpp>
#include <kvevict/presets/rkv.hpp>
#include <kvevict/presets/snapkv.hpp>
#include <kvevict/presets/streaming_llm.hpp>
#include <kvevict/presets/tova.hpp>
