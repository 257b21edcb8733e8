"""Times TRL's GRPO steps: rollout, scoring, reference log-probabilities, backward, optimizer. Prints one JSON line.

    trl_step.py MODEL [--prompt 1024 --new 128 --group-size 8 --groups 2 --steps 2 --device cpu --dtype float32]

A warmup step runs first and is not counted. Every completion has exactly --new tokens (end of sequence is suppressed),
beta is 0.001, so that the reference model runs, and activations are recomputed only with --checkpointing. MODEL is one of
`embodied-r bench make-model`, whose tokenizer has a word per token.
"""
import argparse
import json
import os
import random
import resource
import tempfile
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerFast, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

p = argparse.ArgumentParser()
p.add_argument("model")
for name, default in dict(prompt=1024, new=128, group_size=8, groups=2, steps=2, threads=os.cpu_count()).items():
    p.add_argument("--" + name.replace("_", "-"), type=int, default=default)
p.add_argument("--checkpointing", action="store_true", help="gradient checkpointing, TRL's default: less memory, more time")
p.add_argument("--dtype", default="float32")
p.add_argument("--device", default="cpu")
a = p.parse_args()
torch.set_num_threads(a.threads)
tok = PreTrainedTokenizerFast.from_pretrained(a.model)
rng = random.Random(0)
prompts = [" ".join(f"w{rng.randrange(100, len(tok) - 100)}" for _ in range(a.prompt)) for _ in range(8 * a.groups)]

steps, rollouts, shapes = [], [], set()


class Clock(TrainerCallback):
    def on_step_begin(self, *_, **__):
        self.start = time.perf_counter()

    def on_step_end(self, *_, **__):
        steps.append(time.perf_counter() - self.start)


def reward(completions, **_):
    return [rng.random() for _ in completions]


with tempfile.TemporaryDirectory() as out:
    trainer = GRPOTrainer(
        model=a.model, reward_funcs=reward, train_dataset=Dataset.from_dict({"prompt": prompts}), processing_class=tok,
        callbacks=[Clock()],
        args=GRPOConfig(
            output_dir=out, per_device_train_batch_size=a.group_size * a.groups, num_generations=a.group_size,
            max_completion_length=a.new, max_steps=a.steps + 1, beta=0.001, learning_rate=5e-7, temperature=1.0,
            generation_kwargs={"min_new_tokens": a.new}, model_init_kwargs={"dtype": a.dtype}, report_to=[],
            save_strategy="no", bf16=a.dtype == "bfloat16", use_cpu=a.device == "cpu", gradient_checkpointing=a.checkpointing))
    inner = trainer._generate_and_score_completions

    def timed(*x, **k):
        start = time.perf_counter()
        result = inner(*x, **k)
        rollouts.append(time.perf_counter() - start)
        shapes.add((tuple(result["prompt_ids"].shape), tuple(result["completion_ids"].shape)))
        return result

    trainer._generate_and_score_completions = timed
    trainer.train()
n = a.group_size * a.groups
assert shapes == {((n, a.prompt), (n, a.new))}, f"ran with other shapes: {shapes}"
step, rollout = (sorted(v[1:])[len(v[1:]) // 2] for v in (steps, rollouts))
peak = torch.cuda.max_memory_allocated() / 1e9 if a.device != "cpu" else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
print(json.dumps(dict(
    peer="trl", checkpointing=a.checkpointing, model=a.model, dtype=a.dtype, prompt=a.prompt, new=a.new, group_size=a.group_size, groups=a.groups,
    step_s=round(step, 3), rollout_and_score_s=round(rollout, 3), update_s=round(step - rollout, 3),
    completion_tokens_per_s=round(n * a.new / step, 1), peak_memory_gb=round(peak, 2))))
