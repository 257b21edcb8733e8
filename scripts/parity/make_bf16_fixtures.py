"""Writes `crates/policy/tests/fixtures/bf16.json`: the error of torch's bfloat16 autocast relative to f32 on the model fixtures.

Usage: make_bf16_fixtures.py      (after make_model_fixtures.py, whose folders it reads)

For each model, with the temperature and the groups of its `expected.json`:
  logps      root-mean-square error of the completions' log-probabilities
  gradients  relative error (in norm) of all gradients of sum(dlogps * logps)
"""
import json
import pathlib

import torch
from make_model_fixtures import GRADIENT_TEMPERATURE, loaded, token_scores, write_json

FIXTURES = pathlib.Path(__file__).parents[2] / "crates/policy/tests/fixtures"


def computed(model, groups, dlogps, is_bf16):
    """Log-probabilities, and all gradients end to end."""
    model.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=is_bf16):
        logps, _ = token_scores(model, groups, GRADIENT_TEMPERATURE)
        logps = logps.float()
    (logps * torch.tensor(dlogps)).sum().backward()
    grads = [p.grad.double().flatten() for name, p in model.named_parameters() if "visual" not in name]
    return logps.detach().double(), torch.cat(grads)


def apart(folder):
    expected = json.loads((folder / "expected.json").read_text())
    model, dlogps = loaded(folder), expected["gradients"]["dlogps"]
    logps, grads = computed(model, expected["groups"], dlogps, False)
    near_logps, near_grads = computed(model, expected["groups"], dlogps, True)
    return {
        "logps": (near_logps - logps).square().mean().sqrt().item(),
        "gradients": ((near_grads - grads).norm() / grads.norm()).item(),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    folders = sorted((FIXTURES / "models").iterdir())
    write_json(FIXTURES / "bf16.json", {folder.name: apart(folder) for folder in folders})
