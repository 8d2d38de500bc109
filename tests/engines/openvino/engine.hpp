// SPDX-License-Identifier: Apache-2.0
// A model in OpenVINO's paged attention, with one sequence in pages of its caller.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <ctime>
#include <string>
#include <vector>

#include <openvino/openvino.hpp>
#include <openvino/pass/manager.hpp>
#include <openvino/pass/sdpa_to_paged_attention.hpp>

#include <kvevict/kvevict.hpp>

#include <kvevict/engines/openvino.hpp>

namespace checks {

namespace openvino = kvevict::engines::openvino;

inline double cpu_seconds() {
  timespec t{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

/// Compiled once for a type of pages; `observed`: also hands out what it stores, and its scores.
struct model {
  ov::CompiledModel compiled;
  std::size_t layers = 0;
  bool observed;

  /// `pages`: f32, f16, bf16, or "" for the plugin's own choice.
  model(std::string const& directory, std::string const& pages, bool observe) : observed(observe) {
    ov::Core core;
    auto const m = core.read_model(directory + "/openvino_model.xml");
    ov::pass::Manager passes;
    passes.register_pass<ov::pass::SDPAToPagedAttention>(true, true);
    passes.run_passes(m);
    std::vector<ov::Output<ov::Node>> inputs[3];  // queries, keys, values
    for (auto const& node : m->get_ordered_ops())
      if (std::string(node->get_type_name()) == "PagedAttentionExtension")
        for (std::size_t i = 0; i < 3; ++i) inputs[i].push_back(node->input_value(i));
    layers = inputs[0].size();
    for (std::size_t i = 0; i < (observe ? 3U : 1U); ++i)
      for (std::size_t l = 0; l < layers; ++l) m->add_output(inputs[i][l]).get_tensor().add_names({name("qkv"[i], l)});
    // one thread and no quantised activations: CPU seconds mean work, and orders of summation do not show
    ov::AnyMap options{
        {"INFERENCE_NUM_THREADS", 1}, {"INFERENCE_PRECISION_HINT", "f32"}, {"DYNAMIC_QUANTIZATION_GROUP_SIZE", 0}};
    if (!pages.empty()) options["KV_CACHE_PRECISION"] = pages;
    compiled = core.compile_model(m, "CPU", options);
  }
  static std::string name(char what, std::size_t layer) {
    return std::string("kvevict.") + what + std::to_string(layer);
  }
};

/// The sequence: pages in one allocation a kind, a table of each layer, lengths.
class sequence {
 public:
  openvino::cache cache;
  std::vector<std::int32_t> tables;  // (L, capacity)
  std::int32_t used = 0;             // physical length
  std::int64_t next = 0;             // logical position
  double infer_seconds = 0;

  sequence(model& m, std::int32_t pages)
      : sequence(m, pages, pool(m, "key_cache.", pages), pool(m, "value_cache.", pages)) {}

  /// Feeds tokens at the next positions, pages permitting. Logits of each: (T, vocabulary).
  ov::Tensor step(std::vector<std::int64_t> const& tokens) {
    auto const T = static_cast<std::int32_t>(tokens.size());
    std::vector<std::int64_t> positions(tokens.size());
    for (std::size_t i = 0; i < positions.size(); ++i) positions[i] = next + static_cast<std::int64_t>(i);
    auto const pages = static_cast<std::int32_t>((used + T + openvino::block_size - 1) / openvino::block_size);
    KVEVICT_EXPECTS(pages <= pages_, "check: ", pages, " pages are needed and ", pages_, " are there; evict");
    set("input_ids", tokens), set("position_ids", positions);
    request_.set_tensor("max_context_len", scalar(used + T));
    auto const past = set("past_lens", std::vector<std::int32_t>{used});
    auto const rows = set("subsequence_begins", std::vector<std::int32_t>{0, T});
    auto const begins = set("block_indices_begins", std::vector<std::int32_t>{0, pages});
    std::vector<ov::Tensor> table;
    for (std::size_t l = 0; l < m_.layers; ++l)
      table.push_back(set("block_indices." + std::to_string(l), tables_of(l, pages)));
    double const start = cpu_seconds();
    request_.infer();
    infer_seconds += cpu_seconds() - start;
    cache.step(past, rows, begins, table);
    used += T, next += T;
    return request_.get_tensor("logits");
  }

  std::vector<ov::Tensor> outputs(char what) {
    std::vector<ov::Tensor> all;
    for (std::size_t l = 0; l < m_.layers; ++l) all.push_back(request_.get_tensor(model::name(what, l)));
    return all;
  }
  kvevict::query_rows queries() { return cache.queries(outputs('q')); }
  ov::Tensor scores(std::size_t layer) { return request_.get_tensor("scores." + std::to_string(layer)); }
  std::int32_t layers() const { return static_cast<std::int32_t>(m_.layers); }

  /// Pages and lengths; a step must follow before the next eviction.
  struct saved {
    ov::Tensor keys, values;
    std::int32_t used;
    std::int64_t next;
  };
  saved save() const {
    saved out{ov::Tensor(keys_.get_element_type(), keys_.get_shape()),
              ov::Tensor(values_.get_element_type(), values_.get_shape()), used, next};
    keys_.copy_to(out.keys), values_.copy_to(out.values);
    return out;
  }
  void restore(saved const& from) {
    from.keys.copy_to(keys_), from.values.copy_to(values_);
    used = from.used, next = from.next;
  }

  /// These pages first, in each layer; the others behind them.
  void keep_pages(kvevict::dropped<std::int32_t> const& done) {
    for (std::int32_t l = 0; l < layers(); ++l) {
      auto const kept = done.entries(l);
      auto const first = tables.begin() + std::ptrdiff_t{l} * pages_;
      std::stable_partition(first, first + pages_,
                            [&](std::int32_t page) { return std::find(kept.begin(), kept.end(), page) != kept.end(); });
    }
    used = cache.past_lens(done)[0];
  }

 private:
  sequence(model& m, std::int32_t pages, ov::Tensor k, ov::Tensor v)
      : cache(split(m, k), split(m, v)),
        m_(m),
        pages_(pages),
        keys_(std::move(k)),
        values_(std::move(v)),
        request_(m.compiled.create_infer_request()) {
    auto const keys = split(m, keys_), values = split(m, values_);
    for (std::size_t l = 0; l < m.layers; ++l) {
      request_.set_tensor("key_cache." + std::to_string(l), keys[l]);
      request_.set_tensor("value_cache." + std::to_string(l), values[l]);
      for (std::int32_t p = 0; p < pages; ++p)  // in no order, another one in each layer
        tables.push_back((p * 7919 + static_cast<std::int32_t>(l)) % pages);
    }
  }
  /// (L·pages, H, rows, row) of the compiled model's element type.
  static ov::Tensor pool(model& m, char const* name, std::int32_t pages) {
    auto const input = m.compiled.input(std::string(name) + "0");
    auto const s = input.get_partial_shape();
    auto const extent = [&](int i) { return static_cast<std::size_t>(s[i].get_length()); };
    ov::Tensor t(input.get_element_type(),
                 {m.layers * static_cast<std::size_t>(pages), extent(1), extent(2), extent(3)});
    std::fill_n(static_cast<std::uint8_t*>(t.data()), t.get_byte_size(), std::uint8_t{0});
    return t;
  }
  static std::vector<ov::Tensor> split(model& m, ov::Tensor const& pool) {
    ov::Shape const s = pool.get_shape();
    std::size_t const pages = s[0] / m.layers, bytes = pool.get_byte_size() / m.layers;
    std::vector<ov::Tensor> all;
    for (std::size_t l = 0; l < m.layers; ++l)
      all.emplace_back(pool.get_element_type(), ov::Shape{pages, s[1], s[2], s[3]},
                       static_cast<std::uint8_t*>(const_cast<void*>(pool.data())) + l * bytes);
    return all;
  }
  std::vector<std::int32_t> tables_of(std::size_t layer, std::int32_t pages) const {
    auto const first = tables.begin() + static_cast<std::ptrdiff_t>(layer) * pages_;
    return {first, first + pages};
  }
  template <class T> ov::Tensor set(std::string const& name, std::vector<T> const& values) {
    ov::Tensor t(ov::element::from<T>(), {values.size()});
    std::copy(values.begin(), values.end(), static_cast<T*>(t.data()));
    request_.set_tensor(name, t);
    return t;
  }
  static ov::Tensor scalar(std::int32_t x) {
    ov::Tensor t(ov::element::i32, ov::Shape{});
    *static_cast<std::int32_t*>(t.data()) = x;
    return t;
  }

  model& m_;
  std::int32_t pages_;
  ov::Tensor keys_, values_;
  ov::InferRequest request_;
};

/// −log of the softmax at each row's next token.
inline double nll(ov::Tensor const& logits, std::int64_t row, std::int64_t token) {
  auto const vocabulary = static_cast<std::int64_t>(logits.get_shape().back());
  float const* const z = static_cast<float const*>(logits.data()) + row * vocabulary;
  float const most = *std::max_element(z, z + vocabulary);
  double sum = 0;
  for (std::int64_t i = 0; i < vocabulary; ++i) sum += std::exp(static_cast<double>(z[i] - most));
  return std::log(sum) + most - z[token];
}

}  // namespace checks
