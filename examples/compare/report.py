#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Prints the comparison's table and writes report.html beside results.csv: one self-contained page.

report.py OUT_DIR
"""

import csv, html, io, json, sys
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

ORDER = (
    "full oracle attention_gate attention_gate_cache ada_pyramidkv ada_snapkv pyramidkv snapkv chunkkv tova ahakv h2o"
    " distinct_and_attended distinct_keys keydiff knorm manifoldkv leverage lagkv streaming_llm random"
).split()
COLOUR = {"full": "#222222", "oracle": "#888888", "attention_gate": "#d62728", "attention_gate_cache": "#ff9896"}
MIB = 1024 * 1024
NUMBERS = (
    "prompt_tokens budget_tokens kept_tokens score cache_bytes_before cache_bytes_after pages_freed"
    " score_us plan_us move_us decode_tokens_per_s prompts"
).split()
KINDS = [
    ("aware", "needle_rate", "needle, question in view", "share of prompts answered", True),
    ("agnostic", "needle_rate", "needle, question-agnostic", "share of prompts answered", True),
    ("text", "kl_nats", "natural text", "KL to the full cache, nats", False),
    ("decode", "kl_nats", "while decoding", "KL to the full cache, nats", False),
]


def read(directory):
    with open(directory / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row.update({k: float(row[k]) for k in NUMBERS})
        row["share"] = round(100 * row["budget_tokens"] / row["prompt_tokens"], -1) if row["policy"] != "full" else 100
    there = {row["policy"]: None for row in rows}
    ORDER[:] = [p for p in ORDER if p in there] + [p for p in there if p not in ORDER]
    palette = [matplotlib.colormaps[name](i) for name in ("tab10", "Dark2", "tab20b") for i in range(8)]
    others = [p for p in ORDER if p not in COLOUR]
    COLOUR.update((p, palette[i % len(palette)]) for i, p in enumerate(others))
    return rows, json.loads((directory / "details.json").read_text())


def mean(rows, key):
    rows = [r for r in rows if key != "decode_tokens_per_s" or r[key] > 0]
    weight = sum(r["prompts"] for r in rows)
    return sum(r[key] * r["prompts"] for r in rows) / weight if weight else float("nan")


def pick(rows, **want):
    return [r for r in rows if all(r[k] == v for k, v in want.items()) and not r["task"].endswith("_4_sinks")]


def shares(rows):
    return sorted({r["share"] for r in rows if r["policy"] != "full"})


def summary(rows):
    """One line per (policy, share): quality in every setting, cost over prompts and texts."""
    out = []
    for share in sorted({r["share"] for r in rows}, reverse=True):
        for policy in ORDER:
            here = pick(rows, policy=policy, share=share)
            if not here:
                continue
            cost = [r for r in here if r["setting"] in ("aware", "agnostic", "text")]
            line = {"keep": share, "policy": policy}
            for setting, metric, label, _, _ in KINDS:
                line[f"{setting}"] = mean(
                    [r for r in here if r["setting"] == setting and r["metric"] == metric], "score"
                )
            line["top-1"] = mean([r for r in here if r["setting"] == "text" and r["metric"] == "top1"], "score")
            line["kept"] = mean(cost, "kept_tokens")
            line["MiB before"], line["MiB after"] = (
                mean(cost, "cache_bytes_before") / MIB,
                mean(cost, "cache_bytes_after") / MIB,
            )
            line["pages freed"] = mean(cost, "pages_freed")
            line["score µs"], line["plan µs"], line["move µs"] = (
                mean(cost, f"{k}_us") for k in ("score", "plan", "move")
            )
            line["tok/s"] = mean([r for r in here if r["setting"] == "text"], "decode_tokens_per_s")
            out.append(line)
    return out


FORMAT = {
    "keep": "{:.0f} %",
    "policy": "{}",
    "aware": "{:.2f}",
    "agnostic": "{:.2f}",
    "text": "{:.3f}",
    "decode": "{:.3f}",
    "top-1": "{:.3f}",
    "kept": "{:.0f}",
    "MiB before": "{:.1f}",
    "MiB after": "{:.1f}",
    "pages freed": "{:.0f}",
    "score µs": "{:.0f}",
    "plan µs": "{:.0f}",
    "move µs": "{:.0f}",
    "tok/s": "{:.1f}",
}


def cells(line):
    return ["" if line[k] != line[k] else f.format(line[k]) for k, f in FORMAT.items()]


def print_table(lines, growth):
    widths = [max(len(k), *(len(cells(l)[i]) for l in lines)) for i, k in enumerate(FORMAT)]
    head = [k.rjust(w) for k, w in zip(FORMAT, widths)]
    print(
        "\nneedle: share answered with the question in view (aware) and unseen (agnostic); "
        "text, decode: KL to the full cache in nats;\n"
        "kept: true tokens per layer and KV head; µs: over all layers of one prompt; "
        "tok/s: one sequence decoding alone after the text\n"
    )
    print("  ".join(head))
    last = None
    for line in lines:
        if line["keep"] != last:
            print("-" * (sum(widths) + 2 * len(widths) - 2))
            last = line["keep"]
        print("  ".join(c.rjust(w) for c, w in zip(cells(line), widths)))
    print(
        f"\ngrowth with context, snapkv held at {growth[0]['budget']} tokens: "
        "context, tok/s full / evicted, MiB full / evicted"
    )
    for g in growth:
        print(
            f"  {g['context']:6d}   {g['full']:6.1f} / {g['evicted']:6.1f}   "
            f"{g['bytes_full'] / MIB:7.1f} / {g['bytes_evicted'] / MIB:6.1f}"
        )


def svg(figure):
    out = io.StringIO()
    figure.savefig(out, format="svg", bbox_inches="tight")
    plt.close(figure)
    text = out.getvalue()
    return text[text.index("<svg") :]


def plot_quality(rows):
    figure, axes = plt.subplots(1, 4, figsize=(17, 4.2))
    for axis, (setting, metric, title, label, rising) in zip(axes, KINDS):
        for policy in ORDER[1:]:
            points = sorted(
                (s, mean(pick(rows, policy=policy, setting=setting, metric=metric, share=s), "score"))
                for s in shares(rows)
                if pick(rows, policy=policy, setting=setting, metric=metric, share=s)
            )
            if points:
                axis.plot(
                    *zip(*points),
                    marker="o",
                    ms=4,
                    label=policy,
                    color=COLOUR[policy],
                    ls="--" if policy in ("oracle", "random") else "-",
                )
        full = pick(rows, policy="full", setting=setting, metric=metric)
        if full and rising:
            axis.axhline(mean(full, "score"), color=COLOUR["full"], lw=1, label="full")
        axis.set(title=title, xlabel="tokens kept, % of the prompt", ylabel=label, xticks=shares(rows))
        if not rising:
            axis.set_yscale("log")
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=7)
    figure.tight_layout()
    return svg(figure)


def text_details(details):
    """Where each policy kept how much on the first text."""
    of_tasks = (v for v in details.values() if isinstance(v, dict))
    return next({p: found for p, found in v.items() if isinstance(found, dict)} for v in of_tasks)


def shown_budget(found):
    """The smallest target of the gates, so that they are in the picture, or the middle budget."""
    if "attention_gate" in found:
        return min(map(int, found["attention_gate"]))
    budgets = sorted(map(int, max(found.values(), key=len)))  # of a policy that has all; full has one
    return budgets[len(budgets) // 2]


def plot_positions(details):
    found = text_details(details)
    names = [p for p in ORDER if p in found and p != "full"]
    figure, axis = plt.subplots(figsize=(11, 4))
    budget = shown_budget(found)
    names = [p for p in names if str(budget) in found[p]]
    image = [found[p][str(budget)]["bins"] for p in names]
    shown = axis.imshow(
        image,
        aspect="auto",
        cmap="viridis",
        interpolation="nearest",
        vmax=sorted(x for row in image for x in row)[int(0.97 * 64 * len(image))],
    )
    axis.set(
        yticks=range(len(names)),
        yticklabels=names,
        xlabel="position in the prompt (64 bins)",
        title=f"where each policy keeps its {budget} tokens (all layers and heads)",
    )
    figure.colorbar(shown, label="tokens kept")
    return svg(figure)


def plot_heads(details):
    found = text_details(details)
    budget = shown_budget(found)
    here = {p: found[p][str(budget)]["heads"] for p in ORDER if str(budget) in found.get(p, {})}
    names = [p for p, rows in here.items() if len({x for row in rows for x in row}) > 1][:6]  # who divides the budget
    if not names:
        return ""
    figure, axes = plt.subplots(1, len(names), figsize=(3.2 * len(names), 6), sharey=True)
    most = max(x for p in names for row in found[p][str(budget)]["heads"] for x in row)
    for axis, p in zip(axes, names):
        shown = axis.imshow(found[p][str(budget)]["heads"], aspect="auto", cmap="magma", vmin=0, vmax=most)
        axis.set(title=p, xlabel="KV head")
    axes[0].set_ylabel("layer")
    figure.colorbar(shown, ax=axes, label=f"tokens kept (budget {budget})")
    return svg(figure)


def plot_growth(growth):
    figure, axes = plt.subplots(1, 2, figsize=(11, 3.8))
    x = [g["context"] for g in growth]
    for axis, a, b, scale, label in (
        (axes[0], "full", "evicted", 1, "decode tokens/s, one sequence"),
        (axes[1], "bytes_full", "bytes_evicted", MIB, "cache, MiB"),
    ):
        axis.plot(x, [g[a] / scale for g in growth], marker="o", color="#222222", label="full cache")
        axis.plot(
            x,
            [g[b] / scale for g in growth],
            marker="o",
            color="#1f77b4",
            label=f"snapkv, {growth[0]['budget']} tokens",
        )
        axis.set(xlabel="context, tokens", ylabel=label, ylim=(0, None), xticks=x)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    return svg(figure)


def sentences(rows, details):
    """What the numbers say, without dressing."""
    out = []
    for setting, metric, title, _, rising in KINDS:
        for share in shares(rows):
            found = [
                (mean(pick(rows, policy=p, setting=setting, metric=metric, share=share), "score"), p)
                for p in ORDER
                if p not in ("full",) and pick(rows, policy=p, setting=setting, metric=metric, share=share)
            ]
            if not found:
                continue
            found.sort(reverse=rising)
            out.append(
                f"{title}, {share} % kept: "
                + ", ".join(f"{p} {s:.3f}" if not rising else f"{p} {s:.2f}" for s, p in found)
            )
    for task, found in details.items():
        if isinstance(found, dict) and "epsilon" in found:
            for e in found["epsilon"]:
                out.append(
                    f"Ada-KV's bound ε on {task} at {e['budget']} tokens: worse than uniform in {e['worse_unpooled']} "
                    f"of {e['layers']} layers without pooling (the theorem says 0), "
                    f"in {e['worse_pooled']} with max-pool 7"
                )
    for r in rows:
        if r["task"].endswith("_4_sinks") and r["metric"] == "kl_nats" and r["share"] == 20:
            out.append(
                f"{r['task']}, 20 % kept, every policy protecting 4 sinks and its window: "
                f"{r['policy']} {r['score']:.3f}"
            )
    return out


STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:1250px;margin:2em auto;padding:0 1em;color:#222}"
    "table{border-collapse:collapse;font-size:13px}"
    "td,th{padding:2px 9px;text-align:right;border-bottom:1px solid #ddd}th{background:#f4f4f4}"
    "tr.first td{border-top:2px solid #888}svg{max-width:100%;height:auto}"
)


def page(lines, rows, details):
    body = ["".join(f"<th>{html.escape(k)}</th>" for k in FORMAT)]
    last = None
    for line in lines:
        kind = " class=first" if line["keep"] != last else ""
        body.append(f"<tr{kind}>" + "".join(f"<td>{html.escape(c)}</td>" for c in cells(line)) + "</tr>")
        last = line["keep"]
    return f"""<!doctype html><html lang="en"><meta charset="utf-8">\
