// SPDX-License-Identifier: Apache-2.0
// OpenVINO's paged attention, evicted from per layer and head: what the view reads against what the engine stored, its
// scores against ours, order against holes, and 2 048 tokens in 512 slots.
//
//   check MODEL_DIR TEXT NEEDLES      a converted model; what prompts.py has written
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <sstream>

#include "engine.hpp"

namespace {

using namespace checks;
using kvevict::component;
using kvevict::layer_view;
namespace presets = kvevict::presets;

bool failed = false;
void report(bool good, char const* format, ...) {
  std::printf(good ? "ok    " : "FAIL  ");
  va_list values;
  va_start(values, format);
  std::vprintf(format, values);
  va_end(values);
  std::printf("\n"), std::fflush(stdout);
  failed = failed || !good;
}

std::vector<std::int64_t> part(std::vector<std::int64_t> const& text, std::int64_t from, std::int64_t count) {
  return {text.begin() + from, text.begin() + from + count};
}

constexpr std::int32_t slots = 512, budget = 384, chunk = 64;

auto evict(kvevict::host& ctx, sequence& s, kvevict::keep_set const& keep,
           kvevict::compaction how = kvevict::compaction::stable) {
  auto done = compact(ctx, s.cache.view(), keep, how);
  s.used = s.cache.past_lens(done)[0];
  return done;
}

/// All that the engine has stored, by layer and position, and which of it is in each slot.
class stored {
 public:
  explicit stored(sequence& s) : s_(s), positions_(static_cast<std::size_t>(s.cache.view().rows())) {
    for (auto& of : rows_) of.resize(static_cast<std::size_t>(s.layers()));
  }
  /// After a step of `count` tokens.
  void take(std::int64_t count) {
    for (std::size_t i = 0; i < 2; ++i) {
      auto const out = s_.outputs("kv"[i]);
      for (std::size_t l = 0; l < out.size(); ++l) {
        auto const* const p = static_cast<float const*>(out[l].data());
        rows_[i][l].insert(rows_[i][l].end(), p, p + out[l].get_size());
      }
    }
    for (auto& of : positions_)
      for (std::int64_t i = 0; i < count; ++i) of.push_back(s_.next - count + i);
  }
  void evict(kvevict::keep_set const& keep) {
    for (std::size_t r = 0; r < positions_.size(); ++r) {
      std::vector<std::int64_t> kept;
      for (std::int32_t const t : keep.row(static_cast<std::int64_t>(r)))
        kept.push_back(positions_[r][static_cast<std::size_t>(t)]);
      positions_[r] = kept;
    }
  }
  std::vector<std::vector<float>> const& rows(std::size_t of_values) const { return rows_[of_values]; }
  /// Elements of the view that differ, and how many there are.
  std::pair<std::int64_t, std::int64_t> differing() const {
    auto const view = s_.cache.view();
    std::int64_t differ = 0, all = 0;
    for (std::int64_t r = 0; r < view.rows(); ++r)
      for (std::size_t i = 0; i < 2; ++i) {
        component const& c = *view.find(i == 0 ? kvevict::role::k : kvevict::role::v);
        auto const b = static_cast<std::int32_t>(r / view.heads()), h = static_cast<std::int32_t>(r % view.heads());
        auto const& positions = positions_[static_cast<std::size_t>(r)];
        differ += std::abs(view.length(b, h) - static_cast<std::int64_t>(positions.size()));
        for (std::size_t t = 0; t < positions.size(); ++t, all += c.width()) {
          float const* const row =
              rows_[i][static_cast<std::size_t>(b)].data() + (positions[t] * view.heads() + h) * c.width();
          differ += kvevict::with_type(c.type, [&](auto type) {
            using T = decltype(type);
            auto const* const found = reinterpret_cast<T const*>(view.row(c, b, h, static_cast<std::int64_t>(t)));
            std::int64_t n = 0;
            for (std::int64_t d = 0; d < c.width(); ++d)
              n += kvevict::to_float(found[d]) != kvevict::to_float(kvevict::from_float<T>(row[d]));
            return n;
          });
        }
      }
    return {differ, all};
  }

