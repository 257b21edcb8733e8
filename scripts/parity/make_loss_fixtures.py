"""Writes the loss fixtures of `crates/grpo/tests`: batches on small random decoders, and reference results of TRL's `_compute_loss`.

Usage: make_loss_fixtures.py [OUT]     (default: crates/grpo/tests/fixtures/loss)

OUT/MODEL is a model in Hugging Face format, with tied or untied embeddings, plus:
  batch.json     an off-policy batch in the format of `embodied-r inspect loss`, with log-probabilities of the reference and the sampler
  expected.json  cases: the settings, whether the batch's `old_logps` are used, and TRL's loss, metrics and gradient norms
Everything is computed in f32.
"""
import json
import math
import pathlib
import shutil
import sys
import tempfile

import torch
from datasets import Dataset
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM
from trl import GRPOConfig, GRPOTrainer

VOCAB = 48
EOS = 47
G = 4
PROMPTS = ([3, 9, 11, 5, 30], [7, 8])
# The third of the first group and the second of the other are truncated: they do not end in EOS.
LENGTHS = ((6, 1, 7, 4), (3, 7, 5, 2))
CUT = {(0, 2), (1, 1)}
MAX_COMPLETION = 7
LOSSES = ("grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo")


def make_model(tied, seed):
    config = Qwen2Config(
        vocab_size=VOCAB, hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=3, num_key_value_heads=1,
        max_position_embeddings=64, tie_word_embeddings=tied, eos_token_id=EOS, bos_token_id=None, pad_token_id=0)
    model = Qwen2ForCausalLM(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            noise = torch.randn(tensor.shape, generator=generator)
            scale = 0.2 if "norm" in name else 0.3 if name.endswith("bias") else 1.0 / math.sqrt(tensor.shape[-1])
            tensor.copy_((1.0 if "norm" in name else 0.0) + scale * noise)
    return model


def make_batch(model, seed):
    """Groups with log-probabilities close, but not equal, to the model's."""
    generator = torch.Generator().manual_seed(seed)
    rand = lambda *shape: torch.randn(*shape, generator=generator)
    groups = []
    for g, (prompt, lengths) in enumerate(zip(PROMPTS, LENGTHS)):
        rewards = torch.rand(G, generator=generator, dtype=torch.float64)
        advantages = (rewards - rewards.mean()) / (rewards.std() + 1e-4)
        completions = []
        for c, length in enumerate(lengths):
            ids = torch.randint(1, VOCAB - 1, (length,), generator=generator).tolist()
            if (g, c) not in CUT:
                ids[-1] = EOS
            with torch.no_grad():
                logits = model(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1].float()
            logps = logits.log_softmax(-1).gather(1, torch.tensor(ids)[:, None])[:, 0]
            old = logps + 0.25 * rand(length)
            completions.append(dict(
                ids=ids, advantage=advantages[c].item(), old_logps=old.tolist(), ref_logps=(logps + 0.4 * rand(length)).tolist(),
                sampling_logps=(old + 0.3 * rand(length)).tolist()))
        groups.append(dict(prompt_ids=prompt, completions=completions))
    return dict(groups=groups)


def cases():
    """(settings, whether old log-probabilities are used)."""
    for loss_type in LOSSES:
        high = {"epsilon_high": 1.2} if loss_type == "cispo" else {"epsilon_high": 0.28}
        for level in ("token", "sequence"):
            base = dict(loss_type=loss_type, importance_sampling_level=level, epsilon=0.2, **high)
            yield dict(base, beta=0.04), True
            yield dict(base, beta=0.04), False
            yield dict(base, beta=0.04, use_bias_correction_kl=False), True
            yield dict(base, mask_truncated_completions=True, beta=0.04), True
            yield dict(base, top_entropy_quantile=0.4, beta=0.04), True
            yield dict(base, off_policy_mask_threshold=0.05), True
        if loss_type in ("grpo", "bnpo", "dr_grpo", "dapo"):
            yield dict(loss_type=loss_type, epsilon=0.2, delta=1.25), True
        yield dict(loss_type=loss_type, temperature=0.7, beta=0.04, **high), True
    for mode in ("token_truncate", "token_mask", "sequence_truncate", "sequence_mask"):
        for level in ("token", "sequence"):
            yield dict(
                loss_type="grpo", importance_sampling_level=level, beta=0.04, importance_sampling_mode=mode,
                importance_sampling_clip_min=0.7, importance_sampling_clip_max=1.4), True
    yield dict(loss_type="sapo", sapo_temperature_pos=2.0, sapo_temperature_neg=3.0), True
    yield {}, False


def padded(rows, left, value=0.0):
    width = max(map(len, rows))
    fill = lambda row: [value] * (width - len(row))
    return torch.tensor([fill(r) + list(r) if left else list(r) + fill(r) for r in rows])


def trainer_of(folder, settings):
    own = {k: v for k, v in settings.items() if not k.startswith("importance_sampling_") or k == "importance_sampling_level"}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel({f"t{i}": i for i in range(VOCAB)}, unk_token="t1")), eos_token=f"t{EOS}", pad_token="t0")
    with tempfile.TemporaryDirectory() as out:
        return GRPOTrainer(
            model=str(folder), reward_funcs=lambda completions, **_: [0.0] * len(completions), processing_class=tokenizer,
            train_dataset=Dataset.from_dict({"prompt": ["t3"] * 8}),
            args=GRPOConfig(
                output_dir=out, use_cpu=True, bf16=False, report_to=[], per_device_train_batch_size=8, num_generations=G,
                max_completion_length=MAX_COMPLETION, gradient_checkpointing=False, model_init_kwargs={"dtype": "float32"}, **own))


