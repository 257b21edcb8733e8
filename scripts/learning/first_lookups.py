#!/usr/bin/env python3
"""How well a base for robot questions finds the letter of a content in a lettered list, by the first lookup in each list.

    python scripts/learning/first_lookups.py target/release/embodied-r MODEL

Prints mean nats of the letter (chance 1.386) and how often it is the likeliest of the four, over 200 lists each of numbers,
positions and phrases of directions. Later lookups can copy an earlier answer, and then do not show that the list was read.

Needs `pip install tokenizers`.
"""

import json
import random
import subprocess
import sys
import tempfile

from tokenizers import Tokenizer

LISTS = 200
LETTERS = "ABCD"
DIRECTIONS = (("forward", "backward"), ("right", "left"), ("up", "down"))
SPACE = ((-0.02, 0.46), (-0.36, 0.36), (0.76, 1.2))


def number(value):
    return f"{value:.2f}".replace("-0.00", "0.00")


def numbers(rng):
    """Four different numbers."""
    contents = set()
    while len(contents) < len(LETTERS):
        contents.add(number(rng.uniform(*rng.choice(SPACE))))
    return sorted(contents), "near "


def positions(rng):
    """Four positions."""
    return [" ".join(number(rng.uniform(*axis)) for axis in SPACE) for _ in LETTERS], "near "


def command(rng):
    """A direction along an axis and whether it is slight, or None if the axis does not move."""
    return (rng.randrange(2), rng.random() < 0.5) if rng.random() < 0.8 else None


def changed(value, rng):
    """Another command of the axis."""
    if value is None:
        return rng.randrange(2), rng.random() < 0.5
    sign, slight = value
    return rng.choice(((1 - sign, slight), (sign, not slight), None))


def phrases(rng):
    """Four phrases of directions: the combinations of two changes, as in movement questions."""
    while True:
        start = [command(rng) for _ in DIRECTIONS]
        changes = [(axis, changed(start[axis], rng)) for axis in (rng.randrange(3), rng.randrange(3))]
        contents = set()
        for index in range(4):
            commands = list(start)
            for bit, (axis, change) in enumerate(changes):
                if index >> bit & 1:
                    commands[axis] = change
            if any(moves and not moves[1] for moves in commands):
                words = [("slightly " if moves[1] else "") + names[moves[0]] for moves, names in zip(commands, DIRECTIONS) if moves]
                contents.add(", ".join(words))
        if len(contents) == len(LETTERS):
            return sorted(contents), ""


def measure(program, model, make):
    """Nats of the letter, and how often it is the likeliest."""
    tokenizer = Tokenizer.from_file(f"{model}/tokenizer.json")
    rng = random.Random(3)
    encode = lambda text: tokenizer.encode(text, add_special_tokens=False).ids
    sequences, answers = [], []
    for _ in range(LISTS):
        contents, before = make(rng)
        rng.shuffle(contents)
        answers.append(rng.randrange(len(LETTERS)))
        listed = "".join(f"{letter} {content}\n" for letter, content in zip(LETTERS, contents))
        prompt = encode(f"<|endoftext|>{listed}{before}{contents[answers[-1]]}:")
        sequences += [prompt + encode(f" {letter}") for letter in LETTERS]
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump({"sequences": sequences}, file)
        file.flush()
        inspect = [program, "inspect", "logprobs", "--json", "--model", model, "--data", file.name]
        found = json.loads(subprocess.run(inspect, check=True, capture_output=True, text=True).stdout)["logprobs"]
    of_letters = [[logprobs[-1] for logprobs in found[index : index + 4]] for index in range(0, len(found), 4)]
    nats = -sum(of[answer] for of, answer in zip(of_letters, answers)) / LISTS
    right = sum(of.index(max(of)) == answer for of, answer in zip(of_letters, answers)) / LISTS
    return nats, right


def main():
    program, model = sys.argv[1:3]
    for make in (numbers, positions, phrases):
        nats, right = measure(program, model, make)
        print(f"{make.__name__:<10} {nats:.3f} nats, {right:.0%} right")


if __name__ == "__main__":
    main()