 private:
  sequence& s_;
  std::vector<std::vector<float>> rows_[2];           // K and V by layer, (positions, H·D)
  std::vector<std::vector<std::int64_t>> positions_;  // (L·H) of each slot
};

/// The engine's scores.N of the newest token, summed over all query heads, against ours: the largest difference, and
/// score.
std::pair<float, float> scores_apart(kvevict::host& ctx, sequence& s) {
  kvevict::policy const newest{kvevict::score::window_attention{1, {1}}, kvevict::protect{0, 1}};
  auto const view = s.cache.view();
  auto const q = s.queries();
  std::vector<float> ours;
  kvevict::scores(ctx, newest, prompt(view, q), {.tokens_per_head = s.used - 1, .layer_count = s.layers()}, ours);
  std::int32_t const H = view.heads(), G = q.heads / H;
  float apart = 0, most = 0;
  for (std::int32_t l = 0; l < s.layers(); ++l) {
    ov::Tensor const theirs = s.scores(static_cast<std::size_t>(l));
    KVEVICT_EXPECTS(static_cast<std::int32_t>(theirs.get_size()) == s.used, "check: scores.", l, " has ",
                    theirs.get_size(), " elements; expected ", s.used);
    for (std::int32_t t = 0; t + 1 < s.used; ++t) {  // the newest has no score
      float sum = 0;
      for (std::int32_t h = 0; h < H; ++h)
        sum += ours[static_cast<std::size_t>((std::int64_t{l} * H + h) * s.used + t)] * static_cast<float>(G);
      float const score = static_cast<float const*>(theirs.data())[t];
      apart = std::max(apart, std::abs(sum - score)), most = std::max(most, score);
    }
  }
  return {apart, most};
}

/// Stored values and scores, before and after eviction; then, in f32, order against holes.
void check_values(std::string const& directory, std::vector<std::int64_t> const& text, std::string const& pages) {
  model m(directory, pages, true);
  kvevict::host ctx;
  sequence s(m, slots / openvino::block_size);
  s.step(part(text, 0, 1));  // a view has rows then
  stored all(s);
  all.take(1);
  auto const feed = [&](std::int64_t count) { s.step(part(text, s.next, count)), all.take(count); };
  auto const compare = [&](char const* when) {
    feed(1);
    auto const [apart, most] = scores_apart(ctx, s);
    report(apart <= 1e-4F, "%s pages, %s: scores of %d layers at most %.1e apart, the largest is %.2f", pages.c_str(),
           when, s.layers(), static_cast<double>(apart), static_cast<double>(most));
    auto const [differ, of] = all.differing();
    report(differ == 0, "%s pages, %s: %lld of %lld stored values differ from the view", pages.c_str(), when,
           static_cast<long long>(differ), static_cast<long long>(of));
  };
  auto const cut = [&](auto const& policy, std::int32_t to) {
    auto const keep =
        plan(ctx, policy, prompt(s.cache.view(), s.queries()), {.tokens_per_head = to, .layer_count = s.layers()});
    evict(ctx, s, keep), all.evict(keep);
    return keep;
  };
  for (std::int32_t i = 0; i < 7; ++i) feed(chunk);
  compare("450 tokens");
  feed(33);
  cut(presets::snapkv(), 400);
  compare("of them 400 kept");
  feed(chunk);
  cut(presets::ahakv(), budget);
  feed(chunk);
  compare("after two evictions");
  if (pages != "f32") return;

  double sums[2] = {};
  auto const before = s.save();
  for (int const fills : {0, 1}) {
    s.restore(before);
    feed(1);
    auto const keep = plan(ctx, presets::snapkv({.window = 1}), prompt(s.cache.view(), s.queries()),
                           {.tokens_per_head = 256, .layer_count = s.layers()});
    evict(ctx, s, keep, fills == 0 ? kvevict::compaction::stable : kvevict::compaction::fill_holes);
    for (std::int64_t at = s.next; at < before.next + 65; at += 16) {
      ov::Tensor const logits = s.step(part(text, at, 16));
      for (std::int64_t t = 0; t < 16; ++t)
        sums[fills] += nll(logits, t, text[static_cast<std::size_t>(at + t + 1)]) / 64;
    }
  }
  report(std::abs(sums[0] - sums[1]) <= 2e-5,
         "nll of 64 more tokens: %.6f after stable compaction, %.6f after hole filling", sums[0], sums[1]);
}

/// Of a component of codes: the largest distance of what it holds from what was stored, in steps of its scale.
double steps_apart(layer_view<> const& view, component const& c, std::vector<std::vector<float>> const& stored) {
  double most = 0;
  std::int64_t const D = c.width();
  bool const by_channel = c.scope == kvevict::quant_scope::page_channel;
  for (std::int32_t l = 0; l < view.sequences(); ++l)
    for (std::int32_t h = 0; h < view.heads(); ++h)
      for (std::int32_t t = 0; t < view.length(l, h); ++t) {
        std::byte const* const row = view.row(c, l, h, t);
        std::byte const* const scales = by_channel ? view.row(c, l, h, t - t % openvino::block_size) : row;
        float const* const is = stored[static_cast<std::size_t>(l)].data() + (std::int64_t{t} * view.heads() + h) * D;
        for (std::int64_t d = 0; d < D; ++d) {
          auto const number = [&](std::int64_t at) {
            float x;
            std::memcpy(&x, scales + at + (by_channel ? 4 * d : 0), 4);
            return x;
          };
          float const scale = number(c.quant.scale_at), zero = number(c.quant.zero_at);
          float const x = (std::to_integer<std::uint8_t>(row[c.quant.data_at + d]) - zero) * scale;
          if (scale != 0) most = std::max(most, static_cast<double>(std::abs((x - is[d]) / scale)));
        }
      }
  return most;
}

/// The plugin's own choice, u8 with keys by channel: what the view says of scales and zero points.
void check_default(std::string const& directory, std::vector<std::int64_t> const& text) {
  model m(directory, "", true);
  kvevict::host ctx;
  sequence s(m, slots / openvino::block_size);
  s.step(part(text, 0, 1));
  stored all(s);
  all.take(1);
  for (std::int64_t const count : {255, 64, 64, 1}) s.step(part(text, s.next, count)), all.take(count);
  auto const view = s.cache.view();
  auto const [apart, most] = scores_apart(ctx, s);
  report(apart <= 1e-4F,
         "default pages (%s, keys by channel), %d tokens: scores of %d layers at most %.1e apart, the largest is %.2f",
         kvevict::name_of(view.begin()->type), s.used, s.layers(), static_cast<double>(apart),
         static_cast<double>(most));
  double const k = steps_apart(view, *view.find(kvevict::role::k), all.rows(0)),
               v = steps_apart(view, *view.find(kvevict::role::v), all.rows(1));
  report(k <= 1.5 && v <= 0.51, "default pages: keys at most %.2f steps from what was stored, values %.2f", k, v);
}

/// 2 048 tokens; where `capacity` slots are full, a policy makes room: tokens move, or where they cannot pages go.
template <class Policy>
void run(model& m, std::vector<std::int64_t> const& text, char const* name, Policy const& policy,
         std::int32_t capacity) {
  constexpr std::int64_t tokens = 2048;
  kvevict::host ctx;
  sequence s(m, capacity / openvino::block_size);
  double plan_seconds = 0, apply_seconds = 0, sum = 0;
  std::int64_t rows = 0, evictions = 0;
  kvevict::keep_set keep;
  kvevict::compacted<std::int32_t> moved;
  kvevict::dropped<std::int32_t> dropped;
  while (s.next < tokens) {
    if (s.used + chunk > capacity) {
      double const start = cpu_seconds();
      auto const view = s.cache.view();
      plan(ctx, policy, prompt(view, s.queries()), {.tokens_per_head = budget, .layer_count = s.layers()}, keep);
      double const planned = cpu_seconds();
      if (view.demands().whole_pages) {
        drop_pages(ctx, view, keep, dropped);
        s.keep_pages(dropped);
      } else {
        compact(ctx, view, keep, kvevict::compaction::stable, moved);
        s.used = s.cache.past_lens(moved)[0];
        rows += static_cast<std::int64_t>(moved.moves().sources.size());
      }
      plan_seconds += planned - start, apply_seconds += cpu_seconds() - planned, ++evictions;
    }
    std::int64_t const from = s.next;
    ov::Tensor const logits = s.step(part(text, from, chunk));
    for (std::int64_t t = from; t < from + chunk; ++t)
      if (t >= slots) sum += nll(logits, t - from, text[static_cast<std::size_t>(t + 1)]);
  }
  std::printf("      %-22s %6d %8.4f %6lld %9.2f %7.3f %8.3f %9lld\n", name, capacity, sum / (tokens - slots),
              static_cast<long long>(evictions), s.infer_seconds, plan_seconds, apply_seconds,
              static_cast<long long>(rows));
  std::fflush(stdout);
}

void table(std::string const& directory, std::vector<std::int64_t> const& text) {
  std::printf(
      "2 048 tokens, budget %d, chunks of %d; nll of tokens past %d; CPU seconds of one thread\n"
      "      policy, pages           slots      nll evicts     infer    plan    apply rows moved\n",
      budget, chunk, slots);
  {
    model m(directory, "f32", false);
    run(m, text, "full cache, f32", presets::full(), 2048);
    run(m, text, "snapkv, f32", presets::snapkv(), slots);
    run(m, text, "ahakv, f32", presets::ahakv(), slots);
    run(m, text, "streaming_llm, f32", presets::streaming_llm(), slots);
  }
  model m(directory, "", false);
  auto const by_page = [](auto const& policy) {
    return policy.with(kvevict::heads::together{}).with(kvevict::select::pages{});
  };
  run(m, text, "full cache, u8", presets::full(), 2048);
  run(m, text, "snapkv, u8", by_page(presets::snapkv()), slots);
  run(m, text, "streaming_llm, u8", by_page(presets::streaming_llm()), slots);
}

/// GenAI's class, as far as policy_of and budget_of read it.
struct eviction_config {
  std::size_t start_size, recent_size, max_cache_size, snapkv_window_size = 8;
  std::size_t get_start_size() const { return start_size; }
  std::size_t get_recent_size() const { return recent_size; }
  std::size_t get_max_cache_size() const { return max_cache_size; }
};

struct prompt_and_answer {
  std::vector<std::int64_t> prompt, answer;
};
/// A line each: answer | prompt.
std::vector<prompt_and_answer> read_needles(char const* file) {
  std::ifstream in(file);
  std::vector<prompt_and_answer> all;
  for (std::string line; std::getline(in, line);) {
    auto const ids = [](std::string const& text) {
      std::istringstream words(text);
      return std::vector<std::int64_t>{std::istream_iterator<std::int64_t>(words), {}};
    };
    std::size_t const bar = line.find('|');
    all.push_back({ids(line.substr(bar + 1)), ids(line.substr(0, bar))});
  }
  return all;
}

std::int64_t likeliest(ov::Tensor const& logits) {
  auto const vocabulary = static_cast<std::ptrdiff_t>(logits.get_shape().back());
  float const* const last = static_cast<float const*>(logits.data()) + logits.get_size() - vocabulary;
  return std::max_element(last, last + vocabulary) - last;
}

/// Generates past max_cache_size: the whole prompt, an eviction, 12 tokens, the first of which has seen all, as with
/// GenAI; and in as many pages.
void needles(std::string const& directory, char const* file, std::vector<std::size_t> const& sizes) {
  constexpr std::int64_t window = 16, generated = 12;
  model m(directory, "f32", false);
  auto const all = read_needles(file);
  std::int64_t in_full = 0;
  kvevict::host ctx;
  struct outcome {
    std::int64_t found = 0;
    double seconds = 1e9;
  };
  std::vector<outcome> by_page(sizes.size()), by_token(sizes.size()), by_head(sizes.size());
  for (auto const& [text, answer] : all) {
    sequence s(m, static_cast<std::int32_t>(text.size()) / openvino::block_size + 2);
    auto const last = static_cast<std::int64_t>(text.size()) - window;
    while (s.next < last) s.step(part(text, s.next, std::min<std::int64_t>(chunk, last - s.next)));
    auto const before = s.save();
    auto const finds = [&](auto const& evict_now) {
      s.restore(before);
      std::vector<std::int64_t> out{likeliest(s.step(part(text, last, window)))};
      evict_now();
      while (static_cast<std::int64_t>(out.size()) < generated) out.push_back(likeliest(s.step({out.back()})));
      return std::search(out.begin(), out.end(), answer.begin(), answer.end()) != out.end();
    };
    in_full += finds([] {});
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      eviction_config const config{32, 32, sizes[i] + openvino::block_size - generated};
      auto const with = [&](auto const& policy, outcome& out) {
        out.found += finds([&] {
          double const start = cpu_seconds();
          evict(ctx, s,
                plan(ctx, policy, prompt(s.cache.view(), s.queries()), openvino::budget_of(config, s.layers())));
          out.seconds = std::min(out.seconds, cpu_seconds() - start);
        });
      };
      auto const policy = openvino::policy_of(config);
      with(policy.with(kvevict::select::pages{}), by_page[i]);
      with(policy, by_token[i]);
      with(policy.with(kvevict::heads::uniform{}), by_head[i]);
    }
  }
  std::printf(
      "needles in prompts of %zu tokens, found in %lld tokens of answer; CPU time of the eviction\n"
      "      who, what it chooses  max_cache_size   found\n"
      "      full cache                         - %4lld of %zu\n",
      all[0].prompt.size(), static_cast<long long>(generated), static_cast<long long>(in_full), all.size());
  for (std::size_t i = 0; i < sizes.size(); ++i)
    for (auto const& [name, out] :
         {std::pair{"pages", by_page[i]}, {"tokens", by_token[i]}, {"tokens per head", by_head[i]}})
      std::printf("      kvevict, %-15s %11zu %4lld of %zu %6.1f ms\n", name, sizes[i],
                  static_cast<long long>(out.found), all.size(), 1e3 * out.seconds);
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 4) return std::fprintf(stderr, "check MODEL_DIR TEXT NEEDLES\n"), 2;
  std::ifstream in(argv[2]);
  std::vector<std::int64_t> const text{std::istream_iterator<std::int64_t>(in), {}};
  KVEVICT_EXPECTS(text.size() > 2048, "check: ", argv[2], " has ", text.size(), " tokens; 2049 are needed");
  for (char const* const pages : {"f32", "f16"}) check_values(argv[1], text, pages);
  check_default(argv[1], text);
  table(argv[1], text);
  needles(argv[1], argv[3], {128, 96});
  return failed ? 1 : 0;
} catch (std::exception const& e) {
  std::fprintf(stderr, "check: %s\n", e.what());
  return 1;
}
