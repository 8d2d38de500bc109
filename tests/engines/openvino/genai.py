#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""OpenVINO GenAI's own eviction on the prompts of the check, beside it.

    genai.py MODEL_DIR NEEDLES [max_cache_size…]

GenAI evicts for the first time in the step after the prompt's: the least CPU time of that step over all prompts, less
that of a pipeline which gathers the same scores and has nothing to evict, is what an eviction costs.
"""

import sys, time

import numpy as np
import openvino, openvino_genai

NEW_TOKENS, EVERYTHING = 12, 4096
OPTIONS = {  # as in engine.hpp
    "INFERENCE_NUM_THREADS": 1,
    "INFERENCE_PRECISION_HINT": "f32",
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
    "KV_CACHE_PRECISION": "f32",
}


def pipeline(model, max_cache_size):
    scheduler = openvino_genai.SchedulerConfig()
    scheduler.max_num_batched_tokens, scheduler.num_kv_blocks, scheduler.enable_prefix_caching = 4096, 64, False
    scheduler.use_cache_eviction = True
    scheduler.cache_eviction_config = openvino_genai.CacheEvictionConfig(
        start_size=32,
        recent_size=32,
        max_cache_size=max_cache_size,
        aggregation_mode=openvino_genai.AggregationMode.SUM,
    )
    return openvino_genai.ContinuousBatchingPipeline(model, scheduler, "CPU", OPTIONS)


def generate(pipe, prompt, tokens):
    """Generated ids, and CPU seconds of each step."""
    config = openvino_genai.GenerationConfig(max_new_tokens=tokens, do_sample=False, ignore_eos=True)
    handle = pipe.add_request(0, openvino.Tensor(np.array([prompt], dtype=np.int64)), config)
    seconds = []
    while pipe.has_non_finished_requests():
        start = time.process_time()
        pipe.step()
        seconds.append(time.process_time() - start)
    return list(handle.read_all()[0].generated_ids), seconds


def holds(ids, answer):
    return any(ids[i : i + len(answer)] == answer for i in range(len(ids)))


def main():
    model, needles = sys.argv[1:3]
    prompts = []
    for line in open(needles, encoding="ascii"):
        answer, prompt = line.split("|")
        prompts.append(([int(i) for i in answer.split()], [int(i) for i in prompt.split()]))
    idle = min(generate(pipe, prompt, 2)[1][1] for pipe in [pipeline(model, EVERYTHING)] for _, prompt in prompts[:3])
    for size in map(int, sys.argv[3:]):
        pipe, found, least = pipeline(model, size), 0, float("inf")
        for answer, prompt in prompts:
            ids, seconds = generate(pipe, prompt, NEW_TOKENS)
            found, least = found + holds(ids, answer), min(least, seconds[1])
        blocks = pipe.get_metrics().cache_usage * 64 / 100
        print(
            f"      GenAI, blocks            {size:9} {found:4} of {len(prompts)} {1e3 * (least - idle):6.1f} ms"
            f"  (least of {len(prompts)} steps, less an idle one's; {blocks:.0f} blocks at the end)"
        )


if __name__ == "__main__":
    main()
