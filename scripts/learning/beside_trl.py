#!/usr/bin/env python3
"""GRPO of TRL's trainer beside this program's, on the same model, prompts, rewards and settings.

    EMBODIED_R=target/release/embodied-r python scripts/learning/beside_trl.py run DIR SEED
    python scripts/learning/beside_trl.py table DIR

DIR is that of `ablations.py`, after `ablations.py run DIR "beside TRL"`: both start from its cold starts. `run` trains with
TRL and writes DIR/trl-SEED; `table` prints the accuracy of sampled replies over the steps of both, and of greedy replies on
the test questions at the end. Needs `pip install torch transformers trl datasets`.
"""

import json
import os
import pathlib
import re
import statistics
import sys
import tomllib

import ablations

ARM = "beside TRL"
STEPS = 40
WEIGHTS = {"accuracy": 0.9, "format": 0.1}
# Steps in each mean of the table.
WINDOW = 6
FORMAT = re.compile(r"<think>.*?</think>\s*<answer>.*?</answer>", re.DOTALL)
ANSWER = re.compile(r"<answer>\s*([A-Z])\b[^<]*</answer>\s*$")


def accuracy(completions, solution, **_):
    replies = [completion[0]["content"] for completion in completions]
    found = [ANSWER.search(reply) for reply in replies]
    return [float(match is not None and match.group(1) == answer) for match, answer in zip(found, solution)]


def is_formatted(completions, **_):
    return [float(FORMAT.fullmatch(completion[0]["content"].strip()) is not None) for completion in completions]


def lab(folder, seed):
    arms = tomllib.loads((pathlib.Path(__file__).parent / "ablations.toml").read_text())
    return ablations.Lab(folder, seed, arms, threads=os.cpu_count() or 1)


def run(folder, seed):
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    work, out = lab(folder, seed), folder / f"trl-{seed}"
    # TRL loads models, not adapters.
    start = out / "start"
    if not start.exists():
        work.run("merge", "--model", ablations.base(), "--adapter", work.cold_start({}), "--output", start,
                 "--dtype", "float32")
    # The system prompt as the program writes it into the worked examples.
    first = json.loads((folder / f"conversations-{seed}-{work.arms['examples']}.jsonl").read_text().splitlines()[0])
    system = first["messages"][0]
    questions = json.loads((work.rooms() / "train_data.json").read_text())
    rows = [{"prompt": [system, {"role": "user", "content": question["question"]}], "solution": question["answer"]}
            for question in questions]
    tokenizer = PreTrainedTokenizerFast.from_pretrained(start)
    steps = []

    class Record(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **_):
            if logs and "rewards/accuracy/mean" in logs:
                steps.append({"step": state.global_step, **{name: float(value) for name, value in logs.items()}})

    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(start, dtype=torch.float32),
        reward_funcs=[accuracy, is_formatted], train_dataset=Dataset.from_list(rows), processing_class=tokenizer,
        callbacks=[Record()],
        args=GRPOConfig(
            output_dir=str(out / "trainer"), seed=seed, use_cpu=True, report_to=[], save_strategy="no", logging_steps=1,
            per_device_train_batch_size=32, gradient_accumulation_steps=4, num_generations=8, max_steps=STEPS,
            max_completion_length=160, temperature=1.0, beta=0.01, loss_type="grpo", scale_rewards="group",
            reward_weights=[WEIGHTS["accuracy"], WEIGHTS["format"]], learning_rate=4e-4, lr_scheduler_type="cosine",
            warmup_steps=5, weight_decay=0.0, max_grad_norm=1.0, adam_beta1=0.9, adam_beta2=0.95,
            gradient_checkpointing=False, bf16=False))
    trainer.train()
    trainer.save_model(str(out / "final"))
    tokenizer.save_pretrained(str(out / "final"))
    (out / "steps.json").write_text(json.dumps(steps))
    print(f"seed {seed}: {work.accuracy(work.cold_start({}))['all']:.1f} → {work.accuracy(out / 'final')['all']:.1f}")


def table(folder):
    ours, theirs, ends = [], [], []
    for path in sorted(folder.glob("trl-*/steps.json")):
        seed = int(path.parent.name.removeprefix("trl-"))
        run = folder / ablations.slug(f"{ARM}-{seed}")
        events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
        ours.append([event["rewards/accuracy/mean"] for event in events if event["event"] == "step"])
        theirs.append([step["rewards/accuracy/mean"] for step in json.loads(path.read_text())])
        models = [folder / f"start-{seed}-{lab(folder, seed).arms['examples']}" / "final", run / "final", path.parent / "final"]
        ends.append([seed, *(lab(folder, seed).accuracy(model)["all"] for model in models)])
    print("| steps | this program | TRL |\n|--:|--:|--:|")
    for first in range(0, STEPS, WINDOW):
        means = [[100 * statistics.fmean(curve[first:first + WINDOW]) for curve in curves] for curves in (ours, theirs)]
        print(f"| {first + 1} to {min(first + WINDOW, STEPS)} | {' | '.join(map(ablations.with_error, means))} |")
    print("\n| seed | cold start | this program | TRL |\n|--:|--:|--:|--:|")
    for seed, *accuracies in ends:
        print(f"| {seed} | {' | '.join(f'{accuracy:.1f}' for accuracy in accuracies)} |")


def main():
    match sys.argv[1:]:
        case ["run", folder, seed]:
            run(pathlib.Path(folder), int(seed))
        case ["table", folder]:
            table(pathlib.Path(folder))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
