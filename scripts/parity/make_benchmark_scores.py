#!/usr/bin/env python3
"""Scores of hard answers by the harnesses' own scorers: `crates/eval/tests/fixtures/harness_scores.json`.

    pip download --no-deps lmms-eval==0.7.3 lmms-eval==0.6.1 ms-vlmeval==0.0.20   # one each, then unzip the wheels
    python scripts/parity/make_benchmark_scores.py LMMS_EVAL_0_7_3 LMMS_EVAL_0_6_1 MS_VLMEVAL OUTPUT

Each argument but the last is the folder of an unpacked wheel. Needs numpy, pandas, pyyaml, loguru and num2words; other
packages that the harnesses import are not used by their scorers, and are replaced by empty modules. STI-Bench's own code is in
no package: its rule is written here with `re`.
"""

import importlib.util
import io
import json
import pathlib
import random
import re
import string
import sys
import types
import unittest.mock
import warnings

# Before empty modules stand in for what these could use.
import loguru  # noqa: F401
import num2words  # noqa: F401
import pandas
import yaml  # noqa: F401

warnings.filterwarnings("ignore")
LMMS, LMMS_OLD, VLMEVAL = (pathlib.Path(path) for path in sys.argv[1:4])
ANSWERS = [
    "A", "B", "b", "B.", "(B)", " B", "B\n", "\u00a0B", "**B**", "`B`", "``B``", "{B}", "\\boxed{B}", "$B$", "Ｂ", "（B）", "[B]", "B)", "B:",
    "A. chair", "B. the red lamp", "b. the red lamp", "the red lamp", "The red lamp.", "a chair", "A chair", "chair",
    "The answer is B", "The answer is B.", "the answer is a chair", "The correct answer is (B).", "Answer: B", "Answer B", "answer is b",
    "Final answer: B", "My answer is B", "I choose B because of the wall", "The correct option is B because Dogs are Big",
    "Option B is wrong, so C", "Option A: chair\nOption B: lamp\nSo B", "A or B", "A and B", "Both A and B", "A B C D", "Not A, but B",
    "It is B, not A", "none", "None of these", "None", "", " ", "\n", "Z", "E", "F", "G", "I cannot tell", "Cannot determine the answer",
    "Sorry, I can't help with images of people yet.", "Failed to obtain answer via API: B",
    "<think>A or B?</think>B", "<think>A</think>\n\nB.", "<think>It is A", "<think>A</think><think>C</think>B", "A</think>B",
    "<THINK>A</THINK>B", "<think>x</think><answer>B</answer>", "<answer>B</answer>", "<answer>b. lamp</answer>", "<answer>chair</answer>",
    "<Answer>B</Answer>", "<Answer>The answer is B<", "<answer>A</answer> wait, <answer>B</answer>", "<analysis>A</analysis>B",
    "A is not correct.\nB is correct.", "Ans = 'B'", "答案是B", "答案：B", "最终答案：B。", "选B", "因此选择B", "정답은 B", "答えはB", "我选择 (B)",
    "B is to the left of A.", "Looking at the images, the chair (A) is near; the lamp (B) is far. B", "1. A\n2. B\n3. C", "- A\n- B",
    "The chair is B.\n\nExplanation: A is wrong.", "B" * 3, "AB", "B2", "x" * 900 + " B", "B " + "x" * 900, "I think the answer is C because of A",
    "3", " 3", "3.", "3.0", "3.5 m", "3m", "about 3", "three", "Three chairs", "There are 3 chairs and 2 tables", "two or three", "twenty-one",
    "one hundred and three", "one thousand two hundred", "One, two", "a hundred", "fourteen", "someone", "two2", "3-4", "2 to 4", "between 2 and 4",
    "1,234", "10^3", "3e0", "3E0", "+3", "-3", "−3", "３", "٣", "3½", "²3", "inf", "-inf", "nan", "Infinity", "3_0", "0", "0.0", "3.3.3", ".3", "3 %",
    "[3, 4]", "['3 m']", "[]", "(3)", "<answer>3</answer>", "<answer>3 of 8</answer>", "<think>5</think>3", "<think>5</think>", "<think>5", "room 2, 3 chairs",
    "\u200b3", "3\u200b", "3\u00a0m", "3\u3000", "\u20283", "zero", "ZERO", "three hundred", "\\boxed{3}", "**3**",
]
FRAGMENTS = [
    "A", "B", "C", "b", "(A)", "B.", "**B**", "the answer is ", "Answer: ", "option ", "Option A: x", "<think>", "</think>", "<answer>", "</answer>",
    " ", "\n", "\n\n", "\t", "chair", "the red lamp", "3", "2.5", "three", "twenty", "-1", "1,000", "答案", "选", ".", ",", "!", "`", "because", "Dogs",
    "is correct", "Z", "E", "\u00a0", "x",
]
OPTIONS = ["chair", "the red lamp", "a table", "None of these"]


