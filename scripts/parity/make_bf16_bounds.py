"""Measures how far torch's bf16 is from its f32, on the models that `embodied-r bench gpu --step compare` runs: the bundled
base, and random models of 36 layers, of Qwen2 and Qwen3. The largest differences over several seeds are the program's bounds in bf16.

    python make_bf16_bounds.py PROGRAM >crates/bench/fixtures/bf16_bounds.json

Needs torch and transformers; runs on a CPU in a few minutes. Sizes and the loss are those of
crates/bench/src/gpu/steps/compare.rs.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM

SEEDS = 5
SEQUENCES, LENGTH, PROMPT = 4, 128, 64
ADVANTAGES = [1.0, -0.5, 0.25, -1.0]
EPSILON, LEARNING_RATE = 0.2, 1e-3
BASE = Path(__file__).parents[2] / "crates/cli/base"


def logps(model, ids):
    """Log-probabilities of each token after the first."""
    logits = model(ids).logits[:, :-1].float()
    return logits.log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1)


def loss(logps, old, advantages):
    """DAPO: clipped ratios, over all tokens."""
    ratio = (logps - old).exp()
    clipped = ratio.clamp(1 - EPSILON, 1 + EPSILON)
    return -torch.minimum(ratio * advantages, clipped * advantages).mean()


def outputs(folder, dtype, ids, old):
    """What the program compares. `old` are the log-probabilities of the sampling policy, or None for this model's."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    masters = {name: value.detach().clone() for name, value in model.named_parameters()}
    model = model.to(dtype)
    advantages = torch.tensor(ADVANTAGES)[:, None]
    before = logps(model, ids)
    completion = before[:, PROMPT - 1 :]
    if old is None:
        noise = torch.rand(completion.shape, generator=torch.Generator().manual_seed(7))
        old = completion.detach() + 0.1 * (noise - 0.5)
    objective = loss(completion, old, advantages)
    objective.backward(retain_graph=True)
    norms = {name: value.grad.float().norm().item() for name, value in model.named_parameters()}
    model.zero_grad()
    # The policy gradient, whose update has f32 master weights.
    (-(completion * advantages).mean()).backward()
    parameters = [torch.nn.Parameter(master) for master in masters.values()]
    for parameter, (_, value) in zip(parameters, model.named_parameters()):
        parameter.grad = value.grad.float()
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    torch.optim.AdamW(parameters, lr=LEARNING_RATE, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1).step()
    with torch.no_grad():
        for parameter, (_, value) in zip(parameters, model.named_parameters()):
            value.copy_(parameter)
        after = logps(model, ids)
    return before.detach(), objective.item(), norms, after - before.detach(), old


def differences(folder, seed):
    vocabulary = json.loads((Path(folder) / "config.json").read_text())["vocab_size"]
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(vocabulary, (SEQUENCES, LENGTH), generator=generator)
    exact, exact_loss, exact_norms, exact_update, old = outputs(folder, torch.float32, ids, None)
    found, found_loss, norms, update, _ = outputs(folder, torch.bfloat16, ids, old)
    return {
        "logps": (found - exact).abs().max().item(),
        "loss": abs(found_loss - exact_loss),
        "grad_norm": max(abs(norms[name] - norm) / norm for name, norm in exact_norms.items()),
        "update": ((update - exact_update).norm() / exact_update.norm()).item(),
    }


def largest(measured):
    return {name: float(f"{max(each[name] for each in measured):.3g}") for name in measured[0]}


def deep(program, preset):
    """The largest differences of random models of a preset."""
    measured = []
    for seed in range(SEEDS):
        with tempfile.TemporaryDirectory() as folder:
            command = [program, "bench", "make-model", "--preset", preset, "--seed", str(seed), folder]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            measured.append(differences(folder, seed))
            print(json.dumps(measured[-1]), file=sys.stderr)
    return largest(measured)


def main():
    (program,) = sys.argv[1:]
    torch.manual_seed(0)
    fixture = {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "seeds": SEEDS,
        "models": {
            "base": largest([differences(BASE, seed) for seed in range(SEEDS)]),
            "36 layers": deep(program, "deep-qwen2"),
            "36 layers, Qwen3": deep(program, "deep-qwen3"),
        },
    }
    print(json.dumps(fixture, indent=2))


main()
