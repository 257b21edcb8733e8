"""Writes `crates/grpo/tests/fixtures/verl.json`: advantages and losses by the formulas of verl and EasyR1 (`core_algos.py`, `torch_functional.py`).

Usage: make_verl_fixtures.py [OUT]     (default: crates/grpo/tests/fixtures/verl.json)

Neither package is imported, since they need Ray and vLLM. As there, everything is a padded matrix of completions x tokens with a mask:

  rloo                 the score minus the mean score of the group's other completions
  reinforce_plus_plus  returns of token-level rewards, all of a completion's at its last token, summed from the back with gamma 1, then
                       whitened with the mean and the unbiased variance over all unmasked tokens, plus 1e-8
  loss                 token mean of the PPO loss, clipped below and above, and for negative advantages bounded by `clip_ratio_dual` times the
                       advantage; plus `kl_coef` times the token mean of `low_var_kl`; with its derivative by each log-probability

Everything is computed in f64.
"""
import json
import math
import pathlib
import sys

import torch

torch.set_default_dtype(torch.float64)


def padded(rows):
    width = max(map(len, rows))
    return torch.tensor([list(row) + [0.0] * (width - len(row)) for row in rows])


def mask_of(lengths):
    return (torch.arange(max(lengths))[None, :] < torch.tensor(lengths)[:, None]).double()


def rloo(rewards, lengths, group_size):
    found = []
    for start in range(0, len(rewards), group_size):
        group = rewards[start : start + group_size]
        for i, reward in enumerate(group):
            others = group[:i] + group[i + 1 :]
            found.append(reward - sum(others) / len(others))
    return found


def reinforce_plus_plus(rewards, lengths, group_size):
    mask = mask_of(lengths)
    token_rewards = torch.zeros_like(mask)
    for row, (reward, length) in enumerate(zip(rewards, lengths)):
        token_rewards[row, length - 1] = reward
    returns, behind = torch.zeros_like(mask), torch.zeros(len(rewards))
    for t in reversed(range(mask.shape[1])):
        behind = (token_rewards[:, t] + behind) * mask[:, t]
        returns[:, t] = behind
    tokens = mask.sum()
    mean = (returns * mask).sum() / tokens
    variance = (((returns - mean) ** 2) * mask).sum() / tokens * (tokens / (tokens - 1))
    whitened = (returns - mean) * torch.rsqrt(variance + 1e-8)
    of_row = [whitened[row, :length] for row, length in enumerate(lengths)]
    assert all(torch.equal(row, row[:1].expand_as(row)) for row in of_row), "a completion has one advantage"
    return [row[0].item() for row in of_row]


def token_mean(values, mask):
    return (values * mask).sum() / mask.sum()


def policy_loss(case):
    mask = mask_of(case["lengths"])
    rows = lambda values: padded(split(values, case["lengths"]))
    logps = rows(case["logps"]).requires_grad_()
    old, reference = rows(case["old"]), rows(case["reference"])
    advantages = torch.tensor(case["advantages"])[:, None]
    ratio = (logps - old).exp()
    low, high, dual = case["epsilon"], case["epsilon_high"], case["delta"]
    clipped = torch.max(-advantages * ratio, -advantages * ratio.clamp(1 - low, 1 + high))
    bounded = torch.min(clipped, -advantages * dual)
    loss = token_mean(torch.where(advantages < 0, bounded, clipped), mask)
    d = (reference - logps).clamp(-20, 20)
    loss = loss + case["beta"] * token_mean(d.exp() - d - 1, mask)
    loss.backward()
    dlogps = [value for row, length in zip(logps.grad, case["lengths"]) for value in row[:length].tolist()]
    return dict(case, loss=loss.item(), dlogps=dlogps)


def split(values, lengths):
    values = iter(values)
    return [[next(values) for _ in range(length)] for length in lengths]


def advantage_cases(generator):
    rand = lambda n: torch.rand(n, generator=generator).tolist()
    ints = lambda n, high: torch.randint(1, high, (n,), generator=generator).tolist()
    yield dict(rewards=[1.0, 0.0, 0.5, 1.0, 0.0, 0.0], lengths=[4, 2, 7, 1, 3, 5], group_size=3)
    yield dict(rewards=[1.0, 1.0, 0.0, 0.0], lengths=[9, 2, 4, 4], group_size=2)
    yield dict(rewards=[0.5, 1.0], lengths=[1, 1], group_size=2)
    for group_size, groups in ((5, 8), (2, 3), (8, 2)):
        n = group_size * groups
        yield dict(rewards=rand(n), lengths=ints(n, 40), group_size=group_size)
        yield dict(rewards=[round(2 * r) / 2 for r in rand(n)], lengths=ints(n, 300), group_size=group_size)


def loss_cases(generator):
    randn = lambda n: torch.randn(n, generator=generator)
    for scale, beta, dual in ((0.1, 0.01, 3.0), (1.0, 0.01, 3.0), (1.0, 0.0, 3.0), (1.5, 0.2, 1.5)):
        lengths = torch.randint(1, 12, (10,), generator=generator).tolist()
        n = sum(lengths)
        old = -randn(n).abs()
        logps = old + scale * randn(n)
        yield dict(
            lengths=lengths, logps=logps.tolist(), old=old.tolist(), reference=(logps + 0.3 * randn(n)).tolist(),
            advantages=randn(10).tolist(), epsilon=0.2, epsilon_high=0.3, delta=dual, beta=beta)


def main():
    out = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "crates/grpo/tests/fixtures/verl.json")
    generator = torch.Generator().manual_seed(7)
    advantages = [
        dict(case, rloo=rloo(**case), reinforce_plus_plus=reinforce_plus_plus(**case)) for case in advantage_cases(generator)]
    losses = [policy_loss(case) for case in loss_cases(generator)]
    dual = sum(
        a < 0 and l - o > math.log(case["delta"])
        for case in losses
        for a, ls, os in zip(case["advantages"], split(case["logps"], case["lengths"]), split(case["old"], case["lengths"]))
        for l, o in zip(ls, os))
    assert dual > 0, "no token is beyond the dual clip"
    lines = lambda cases: ",\n".join(json.dumps(case) for case in cases)
    out.write_text('{"advantages": [\n' + lines(advantages) + '\n], "losses": [\n' + lines(losses) + "\n]}\n")
    print(len(advantages), "advantages,", len(losses), "losses,", dual, "tokens beyond the dual clip")


main()
