#!/usr/bin/env python3
"""The table of `seeds.sh`: results of the quickstart with several seeds.

    python scripts/learning/seeds.py RUN …

RUN is an output directory of `embodied-r quickstart`. Prints Markdown: the accuracy of parsable replies of every row by
seed, with mean and standard deviation over seeds; the same for the margin over the best SFT and for sound replies; then the
claims that fail, and commit, processor and seconds of every run.
"""

import json
import pathlib
import statistics
import sys


# What the rows of `results.json` are called in the table.
LABELS = {
    "cold start": "cold start: SFT on the worked examples",
    "trained": "**then GRPO on answers**",
    "sft": "best SFT on the same worked examples",
    "sft answers": "SFT on all answers, without reasoning",
    "rejection sampling": "rejection sampling: SFT on right samples",
    "random rewards": "GRPO with random rewards",
    "shuffled in training": "GRPO with captions of other rooms",
    "captions shuffled": "trained model, captions of other rooms",
}


def load(run):
    with open(run / "results.json", encoding="utf-8") as file:
        results = json.load(file)
    with open(run / "train/environment.json", encoding="utf-8") as file:
        results["environment"] = json.load(file)
    return results


def label(row):
    """The name of a row, with the kind of question of `--robot`."""
    return LABELS.get(row["name"], row["name"]) + (f", {row['kind']}" if row.get("kind", "all") != "all" else "")


def line(name, values):
    known = [value for value in values if value is not None]
    deviation = f"{statistics.stdev(known):.1f}" if len(known) > 1 else ""
    cells = ["" if value is None else f"{value:.1f}" for value in values]
    print(f"| {name} | {' | '.join(cells)} | {statistics.fmean(known):.1f} | {deviation} |")


def main():
    runs = [load(pathlib.Path(run)) for run in sys.argv[1:]]
    if not runs:
        sys.exit(__doc__)
    print(f"| per cent | {' | '.join(str(run['seed']) for run in runs)} | mean | standard deviation |")
    print(f"|---|{'--:|' * (len(runs) + 2)}")
    tables = [{label(row): row for row in run["rows"]} for run in runs]
    names = list(dict.fromkeys(name for table in tables for name in table))
    for name in names:
        line(name, [table[name]["accuracy_of_parsable"] if name in table else None for table in tables])
    trained, sft = LABELS["trained"], LABELS["sft"]
    if all(sft in table for table in tables):
        line("margin over the best SFT", [
            table[trained]["accuracy_of_parsable"] - table[sft]["accuracy_of_parsable"] for table in tables])
    for key, head in (("sound_at_1", "sound@1"), ("sound_at_8", "sound@8")):
        for name in ("cold start", "trained"):
            rows = [table[LABELS[name]] for table in tables]
            if all(key in row for row in rows):
                line(f"{head}, {name}", [row[key] for row in rows])
    print()
    print("| seed | claims that fail | commit | processor | seconds |\n|--:|---|---|---|--:|")
    for run in runs:
        fails = [claim["text"] for claim in run["claims"] if not claim["holds"]]
        machine = run["environment"]
        count = f"{len(fails)} of {len(run['claims'])}"
        print(f"| {run['seed']} | {': '.join([count, *filter(None, ['; '.join(fails)])])} | {machine['commit']} | "
              f"{machine['machine']} | {run['seconds']:.0f} |")


if __name__ == "__main__":
    main()
