"""Makes the golden scores of the pointing benchmarks with the harnesses' own functions.

    python scripts/parity/make_pointing_scores.py --lmms-eval DIR --vlmeval DIR --out crates/eval/tests/fixtures/pointing

DIR is an unpacked wheel (lmms_eval 0.7.3, ms_vlmeval 0.0.20). Needs numpy, pandas, pillow and PyYAML. Writes lists: masks.json
has each mask's stored values (first channel) as runs, where2place.json, refspatial.json and robospatial.json have the scores.
A case with "error" made lmms-eval raise, so it has no score there.
"""

import argparse
import contextlib
import importlib
import io
import json
import sys
import tempfile
import types
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

warnings.filterwarnings("ignore")


def bare_package(name, path=None, **members):
    """A package that runs no `__init__`: what it lacks is imported from `path`."""
    module = types.ModuleType(name)
    module.__path__ = [str(path)] if path else []
    module.__dict__.update(members)
    sys.modules[name] = module


class Harness:
    """The scoring functions of both harnesses on a set of masks."""

    def __init__(self, lmms_eval, vlmeval, folder):
        self.folder = Path(folder)
        self.tables = {}
        tasks = Path(lmms_eval) / "lmms_eval" / "tasks"
        for name in ["", ".tasks", ".tasks._task_utils", ".tasks.where2place", ".tasks.refspatial", ".tasks.robo_spatial"]:
            bare_package("lmms_eval" + name, Path(lmms_eval) / ("lmms_eval" + name).replace(".", "/"))
        assert (tasks / "where2place").is_dir()
        self.where2place = importlib.import_module("lmms_eval.tasks.where2place.utils")
        self.refspatial = importlib.import_module("lmms_eval.tasks.refspatial.utils")
        self.robospatial = importlib.import_module("lmms_eval.tasks.robo_spatial.utils")

        root = Path(vlmeval) / "vlmeval"
        bare_package("vlmeval", root)
        bare_package(
            "vlmeval.smp",
            root / "smp",
            load=self.tables.get,
            dump=lambda table, path: self.tables.update({path: table}),
            get_cache_path=None,
            modelscope_flag_set=None,
            toliststr=None,
        )
        bare_package("vlmeval.smp.file", get_intermediate_file_path=lambda path, suffix, target_format=None: path + suffix)
        bare_package("huggingface_hub", snapshot_download=None)
        bare_package("vlmeval.dataset", root / "dataset")
        bare_package("vlmeval.dataset.image_vqa", ImageVQADataset=object)
        for name in ["utils", "utils.spatial_bench", "utils.spatial_bench.tools"]:
            bare_package("vlmeval.dataset." + name, root / "dataset" / name.replace(".", "/"))
        self.parser_module = importlib.import_module("vlmeval.dataset.utils.spatial_bench.tools.utils")
        self.easi_refspatial = importlib.import_module("vlmeval.dataset.refspatialbench").RefSpatialBench()
        self.easi_robospatial = importlib.import_module("vlmeval.dataset.robospatialbench").RoboSpatialBench()
        self.parser = self.parser_module.Point2DParser

    def shipped_parser_fails(self):
        """Whether the wheel's parser raises before it reads anything: it logs through a member that it lacks."""
        self.parser._has_logged_hint = False
        try:
            self.easi_refspatial.parse_prediction("(1, 1)", 10, 10)
            return None
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        finally:
            self.parser._has_logged_hint = True

    def mask_path(self, name):
        return str(self.folder / f"{name}.png")

    def lmms(self, module, variant, answer, mask):
        """A score of lmms-eval's Where2Place or RefSpatial, or the error's name."""
        function = {
            ("where2place", "official"): self.where2place.where2place_process_results,
            ("where2place", "json"): self.where2place.where2place_process_results_json,
            ("refspatial", "official"): self.refspatial.refspatial_process_results,
            ("refspatial", "json"): self.refspatial.refspatial_process_results_json,
        }[module, variant]
        doc = {"mask": Image.open(self.mask_path(mask)), "id": 0, "question_id": 0, "prompt": "", "suffix": "", "object": ""}
        try:
            result = function(doc, [answer])
        except Exception as error:
            return type(error).__name__
        (value,) = result.values()
        return float(value["accuracy"])

    def easi_refspatial_scores(self, pairs):
        """Scores of VLMEvalKit's evaluation of pairs of an answer and a mask."""
        paths = [self.mask_path(mask) for _, mask in pairs]
        table = pd.DataFrame(
            {
                "index": range(len(pairs)),
                "category": "location",
                "mask_path": paths,
                "prediction": pd.Series([answer for answer, _ in pairs], dtype=object),
            }
        )
        name = str(self.folder / "refspatial")
        self.tables[name] = table
        with contextlib.redirect_stdout(io.StringIO()):
            self.easi_refspatial.evaluate(name)
        return [float(score) for score in self.tables[name + "_result"]["score"]]

    def official_robospatial(self, answer, truth, mask):
        doc = {"answer": truth, "category": "context", "mask": Image.open(self.mask_path(mask))}
        doc |= self.robospatial._save_mask(doc)
        try:
            return float(self.robospatial.robo_spatial_process_results_generation(doc, [answer])["score"])
        except Exception as error:
            return type(error).__name__

    def easi_robospatial_scores(self, cases):
        """Scores of VLMEvalKit's evaluation of triples of an answer, a truth and an image size."""
        images = self.folder / "robospatial_images"
        images.mkdir(exist_ok=True)
        self.easi_robospatial.img_root = str(images)
        for index, (_, _, size) in enumerate(cases):
            path = images / f"{index}.png"
            if not path.exists() or Image.open(path).size != tuple(size):
                Image.new("L", size).save(path)
        table = pd.DataFrame(
            {
                "index": range(len(cases)),
                "answer": [truth for _, truth, _ in cases],
                "prediction": pd.Series([answer for answer, _, _ in cases], dtype=object),
                "category": "context",
            }
        )
        name = str(self.folder / "robospatial")
        self.tables[name] = table
        with contextlib.redirect_stdout(io.StringIO()):
            self.easi_robospatial.evaluate(name)
        return [float(right) for right in self.tables[name + "_result"]["is_correct"]]


