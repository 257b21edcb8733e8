#!/usr/bin/env python3
"""Makes answers that point, good and malformed ones, and their rewards by the published rules, computed here on their own.

    python scripts/parity/make_pointing_rewards.py --out crates/rewards/tests/fixtures/pointing.json

Of each answer type, 60 answers in the forms that the trainer reads, and 60 of Embodied-R1.5's records. Rewards are of the
thresholds that it was trained with. Needs nothing but Python.
"""

import argparse
import ast
import json
import math
import random
import re

NUMBER = (int, float)
MOST = 1000


# What an answer says -------------------------------------------------------------------------------------------------------------


def literal(text):
    """JSON or Python, without a code fence; several values without brackets are a list. None for anything else."""
    text = text.strip()
    if text.startswith("```"):
        text = re.sub(r"^```\w*", "", text).rstrip("`").strip()
    try:
        value = ast.literal_eval(text.replace("null", "None").replace("true", "True"))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return value


def is_numbers(value):
    return isinstance(value, (list, tuple)) and len(value) > 0 and all(
        isinstance(item, NUMBER) and not isinstance(item, bool) for item in value)


def flat(value, keys, sizes):
    """The lists of numbers in a value, with the depth beside each."""
    if is_numbers(value):
        if len(value) not in sizes:
            raise ValueError
        return [(list(value[:4 if 4 in sizes else 2]), value[2] if len(value) == 3 else None)]
    if isinstance(value, (list, tuple)) and value:
        return [found for item in value for found in flat(item, keys, sizes)]
    if isinstance(value, dict):
        named = [key for key in value if key in keys]
        if len(named) != 1:
            raise ValueError
        found = flat(value[named[0]], keys, sizes)
        if "depth" in value:
            if len(found) != 1 or not isinstance(value["depth"], NUMBER):
                raise ValueError
            found = [(found[0][0], value["depth"])]
        return found
    raise ValueError


POINT_KEYS = {"point_2d", "point", "points_2d", "points", "trace", "trajectory", "trace_2d"}
BOX_KEYS = {"bbox_2d", "boxes", "box_2d", "bbox", "box"}


def tags(text):
    """The points of `<point>` tags; None without one."""
    if not text.strip().startswith("<point"):
        return None
    found = [tuple(float(number) for number in re.split(r"[\s,]+", re.sub(r"[\[\]()]", " ", inner).strip()))
             for inner in re.findall(r"<point>([^<]*)</point>", text)]
    found += [(float(x), float(y)) for x, y in re.findall(r'<point x="([^"]*)" y="([^"]*)"', text)]
    if re.sub(r"<point>[^<]*</point>|<point [^>]*/>|<point [^>]*>[^<]*</point>|[\s,]", "", text):
        raise ValueError
    return found


class Grid:
    def __init__(self, record):
        kind = record.get("coordinates", "norm1000")
        self.sides = {"norm1000": (1000, 1000), "norm1": (1, 1),
                      "pixels": (record.get("width"), record.get("height"))}[kind]

    def place(self, x, y, checked=True):
        inside = 0 <= x <= self.sides[0] and 0 <= y <= self.sides[1]
        if checked and not inside:
            raise ValueError
        return x * 1000 / self.sides[0], y * 1000 / self.sides[1]


def read_points(text, grid):
    found = tags(text)
    found = flat(found if found is not None else literal(text), POINT_KEYS, {2, 3})
    if len(found) > MOST:
        raise ValueError
    for _, depth in found:
        if depth is not None and not (math.isfinite(depth) and depth >= 0):
            raise ValueError
    return [(grid.place(*numbers), depth) for numbers, depth in found]


def read_boxes(text, grid):
    found = []
    for (x1, y1, x2, y2), _ in flat(literal(text), BOX_KEYS, {4}):
        if x1 > x2 or y1 > y2:
            raise ValueError
        found.append((*grid.place(x1, y1), *grid.place(x2, y2)))
    return found


# Rewards -------------------------------------------------------------------------------------------------------------------------


def linear(error, full, zero):
    return min(1.0, max(0.0, (zero - error) / (zero - full)))


def in_polygon(x, y, corners):
    """The number of edges to the right of the point is odd."""
    crossings = 0
    for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1]):
        low, high = min(ay, by), max(ay, by)
        if low < y <= high:
            at = ax if ax == bx else ax + (y - ay) / (by - ay) * (bx - ax)
            crossings += x <= at
    return crossings % 2 == 1


def polygons(value):
    if is_numbers(value):
        return [list(zip(value[::2], value[1::2]))]
    if all(is_numbers(item) and len(item) == 2 for item in value):
        return [[tuple(item) for item in value]]
    return [polygon for item in value for polygon in polygons(item)]


