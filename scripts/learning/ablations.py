#!/usr/bin/env python3
"""What each setting of the quickstart is worth: the arms of `ablations.toml`, on rooms that no quickstart uses.

    EMBODIED_R=target/release/embodied-r python scripts/learning/ablations.py run DIR [ARM …] [--seeds 101,102] [--jobs 2]
    python scripts/learning/ablations.py page RESULTS
    python scripts/learning/ablations.py curve RESULTS ARM

`run` makes rooms, cold starts and GRPO runs in DIR, and appends one line per arm and seed to DIR/results.jsonl; a finished
one is not run again. BASE is another base model than the bundled one. `curve` has training over the steps; `page` the mean of
every arm over its seeds with its standard error, the difference from the default over the seeds of both, and the curve of the
longest arm: `ablations.md` is the page of `ablations.jsonl`.
"""

import argparse
import collections
import concurrent.futures
import json
import os
import pathlib
import re
import shlex
import statistics
import subprocess
import sys
import threading
import time
import tomllib

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs"
CATEGORIES = {
    "Landmark Position": "where",
    "Action Generation": "action",
    "Progress Evaluation": "progress",
    "obj_appearance_order": "order",
}
JUDGE_EXAMPLES, SAMPLES = 20, 8
PROMPT = ["--system-prompt-preset", "bearings"]
# Metrics of training in `curve`, and their heads.
CURVE = {"rewards/accuracy/mean": "sampled accuracy", "entropy": "entropy", "frac_reward_zero_std": "zero-variance groups",
         "kl": "KL"}
# The arm whose curve the page has.
LONGEST = "three times the quickstart's steps"


class Lab:
    """Runs commands of the program for one seed, each once."""

    def __init__(self, folder, seed, arms, threads):
        self.folder, self.seed, self.arms = folder, seed, arms
        self.program = os.environ.get("EMBODIED_R", "embodied-r")
        self.environment = {**os.environ, "RAYON_NUM_THREADS": str(threads)}

    def run(self, *words):
        command = [self.program, *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, env=self.environment, check=False)
        if done.returncode != 0:
            sys.exit(f"error: `{shlex.join(command)}` failed\n{done.stderr[-2000:]}")
        return done.stdout

    def rooms(self):
        """The folder of the seed's captioned questions."""
        folder = self.folder / f"rooms-{self.seed}"
        perceived = folder / "perceived"
        if not (perceived / "test_data.json").exists():
            self.run("sim", "rooms", "--output", folder / "rooms", "--rooms", self.arms["rooms"], "--seed", self.seed,
                     "--per-category", 4, "--categories", ",".join(CATEGORIES))
            self.run("preprocess", "--data", folder / "rooms", "--output", folder / "dataset", "--seed", self.seed)
            splits = [folder / f"dataset/complete/{split}_data.json" for split in ("train", "val", "test")]
            self.run("perceive", "--backend", "scene", "--scenes", folder / "rooms/scenes", "--data", *splits,
                     "--output", perceived)
        return perceived

    def cold_start(self, arm):
        """The model after SFT on worked examples."""
        examples = arm.get("examples", self.arms["examples"])
        conversations = self.folder / f"conversations-{self.seed}-{examples}.jsonl"
        if not conversations.exists():
            self.run("sim", "conversations", "--data", self.rooms() / "train_data.json", "--questions", examples,
                     "--judge-examples", JUDGE_EXAMPLES, "--seed", self.seed, "--output", conversations)
        sets = [f"seed={self.seed}", *arm.get("sft", [])]
        name = slug(f"start-{self.seed}-{examples}-{'-'.join(sets[1:])}")
        self.run("sft", "--resume", "auto", "--config", CONFIGS / "quickstart-sft.toml", "--model", base(),
                 "--data", conversations, "--output", self.folder / name, *settings(sets))
        return self.folder / name / "final"

    def accuracy(self, model):
        """Per cent of right greedy replies to the test questions, over all and by category, and the questions' number."""
        cached = model.parent / "test.json"
        if not cached.exists():
            found = json.loads(self.run("eval", "--json", "--model", model, "--data", self.rooms() / "test_data.json",
                                        "--max-new-tokens", 160, *PROMPT))
            by_category = {CATEGORIES[name]: score["score"] for name, score in found["by_category"].items()}
            cached.write_text(json.dumps({"n": found["n"], "all": found["micro"], **by_category}))
        return json.loads(cached.read_text())

    def samples(self, model):
        """pass@1 and pass@8 of a model at temperature 1, per cent."""
        cached = model.parent / "samples.json"
        if not cached.exists():
            found = json.loads(self.run("eval", "--json", "--model", model, "--data", self.rooms() / "test_data.json",
                                        "--max-new-tokens", 160, *PROMPT, "--pass-at", f"1,{SAMPLES}",
                                        "--temperature", 1, "--num-samples", SAMPLES, "--seed", self.seed))
            cached.write_text(json.dumps(found["pass_at"]))
        return json.loads(cached.read_text())

    def arm(self, arm):
        """Trains and scores one arm: its line of results."""
        start = self.cold_start(arm)
        run = self.folder / slug(f"{arm['name']}-{self.seed}")
        began = time.monotonic()
        self.run("train", "--resume", "auto", "--config", CONFIGS / "quickstart-train.toml", "--model", start,
                 "--data", self.rooms() / "train_data.json", "--eval-data", self.rooms() / "val_data.json",
                 "--output", run,
                 *settings([f"seed={self.seed}", *self.arms["train"], *arm.get("train", [])]))
        found = {"arm": arm["name"], "seed": self.seed, "start": self.accuracy(start), "end": self.accuracy(run / "final"),
                 "seconds": round(time.monotonic() - began), "curve": curve(run)}
        environment = json.loads((run / "environment.json").read_text())
        found |= {"commit": environment["commit"], "processor": environment["machine"]}
        if arm.get("samples"):
            found |= {"start_pass_at": self.samples(start), "end_pass_at": self.samples(run / "final")}
        return found


