#!/usr/bin/env python3
"""Mean probability that a model gives to each kind of step in 60 documents of the pretraining corpus (seed 99).

    python scripts/learning/steps.py target/release/embodied-r MODEL

Needs `pip install tokenizers`.
"""

import collections
import json
import math
import re
import subprocess
import sys
import tempfile

from tokenizers import Tokenizer

NAMED = {"first", "last", "faced", "all", "view", "frame"}


def kind(line):
    """The kind of a line, and where its answer begins."""
    word = line.split(" ")[0]
    if word in {"all", "view"}:
        return word, line.rindex(": ") + 1
    if word in NAMED:
        return word, len(" ".join(line.split(" ")[:2]))
    if ": least " in line:
        return "comparison", line.index("least") + 5
    if re.search(r"[A-D]\.$", line):
        return "letter", len(line) - 2
    if re.search(r"rotate|move forward \d", line):
        return "sum", line.rindex(": ") + 1
    return "quadrant", line.index(" is ") + 3


def main():
    program, model = sys.argv[1:3]
    tokenizer = Tokenizer.from_file(f"{model}/tokenizer.json")
    corpus = [program, "sim", "corpus", "--documents", "60", "--seed", "99"]
    lines = subprocess.run(corpus, check=True, capture_output=True, text=True).stdout.splitlines()
    sequences, texts = [], []
    for document in map(json.loads, lines):
        # Lists have no steps.
        if document["prompt"] and not document["prompt"].startswith(("Frame 0: Observe", "You are")):
            continue
        line = "\n" if document["prompt"] else ""
        prompt = tokenizer.encode(f"<|endoftext|>{document['prompt']}{line}").ids
        statements = tokenizer.encode(document["completion"])
        sequences.append(prompt + statements.ids)
        texts.append((statements.offsets, document["completion"]))
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump({"sequences": sequences}, file)
        file.flush()
        command = [program, "inspect", "logprobs", "--json", "--model", model, "--data", file.name]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    probabilities = collections.defaultdict(list)
    for (offsets, text), logprobs in zip(texts, found["logprobs"]):
        logprobs = logprobs[-len(offsets):]
        start = 0
        for line in text.split("\n"):
            name, answer = kind(line)
            end = start + len(line)
            total = sum(p for p, (a, b) in zip(logprobs, offsets) if a >= start + answer and b <= end)
            probabilities[name].append(math.exp(total))
            start = end + 1
    for name, values in sorted(probabilities.items()):
        print(f"{name:<10} {len(values):>4} {sum(values) / len(values):.3f}")


if __name__ == "__main__":
    main()