<title>kvevict: policies on {html.escape(details['model'])}</title><style>{STYLE}</style>
<h1>KV-cache eviction policies on {html.escape(details['model'])}</h1>
<p>Paged cache, {details['page_size']} tokens a page, one page table per layer and KV head, \
{details['threads']} threads. Every policy keeps exactly its budget
(Σ kept / (layers · KV heads), protected tokens included), but for the gates, which decide for themselves: \
at their targets the other policies get as many tokens as the gates
kept (<b>attention_gate</b>: prefill under the flags; <b>attention_gate_cache</b>: ordinary prefill, \
flags for the cache only); MiB are the pool's own count of pages in use. \
<b>oracle</b> (the attention that the next tokens really pay;
T = {details['oracle_rows']} rows on text, question and answer on needles) and <b>full</b> bound from above, \
<b>random</b> from below.</p>
<h2>Quality against budget</h2>{plot_quality(rows)}
<h2>All numbers</h2><p>aware, agnostic: share of needle prompts answered; \
text, decode: KL to the full cache in nats; top-1: agreement with the full cache's best token on the
text; µs over all layers of one prompt; tok/s: one sequence decoding alone after the text
(in results.csv the rows of needle prompts have the rate of the whole batch in which all policies answered).</p>\
<table>{''.join(body)}</table>
<h2>How the policies rank here</h2><ul>{''.join(f'<li>{html.escape(s)}</li>' for s in sentences(rows, details))}</ul>
<h2>Where tokens are kept</h2>{plot_positions(details)}
<h2>Budget per head and layer</h2>{plot_heads(details)}
<h2>Growth with context</h2>{plot_growth(details['growth'])}
</html>"""


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    directory = Path(sys.argv[1])
    rows, details = read(directory)
    lines = summary(rows)
    print_table(lines, details["growth"])
    (directory / "report.html").write_text(page(lines, rows, details), encoding="utf-8")
    print(f"\n{directory / 'report.html'}\n{directory / 'results.csv'}")


if __name__ == "__main__":
    main()
