#!/usr/bin/env python3
"""What a base for robot questions gives to the right result of each kind of step, in contexts that are made up.

    python scripts/learning/arm_steps.py target/release/embodied-r MODEL

Prints the mean log-probability in nats and the mean probability of the result, over 200 contexts of each kind. Lookups are the
first in their list, with a chance of 1.386 nats: later ones can copy an earlier answer, and do not show that the list was read.

Needs `pip install tokenizers`.
"""

import json
import math
import random
import subprocess
import sys
import tempfile

from tokenizers import Tokenizer

CONTEXTS = 200
LETTERS = "ABCD"
DIRECTIONS = (("backward", "forward"), ("left", "right"), ("down", "up"))
SPACE = ((-0.02, 0.46), (-0.36, 0.36), (0.76, 1.2))
EPSILON = 0.02


def number(value):
    return f"{value:.2f}".replace("-0.00", "0.00")


def text(position):
    return " ".join(map(number, position))


def position(rng):
    return [round(rng.uniform(*axis), 2) for axis in SPACE]


def lookup(contents, before, rng):
    """A lettered list and one of its contents, and its letter."""
    rng.shuffle(contents)
    answer = rng.randrange(len(LETTERS))
    listed = "".join(f"{letter} {content}\n" for letter, content in zip(LETTERS, contents))
    return f"{listed}{before}{contents[answer]}:", f" {LETTERS[answer]}"


def numbers(rng):
    """Lookups of numbers."""
    contents = set()
    while len(contents) < len(LETTERS):
        contents.add(number(rng.uniform(*rng.choice(SPACE))))
    return lookup(sorted(contents), "near ", rng)


def positions(rng):
    """Lookups of positions."""
    return lookup([text(position(rng)) for _ in LETTERS], "near ", rng)


def command(rng):
    """A direction along an axis and whether it is slight, or None if the axis does not move."""
    return (rng.randrange(2), rng.random() < 0.5) if rng.random() < 0.8 else None


def changed(value, rng):
    """Another command of the axis."""
    if value is None:
        return rng.randrange(2), rng.random() < 0.5
    sign, slight = value
    return rng.choice(((1 - sign, slight), (sign, not slight), None))


def phrase(commands):
    """The words of commands."""
    named = zip(commands, DIRECTIONS)
    return ", ".join(("slightly " if moves[1] else "") + names[moves[0]] for moves, names in named if moves)


def phrases(rng):
    """Lookups of phrases of directions: the combinations of two changes, as in movement questions."""
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
                contents.add(phrase(commands))
        if len(contents) == len(LETTERS):
            return lookup(sorted(contents), "", rng)


def things(rng):
    """Listed things: the positions of the gripper and of a cup, and the list."""
    gripper, cup = position(rng), position(rng)
    return gripper, cup, f"gripper {text(gripper)}\nred cup {text(cup)}\n"


def places(rng):
    """Where a listed thing is."""
    _, cup, listed = things(rng)
    return f"{listed}red cup", f" {text(cup)}."


def heights(rng):
    """Its place at another height."""
    _, cup, listed = things(rng)
    height = position(rng)[2]
    return f"{listed}red cup {text(cup)}, at {number(height)}:", f" {text([*cup[:2], height])}."


def displacements(rng):
    """The displacement of the gripper to above a thing, or to anywhere."""
    gripper, cup, listed = things(rng)
    to = rng.choice((position(rng), [*cup[:2], position(rng)[2]]))
    way = [round(b - a, 2) for a, b in zip(gripper, to)]
    return f"{listed}gripper {text(gripper)}, to {text(to)}:", f" {text(way)}."


def directions(rng):
    """The directions of a displacement."""
    *_, listed = things(rng)
    way = [round(b - a, 2) for a, b in zip(position(rng), position(rng))]
    largest = max(map(abs, way))
    commands = [
        (int(value > 0), abs(value) <= largest / 2 + 1e-9) if abs(value) >= EPSILON - 1e-9 else None
        for value in way
    ]
    return f"{listed}move {text(way)}:", f" {phrase(commands)}."


def measure(program, model, make):
    """Nats and probability of the results of a kind of step."""
    tokenizer = Tokenizer.from_file(f"{model}/tokenizer.json")
    rng = random.Random(3)
    encode = lambda text: tokenizer.encode(text, add_special_tokens=False).ids
    sequences, lengths = [], []
    for _ in range(CONTEXTS):
        before, result = make(rng)
        result = encode(result)
        lengths.append(len(result))
        sequences.append(encode(f"<|endoftext|>{before}") + result)
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump({"sequences": sequences}, file)
        file.flush()
        inspect = [program, "inspect", "logprobs", "--json", "--model", model, "--data", file.name]
        found = json.loads(subprocess.run(inspect, check=True, capture_output=True, text=True).stdout)["logprobs"]
    totals = [sum(logprobs[-length:]) for logprobs, length in zip(found, lengths)]
    return -sum(totals) / CONTEXTS, sum(map(math.exp, totals)) / CONTEXTS


def main():
    program, model = sys.argv[1:3]
    for make in (numbers, positions, phrases, places, heights, displacements, directions):
        nats, probability = measure(program, model, make)
        print(f"{make.__name__:<13} {nats:6.3f} nats, probability {probability:.3f}")


if __name__ == "__main__":
    main()