def answers():
    """The answers above, and some of random fragments."""
    generator = random.Random(64)
    made = ["".join(generator.choices(FRAGMENTS, k=generator.randint(2, 9))) for _ in range(120)]
    return list(dict.fromkeys(ANSWERS + made))


class Empty(types.ModuleType):
    """A module of which every name is an empty class."""

    __path__ = []

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {"__init__": lambda *_, **__: None})


class EmptyModules:
    """Finds an empty module in place of each that is not installed."""

    def find_spec(self, name, path=None, target=None):
        return importlib.util.spec_from_loader(name, self)

    def create_module(self, spec):
        return Empty(spec.name)

    def exec_module(self, module):
        pass


def real_submodules(root, names):
    """Makes the named modules of a wheel importable without running their packages' `__init__`."""
    for name in names:
        spec = importlib.util.spec_from_file_location(name, root / (name.replace(".", "/") + ".py"))
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])


def task(root, name):
    """lmms-eval's `utils` of a task."""
    real = ["lmms_eval.tasks._task_utils.mcq_extract"] if root == LMMS else []
    path = f"lmms_eval/tasks/{name}/utils.py"
    for package in ["lmms_eval", "lmms_eval.tasks", "lmms_eval.tasks._task_utils"]:
        sys.modules[package] = Empty(package)
    real_submodules(root, real)
    template = types.ModuleType("lmms_eval.tasks._task_utils.default_template_yaml")
    template.load_default_template_yaml = lambda _: {"dataset_kwargs": {"cache_dir": ""}, "metadata": {}}
    sys.modules[template.__name__] = template
    resolve = types.ModuleType("lmms_eval.utils")
    resolve.resolve_cache_dir = lambda *_, **__: ""
    sys.modules[resolve.__name__] = resolve
    spec = importlib.util.spec_from_file_location(f"{name}_utils", root / path)
    loaded = importlib.util.module_from_spec(spec)
    with unittest.mock.patch("builtins.open", open_or_settings):
        spec.loader.exec_module(loaded)
    return loaded


def open_or_settings(path, *args, **kwargs):
    """`open`, with settings in place of a YAML file that a wheel lacks."""
    if "yaml" in str(path) and not pathlib.Path(path).exists():
        return io.StringIO("dataset_kwargs:\n  cache_dir: cache\n")
    return io.open(path, *args, **kwargs)