def base():
    return os.environ.get("BASE", ROOT / "crates/cli/base")


def slug(text):
    return re.sub(r"[^A-Za-z0-9.=_]+", "-", text).strip("-")[:150]


def settings(sets):
    return [word for setting in sets for word in ("--set", setting)]


def curve(run):
    """Metrics of every tenth of a run's steps, means since the one before, with the evaluations in between."""
    steps, evaluations = {}, {}
    for line in (run / "events.jsonl").read_text().splitlines():
        event = json.loads(line)
        if event["event"] == "step":
            steps[event["step"]] = event
        elif event["event"] == "eval":
            evaluations[event["step"]] = round(100 * event["eval/accuracy"], 1)
    points, last, count = [], max(steps), 10
    for tenth in range(count):
        part = range(last * tenth // count + 1, last * (tenth + 1) // count + 1)
        known = {name: [steps[step][name] for step in part if name in steps.get(step, {})] for name in CURVE}
        means = {name: round(statistics.fmean(values), 4) for name, values in known.items() if values}
        points.append({"step": part[-1], **means})
    return {"steps": points, "validation": evaluations}


def check_settings(folder):
    """Refuses a folder whose runs have other settings: resumed runs would mix them."""
    for name in ("quickstart-sft.toml", "quickstart-train.toml"):
        used, current = folder / name, (CONFIGS / name).read_text()
        if used.exists() and used.read_text() != current:
            sys.exit(f"error: the runs in `{folder}` have another `{name}` than the configs today\nhint: give a new folder")
        used.write_text(current)


def finished(results):
    if not results.exists():
        return []
    return [json.loads(line) for line in results.read_text().splitlines()]


def run(args, arms):
    names = {arm["name"]: arm for arm in arms["arm"]}
    unknown = [name for name in args.arms if name not in names]
    if unknown:
        sys.exit(f"error: no arm is called `{unknown[0]}`\nhint: the arms are {'; '.join(names)}")
    chosen = [names[name] for name in args.arms or names]
    args.folder.mkdir(parents=True, exist_ok=True)
    check_settings(args.folder)
    results = args.folder / "results.jsonl"
    done = {(line["arm"], line["seed"]) for line in finished(results)}
    seeds = [int(seed) for seed in args.seeds.split(",")] if args.seeds else arms["seeds"]
    threads = max(1, (os.cpu_count() or 1) // args.jobs)
    # Arms of a seed share rooms and cold starts.
    locks = collections.defaultdict(threading.Lock)

    def one(work):
        arm, seed = work
        lab = Lab(args.folder, seed, arms, threads)
        with locks[seed]:
            lab.accuracy(lab.cold_start(arm))
        line = lab.arm(arm)
        with locks["results"], results.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(f"{arm['name']}, seed {seed}: {line['start']['all']:.1f} → {line['end']['all']:.1f}", flush=True)

    todo = [(arm, seed) for arm in chosen for seed in seeds if (arm["name"], seed) not in done]
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        for _ in pool.map(one, todo):
            pass


def with_error(values):
    error = f" ± {statistics.stdev(values) / len(values) ** 0.5:.1f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.1f}{error}"


def page(lines, arms):
    order = [arm["name"] for arm in arms["arm"]]
    lines = sorted(lines, key=lambda line: order.index(line["arm"]))
    print(f'''# Arms of `ablations.toml`

By `ablations.py page scripts/learning/ablations.jsonl`: accuracy in per cent on test rooms, means over seeds 101 to 103 and standard \
errors; the last four columns are categories of the trained model.
''')
    table(lines)
    print(f'''
## Over the steps

{LONGEST[0].upper()}{LONGEST[1:]}: training, means since the row before, and greedy replies to validation questions, means over the \
seeds.
''')
    curve_table(lines, LONGEST)


def table(lines):
    by_arm = collections.defaultdict(dict)
    for line in lines:
        by_arm[line["arm"]][line["seed"]] = line
    default = by_arm.get("default", {})
    heads = ["arm", "seeds", "cold start", "trained", "over the default", *CATEGORIES.values()]
    print(f"| {' | '.join(heads)} |\n|---|{'--:|' * (len(heads) - 1)}")
    for name, runs in by_arm.items():
        cells = [name, str(len(runs))]
        cells += [with_error([run[part]["all"] for run in runs.values()]) for part in ("start", "end")]
        gains = [run["end"]["all"] - default[seed]["end"]["all"] for seed, run in runs.items() if seed in default]
        cells.append(with_error(gains) if gains and name != "default" else "")
        cells += [f"{statistics.fmean([run['end'][head] for run in runs.values()]):.0f}" for head in CATEGORIES.values()]
        print(f"| {' | '.join(cells)} |")


def curve_table(lines, name):
    runs = [line["curve"] for line in lines if line["arm"] == name]
    if not runs:
        sys.exit(f"error: no run of `{name}`")
    print(f"| step | {' | '.join(CURVE.values())} |\n|--:|{'--:|' * len(CURVE)}")
    for points in zip(*(run["steps"] for run in runs)):
        cells = [statistics.fmean([point[metric] for point in points if metric in point] or [0.0]) for metric in CURVE]
        print(f"| {points[0]['step']} | {' | '.join(f'{cell:.3f}' for cell in cells)} |")
    steps = list(runs[0]["validation"])
    print(f"\n| step | {' | '.join(steps)} |\n|---|{'--:|' * len(steps)}")
    means = [statistics.fmean(run["validation"][step] for run in runs) for step in steps]
    print(f"| validation accuracy | {' | '.join(f'{mean:.1f}' for mean in means)} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parsers = parser.add_subparsers(required=True, dest="command")
    runs = parsers.add_parser("run")
    runs.add_argument("folder", type=pathlib.Path)
    runs.add_argument("arms", nargs="*")
    runs.add_argument("--seeds")
    runs.add_argument("--jobs", type=int, default=2)
    parsers.add_parser("page").add_argument("results", type=pathlib.Path)
    of_arm = parsers.add_parser("curve")
    of_arm.add_argument("results", type=pathlib.Path)
    of_arm.add_argument("arm")
    args = parser.parse_args()
    arms = tomllib.loads((pathlib.Path(__file__).parent / "ablations.toml").read_text())
    if args.command == "run":
        run(args, arms)
    elif args.command == "page":
        page(finished(args.results), arms)
    else:
        curve_table(finished(args.results), args.arm)


if __name__ == "__main__":
    main()