def expected(folder, batch, settings, old):
    correction = "importance_sampling_mode" in settings
    trainer = trainer_of(folder, settings)
    model = trainer.model.train()
    rows = [(g["prompt_ids"], c) for g in batch["groups"] for c in g["completions"]]
    mask = [[1] * len(c["ids"]) for _, c in rows]
    if settings.get("mask_truncated_completions"):
        mask = [m if c["ids"][-1] == EOS else [0] * len(m) for m, (_, c) in zip(mask, rows)]
    logps = lambda key: padded([c[key] for _, c in rows], left=False)
    inputs = dict(
        prompt_ids=padded([p for p, _ in rows], True, 0), prompt_mask=padded([[1] * len(p) for p, _ in rows], True, 0),
        completion_ids=padded([c["ids"] for _, c in rows], False, 0), completion_mask=padded(mask, False, 0),
        advantages=torch.tensor([c["advantage"] for _, c in rows]))
    inputs["num_items_in_batch"] = inputs["completion_mask"].sum()
    if old:
        inputs["old_per_token_logps"] = logps("old_logps")
    if settings.get("beta", 0.0) > 0:
        inputs["ref_per_token_logps"] = logps("ref_logps")
    if correction:
        # The inputs prepared by `_generate_and_score_completions`, which needs a vLLM engine; its few lines are replicated here.
        mode, low, high = (settings["importance_sampling_" + k] for k in ("mode", "clip_min", "clip_max"))
        apart = (logps("old_logps") - logps("sampling_logps")) * inputs["completion_mask"]
        ratio = (apart.sum(-1, keepdim=True) if mode.startswith("sequence") else apart).exp()
        ratio = ratio.clamp(low, high) if mode.endswith("truncate") else ratio.masked_fill((ratio < low) | (ratio > high), 0.0)
        inputs["importance_sampling_ratio"] = ratio
        trainer.use_vllm = trainer.vllm_importance_sampling_correction = True
    trainer.current_gradient_accumulation_steps = 1
    model.zero_grad()
    loss = trainer._compute_loss(model, inputs)
    loss.backward()
    short = lambda x: float(f"{x:.8g}")
    norms = {name: short(p.grad.double().norm().item()) for name, p in model.named_parameters()}
    metrics = {k: v[-1] for k, v in trainer._metrics["train"].items()}
    kept = {k: short(metrics[k]) for k in metrics if k == "kl" or k == "entropy" or k.startswith("clip_ratio/")}
    return dict(settings=dict(settings, max_completion_length=MAX_COMPLETION), old=old, loss=short(loss.item()), metrics=kept, grad_norms=norms)


def main():
    out = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "crates/grpo/tests/fixtures/loss")
    for name, tied, seed in (("tied", True, 1), ("untied", False, 2)):
        folder = out / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        model = make_model(tied, seed)
        model.save_pretrained(folder)
        batch = make_batch(model.eval(), seed)
        (folder / "batch.json").write_text(json.dumps(batch))
        found = [expected(folder, batch, settings, old) for settings, old in cases()]
        (folder / "expected.json").write_text("[\n" + ",\n".join(json.dumps(case) for case in found) + "\n]\n")
        print(name, len(found), "cases")


main()