def main():
    sys.meta_path.append(EmptyModules())
    reasoning_spec = importlib.util.spec_from_file_location("reasoning", LMMS / "lmms_eval/api/reasoning.py")
    reasoning = importlib.util.module_from_spec(reasoning_spec)
    reasoning_spec.loader.exec_module(reasoning)
    tags = [["<think>", "</think>"], ["<analysis>", "</analysis>"]]

    def cleaned(answer):
        """What lmms-eval gives to a task's scorer."""
        return reasoning.strip_reasoning_tags(answer.strip(), tags)

    rules = []

    def add(benchmark, scorer, solution, score, category="", options=None):
        scores = [float(score(answer)) for answer in answers()]
        rules.append({"benchmark": benchmark, "scorer": scorer, "category": category, "solution": solution,
                      "options": options, "scores": scores})

    # VSI-Bench: numbers and choices by three scorers.
    old, new = task(LMMS_OLD, "vsibench"), task(LMMS, "vsibench")
    kinds = [("object_counting", "3", "MRA:.5:.95:.05"), ("room_size_estimation", "20.5", "MRA:.5:.95:.05"),
             ("route_planning", "B", "accuracy"), ("obj_appearance_order", "A", "accuracy")]
    for category, solution, key in kinds:
        def vsi(utils, clean):
            def score(answer):
                doc = {"question_type": category, "ground_truth": solution}
                utils.vsibench_process_results(doc, [clean(answer)])
                value = doc[key]
                return 0.0 if value != value else value
            return score
        for name in ("vsi-bench", "vsi-bench-debiased"):
            add(name, "official", solution, vsi(old, str.strip), category)
            add(name, "lmms-2026", solution, vsi(new, cleaned), category)

    # VLMEvalKit's two matchers.
    folder = VLMEVAL / "vlmeval/dataset/utils/spatial_bench"
    spec = importlib.util.spec_from_file_location("matching_func", folder / "matching_func.py")
    matching = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(matching)
    sys.modules["spatial.matching_func"] = matching
    for name in ("spatial", "spatial.llm_extract", "spatial.tools", "spatial.tools.files", "judge_util"):
        sys.modules[name] = Empty(name)
    source = (folder / "cal_scores.py").read_text().replace("from ..judge_util", "from judge_util")
    source = re.sub(r"from \.(\w)", r"from spatial.\1", source)
    easi = types.ModuleType("cal_scores")
    exec(compile(source, "cal_scores.py", "exec"), easi.__dict__)

    def choice(solution):
        return lambda answer: easi.compute_mcq_score(pandas.DataFrame([{"prediction": answer, "answer": solution}]))["hit"][0]

    def numeric(solution):
        def score(answer):
            row = pandas.DataFrame([{"prediction": answer, "answer": solution}])
            value = easi.compute_na_score(row)["MRA:.5:.95:.05"][0]
            return 0.0 if value != value else value
        return score

    for category, solution, key in kinds:
        add("vsi-bench", "easi", solution, choice(solution) if key == "accuracy" else numeric(solution), category)
    for benchmark, category, solutions in [
        ("mindcube-tiny", "around", "AB"), ("mmsi-bench", "MSR", "AB"), ("embspatial", "mp3d", "BC"), ("erqa", "x", "AB"), ("sti-bench", "x", "BE"),
    ]:
        for solution in solutions:
            add(benchmark, "easi", solution, choice(solution), category)
    for solution in ("A. chair", "B. the red lamp"):
        add("viewspatial", "easi", solution, choice(solution), "Person perspective - Relative Direction")
    spec = importlib.util.spec_from_file_location("matching_util", VLMEVAL / "vlmeval/utils/matching_util.py")
    infer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(infer)
    for benchmark, category in (("blink", "Counting"), ("3dsrbench", "height_higher")):
        for solution in "AB":
            options = dict(zip("ABCD", OPTIONS))
            add(benchmark, "easi", solution, lambda answer: infer.can_infer(answer, dict(options)) == solution, category, OPTIONS)

    # lmms-eval's other tasks.
    mindcube = task(LMMS, "mindcube")
    for solution in "AB":
        add("mindcube-tiny", "official", solution, lambda answer: mindcube.mindcube_process_results(
            {"gt_answer": solution, "id": "around_1"}, [answer.strip()])["overall_accuracy"]["score"], "around")
    mmsi = task(LMMS, "mmsi_bench")
    for solution in "AB":
        add("mmsi-bench", "official", solution, lambda answer: mmsi.msr_process_results(
            {"answer": solution, "question_type": "MSR", "id": 1}, [cleaned(answer)])["average"]["score"], "MSR")
    viewspatial = task(LMMS, "viewspatial")
    for solution in ("A. chair", "B. the red lamp"):
        add("viewspatial", "official", solution, lambda answer: viewspatial.viewspatial_process_results(
            {"answer": solution}, [answer.strip()])["overall_accuracy"]["score"] if viewspatial.extract_option(
                answer.strip().split("\n")[-1]) else 0.0, "Person perspective - Relative Direction")
    embspatial = task(LMMS, "embspatial")
    for solution in "AB":
        add("embspatial", "official", solution, lambda answer: embspatial.embspatial_process_results(
            {"answer": "ABCD".index(solution), "question_id": 1, "relation": ""}, [cleaned(answer)])["embspatial_acc"]["is_correct"], "mp3d")
    erqa = task(LMMS, "erqa")
    for solution in "AB":
        add("erqa", "official", solution, lambda answer: erqa.erqa_process_results(
            {"answer": solution, "question_id": 1, "question_type": "x"}, [cleaned(answer)])["erqa_acc"]["is_correct"], "x")
    blink_old, blink_new = task(LMMS_OLD, "blink"), task(LMMS, "blink")
    for solution in "AB":
        doc = {"answer": f"({solution})", "idx": 1, "sub_task": "Counting", "choices": OPTIONS}
        for utils, scorer in ((blink_old, "official"), (blink_new, "lmms-2026")):
            add("blink", scorer, solution, lambda answer: utils.blink_process_results(
                doc, [cleaned(answer)])["blink_acc"]["is_correct"], "Counting", OPTIONS)
    threedsr = task(LMMS, "3dsrbench")
    for solution in "AB":
        add("3dsrbench", "official", solution, lambda answer: threedsr.process_results(
            {"answer": solution, "index": 1, "category": "height_higher"}, [cleaned(answer)])["vanilla_accuracy"]["score"], "height_higher", OPTIONS)
    revsi = task(LMMS, "revsi")
    for category, solution in (("object_counting_single", "3"), ("room_size_estimation_multiple", "20.5"), ("route_planning", "B")):
        def score(answer):
            doc = {"question_type": category, "ground_truth": solution}
            revsi.revsi_process_results(doc, [cleaned(answer)])
            return 0.0 if doc["acc"] != doc["acc"] else doc["acc"]
        add("revsi", "official", solution, score, category)
    sat = task(LMMS, "sat")
    plain = str.maketrans("", "", string.punctuation)
    for solution in "AB":
        def score(answer):
            # `exact_match` with `ignore_case` and `ignore_punctuation`, behind the task's filter.
            word = sat.MultiChoiceRegexFilter.apply(None, [[answer.strip()]], [{"question": "Where?"}])[0]
            return bool(word) and word.lower().translate(plain) == solution.lower()
        add("sat", "official", solution, score, "x")

    for solution in "BE":
        add("sti-bench", "official", solution, lambda answer: sti_bench(answer) == solution, "x")

    cases = {"answers": answers(), "rules": rules}
    text = json.dumps(cases, ensure_ascii=False, separators=(",", ":"))
    pathlib.Path(sys.argv[4]).write_text(text.replace('{"benchmark"', '\n{"benchmark"') + "\n")
    print(f"{len(cases['answers'])} answers, {len(rules)} rules")


def sti_bench(answer):
    """STI-Bench's extraction."""
    patterns = [r"\(([A-E])\)", r"Ans\s*=\s*['\"]?([A-E])['\"]?", r"Answer\s*[:=]\s*([A-E])", r"Option\s+([A-E])",
                r"\b([A-E])\s*(?:is|was)\s*correct", r"\b([A-E])[\.\)]\s*$"]
    for pattern in patterns:
        found = re.search(pattern, answer, re.IGNORECASE | re.MULTILINE)
        if found:
            return found.group(1).upper()
    last = answer.strip()[-1:]
    return last if last and last in "ABCDE" else None


if __name__ == "__main__":
    main()
