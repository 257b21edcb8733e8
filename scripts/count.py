#!/usr/bin/env python3
"""Counts the code of each crate, the words of the documents and the packages of the lock file, as one Markdown table each.

    scripts/count.py [ROOT]

Code lines are neither blank nor comments, and outside of tests: files below a folder `tests`, files `tests.rs`, and modules
behind `#[cfg(test)]`. Words are those of the hand-written documents, without the generated `docs/cli.md`,
`docs/evaluation-benchmarks.md` and `docs/settings.md`.
"""

import pathlib
import re
import sys

GENERATED = {"docs/cli.md", "docs/evaluation-benchmarks.md", "docs/settings.md"}
TEST_MODULE = re.compile(r"^(\s*)#\[cfg\((all\()?test\b.*\)\]$")


def is_test(path):
    return "tests" in path.parts or path.stem == "tests"


def code_lines(text):
    """Lines of code outside of modules behind `#[cfg(test)]`, which end with a brace at their own indentation."""
    count, lines = 0, iter(text.splitlines())
    in_comment = False
    for line in lines:
        bare = line.strip()
        found = TEST_MODULE.match(line)
        if found:
            declaration = next(lines, "").rstrip()
            if declaration.endswith("{"):
                for inner in lines:
                    if inner == found.group(1) + "}":
                        break
            continue
        if in_comment or bare.startswith("/*"):
            in_comment = "*/" not in bare
            continue
        count += bool(bare) and not bare.startswith("//")
    return count


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parents[1])
    print("| crate | files | code lines | test files | lines of test files |\n|---|--:|--:|--:|--:|")
    totals = [0] * 4
    for crate in [*sorted((root / "crates").iterdir()), root / "tests"]:
        files = [path for path in sorted(crate.rglob("*.rs")) if "target" not in path.parts]
        relative = [path.relative_to(crate.parent if crate.name == "tests" else crate) for path in files]
        tests = [path for path, place in zip(files, relative) if is_test(place)]
        sources = [path for path in files if path not in tests]
        lines = sum(code_lines(path.read_text()) for path in sources)
        of_tests = sum(len(path.read_text().splitlines()) for path in tests)
        row = [len(sources), lines, len(tests), of_tests]
        totals = [total + number for total, number in zip(totals, row)]
        print(f"| {crate.name} | {' | '.join(f'{number:,}' for number in row)} |")
    print(f"| **all** | {' | '.join(f'{number:,}' for number in totals)} |\n")

    print("| document | words |\n|---|--:|")
    documents = [*root.glob("*.md"), *(root / "docs").rglob("*.md"), *(root / "dataset").glob("*.md")]
    documents += (root / "crates").glob("*/README.md")
    words = {str(path.relative_to(root)): len(path.read_text().split()) for path in documents}
    words = {name: count for name, count in sorted(words.items()) if name not in GENERATED}
    for name, count in words.items():
        print(f"| {name} | {count:,} |")
    print(f"| **all** | {sum(words.values()):,} |\n")

    packages = (root / "Cargo.lock").read_text().split("[[package]]")[1:]
    own = sum("source = " not in package for package in packages)
    print(f"{len(packages)} packages in `Cargo.lock`, {own} of them this workspace's.")


if __name__ == "__main__":
    main()
