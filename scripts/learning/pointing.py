#!/usr/bin/env python3
"""GRPO on points and boxes in frames of rooms, from the bundled vision-language base, which never learned coordinates.

    EMBODIED_R=target/release/embodied-r python scripts/learning/pointing.py DIR [--seeds 1,2,3]

Prints the mean scores of greedy answers on test questions in per cent, as `eval` has them: points by their distance, 1 below 40 and 0
from 150 thousandths, boxes by intersection over union. Runs in DIR are not repeated. GRPO has `point_reward.recall`.

- cold start: SFT on worked examples. Best SFT: of the lengths in SFT_EPOCHS, the best on validation questions.
- trained: GRPO after the cold start; also on grey frames in place of the test questions' own.
- random rewards: GRPO where each question has the answer of another one of its kind.
"""

import argparse
import json
import os
import pathlib
import random
import shlex
import statistics
import struct
import subprocess
import sys
import zlib

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONFIGS, BASE = ROOT / "configs", ROOT / "crates/cli/base/vision"
EXAMPLES, EPOCHS, SFT_EPOCHS = 120, 24, (12, 24, 48)
COUNTS = {"train": 960, "val": 60, "test": 300}
KINDS = ("point", "box")
# Rate, beta and length were chosen on seed 11.
GRPO = ["reward_weights={accuracy=0.9,format=0.1}", "num_train_epochs=2", "learning_rate=4e-4", "beta=0.02", "max_completion_length=48",
        "point_reward={recall=true}"]


class Lab:
    def __init__(self, folder, seed):
        self.folder, self.seed = folder / f"pointing-{seed}", seed
        self.folder.mkdir(parents=True, exist_ok=True)
        self.program = os.environ.get("EMBODIED_R", "embodied-r")

    def run(self, *words):
        command = [self.program, *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            sys.exit(f"error: `{shlex.join(command)}` failed\n{done.stderr[-2000:]}")
        return done.stdout

    def views(self):
        views = self.folder / "views"
        if not (views / "test_data.json").exists():
            counts = [word for name, count in COUNTS.items() for word in (f"--{name}", count)]
            self.run("sim", "views", "--answers", ",".join(KINDS), "--seed", self.seed, "--output", views, *counts)
        return views

    def changed(self, name, split, change):
        """A file of questions of a split, each changed in place."""
        path = self.views() / f"{name}.json"
        questions = json.loads((self.views() / f"{split}_data.json").read_text())
        change(questions)
        path.write_text(json.dumps(questions))
        return path

    def grey(self):
        (self.views() / "grey.png").write_bytes(grey_png(112, 84))
        return self.changed("grey", "test", lambda questions: [question.update(images=["grey.png"]) for question in questions])

    def others(self):
        def shuffle(questions):
            for kind in KINDS:
                of_kind = [question for question in questions if question["answer_type"] == kind]
                answers = [question["answer"] for question in of_kind]
                random.Random(self.seed).shuffle(answers)
                for question, answer in zip(of_kind, answers):
                    question["answer"] = answer
        return self.changed("others", "train", shuffle)

    def sft(self, epochs):
        worked = self.views() / "worked.jsonl"
        if not worked.exists():
            self.run("sim", "conversations", "--data", self.views() / "train_data.json", "--questions", EXAMPLES,
                     "--judge-examples", 0, "--seed", self.seed, "--output", worked)
        run = self.folder / f"sft-{epochs}"
        self.run("sft", "--resume", "auto", "--config", CONFIGS / "quickstart-vision-sft.toml", "--model", BASE, "--data", worked,
                 "--output", run, "--set", f"seed={self.seed}", "--set", f"num_train_epochs={epochs}")
        return run / "final"

    def grpo(self, name, data):
        run = self.folder / name
        settings = [word for setting in [f"seed={self.seed}", *GRPO] for word in ("--set", setting)]
        self.run("train", "--resume", "auto", "--config", self.config(), "--model", self.sft(EPOCHS), "--data", data,
                 "--output", run, *settings)
        return run / "final"

    def config(self):
        """The quickstart's settings without its stages."""
        path = self.folder / "train.toml"
        path.write_text((CONFIGS / "quickstart-vision.toml").read_text().split("[[stage]]")[0])
        return path

    def score(self, model, questions):
        """Mean scores by kind, in per cent."""
        cached = model.parent / f"{questions.stem}.scores.json"
        if not cached.exists():
            found = self.run("eval", "--json", "--direct", "--system-prompt-preset", "bearings", "--max-new-tokens", 48,
                             "--benchmark", "accuracy", "--model", model, "--data", questions)
            cached.write_text(found)
        return json.loads(cached.read_text())

    def line(self):
        test, val = (self.views() / f"{split}_data.json" for split in ("test", "val"))
        best = max(SFT_EPOCHS, key=lambda epochs: self.score(self.sft(epochs), val)["overall"])
        trained = self.grpo("trained", self.views() / "train_data.json")
        found = {
            "cold start": self.score(self.sft(EPOCHS), test),
            "best SFT": self.score(self.sft(best), test),
            "trained": self.score(trained, test),
            "trained, grey frames": self.score(trained, self.grey()),
            "random rewards": self.score(self.grpo("random", self.others()), test),
        }
        return {name: {kind: score["by_category"][kind]["score"] for kind in KINDS} for name, score in found.items()}


def grey_png(width, height):
    chunk = lambda name, data: struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    rows = (b"\0" + b"\x80" * 3 * width) * height
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--seeds", default="1,2,3")
    args = parser.parse_args()
    lines = [Lab(args.folder, int(seed)).line() for seed in args.seeds.split(",")]
    print("| | points | boxes |\n|---|--:|--:|")
    for name in lines[0]:
        cells = [[line[name][kind] for line in lines] for kind in KINDS]
        error = lambda values: f" ± {statistics.stdev(values) / len(values) ** 0.5:.1f}" if len(values) > 1 else ""
        print(f"| {name} | {' | '.join(f'{statistics.fmean(values):.1f}{error(values)}' for values in cells)} |")


if __name__ == "__main__":
    main()
