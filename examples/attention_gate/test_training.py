#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tests of the training recipe on a model of a few thousand weights; tests/run.sh --training runs them."""

import argparse, json, sys, tempfile, unittest
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file

from gate import FlaggedAttention, Gate, Gates, flagged_attention, flags_of
from llama import Llama, full_attention
from train import Trainer, run
from weights import load

SEED = 20261124
CONFIG = {
    "layers": 2,
    "heads": 4,
    "kv_heads": 2,
    "head_dim": 8,
    "hidden": 24,
    "ffn": 40,
    "vocab": 97,
    "rope_base": 10000.0,
    "rms_eps": 1e-5,
    "tied": True,
    "rope_factors": [],
    "name": "tiny",
}


def make_model(directory, seed=SEED):
    torch.manual_seed(seed)
    c, normal = CONFIG, lambda *shape: torch.randn(*shape) * 0.3
    weights = {
        "model.embed_tokens.weight": torch.randn(c["vocab"], c["hidden"]),
        "model.norm.weight": 1 + normal(c["hidden"]),
    }
    width, kv = c["heads"] * c["head_dim"], c["kv_heads"] * c["head_dim"]
    for layer in range(c["layers"]):
        at = f"model.layers.{layer}."
        weights |= {
            at + "input_layernorm.weight": 1 + normal(c["hidden"]),
            at + "post_attention_layernorm.weight": 1 + normal(c["hidden"]),
            at + "self_attn.q_proj.weight": normal(width, c["hidden"]),
            at + "self_attn.k_proj.weight": normal(kv, c["hidden"]),
            at + "self_attn.v_proj.weight": normal(kv, c["hidden"]),
            at + "self_attn.o_proj.weight": normal(c["hidden"], width),
            at + "mlp.gate_proj.weight": normal(c["ffn"], c["hidden"]),
            at + "mlp.up_proj.weight": normal(c["ffn"], c["hidden"]),
            at + "mlp.down_proj.weight": normal(c["hidden"], c["ffn"]),
        }
    save_file(weights, directory / "model.safetensors")
    (directory / "config.json").write_text(json.dumps(c))
    return directory


class Sentences:
    """A corpus with structure: every token follows from the one before it, most of the time."""

    def window(self, seed, index, length):
        draw = np.random.default_rng((seed, index))
        ids = [int(draw.integers(CONFIG["vocab"]))]
        while len(ids) <= length:
            ids.append(
                (ids[-1] * 7 + 3) % CONFIG["vocab"] if draw.random() < 0.8 else int(draw.integers(CONFIG["vocab"]))
            )
        return np.array(ids)

    def held_out(self, count, length):
        return [(str(i), self.window(99, i, length - 1)) for i in range(count)]


def settings(out, **changes):
    o = {
        "out": Path(out),
        "start": None,
        "keep": 0.5,
        "steps": 8,
        "imitate": 3,
        "length": 160,
        "windows": 5,
        "gate_heads": 2,
        "gate_dim": 4,
        "tau": 0.5,
        "sinks": 2,
        "rate": 3e-3,
        "alpha": 100.0,
        "distill": 1.0,
        "seed": SEED,
        "every": 1e9,
        "precision": "f32",
        "model": None,
    }
    return argparse.Namespace(**(o | changes))


