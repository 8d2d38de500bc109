#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Trains the gates of a frozen model; train.sh runs it.

Three phases. Imitation: the gates learn which columns full attention will use (columns of a layer above its `keep`
quantile by future attention x value norm), layer by layer, without a backward pass through the model. Warm start: the
biases are raised until everything is kept. Training: straight-through flags, loss = LM + distill * KL(full cache ||
flagged) + alpha * mean_l (mean F_l - beta)^2, while beta falls from 1 (or from what the starting gates keep) to `keep`.

Every few minutes DIR/checkpoint.pt, DIR/log.json and DIR/curves.png are written; started again with the same DIR, the
run goes on exactly where the checkpoint was. At the end DIR/gates.safetensors holds the gates in bf16.
"""

import argparse, json, math, os, sys, time
from pathlib import Path

import torch
import torch.nn.functional as F

from data import Corpus, prepare
from gate import FlaggedAttention, Gates
from llama import Llama, full_attention
from weights import load, save

TOP = 64  # teacher logits kept per token


def options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="what examples/engine/prepare.py printed")
    parser.add_argument("--out", type=Path, required=True, help="the run's directory")
    parser.add_argument(
        "--start", type=Path, help="gates to start from (safetensors) instead of imitation and warm start"
    )
    parser.add_argument("--keep", type=float, default=0.5, help="target share of kept tokens")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--imitate", type=int, default=250, help="steps of imitation")
    parser.add_argument("--length", type=int, default=1024, help="tokens of a training sequence")
    parser.add_argument("--windows", type=int, default=1000, help="different training sequences")
    parser.add_argument("--gate-heads", type=int, default=1)
    parser.add_argument("--gate-dim", type=int, default=32)
    parser.add_argument("--tau", type=float, default=0.5)
    parser.add_argument("--sinks", type=int, default=4)
    parser.add_argument("--rate", type=float, default=1e-3, help="Adam's learning rate")
    parser.add_argument("--alpha", type=float, default=100.0)
    parser.add_argument("--distill", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--every", type=float, default=3.0, help="minutes between checkpoints")
    parser.add_argument("--precision", choices=("auto", "f32", "bf16"), default="auto", help="of the model's products")
    return parser.parse_args()


def fast_bf16(device):
    if device == "cuda":
        return True
    flags = Path("/proc/cpuinfo")
    return flags.exists() and "amx_bf16" in flags.read_text()


def future_attention(q, k, v, near):
    """(H,N): mean attention that the rows at least `near` behind pay to a column, over the GQA group, times its value's
    norm."""
    H, N, D = k.shape
    q = q.view(H, -1, N, D)
    total = torch.zeros(H, N, device=q.device)
    for start in range(0, N, FlaggedAttention.rows):
        stop = min(N, start + FlaggedAttention.rows)
        a = FlaggedAttention.logits(q, k, start, stop)[0].softmax(-1).mean(1)  # (H,R,stop)
        total[:, :stop] += a.tril(start - near).sum(1)
    rows = (N - near - torch.arange(N, device=q.device)).clamp(min=1)
    return total / rows * v.norm(dim=-1)


class Trainer:
    def __init__(self, model, corpus, o):
        self.model, self.corpus, self.o = model, corpus, o
        torch.manual_seed(o.seed)
        self.gates = Gates(model.config, o.gate_heads, o.gate_dim)
        if o.start:
            load(o.start, model, self.gates)
        self.gates.to(model.device)
        self.optimizer = self.new_optimizer()
        self.step, self.log, self.first_beta = 0, [], 1.0

    def new_optimizer(self):
        """Adam; biases are 20 times as fast, for they carry the keep rate from 1 to its target."""
        bias = [p for n, p in self.gates.named_parameters() if n.endswith("bias")]
        other = [p for n, p in self.gates.named_parameters() if not n.endswith("bias")]
        return torch.optim.Adam([{"params": other, "speed": 1.0}, {"params": bias, "speed": 20.0}], betas=(0.9, 0.98))

    # --- the run on disk

    def checkpoint(self):
        state = {
            "options": self.identity(),
            "gates": self.gates.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "log": self.log,
            "first_beta": self.first_beta,
        }
        scratch = self.o.out / "checkpoint.new"
        torch.save(state, scratch)
        os.replace(scratch, self.o.out / "checkpoint.pt")

    def resume(self):
        path = self.o.out / "checkpoint.pt"
        if not path.exists():
            return
        state = torch.load(path, weights_only=True)
        different = [k for k, v in self.identity().items() if state["options"].get(k) != v]
        if different:
            raise ValueError(
                f"{path} was made with other options ({', '.join(different)}); give the same ones, or another --out"
            )
        self.gates.load_state_dict(state["gates"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.log, self.first_beta = state["step"], state["log"], state["first_beta"]

    def identity(self):
        """What must not change between the parts of a run."""
        return {k: str(v) for k, v in vars(self.o).items() if k not in ("out", "every", "model", "precision")}

    # --- schedules

    @property
    def imitation(self):
        return 0 if self.o.start else self.o.imitate

    def beta(self, step):
        """From first_beta to keep over the first 40 % of the steps after imitation."""
        done = min(1.0, (step - self.imitation) / (0.4 * self.o.steps))
        return self.first_beta + (self.o.keep - self.first_beta) * done

    def rate(self, step):
        """10 steps of warm-up in each phase; imitation takes three times the rate, training a cosine down to a
        tenth."""
        if step < self.imitation:
            return 3 * self.o.rate * min(1.0, (step + 1) / 10)
        at = step - self.imitation
        return self.o.rate * min(1.0, (at + 1) / 10) * (0.55 + 0.45 * math.cos(math.pi * min(1.0, at / self.o.steps)))

    # --- steps

    def ids(self, step):
        return torch.from_numpy(self.corpus.window(self.o.seed, step % self.o.windows, self.o.length)).to(
            self.model.device
        )

    @torch.no_grad()
    def teacher(self, step):
        """The full cache's top logits of a window: (N,TOP) log-probabilities and their tokens, computed once."""
        cache = (
            self.o.out.parent
            / "teacher"
            / f"{self.model.fingerprint}-{self.o.seed}-{self.o.length}-{step % self.o.windows}.pt"
        )
        if not cache.exists():
            log = self.model.logits(self.model.hidden(self.ids(step)[:-1], full_attention)).log_softmax(-1)
            values, tokens = log.topk(TOP, -1)
            cache.parent.mkdir(parents=True, exist_ok=True)
            scratch = cache.with_suffix(".new")
            torch.save((values.half(), tokens.int()), scratch)
            os.replace(scratch, cache)
        values, tokens = torch.load(cache, weights_only=True, map_location=self.model.device)
        return values.float(), tokens.long()

    def look_at_selves(self):
        def attend(layer, x, q, k, v):
            self.gates[layer].look_at_self(x)
            return full_attention(layer, x, q, k, v)

        with torch.no_grad():
            self.model.hidden(self.ids(self.o.windows - 1)[:-1], attend)

    def imitate(self, step):
        near, sinks, losses, agree = 16, self.o.sinks, [], []

        def attend(layer, x, q, k, v):
            score = future_attention(q, k, v, near)[:, sinks : -4 * near]
            target = (score > score.quantile(1 - self.o.keep)).float()
            with torch.enable_grad():
                logits = self.gates[layer](x)[:, sinks : -4 * near]
                loss = F.binary_cross_entropy_with_logits(logits, target)
                loss.backward()
            losses.append(loss.detach()), agree.append(((logits > 0) == (target > 0)).float().mean())
            return full_attention(layer, x, q, k, v)

        with torch.no_grad():
            self.model.hidden(self.ids(step)[:-1], attend)
        return {
            "phase": "imitation",
            "bce": torch.stack(losses).mean().item(),
            "agreement": torch.stack(agree).mean().item(),
        }

    def keep_everything(self):
        """The warm start: each bias rises until its head keeps everything of a window."""

        def attend(layer, x, q, k, v):
            gate = self.gates[layer]
            edge = math.log(self.o.tau / (1 - self.o.tau))
            gate.bias += (edge + 0.1 - gate(x).min(1).values).clamp(min=0)
            return full_attention(layer, x, q, k, v)

        with torch.no_grad():
            self.model.hidden(self.ids(self.o.windows - 1)[:-1], attend)
        self.optimizer = self.new_optimizer()

    def losses(self, ids, teacher):
        kept = []
        hidden = self.model.hidden(ids[:-1], self.gates.attend(self.o.tau, self.o.sinks, kept))
        log = self.model.logits(hidden).log_softmax(-1)
        lm = -log.gather(1, ids[1:, None]).mean()
        values, tokens = teacher
        rest = lambda x: (1 - x.exp().sum(-1)).clamp(min=1e-6).log()[:, None]
        student = log.gather(1, tokens)
        values, student = torch.cat((values, rest(values)), 1), torch.cat((student, rest(student)), 1)
        return lm, (values.exp() * (values - student)).sum(-1).mean(), torch.stack(kept)

    def train(self, step):
        lm, kl, kept = self.losses(self.ids(step), self.teacher(step))
        beta = self.beta(step)
        (lm + self.o.distill * kl + self.o.alpha * (kept - beta).square().mean()).backward()
        norm = torch.nn.utils.clip_grad_norm_(self.gates.parameters(), 10.0)
        return {
            "phase": "training",
            "lm": lm.item(),
            "kl": kl.item(),
            "keep": kept.mean().item(),
            "keep_low": kept.min().item(),
            "keep_high": kept.max().item(),
            "beta": beta,
            "gradient": norm.item(),
        }

    @torch.no_grad()
    def validate(self, count=4):
        """Mean KL and keep rate on held-out documents."""
        kl = keep = 0.0
        for _, ids in self.corpus.held_out(count, self.o.length + 1):
            ids = torch.from_numpy(ids).to(self.model.device)
            values, tokens = (
                self.model.logits(self.model.hidden(ids[:-1], full_attention)).log_softmax(-1).topk(TOP, -1)
            )
            _, one, kept = self.losses(ids, (values, tokens))
            kl, keep = kl + one.item() / count, keep + kept.mean().item() / count
        return {"held_kl": kl, "held_keep": keep}

    def one(self):
        step = self.step
        if step == 0 and not self.o.start:
            self.look_at_selves()
        if step == self.imitation:
            if self.o.start:
                self.first_beta = self.validate(2)["held_keep"]
            else:
                self.keep_everything()
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(step) * group["speed"]
        self.optimizer.zero_grad()
        entry = self.imitate(step) if step < self.imitation else self.train(step)
        self.optimizer.step()
        self.step += 1
        if (self.step - self.imitation) % 50 == 0 and self.step > self.imitation or self.step == self.total:
            entry |= self.validate()
        self.log.append({"step": step} | entry)
        return entry

    @property
    def total(self):
        return self.imitation + self.o.steps