def point_reward(points, truth, grid, recall):
    items = truth if isinstance(truth, list) else [truth]
    dictionaries = [item for item in items if isinstance(item, dict)]
    counts = [item["count"] for item in dictionaries if "count" in item]
    regions = []
    for item in dictionaries:
        for polygon in polygons(item["segmentation"]) if "segmentation" in item else []:
            corners = [grid.place(x, y, False) for x, y in polygon]
            regions.append(lambda x, y, corners=corners: in_polygon(x, y, corners))
    if not regions:
        for item in dictionaries:
            if "box_2d" in item:
                x1, y1, x2, y2 = item["box_2d"]
                (x1, y1), (x2, y2) = grid.place(x1, y1, False), grid.place(x2, y2, False)
                regions.append(lambda x, y, box=(x1, y1, x2, y2): box[0] <= x <= box[2] and box[1] <= y <= box[3])
    if regions:
        inside = [[region(x, y) for region in regions] for x, y in points]
        precision = sum(map(any, inside)) / len(points)
        found = sum(map(any, zip(*inside))) / len(regions)
    else:
        true = [grid.place(*numbers) for numbers, _ in flat(truth, POINT_KEYS, {2, 3})]
        near = lambda of, to: linear(sum(min(math.dist(a, b) for b in to) for a in of) / len(of), 40, 150)
        precision, found = near(points, true), near(true, points)
    value = precision
    if recall:
        value = 2 * precision * found / (precision + found) if precision + found else 0.0
    if counts and counts[0] != len(points):
        value -= 0.3
    return max(0.0, value)


def iou(a, b):
    width = max(0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0, min(a[3], b[3]) - max(a[1], b[1]))
    area = lambda box: (box[2] - box[0]) * (box[3] - box[1])
    union = area(a) + area(b) - width * height
    return width * height / union if union > 0 else 0.0


def stretched(values, count):
    last = len(values) - 1
    result = []
    for index in range(count):
        at = index * last / (count - 1)
        low = min(int(at), last)
        high = min(low + 1, last)
        result.append(values[low] * (1 - (at - low)) + values[high] * (at - low))
    return result


def trace_reward(path, true, with_depth):
    if len(path) < 2:
        return 0.0
    count = max(len(path), len(true))
    columns = [[(*place, depth) for place, depth in points] for points in (path, true)]
    axis = lambda points, index: stretched([point[index] for point in points], count)
    error = lambda index: [a - b for a, b in zip(axis(columns[0], index), axis(columns[1], index))]
    rmse = math.sqrt(sum(x * x + y * y for x, y in zip(error(0), error(1))) / count)
    if with_depth:
        depth = sum(map(abs, error(2))) / count
        value = (linear(rmse, 50, 130) + linear(depth, 0.1, 0.4)) / 2
    else:
        value = linear(rmse, 50, 120)
    return max(0.0, value - 0.35 * (len(path) != len(true)))


def reward(record, answer, recall=False):
    """Of the trainer's forms."""
    grid, kind = Grid(record), record["answer_type"]
    try:
        if kind == "point":
            points = [place for place, _ in read_points(answer, grid)]
            truth = literal(record["solution"])
            return point_reward(points, truth, grid, recall)
        if kind == "box":
            return iou(read_boxes(answer, grid)[0], read_boxes(record["solution"], grid)[0])
        path = read_points(answer, grid)
        if kind == "trace_3d" and any(depth is None for _, depth in path):
            raise ValueError
        return trace_reward(path, read_points(record["solution"], grid), kind == "trace_3d")
    except (ValueError, TypeError):
        return 0.0


def published(record, completion):
    """Accuracy and format of Embodied-R1.5's records."""
    match = re.search(r"<answer>(.*?)</answer>", completion, re.DOTALL)
    text = match and match.group(1).strip()
    if not text:
        return 0.0, 0.0
    kind, truth = record["problem_type"], record["answer"]
    text_json = re.sub(r"^```\w*|```$", "", text.replace("'''", "")).replace("\\n", "\n").replace('\\"', '"').strip()
    if kind == "numerical":
        try:
            found = float(text.replace(",", ""))
        except ValueError:
            return 0.0, 1.0
        return float(round(found, 1) == round(float(truth.replace(",", "")), 1)), 1.0
    if kind == "multiple choice":
        letter = lambda text: (re.match(r"([A-Za-z])(?:$|[.,:;) \t])", text) or [None, text.lower().replace(" ", "")])[1].lower()
        return float(letter(text) == letter(truth)), 1.0
    key, size = ("boxes", 4) if kind == "spatial grounding" else ("point_2d", 2)
    try:
        value = json.loads(text_json)
    except ValueError:
        return 0.0, 0.0
    items = value if isinstance(value, list) else [value]
    if not items or len(items) > MOST:
        return 0.0, 0.0
    for item in items:
        whole = isinstance(item, dict) and is_numbers(item.get(key)) and len(item[key]) == size
        if not whole or kind == "trace_3d" and not isinstance(item.get("depth"), NUMBER):
            return 0.0, 0.0
    true = json.loads(truth)
    if kind == "spatial grounding":
        return (0.0 if isinstance(true, list) else iou(items[0]["boxes"], true["boxes"])), 1.0
    if kind == "point":
        return point_reward([item["point_2d"] for item in items], true, Grid({}), False), 1.0
    path = lambda items: [(tuple(item["point_2d"]), item.get("depth")) for item in items]
    return trace_reward(path(items), path(true if isinstance(true, list) else [true]), kind == "trace_3d"), 1.0