class Attention(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(SEED)
        self.N = 150  # more than a block of rows
        self.q, self.k, self.v = (
            torch.randn(4, self.N, 8).double(),
            torch.randn(2, self.N, 8).double(),
            torch.randn(2, self.N, 8).double(),
        )

    def test_all_flags_one_is_plain_attention(self):
        ones = torch.ones(2, self.N).double()
        torch.testing.assert_close(
            flagged_attention(self.q, self.k, self.v, ones), full_attention(0, None, self.q, self.k, self.v)
        )

    def test_flags_hide_columns_but_never_the_own_one(self):
        flags = (torch.rand(2, self.N) < 0.4).double()
        out = flagged_attention(self.q, self.k, self.v, flags)
        for head, row in ((0, 0), (1, 5), (2, 77), (3, 149)):
            columns = [j for j in range(row + 1) if flags[head // 2, j] or j == row]
            a = (self.k[head // 2, columns] @ self.q[head, row] / 8**0.5).softmax(0)
            torch.testing.assert_close(out[head, row], a @ self.v[head // 2, columns])

    def test_gradients_are_finite_differences(self):
        N = 7
        flags = torch.rand(2, N).double() * 0.8 + 0.2
        inputs = [x.clone().requires_grad_() for x in (self.q[:, :N], self.k[:, :N], self.v[:, :N], flags)]
        rows, FlaggedAttention.rows = FlaggedAttention.rows, 3  # several blocks
        try:
            self.assertTrue(torch.autograd.gradcheck(flagged_attention, inputs))
        finally:
            FlaggedAttention.rows = rows


class StraightThrough(unittest.TestCase):
    def test_gradient_is_the_finite_difference_of_the_relaxed_loss(self):
        """At hard flags, 0 too: moving F_j by e changes the model's loss by e times the gradient that p_j receives."""
        with tempfile.TemporaryDirectory() as directory:
            model = Llama(make_model(Path(directory)), products=torch.float64)
        torch.manual_seed(SEED)
        ids = torch.from_numpy(Sentences().window(1, 0, 30))
        logits = (torch.randn(2, 2, 30).double()).requires_grad_()  # (L,H,N) of the gates

        def loss(flags):
            hidden = model.hidden(ids[:-1], lambda layer, x, q, k, v: flagged_attention(q, k, v, flags[layer]))
            return F.cross_entropy(model.logits(hidden), ids[1:])

        flags = torch.stack([flags_of(l, 0.5, 2) for l in logits])
        loss(flags).backward()
        hard, p = flags.detach(), torch.sigmoid(logits.detach())
        self.assertEqual(set(hard.unique().tolist()), {0.0, 1.0})
        self.assertTrue((logits.grad[:, :, :2] == 0).all(), "sinks have no gradient")
        for at in ((0, 0, 5), (0, 1, 11), (1, 0, 3), (1, 1, 20), (0, 0, 28), (1, 1, 2)):
            step = 1e-6 if hard[at] == 0 else -1e-6
            moved = hard.clone()
            moved[at] += step
            slope = (loss(moved) - loss(hard)).item() / step
            expected = logits.grad[at].item() / (p[at] * (1 - p[at])).item()
            self.assertAlmostEqual(slope, expected, delta=1e-4 * max(1e-2, abs(slope)), msg=f"{at}, flag {hard[at]}")


class Recipe(unittest.TestCase):
    def setUp(self):
        self.place = tempfile.TemporaryDirectory()
        self.addCleanup(self.place.cleanup)
        self.root = Path(self.place.name)
        (self.root / "model").mkdir()
        self.model = Llama(make_model(self.root / "model"))

    def trainer(self, name, **changes):
        o = settings(self.root / name / "run", **changes)
        o.out.mkdir(parents=True, exist_ok=True)
        return Trainer(self.model, Sentences(), o)

    def test_starts_with_everything_kept(self):
        trainer = self.trainer("warm")
        while trainer.step < trainer.imitation:
            trainer.one()
        self.assertGreater(trainer.one()["keep"], 0.97)

    def test_keep_rate_reaches_its_target(self):
        trainer = self.trainer("rate", steps=150, keep=0.6)
        while trainer.step < trainer.total:
            entry = trainer.one()
        self.assertAlmostEqual(entry["held_keep"], 0.6, delta=0.1)

    def test_imitation_learns_what_attention_uses(self):
        trainer = self.trainer("imitate", imitate=60)
        entries = [trainer.one() for _ in range(60)]
        self.assertLess(entries[-1]["bce"], entries[0]["bce"] - 0.05)

    def test_three_steps_lower_the_loss_on_a_fixed_batch(self):
        trainer = self.trainer("lower", windows=1, imitate=0, rate=1e-2)
        for gate in trainer.gates:
            torch.nn.init.zeros_(gate.bias)  # half of the tokens are hidden
        step = trainer.train

        def total():
            lm, kl, kept = trainer.losses(trainer.ids(0), trainer.teacher(0))
            return (lm + kl + trainer.o.alpha * (kept - 1).square().mean()).item()

        before = total()
        for _ in range(3):
            trainer.optimizer.zero_grad()
            step(0)  # beta is 1
            for group in trainer.optimizer.param_groups:
                group["lr"] = 1e-2 * group["speed"]
            trainer.optimizer.step()
        self.assertLess(total(), before)

    def test_resumed_is_uninterrupted(self):
        whole = self.trainer("whole")
        run(whole, whole.o)
        first = self.trainer("parts")
        for _ in range(6):
            first.one()
        first.checkpoint()
        second = self.trainer("parts")
        run(second, second.o)
        self.assertEqual(second.log, whole.log)
        for name, value in whole.gates.state_dict().items():
            self.assertTrue(torch.equal(value, second.gates.state_dict()[name]), name)
        files = [safe_open(t.o.out / "gates.safetensors", "pt") for t in (whole, second)]
        self.assertEqual(files[0].metadata(), files[1].metadata())
        for name in files[0].keys():
            self.assertTrue(torch.equal(files[0].get_tensor(name), files[1].get_tensor(name)), name)

    def test_other_options_are_refused(self):
        first = self.trainer("options")
        first.checkpoint()
        with self.assertRaisesRegex(ValueError, "alpha"):
            self.trainer("options", alpha=3.0).resume()

    def test_weights_come_back_and_only_for_their_model(self):
        trainer = self.trainer("weights", steps=1, imitate=1)
        run(trainer, trainer.o)
        file, again = trainer.o.out / "gates.safetensors", Gates(CONFIG, 2, 4)
        facts = load(file, self.model, again)
        self.assertEqual((facts["gate_heads"], facts["tau"], facts["sinks"]), ("2", "0.5", "2"))
        self.assertTrue(torch.equal(again[1].o, trainer.gates[1].o.to(torch.bfloat16).float()))
        (self.root / "other").mkdir()
        with self.assertRaisesRegex(ValueError, "not for this model"):
            load(file, Llama(make_model(self.root / "other", 1)), again)
        with self.assertRaisesRegex(ValueError, "shape"):
            load(file, self.model, Gates(CONFIG, 1, 4))

    def test_a_gate_first_reads_its_own_token(self):
        torch.manual_seed(SEED)
        x = torch.randn(64, 24)
        gate = Gate(24, 2, 1, 8)
        gate.look_at_self(x)
        weights = (F.linear(x, gate.q) @ F.linear(x, gate.k).T / 8**0.5).softmax(1)
        self.assertGreater(weights.diagonal().mean(), 0.5)


if __name__ == "__main__":
    torch.set_num_threads(2)
    print(f"seed {SEED}", flush=True)
    result = unittest.TextTestRunner(verbosity=2).run(
        unittest.defaultTestLoader.loadTestsFromModule(sys.modules[__name__])
    )
    bad = len(result.failures) + len(result.errors)
    print(f"{result.testsRun - bad} passed, {bad} failed")
    sys.exit(bad != 0)