def draw(log, path):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    log = [e for e in log if e["phase"] == "training"]
    if len(log) < 2:
        return
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(8, 6), sharex=True)
    steps = [e["step"] for e in log]
    smooth = lambda key: [
        sum(e[key] for e in log[max(0, i - 19) : i + 1]) / len(log[max(0, i - 19) : i + 1]) for i in range(len(log))
    ]
    top.semilogy(steps, [max(e["kl"], 1e-4) for e in log], ".", ms=2, color="tab:blue", alpha=0.4)
    top.semilogy(steps, [max(x, 1e-4) for x in smooth("kl")], color="tab:blue", label="training, mean of 20 steps")
    held = [e for e in log if "held_kl" in e]
    top.semilogy(
        [e["step"] for e in held], [e["held_kl"] for e in held], "o-", color="tab:orange", label="held-out documents"
    )
    top.set_ylabel("KL to the full cache"), top.legend(), top.grid(alpha=0.3)
    bottom.fill_between(
        steps, [e["keep_low"] for e in log], [e["keep_high"] for e in log], alpha=0.2, label="lowest and highest layer"
    )
    bottom.plot(steps, smooth("keep"), label="kept, mean of 20 steps")
    bottom.plot(steps, [e["beta"] for e in log], "k--", lw=1, label="β")
    bottom.set_ylabel("kept tokens"), bottom.set_xlabel("step"), bottom.set_ylim(0, 1.02), bottom.legend(), bottom.grid(
        alpha=0.3
    )
    figure.tight_layout(), figure.savefig(path, dpi=100), plt.close(figure)