def blob(width, height):
    """A mask with a region, and single pixels of values about the thresholds at its corners and in the middle."""
    values = np.zeros((height, width), dtype=np.uint8)
    values[height // 4 : height * 2 // 3, width // 4 : width // 2] = 255
    values[0, 0], values[0, -1], values[-1, 0], values[-1, -1] = 128, 1, 127, 255
    values[height // 2, -1] = 200
    values[height // 3, width // 3] = 0
    values[height // 2, width // 3] = 127
    values[height // 2, width // 3 + 1] = 128
    return values


def write_masks(folder):
    """Writes masks of all modes as PNG files; gives their first channels as they are stored."""
    gray = blob(40, 30)
    other = np.roll(blob(25, 17), 5, axis=1)
    palette = Image.fromarray(blob(16, 9), mode="P")
    palette.putpalette([255 - value // 3 for value in range(768)])
    masks = {
        "gray": Image.fromarray(gray),
        "odd": Image.fromarray(blob(37, 53)),
        "rgb": Image.fromarray(np.stack([blob(25, 17), other, 255 - other], axis=2)),
        "rgba": Image.fromarray(np.stack([blob(25, 17), other, other, 255 - other], axis=2)),
        "la": Image.fromarray(np.stack([blob(20, 10), 255 - blob(20, 10)], axis=2), mode="LA"),
        "palette": palette,
        "bilevel": Image.fromarray(blob(20, 12) > 0),
        "stripes": Image.fromarray(np.tile(np.array([255, 0], dtype=np.uint8), (4, 4))),
        "dot": Image.fromarray(np.full((1, 1), 255, dtype=np.uint8)),
        "full": Image.fromarray(np.full((480, 640), 255, dtype=np.uint8)),
    }
    listed = []
    for name, image in masks.items():
        path = Path(folder) / f"{name}.png"
        image.save(path)
        reopened = Image.open(path)
        assert reopened.mode == image.mode, (name, reopened.mode)
        stored = np.array(reopened)
        stored = stored[:, :, 0] if stored.ndim == 3 else stored
        runs = []
        for value in stored.astype(int).ravel().tolist():
            if runs and runs[-1][0] == value:
                runs[-1][1] += 1
            else:
                runs.append([value, 1])
        height, width = stored.shape
        listed.append({"name": name, "mode": image.mode, "width": width, "height": height, "runs": runs})
    return listed


TUPLES = [
    "[(0.3, 0.3)]",
    "[(0.3, 0.3), (0.9, 0.9)]",
    "[(0.3, 0.3), (0.31, 0.5), (0.9, 0.1), (0.26, 0.26)]",
    "(0.3,0.3)",
    "(0.3,\n\t0.3)",
    "(0.3,\u3000\u00a00.3)",
    "( 0.3, 0.3)",
    "(0.3 , 0.3)",
    "(0.3, 0.3 )",
    "((0.3, 0.3))",
    "(0.3, 0.3",
    "0.3, 0.3",
    "[0.3, 0.3]",
    "{0.3, 0.3}",
    "（0.3, 0.3）",
    "(0.3，0.3)",
    "(0.3, 0.3, 0.3)",
    "(0.3)",
    "(0.3, 0.3, 0.5, 0.5)",
    "(0.3, 0.3) (0.3) (0.3, 0.3, 0.9) (0.9, 0.9)",
    "()",
    "(.3, .3)",
    "(0.3., 0.3)",
    "(0.3.1, 0.3)",
    "(3e-1, 0.3)",
    "(0.3, 0.3e0)",
    "(+0.3, +0.3)",
    "(-0.3, 0.3)",
    "(--0.3, 0.3)",
    "(- 0.3, 0.3)",
    "(−0.3, 0.3)",
    "(0, 0)",
    "(0, 0), (1, 1)",
    "(0, 0), (0.999999, 0.999999)",
    "(1, 1)",
    "(1.0, 0.5)",
    "(0.5, 1.0)",
    "(-0.001, -0.001)",
    "(-0.024, -0.033)",
    "(-0.03, 0)",
    "(0.9999, 0)",
    "(0, 0.9999)",
    "(0.9999, 0.9999)",
    "(0.98, 0.5)",
    "(0.334, 0.334)",
    "(0.34, 0.51)",
    "(0.36, 0.51)",
    "(300, 300)",
    "(12, 10)",
    "(0, 300)",
    "(inf, 0.3)",
    "(nan, nan)",
    "(NaN, 0.3)",
    "(Infinity, 0.3)",
    "(0.３, ０.3)",
    "(٠.٣, ٠.٣)",
    "(०.३, 0.3)",
    "(²/3, 0.3)",
    "(0.3, 0.3), (1/3, 1/3)",
    "(30%, 30%)",
    "(x=0.3, y=0.3)",
    "(x1, y1)",
    "(0_1.3, 0.3)",
    "(1,234, 0.3)",
    "(0.3; 0.3)",
    "(0.3, 0.3,)",
    "(0.300000000000000000000000000000001, 0.29999999999999999999999)",
    "(0.3, 0.3) " * 40 + "(0.9, 0.9)",
    "(1e400, 0.3)",
    "(" + "9" * 30 + ", 0.3)",
    "(" + "9" * 18 + ", 0.3), (0.3, 0.3)",
    "(" + "9" * 30 + ", 0.3), (0.3, 0.3)",
    "(" + "9" * 400 + ", 3)",
    "(" + "9" * 400 + ".0, 0.3)",
    "(0.3, \x1c0.3)",
    "(0.3, 0.3), (0.3,\x1f0.3)",
    "(0.3, \x850.3)",
    "(0.3,\u200b0.3)",
    "Step 1 (see 0.1, 0.2). The answer is **(0.3, 0.3)**.",
    "```python\n[(0.3, 0.3), (0.28, 0.5)]\n```",
    "<answer>(0.3, 0.3)</answer>",
    "<think>(0.9, 0.9)</think>(0.3, 0.3)",
    "\\boxed{(0.3, 0.3)}",
    "\\left(0.3, 0.3\\right)",
    "The point is at (0.3, 0.3) or maybe (0.95, 0.95), I cannot tell.",
    "答案是(0.3, 0.3)。",
    "",
    "   \n\u3000",
    "I cannot see the image.",
]

PAIRS = [
    '[{"point_2d": [300, 300], "label": "x"}]',
    '```json\n[\n\t{"point_2d": [300, 300], "label": "a"},\n\t{"point_2d": [950, 950], "label": "b"}\n]\n```',
    "[300, 300]",
    "[[300, 300], [280, 500]]",
    "[[300, 300]",
    "[ 300 ,\n300 ]",
    "( 300, 300 )",
    "[300, 300)",
    "(300, 300]",
    "[300 300]",
    "[300, 300, 300]",
    "[300, 300, 400, 400]",
    "[0.3, 0.3]",
    "[0.3, 300]",
    "[300., 0.3]",
    "[300., 300.]",
    "[0.3, 1]",
    "[1, 1]",
    "[0, 0]",
    "[1000, 1000]",
    "[999, 999]",
    "[999, 0]",
    "[0, 999]",
    "[-1, -1]",
    "[-20, -20]",
    "[-30, 0]",
    "[+300, +300]",
    "[３００, ３００]",
    "[٣٠٠, ٣٠٠]",
    '{"point_2d": [300, 300]}',
    "{'point_2d': (300, 300)}",
    '[{"point": [300, 300]}]',
    '[{"x": 300, "y": 300}]',
    '[{"point_2d": ["300", "300"]}]',
    '[{"bbox_2d": [300, 300, 400, 400]}]',
    "[300, 1e2]",
    "[NaN, 300]",
    "[Infinity, 300]",
    "[" + "9" * 25 + ", 300]",
    "[" + "9" * 25 + ", 300], [300, 300]",
    "[" + "9" * 400 + ", 300]",
    "[300, 300] " * 30 + "[900, 900]",
    "[300,\x1c300]",
    "[300,\u200b300]",
    "[1,000, 300]",
    '[{"point_2d": [300, 300], "label": "step (1, 2)"}]',
    "<points x1=\"30\" y1=\"30\">a</points>",
]

EASI = [
    '{"point_2d": [300, 300]}',
    '[{"point_2d": [12, 10], "label": "x"}]',
    '[{"point_2d": [1.5, 1.5]}]',
    '[{"point_2d": [1.5001, 1]}]',
    '[{"point_2d": [-1.5, 0.3]}]',
    '[{"point_2d": [1000, 1000]}]',
    '[{"point_2d": [1000, 300]}]',
    '[{"point_2d": [999.5, 300]}]',
    '[{"point_2d": [1000.5, 300]}]',
    '[{"point_2d": [-300, 300]}]',
    '[{"point_2d": [0, 0]}]',
    '[{"point_2d": [1, 1]}]',
    '[{"point_2d": [0.3, 0.3]}, {"point_2d": [300, 300]}, {"point_2d": [2000, 10]}]',
    '[{"point_2d": [], "point": [300, 300]}]',
    '[{"point_2d": null, "point": [300, 300]}]',
    '[{"point_2d": 0, "point": [300, 300]}]',
    '[{"point_2d": [300], "point": [300, 300]}]',
    '[{"point_2d": "a", "point": [300, 300]}]',
    '[{"point": [300, 300]}, {"point_2d": [900, 900], "point": [300, 300]}]',
    '[{"point_2d": ["300", " 3_00 "]}]',
    '[{"point_2d": ["x", 300]}, {"point_2d": [300, 300]}]',
    '[{"point_2d": [true, false]}]',
    '[{"point_2d": [null, 300]}]',
    '[{"point_2d": [[300], 300]}]',
    '[{"point_2d": [300, 300, 1]}]',
    '[{"point_2d": [NaN, 300]}]',
    '[{"point_2d": [300, NaN]}]',
    '[{"point_2d": [NaN, NaN]}, {"point_2d": [300, 300]}]',
    '[{"point_2d": [Infinity, 300]}]',
    '[{"point_2d": [-Infinity, -Infinity]}]',
    '[{"point_2d": [1e999, 1e999]}]',
    '[{"point_2d": [' + "9" * 400 + ", 300]}]",
    '[{"point_2d": [' + "9" * 400 + ', 300]}, {"point_2d": [300, 300]}]',
    '[{"point_2d": [' + "9" * 4301 + ', 300]}, {"point_2d": [300, 300]}] (0.3, 0.3)',
    '[{"point_2d": [300, 300], "point_2d": [900, 900]}]',
    '[{"point_2d": [300, 300]},]',
    "[{'point_2d': [300, 300]},]",
    "[{'point_2d': (300, 300), 'label': None}]",
    "{'point_2d': (300, 300)}",
    "({'point_2d': (300, 300)},)",
    "{'point_2d': [300, 300]}, {'point_2d': [900, 900]}",
    "[{'point_2d': [0x12c, 3_00]}]",
    "[{'point_2d': [+300, - 1]}]",
    "[{'point_2d': [--300, 300]}] (0.3, 0.3)",
    "[{'point_2d': [0300, 300]}] (0.3, 0.3)",
    "[{'point_2d': [3.e2, 300], 'label': 'it''s'}]",
    "[{'point' '_2d': [300, 300]}]",
    "[{u'point_2d': [300, 300], b'a': b'\\xff', 1: {2}, (1, 2): ...}]",
    "[{'point_2d': [300, 300], [1]: 2}] (0.9, 0.9)",
    "[{'point_2d': [300, 300], 'label': \"a\nb\"}] (0.9, 0.9)",
    "[{'point_2d': [300, 300], 'label': '''a\nb'''}]",
    "[{'point_2d': [300,\n300]},  # the first\n{'point_2d': [900, 900]}]",
    "# points\n[{'point_2d': [300, 300]}]",
    "[{'point_2d': [300, 300], 'label': f'x'}] (0.9, 0.9)",
    "[{'point_2d': [nan, 300]}] (0.3, 0.3)",
    "[{'point_2d': [300, 300]}]\nI am sure.",
    "Answer: [{\"point_2d\": [300, 300]}]",
    "[{\"point_2d\": [300, 300]}] (0.3, 0.3)",
    '```json\n[{"point_2d": [300, 300]}]\n```',
    '```json\n[{"point_2d": [300, 300]}]',
    '```[{"point_2d": [300, 300]}]```',
    '```json [{"point_2d": [300, 300]}]```',
    '``` \n\n[{"point_2d": [300, 300]}] \n ``` ',
    '````\n[{"point_2d": [300, 300]}]\n````',
    'text\n```json\n[{"point_2d": [300, 300]}]\n```',
    '```json\n[{"point_2d": [300, 300]}]\n```\nmore',
    "null",
    "[]",
    "{}",
    "[1, 2]",
    "[(12, 10)]",
    "[[300, 300]]",
    '"(0.3, 0.3)"',
    '{"points": [{"point_2d": [300, 300]}]}',
    '[[{"point_2d": [300, 300]}]]',
    "(12, 10)",
    "(12.5, 10.5), (13.5, 11.5)",
    "(1.5, 1.5)",
    "(1.6, 1.6)",
    "(39.6, 29.6)",
    "(400, 300)",
    "(-5, -5)",
    "(0.0125, 0.5), (0.0375, 0.5)",
    "(10, 8, 20, 18)",
    "(20, 18, 10, 8)",
    "(0.25, 0.25, 0.5, 0.6)",
    "(0.5, 0.6, 0.25, 0.25)",
    "(0, 0, 1, 1)",
    "(0, 0, 1.5, 1.5)",
    "(0, 0, 2, 2)",
    "(-3, -3, 3, 3)",
    "(30, 20, 60, 45)",
    "(-50, -50, -10, -10)",
    "(100, 100, 120, 130)",
    "(100, 5, 120, 12)",
    "(10, 8, 10, 18)",
    "(10.5, 8.5, 11.5, 9.5)",
    "(9.5, 7.5, 10.4, 9)",
    "(10, 8, 20, 18), (0.3, 0.3), (0.9, 0.9), (1, 2, 3)",
    "(10, 8, 20)",
    "(1, 2, 3, 4, 5)",
    "(10, 8, " + "9" * 400 + ", 18)",
    "(" + "9" * 400 + ", 8)",
    "(-" + "9" * 400 + ", -8)",
    "(" + "9" * 30 + ", 8), (12, 10)",
    "(12,\x1c10)",
    "(12, 10), (12,\x1e10)",
    "(12, 10), (1, 2, \x1d3)",
    "(12,\u300010)",
    "[" * 150 + "]" * 150 + "(0.3, 0.3)",
    "[" * 5000 + "(0.3, 0.3)",
    '[{"point_2d": [300, 300], "label": "' + "a" * 2000 + '"}]',
    '[{"point_2d": [300, 300], "label": "\\ud800\\u00e9\\/"}]',
    '[{"point_2d": [300, 300], "label": "\\x41"}]',
    '[{"point_2d": [300, 300], "label": "a\tb"}]',
    "[{'point_2d': [300, 300], 'label': True, 'score': 2j}]",
    "<think>(0.9, 0.9)</think>\n[{\"point_2d\": [300, 300]}]",
    "<answer>[{\"point_2d\": [300, 300]}]</answer>",
]

# Ends of half a pixel on a mask of eight columns: the even ones are inside.
HALVES = ["(2.5, 1.5)", "(3.5, 0)", "(0.3125, 0.5)", "(0.1875, 0.5)", "(0.4375, 0)", "(6.5, 3.5)", "(7.5, 3)", "(1.5, 0, 4.5, 3)"]

FENCED = [
    '```json\n[{"point_2d": [300, 300]}]\n```',
    '```\n[{"point_2d": [300, 300]}]\n```',
    '```python\n[{"point_2d": [300, 300]}]```',
    '```json5_x\n[{"point_2d": [300, 300]}]\n```',
    '```c++\n[{"point_2d": [300, 300]}]\n```',
    '```json \n[{"point_2d": [300, 300]}]\n```',
    '```json\r\n[{"point_2d": [300, 300]}]\r\n```',
    '```json[{"point_2d": [300, 300]}]```',
    '``` json\n[{"point_2d": [300, 300]}]\n```',
    '````\n[{"point_2d": [300, 300]}]\n````',
    '```\u4e2d\u6587\n[{"point_2d": [300, 300]}]\n```',
    '```json\n[{"point_2d": [300, 300]}]',
    '[{"point_2d": [300, 300]}]',
    "[(0.3, 0.3)]",
    'A point:\n```json\n[{"point_2d": [300, 300], "label": "a"}]\n```\nDone.',
    '```json\n[]\n```\n```json\n[{"point_2d": [300, 300]}]\n```',
    '```json \n[1]\n```\n[{"point_2d": [300, 300]}]\n```',
    '```json\n\u3000[{"point_2d": [300, 300]}]\u00a0\n```',
    '```json\n[{"point_2d": [900, 900]}, {"point_2d": [300, 300]}]\n```',
    '```json\n[{"point_2d": [300, 300]}, {"point_2d": [900, 900]}]\n```',
    '```json\n[{"point_2d": [0.3, 0.3]}]\n```',
    '```json\n[{"point_2d": [300.5, 3e2]}]\n```',
    '```json\n[{"point_2d": [-1, -1]}]\n```',
    '```json\n[{"point_2d": [-30, -40]}]\n```',
    '```json\n[{"point_2d": [999, 999]}]\n```',
    '```json\n[{"point_2d": [1000, 1000]}]\n```',
    '```json\n[{"point_2d": [999, 0]}]\n```',
    '```json\n[{"point_2d": [0, 999]}]\n```',
    '```json\n[{"point_2d": [334, 334]}]\n```',
    '```json\n[{"point_2d": [300, 300, 1]}, {"point_2d": [300]}]\n```',
    '```json\n[{"point": [300, 300]}]\n```',
    '```json\n[{"point_2d": "300, 300"}]\n```',
    '```json\n[{"point_2d": {"x": 300, "y": 300}}]\n```',
    '```json\n["point", "a", [1, 2], [300, 300], {}]\n```',
    '```json\n[{"point_2d": [true, 300]}]\n```',
    "```json\n[{'point_2d': [300, 300]}]\n```",
    '```json\n[{"point_2d": [300, 300]},]\n```',
    '```json\n[{"point_2d": [300, 300], "point_2d": [900, 900]}]\n```',
    '```json\n"text"\n```',
    '```json\n{"a": 1}\n```',
    '```json\n{}\n```',
    '```json\n[{"point_2d": [1e20, 300]}, {"point_2d": [300, 300]}]\n```',
    '```json\n[{"point_2d": [' + "9" * 25 + ', 300]}, {"point_2d": [300, 300]}]\n```',
    # lmms-eval raises on these.
    '```json\n{"point_2d": [300, 300]}\n```',
    '```json\n5\n```',
    '```json\nnull\n```',
    '```json\n[5, {"point_2d": [300, 300]}]\n```',
    '```json\n[null]\n```',
    '```json\n["point_2d"]\n```',
    '```json\n[["point_2d"]]\n```',
    '```json\n[{"point_2d": ["300", 300]}]\n```',
    '```json\n[{"point_2d": [null, 300]}]\n```',
    '```json\n[{"point_2d": [NaN, 300]}]\n```',
    '```json\n[{"point_2d": [Infinity, 300]}]\n```',
    '```json\n[{"point_2d": [' + "9" * 4301 + ", 300]}]\n```",
    # The task's own reasoning removal.
    '<think>a</think>```json\n[{"point_2d": [300, 300]}]\n```',
    '```json\n[{"point_2d": [900, 900]}]\n```</think>```json\n[{"point_2d": [300, 300]}]\n```',
    '```json\n[{"point_2d": [900, 900]}]\n```</thought>```json\n[{"point_2d": [300, 300]}]\n```',
    '```json\n[{"point_2d": [300, 300]}]\n```</THINK>',
    '```json\n[{"point_2d": [900, 900]}]\n```<answer>```json\n[{"point_2d": [300, 300]}]\n```</answer>',
    '<ANSWER>```json\n[{"point_2d": [300, 300]}]\n```</Answer>```json\n[{"point_2d": [900, 900]}]\n```',
    '<answer>```json\n[{"point_2d": [300, 300]}]\n```',
    '<an\u017fwer>x</an\u017fwer>```json\n[{"point_2d": [300, 300]}]\n```',
    "<answer></answer>",
    "",
    " \n ",
]

YES_NO = [
    "yes",
    "no",
    "Yes",
    "NO.",
    "yes.",
    "Answer: yes",
    "Answer: no",
    "answer: YES",
    "**Yes**",
    '"yes"',
    "(yes)",
    "Yes, it fits.",
    "No, it does not fit.",
    "Yes, there is no obstacle.",
    "It does not fit.",
    "I do not know.",
    "nothing",
    "yesterday",
    "eyes",
    "snow",
    "Not sure\nyes",
    "Yes\nno",
    "yes\n\n",
    "yes\r\nno",
    "yes\rno",
    "The chair does not fit.\nAnswer: no",
    "The chair fits.\n\nAnswer: yes\n",
    "Answer: yes\nThis is the end.",
    "yes or no",
    "yesno",
    "\u3000yes\u00a0",
    "\x1cyes",
    "\u200byes",
    "y e s",
    "ＹＥＳ",
    "ｙｅｓ",
    "ye\u017f",
    "YE\u1e9e",
    "oui",
    "是",
    "아니요",
    "true",
    "1",
    "<think>no</think>yes",
    "<think>yes</think>\nno",
    "no</think>yes",
    "no</think>yes</think>no",
    "no</thought>yes",
    "<thought>no</thought>\nyes",
    "yes</thought>no</think>yes",
    "<think>yes",
    "<answer>yes</answer>",
    "<answer>no</answer> yes",
    "<Answer> Yes </ANSWER>\nno",
    "no <answer>yes",
    "<answer>yes\nno</answer>",
    "<answer>yes</answer><answer>no</answer>",
    "<an\u017fwer>yes</answer>no",
    "<answer ><answer>no</answer>",
    "```\nyes\n```",
    "yes```",
    "```yes",
    "The answer is yes because the table is empty." + " It is." * 200,
    "no" + " " * 900 + "\nyes",
    "Knot",
    "",
    "  ",
    "\n",
]

TRIANGLE = "[(0.25, 0.25), (0.6, 0.3), (0.31, 0.75)]"
SQUARE = "[(0.2, 0.2), (0.8, 0.2), (0.8, 0.8), (0.2, 0.8)]"
HULL = "[(0.21, 0.3), (0.4, 0.12), (0.72, 0.33), (0.65, 0.8), (0.3, 0.7)]"
DENTED = "[(0.1, 0.1), (0.5, 0.45), (0.9, 0.12), (0.85, 0.9), (0.52, 0.5), (0.15, 0.88)]"
VERTICAL = "[(0.2, 0.3), (0.6, 0.1), (0.6, 0.9), (0.3, 0.7)]"
LISTS = "[[0.25, 0.25], (0.6, 0.3), [0.31, 0.75], 'x', (1, 2, 3)]"
FEW = "[(0.25, 0.25), (0.6, 0.3)]"

POLYGON = [
    "(0.4, 0.4)",
    "(0.35, 0.5), (0.9, 0.9)",
    "(0.9, 0.9), (0.35, 0.5)",
    "[(0.4, 0.4)]",
    '[{"point_2d": [400, 400]}]',
    '```json\n[{"point_2d": [400, 400], "label": "a"}, {"point_2d": [10, 10]}]\n```',
    '[{"point_2d": [0.4, 0.4]}]',
    '[{"point_2d": [256, 192]}]',
    '[{"point_2d": [1001, 192]}]',
    '[{"point_2d": [256.0, 1100]}]',
    "(256, 192)",
    "(25, 19)",
    "(0.3, 0.3, 0.5, 0.5)",
    "(16, 12, 30, 20)",
    "(160, 120, 300, 200)",
    "(160, 120, 160, 200), (0.4, 0.4)",
    "(1, 2, 3) (0.4, 0.4)",
    "(0.25, 0.25)",
    "(0.6, 0.3)",
    "(0.31, 0.75)",
    "(0.2, 0.2)",
    "(0.8, 0.8)",
    "(0.5, 0.5)",
    "(0.52, 0.5)",
    "(0.3, 0.12)",
    "(0.72, 0.33)",
    "(0.1, 0.3)",
    "(0.61, 0.3)",
    "(-0.4, 0.4)",
    "(1.4, 0.4)",
    '[{"point_2d": [NaN, 0.4]}]',
    '[{"point_2d": [0.4, NaN]}]',
    '[{"point_2d": [-Infinity, 0.4]}]',
    '[{"point_2d": [Infinity, 400]}]',
    "(0.4, 0.4), (1, 2, 3, " + "9" * 400 + ")",
    "(0.4, 0.4), (1,\x1c2)",
    "The point (0.4, 0.4) is free.",
    "<think>(0.9, 0.9)</think>(0.4, 0.4)",
    "  (0.4, 0.4)\n",
    "(0.４, 0.4)",
    "[0.4, 0.4]",
    "yes",
    "",
]


def scored(case, score):
    """A case with its score, or with the name of the error."""
    return case | ({"error": score} if isinstance(score, str) else {"score": score})


def pointing_cases(harness, module, variants):
    masks = ["rgb", "odd", "rgba", "la", "palette", "bilevel", "dot", "full"]
    cases = []
    for variant in variants:
        answers = TUPLES + (PAIRS if variant == "json" else PAIRS[:12])
        pairs = [(answer, "gray") for answer in answers] + [(answer, "stripes") for answer in HALVES]
        pairs += [(answer, mask) for mask in masks for answer in answers[:3] + answers[31:47:2] + PAIRS[:3] + PAIRS[18:24]]
        for answer, mask in pairs:
            case = {"scorer": variant, "mask": mask, "answer": answer}
            cases.append(scored(case, harness.lmms(module, variant, answer, mask)))
    return cases


def easi_cases(harness):
    masks = ["rgb", "odd", "rgba", "la", "palette", "bilevel", "dot", "full"]
    answers = EASI + TUPLES + PAIRS
    pairs = [(answer, "gray") for answer in answers] + [(answer, "stripes") for answer in HALVES]
    pairs += [(answer, mask) for mask in masks for answer in EASI[:13] + EASI[75:100]]
    scores = harness.easi_refspatial_scores(pairs)
    return [
        {"scorer": "easi", "mask": mask, "answer": answer, "score": score}
        for (answer, mask), score in zip(pairs, scores, strict=True)
    ]


def robospatial_cases(harness):
    cases = []
    for truth in ["yes", " No\n"]:
        for answer in YES_NO:
            case = {"scorer": "official", "truth": truth, "answer": answer}
            cases.append(scored(case, harness.official_robospatial(answer, truth, "gray")))
    for mask in ["gray", "odd", "rgb", "rgba", "la", "palette", "bilevel", "dot"]:
        for answer in FENCED if mask == "gray" else FENCED[:1] + FENCED[18:30]:
            case = {"scorer": "official", "mask": mask, "truth": TRIANGLE, "answer": answer}
            cases.append(scored(case, harness.official_robospatial(answer, TRIANGLE, mask)))
    easi = [(answer, truth, (64, 48)) for truth in ["Yes ", "no"] for answer in YES_NO]
    easi += [(answer, TRIANGLE, (640, 480)) for answer in POLYGON + FENCED[:12]]
    easi += [(answer, TRIANGLE, (64, 48)) for answer in POLYGON]
    polygons = [SQUARE, HULL, DENTED, VERTICAL, LISTS, FEW, "{}", "maybe"]
    easi += [(answer, truth, (37, 53)) for truth in polygons for answer in POLYGON[:31]]
    for (answer, truth, size), score in zip(easi, harness.easi_robospatial_scores(easi), strict=True):
        cases.append({"scorer": "easi", "truth": truth, "size": size, "answer": answer, "score": score})
    return cases


def write(path, records):
    lines = ",\n".join(json.dumps(record, ensure_ascii=True) for record in records)
    Path(path).write_text(f"[\n{lines}\n]\n")
    print(f"{path}: {len(records)} records, {sum('error' in record for record in records)} errors")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lmms-eval", required=True)
    parser.add_argument("--vlmeval", required=True)
    parser.add_argument("--out", default=str(Path(__file__).parent / "golden"))
    arguments = parser.parse_args()
    out = Path(arguments.out)
    out.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        harness = Harness(arguments.lmms_eval, arguments.vlmeval, folder)
        print("the shipped Point2DParser:", harness.shipped_parser_fails() or "works")
        write(out / "masks.json", write_masks(folder))
        write(out / "where2place.json", pointing_cases(harness, "where2place", ["official", "json"]))
        refspatial = pointing_cases(harness, "refspatial", ["official", "json"]) + easi_cases(harness)
        write(out / "refspatial.json", refspatial)
        write(out / "robospatial.json", robospatial_cases(harness))


if __name__ == "__main__":
    main()
