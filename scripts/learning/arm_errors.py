#!/usr/bin/env python3
"""Which step of the rationales of robot questions goes wrong first, and how exactly each thing is read from frames.

    embodied-r eval --direct --protocol robot-r1 --model MODEL --data QUESTIONS --output EVAL ...
    python scripts/learning/arm_errors.py QUESTIONS EVAL/answers.json

QUESTIONS are of `sim arm` with two decimals, such as `questions/test_selected.json` of `quickstart --robot`. The first table counts
wrong answers of each kind by their first wrong step:

    format      the rationale has other steps; the directions may be there once or twice
    target      the position to go to is off by more than 6 cm: another thing, subtask or height
    reading     it is off by more than 2.5 cm
    gripper     the gripper is off by more than 2.5 cm
    difference  the displacement is not the difference of the positions before
    words       the directions are not those of the displacement, or are copied wrongly
    letter      the letter is not that of the directions, or of the nearest position
    edge        all of this is right: the errors of reading decided

The second has the share of positions of each thing that are within 2 and 3.5 cm of the target, and over 6 cm off, along x and y.
A thing that is read right counts as off if the subtask has another target.
"""

import collections
import json
import math
import re
import sys

LETTERS = "ABCD"
DIRECTIONS = (("backward", "forward"), ("left", "right"), ("down", "up"))
POSITION = r"(-?\d\.\d\d -?\d\.\d\d -?\d\.\d\d)"
TARGET = re.compile(rf"next: [^.]+\. ([a-z ]+) {POSITION}, at \d\.\d\d: {POSITION}\.")
NEAR = re.compile(rf"near {POSITION}: ([A-D])\.")
MOVE = re.compile(rf"gripper {POSITION}, to {POSITION}: {POSITION}\. move {POSITION}: ([a-z, ]+)(?:\. ([a-z, ]+))?: ([A-D])\.")
FAR, OFF = 0.06, 0.025


def vector(text):
    return [float(number) for number in text.split()]


def difference(a, b):
    return [x - y for x, y in zip(a, b)]


def most(values):
    return max(map(abs, values))


def labels(way):
    """The directions of a displacement; its two decimals leave open whether an axis at the bound counts."""

    def words(least):
        named = ((v, names) for v, names in zip(way, DIRECTIONS) if abs(v) >= least)
        return ", ".join(("slightly " if abs(v) <= most(way) / 2 else "") + names[v > 0] for v, names in named)

    return {words(least) for least in (0.015, 0.0199, 0.0201)}


def nearest(options, at):
    return LETTERS[min(range(len(options)), key=lambda index: math.dist(vector(options[index]), at))]


def first_wrong(question, text):
    """The first wrong step of a rationale whose answer is wrong."""
    goal = question["state"] if question["kind"] == "state" else question["target"]
    if question["kind"] == "movement":
        found = MOVE.search(text)
        if not found:
            return "format"
        gripper, to, way, copied = (vector(found[index]) for index in range(1, 5))
        options = dict(zip(question["options"], LETTERS))
        if most(difference(to, goal)) > OFF:
            return "target" if most(difference(to, goal)) > FAR else "reading"
        if most(difference(gripper, question["state"])) > OFF:
            return "gripper"
        if most(difference(way, difference(to, gripper))) > 0.0051:
            return "difference"
        if way != copied or found[5] not in labels(way) or found[6] not in (None, found[5]):
            return "words"
        return "letter" if found[5] in options and options[found[5]] != found[7] else "edge"
    found = NEAR.search(text)
    if not found:
        return "format"
    at = vector(found[1])
    if most(difference(at, goal)) > OFF:
        return "target" if most(difference(at, goal)) > FAR else "reading"
    return "edge" if nearest(question["options"], at) == found[2] else "letter"


def main():
    questions = {question["Question_id"]: question for question in json.load(open(sys.argv[1]))}
    wrong, totals, reads = collections.Counter(), collections.Counter(), collections.defaultdict(list)
    for answer in json.load(open(sys.argv[2])):
        question, text = questions[answer["Question_id"]], answer["content"]
        letter = re.search(r"<answer>([A-D])</answer>", text)
        kind = question["kind"]
        totals[kind] += 1
        if not letter or letter[1] != question["answer"]:
            wrong[kind, first_wrong(question, text)] += 1
        read = TARGET.search(text)
        if read and read[1] != "gripper":
            reads[read[1]].append(most(difference(vector(read[2]), question["target"])[:2]))
    for kind, total in totals.items():
        steps = {step: count for (other, step), count in wrong.most_common() if other == kind}
        shares = "  ".join(f"{step} {100 * count / total:.1f} %" for step, count in steps.items())
        print(f"{kind:9} {total:4} questions, {100 * sum(steps.values()) / total:4.1f} % wrong: {shares}")
    for thing, errors in sorted(reads.items()):
        share = [sum(error < bound for error in errors) / len(errors) for bound in (0.02, 0.035, FAR)]
        near, close, far = share[0], share[1], 1 - share[2]
        print(f"{thing:12} {len(errors):4} read, {near:.2f} within 2 cm, {close:.2f} within 3.5 cm, {far:.2f} over 6 cm off")


if __name__ == "__main__":
    main()