def report(trainer):
    (trainer.o.out / "log.json").write_text("[\n" + ",\n".join(json.dumps(e) for e in trainer.log) + "\n]\n")
    draw(trainer.log, trainer.o.out / "curves.png")


def run(trainer, o):
    trainer.resume()
    last = begun = time.monotonic()
    first = trainer.step
    while trainer.step < trainer.total:
        entry = trainer.one()
        now = time.monotonic()
        each = (now - begun) / (trainer.step - first)
        words = "  ".join(f"{k} {v:.4g}" if isinstance(v, float) else v for k, v in entry.items())
        print(
            f"step {trainer.step}/{trainer.total}  {words}  {each:.1f} s a step, "
            f"{each * (trainer.total - trainer.step) / 60:.0f} min left",
            flush=True,
        )
        if now - last > 60 * o.every or trainer.step == trainer.total:
            trainer.checkpoint()
            report(trainer)
            last = now
    held = next(e for e in reversed(trainer.log) if "held_kl" in e)
    save(
        o.out / "gates.safetensors",
        trainer.model,
        trainer.gates,
        o,
        tokens=trainer.total * o.length,
        held_kl=held["held_kl"],
        held_keep=held["held_keep"],
    )
    print(o.out / "gates.safetensors")


def main():
    o = options()
    try:
        if not 0 < o.keep <= 1 or not 0 <= o.tau < 1 or o.steps < 1 or o.length < 128:
            raise ValueError("--keep must be in (0,1], --tau in [0,1), --steps at least 1 and --length at least 128")
        device = "cuda" if torch.cuda.is_available() else "cpu"
        bf16 = o.precision == "bf16" or o.precision == "auto" and fast_bf16(device)
        o.out.mkdir(parents=True, exist_ok=True)
        print(f"{device}, products in {'bf16' if bf16 else 'f32'}, seed {o.seed}", flush=True)
        run(Trainer(Llama(o.model, device, torch.bfloat16 if bf16 else torch.float32), Corpus(prepare(o.model)), o), o)
    except (OSError, ValueError, RuntimeError) as error:
        print(f"train.py: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
