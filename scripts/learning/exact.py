#!/usr/bin/env python3
"""Accuracy of replies, how many equal the solver's rationale, and their wrong sums of angles, by category.

    embodied-r sim conversations --questions 100000 --judge-examples 0 --data QUESTIONS --output SOLVER
    python scripts/learning/exact.py SOLVER ANSWERS [ANSWERS …]

QUESTIONS is a quickstart's `perceived/test_data.json`, ANSWERS what `infer` wrote about it, such as `answers/trained.json`.
"""

import collections
import json
import re
import sys


BEARING = r"(ahead|behind|(?:left|right) \d+)"
SUM = re.compile(rf"next \d+: {BEARING}, rotate (left|right) (\d+): {BEARING}")


def degrees(bearing):
    """A bearing in degrees, right of ahead."""
    side, _, angle = bearing.partition(" ")
    return {"ahead": 0, "behind": 180, "right": 1, "left": -1}[side] * int(angle or 1)


def wrong_sums(reply):
    """Whether each bearing after a rotation is wrong."""
    wrong = []
    for before, side, turn, after in SUM.findall(reply):
        expected = degrees(before) + (int(turn) if side == "left" else -int(turn))
        wrong.append((degrees(after) - expected) % 360 != 0)
    return wrong


def main():
    solver = {}
    with open(sys.argv[1], encoding="utf-8") as lines:
        for line in lines:
            _, prompt, reply = (message["content"] for message in json.loads(line)["messages"])
            solver[prompt.strip()] = reply
    print("| answers | category | n | accuracy | exact | wrong sums |\n|---|---|--:|--:|--:|--:|")
    for name in sys.argv[2:]:
        found = collections.defaultdict(list)
        with open(name, encoding="utf-8") as file:
            for question in json.load(file):
                answer = re.search(r"<answer>\s*([A-Z])", question["content"])
                right = bool(answer) and answer.group(1) == question["answer"]
                rationale = solver.get(question["question"].strip())
                if rationale is None:
                    sys.exit(f"error: {sys.argv[1]} has no rationale for question {question['Question_id']} of {name}")
                exact = question["content"].strip() == rationale.strip()
                sums = wrong_sums(question["content"])
                found[question["question_category"]].append((right, exact, sum(sums), len(sums)))
        for category, replies in sorted(found.items()):
            n = len(replies)
            right, exact, wrong, sums = (sum(column) for column in zip(*replies))
            print(f"| {name} | {category} | {n} | {100 * right / n:.0f} | {100 * exact / n:.0f} | {wrong} of {sums} |")


if __name__ == "__main__":
    main()
