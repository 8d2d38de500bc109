// SPDX-License-Identifier: Apache-2.0
// Keep sets that were recorded once: a changed one for the same input is a breaking change.
//
// laws/recorded.txt has a line per preset and input: preset, input, a hash of the keep sets. The inputs have no near
// ties: g++ and clang, with and without optimisation and wide vectors, agree on them. To record anew, on purpose, run
// this test with KVEVICT_RECORD=1 in the environment; it writes the file, and says so.
#include <cstdlib>
#include <fstream>
#include <map>
#include <set>
#include <string>

#include <kvevict/presets/ahakv.hpp>
#include <kvevict/presets/h2o.hpp>

#include "support/catch.hpp"
#include "support/decoder.hpp"

namespace recorded_test {

using namespace support;

namespace {

std::string const path = std::string(KVEVICT_INCLUDE_DIR) + "/../../tests/laws/recorded.txt";

/// FNV-1a over the rows' tokens and their bounds.
class hash {
 public:
  void add(std::int64_t x) {
    for (int i = 0; i < 64; i += 8) value_ = (value_ ^ ((static_cast<std::uint64_t>(x) >> i) & 0xff)) * 0x100000001b3u;
  }
  void add(kvevict::keep_set const& keep) {
    for (auto const x : keep.row_begin) add(x);
    for (auto const x : keep.tokens) add(x);
  }
  [[nodiscard]] std::uint64_t value() const { return value_; }

 private:
  std::uint64_t value_ = 0xcbf29ce484222325u;
};

/// Keys and values as a bf16 cache stores them, so that an LSE over them is the cache's.
void round_to_bf16(batch& in) {
  auto const round = [](reference::cube& x) {
    for (double& v : x.data)
      v = static_cast<double>(kvevict::to_float(kvevict::from_float<kvevict::bf16>(static_cast<float>(v))));
  };
  for (reference::layer& l : in.layers) round(l.keys), round(l.values);
}

/// What a preset keeps of a batch with different lengths, in every form of the evidence and under three budgets; the
/// seed says which shape, layout and element type.
std::uint64_t planned(any_preset const& p, std::uint64_t seed) {
  static shape const shapes[] = {{.Hq = 4, .H = 2, .D = 8, .N = {60, 17, 0, 93}},
                                 {.Hq = 6, .H = 2, .D = 16, .N = {150, 31}},
                                 {.Hq = 3, .H = 3, .D = 8, .N = {101}},
                                 {.Hq = 4, .H = 1, .D = 24, .N = {70, 64, 9}}};
  batch in = random_batch(seed, shapes[seed % std::size(shapes)]);
  layouts::cache_shape cache = cache_shape_of(in);
  if (seed % 3 == 0) {
    cache.type = kvevict::dtype::bf16;
    round_to_bf16(in);
  }
  hand_in rows(in);
  hash out;
  for (std::int32_t const budget : {14, 25, 48})
    for (form const as : {form::queries, form::lse, form::weights}) {
      rows.as = as;
      with_cache(layouts::all[seed % std::size(layouts::all)], cache, in, [&](auto& there) {
        kvevict::host ctx;
        kvevict::budget const ask{.tokens_per_head = budget, .layer = 1, .layer_count = 4};
        auto const masks = there.view.with_capability({.masked = true});  // ragged sets on shared tables, too
        out.add(p.plan(ctx, masks, rows, in_equal_layers(there.view, ask)));
      });
    }
  return out.value();
}

/// What a policy with state keeps at every step of decoding; the slots of a row stay in order, or tokens go where
/// others have left.
template <class Policy> std::uint64_t decoded(Policy policy, std::uint64_t seed, applying how) {
  batch const in = random_batch(seed, {.Hq = 4, .H = 2, .D = 8, .N = {24, 24}, .future = 20});
  std::int32_t const slack = how == applying::in_place ? 0 : 3;
  hash out;
  with_decoder(policy, in, {.budget = 16, .slack = slack, .how = how}, [&](auto& run, auto&) {
    run.run(
        [&](std::size_t) {
          if (run.due(slack)) out.add(run.plan());
        },
        [](std::size_t) {});
  });
  return out.value();
}

/// Presets that came after the record.
std::set<std::string> const younger{"ada_criticalkv",
                                    "capkv",
                                    "chunkkv",
                                    "criticalkv",
                                    "distinct_and_attended",
                                    "distinct_keys",
                                    "expected_attention",
                                    "keydiff",
                                    "knorm",
                                    "lagkv",
                                    "leverage",
                                    "manifoldkv"};

std::map<std::string, std::uint64_t> today() {
  std::map<std::string, std::uint64_t> out;
  for (any_preset const& p : presets()) {
    if (younger.contains(p.name)) continue;
    for (std::uint64_t seed = 1; seed <= 12; ++seed) out[p.name + " prompt " + std::to_string(seed)] = planned(p, seed);
  }
  for (std::uint64_t seed = 1; seed <= 4; ++seed)
    for (auto const& [name, how] : {std::pair{"stable", applying::stable},
                                    {"fill_holes", applying::fill_holes},
                                    {"in_place", applying::in_place}}) {
      std::string const input = std::string(" decode ") + name + ' ' + std::to_string(seed);
      out["h2o" + input] = decoded(kvevict::presets::h2o({.recent = 5}), seed, how);
      std::int32_t const value_pool = how == applying::stable ? 5 : 1;  // scattered rows have no neighbours to pool
      out["ahakv" + input] = decoded(kvevict::presets::ahakv({.recent = 4, .value_pool = value_pool}), seed, how);
    }
  return out;
}

}  // namespace

TEST_CASE("laws: keep sets are those that were recorded") {
  auto const now = today();
  if (std::getenv("KVEVICT_RECORD") != nullptr) {
    std::ofstream file(path);
    for (auto const& [name, value] : now) file << name << ' ' << value << '\n';
    WARN("recorded " << now.size() << " keep sets in " << path);
    return;
  }
  std::ifstream file(path);
  std::map<std::string, std::uint64_t> before;
  for (std::string line; std::getline(file, line);) {
    auto const space = line.rfind(' ');
    before[line.substr(0, space)] = std::stoull(line.substr(space + 1));
  }
  INFO("on purpose? Run once with KVEVICT_RECORD=1, and tell it in the commit");
  for (auto const& [name, value] : now) {
    CAPTURE(name);
    REQUIRE(before.contains(name));
    CHECK(before[name] == value);
  }
  CHECK(before.size() == now.size());
}

}  // namespace recorded_test