# Answers -------------------------------------------------------------------------------------------------------------------------

MALFORMED = ["", "[]", "{}", "here", "[1]", "[1, 2, 3, 4, 5]", "[NaN, 1]", "[1e9, 1]", "[-1, 1]", "[[1, 2], []]", "[1, 2",
             "the answer is [1, 2]", '{"x": 1, "y": 2}', "null", "[" + "[1, 1], " * 10000 + "[1, 1]]"]
GRIDS = [{}, {}, {"coordinates": "norm1000"}, {"coordinates": "norm1"},
         {"coordinates": "pixels", "width": 640, "height": 480}]


class Maker:
    def __init__(self, seed):
        self.random = random.Random(seed)

    def near(self, place, spread):
        return [min(1000, max(0, value + round(self.random.gauss(0, spread)))) for value in place]

    def place(self):
        return [self.random.randint(0, 1000), self.random.randint(0, 1000)]

    def on(self, grid, numbers):
        """Numbers of the 0 to 1000 grid on another."""
        sides = Grid(grid).sides
        if sides == (1000, 1000):
            return list(numbers)
        return [round(value * sides[index % 2] / 1000, 3) for index, value in enumerate(numbers)]

    def written_points(self, points):
        form = self.random.randrange(6)
        pairs = [f"({x}, {y})" for x, y in points]
        return [
            json.dumps([{"point_2d": point} for point in points]),
            "```json\n" + json.dumps([{"point_2d": point} for point in points], indent=1) + "\n```",
            "[" + ", ".join(pairs) + "]",
            ", ".join(pairs),
            json.dumps({"points": points}),
            "".join(f"<point>{x}, {y}</point>" for x, y in points),
        ][form]

    def written_depths(self, path):
        items = [{"point_2d": point, "depth": depth} for point, depth in path]
        triples = [f"({x}, {y}, {depth})" for (x, y), depth in path]
        return [json.dumps(items), "```\n" + json.dumps(items) + "\n```", "[" + ", ".join(triples) + "]"][self.random.randrange(3)]

    def point(self, grid):
        true = [self.place() for _ in range(self.random.randint(1, 4))]
        kind = self.random.randrange(3)
        if kind == 0:
            solution = [{"point_2d": self.on(grid, place)} for place in true]
        elif kind == 1:
            corners = lambda x, y: [[x - 40, y - 30], [x + 50, y - 20], [x + 30, y + 60], [x - 45, y + 20]]
            solution = [{"segmentation": [[self.on(grid, corner) for corner in corners(*place)]]} for place in true]
        else:
            solution = [{"box_2d": self.on(grid, [x - 30, y - 30, x + 30, y + 30])} for x, y in true]
        if self.random.random() < 0.4:
            solution[0]["count"] = len(true)
        found = [self.near(place, self.random.choice([3, 30, 90])) for place in true]
        for _ in range(self.random.randrange(3)):
            self.random.choice([lambda: found.append(self.place()), lambda: len(found) > 1 and found.pop()])()
        return json.dumps(solution), [self.on(grid, place) for place in found]

    def box(self, grid):
        (x, y), width, height = self.place(), self.random.randint(10, 300), self.random.randint(10, 300)
        true = [x * 0.6, y * 0.6, x * 0.6 + width, y * 0.6 + height]
        moved = [min(1000, max(0, value + round(self.random.gauss(0, self.random.choice([0, 5, 60]))))) for value in true]
        found = [min(moved[0], moved[2]), min(moved[1], moved[3]), max(moved[0], moved[2]), max(moved[1], moved[3])]
        return self.on(grid, true), self.on(grid, found)

    def trace(self, grid, with_depth):
        place, true = self.place(), []
        for _ in range(self.random.randint(2, 8)):
            place = self.near(place, 80)
            true.append((place, round(self.random.uniform(0.3, 3), 2)))
        spread = self.random.choice([0, 30, 60, 100])
        found = [(self.near(place, spread), round(max(0, depth + self.random.gauss(0, spread / 300)), 2)) for place, depth in true]
        if self.random.random() < 0.4:
            found = found[: self.random.randint(1, len(found))] + ([(self.place(), 1.0)] if self.random.random() < 0.3 else [])
        place = lambda path: [(self.on(grid, at), depth) for at, depth in path]
        true, found = place(true), place(found)
        if with_depth:
            return json.dumps([{"point_2d": at, "depth": depth} for at, depth in true]), self.written_depths(found)
        return json.dumps([{"point_2d": at} for at, _ in true]), self.written_points([at for at, _ in found])

    def answers(self, kind):
        """A reference answer, an answer, and the grid of both."""
        grid = self.random.choice(GRIDS)
        if kind == "point":
            solution, points = self.point(grid)
            return solution, self.written_points(points), grid
        if kind == "box":
            true, found = self.box(grid)
            forms = [{"boxes": found}, {"bbox_2d": found}, [{"bbox_2d": found, "label": "mug"}], found, [found]]
            written = json.dumps(self.random.choice(forms))
            written = self.random.choice([written, f"```json\n{written}\n```", str(tuple(found))])
            return self.random.choice([json.dumps({"boxes": true}), json.dumps(true)]), written, grid
        return *self.trace(grid, kind == "trace_3d"), grid

    def record(self, problem_type):
        """Embodied-R1.5's: a reference answer and a completion."""
        if problem_type == "numerical":
            true = round(self.random.uniform(-3, 60), self.random.randint(0, 3))
            found = self.random.choice([true, true + 0.04, true + 0.1, f"{true} m", f"{float(true):,}", 0.25])
            return str(true), str(found)
        if problem_type == "multiple choice":
            true = self.random.choice(["A", "B", "C", "D", "the mug", "1-3-2"])
            found = self.random.choice([true, true.lower(), f"{true}. x", f"{true}) x", "A", "B: it", f"{true}\nx", "1-2-3", "The Mug"])
            return true, found
        if problem_type == "spatial grounding":
            true, found = self.box({})
            form = {"boxes": found} if self.random.random() < 0.7 else [{"boxes": found}, {"boxes": true}]
            truth = {"boxes": true} if self.random.random() < 0.8 else [{"boxes": true}]
            return json.dumps(truth), json.dumps(form)
        if problem_type == "point":
            solution, points = self.point({})
            return solution, self.random.choice(["{}", "```json\n{}\n```", "{}"]).replace(
                "{}", json.dumps([{"point_2d": point} for point in points]))
        solution, _ = self.trace({}, True)
        true = json.loads(solution)
        found = [{"point_2d": self.near(item["point_2d"], self.random.choice([5, 60])),
                  "depth": round(max(0, item["depth"] + self.random.gauss(0, 0.2)), 2)} for item in true]
        if self.random.random() < 0.3:
            found = found[: self.random.randint(1, len(found))]
        if problem_type == "trace":
            true, found = ([{"point_2d": item["point_2d"]} for item in items] for items in (true, found))
        return json.dumps(true), json.dumps(found)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True)
    args = parser.parse_args()
    maker, cases, records = Maker(1), [], []
    for kind in ("point", "box", "trace", "trace_3d"):
        for index in range(60):
            solution, answer, grid = maker.answers(kind)
            if index >= 60 - len(MALFORMED):
                answer = MALFORMED[index - 60]
            record = {"answer_type": kind, "solution": solution, **grid}
            case = {**record, "answer": answer if len(answer) < 1000 else "MANY", "accuracy": reward(record, answer)}
            if kind == "point":
                case["with_recall"] = reward(record, answer, recall=True)
            cases.append(case)
    for kind in ("multiple choice", "numerical", "spatial grounding", "point", "trace", "trace_3d"):
        for index in range(60):
            truth, answer = maker.record(kind)
            if kind not in ("multiple choice", "numerical") and index % 6 == 5:
                answer = MALFORMED[index // 6 % (len(MALFORMED) - 1)]
            completion = maker.random.choice([
                f"<think>so</think><answer>{answer}</answer>", f"so <answer>{answer}</answer> <answer>[]</answer>",
                f"<think><answer></think>{answer}</answer>", f"<answer>\n{answer}\n</answer>", f"<answer>{answer}", answer,
                f"<answer> </answer><answer>{answer}</answer>", f"<think>so</think><answer>{answer}</answer>"])
            record = {"problem": "Where?", "problem_type": kind, "answer": truth}
            accuracy, form = published(record, completion)
            records.append({**record, "completion": completion, "accuracy": accuracy, "format": form})
    with open(args.out, "w") as file:
        json.dump({"answers": cases, "records": records}, file, indent=0)
        file.write("\n")


if __name__ == "__main__":
    main()
