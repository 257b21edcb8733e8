#!/usr/bin/env python3
"""Mean probability that a model gives to each kind of step in chats of the pretraining corpus (seed 99).

    python scripts/learning/steps.py target/release/embodied-r target/release/embodied-r-pretrain MODEL

`cargo build --release -p embodied-r-pretraining` builds the second binary, which prints the corpus. Needs `pip install tokenizers`.
"""

import collections
import json
import math
import re
import subprocess
import sys
import tempfile

from tokenizers import Tokenizer

TEMPLATE = "<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"


def step(statement, before):
    """The kind of a statement, and where its answer begins; None for what is made up: an octant without a note before,
    or a note worded as a step, as `next 2: right 80, lamp: left 30.` is."""
    word = statement.split(" ")[0]
    made_up = {"next": r", [a-z]+: ", "order": r": ((left|right) \d+|ahead|behind)\.$"}
    if word in made_up and re.search(made_up[word], statement):
        return None
    if word in {"first", "last", "faced"}:
        return word, len(" ".join(statement.split(" ")[:2]))
    if word in {"all", "view"}:
        return word, statement.index(": ") + 1
    if word in {"frame", "next"}:
        return word, len(" ".join(statement.split(" ")[:2 if word == "frame" else 1]))
    if word == "order":
        return word, statement.index(": ") + 1
    if word == "so":
        return word, len(word)
    if re.search(r"[A-D]\.$", statement):
        return "letter", len(statement) - 2
    if re.search(r"rotate|move forward \d", statement) and ": " in statement:
        return "sum", statement.index(": ") + 1
    if re.match(r"(ahead|(left|right|behind) ?\d*) is ", statement) and " in frame " in before:
        return "octant", 0
    return None


def main():
    program, laboratory, model = sys.argv[1:4]
    tokenizer = Tokenizer.from_file(f"{model}/tokenizer.json")
    corpus = [laboratory, "corpus", "--documents", "100", "--seed", "99"]
    lines = subprocess.run(corpus, check=True, capture_output=True, text=True).stdout.splitlines()
    sequences, texts = [], []
    for document in map(json.loads, lines):
        # The judge's replies and lists have no statements.
        if not document["completion"].startswith("<think>"):
            continue
        prompt = tokenizer.encode(TEMPLATE.format(**document)).ids
        completion = tokenizer.encode(document["completion"])
        sequences.append(prompt + completion.ids)
        texts.append((completion.offsets, document["completion"]))
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump({"sequences": sequences}, file)
        file.flush()
        command = [program, "inspect", "logprobs", "--json", "--model", model, "--data", file.name]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    probabilities = collections.defaultdict(list)
    for (offsets, text), logprobs in zip(texts, found["logprobs"]):
        logprobs = logprobs[-len(offsets):]
        think = len("<think>")
        before = ""
        for statement in re.finditer(r"[^. ][^.]*\.", text[think:text.index("</think>")]):
            found_step = step(statement.group(), before)
            before = statement.group()
            if found_step is None:
                continue
            name, answer = found_step
            start, end = think + statement.start() + answer, think + statement.end()
            total = sum(p for p, (a, b) in zip(logprobs, offsets) if a >= start and b <= end)
            probabilities[name].append(math.exp(total))
    for name, values in sorted(probabilities.items()):
        print(f"{name:<10} {len(values):>4} {sum(values) / len(values):.3f}")


if __name__ == "__main__":
    main()
