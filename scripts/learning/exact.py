#!/usr/bin/env python3
"""Accuracy of replies, and how many equal the solver's rationale, by category.

    embodied-r sim conversations --questions 100000 --judge-examples 0 --data QUESTIONS --output SOLVER
    python scripts/learning/exact.py SOLVER ANSWERS [ANSWERS …]

QUESTIONS is a quickstart's `perceived/test_data.json`, ANSWERS what `infer` wrote about it, such as `answers/trained.json`.
"""

import collections
import json
import re
import sys


def main():
    solver = {}
    with open(sys.argv[1], encoding="utf-8") as lines:
        for line in lines:
            _, prompt, reply = (message["content"] for message in json.loads(line)["messages"])
            solver[prompt.strip()] = reply
    print("| answers | category | n | accuracy | exact |\n|---|---|--:|--:|--:|")
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
                found[question["question_category"]].append((right, exact))
        for category, replies in sorted(found.items()):
            right, exact = (100 * sum(column) / len(replies) for column in zip(*replies))
            print(f"| {name} | {category} | {len(replies)} | {right:.0f} | {exact:.0f} |")


if __name__ == "__main__":
    main()
