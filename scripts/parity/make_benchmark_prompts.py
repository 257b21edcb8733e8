#!/usr/bin/env python3
"""Prompts of benchmarks by the harnesses' own functions, of rows made here: `crates/eval/tests/fixtures/harness_prompts.json`.

    python scripts/parity/make_benchmark_prompts.py --lmms-eval DIR --vlmeval DIR OUTPUT

The folders are unpacked wheels (lmms-eval 0.7.3, ms-vlmeval 0.0.20). A case has the harness, its benchmark and variant, the `row`
(images are numbered) and the `message`: pieces `text`, `image` and `video` in order.
"""

import argparse
import importlib
import json
import sys
import types
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import yaml
from PIL import Image

from harness import Empty, EmptyPackages, LmmsEval, Loader

OPTIONS = ["the red lamp", "a chair", "behind it", "None of these"]
QUESTION = " Where is the lamp?\n"
VIDEO = "videos/scene0011_00.mp4"


def image(index):
    made = Image.new("RGB", (1, 1))
    made.info["index"] = index
    return made


def plain(value):
    """A row's value as JSON: an image is its number."""
    if isinstance(value, Image.Image):
        return {"image": value.info["index"]}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value


# Task folder, YAML and row.
IMAGES = [image(0), image(1)]
LMMS_ROWS = [
    ("mindcube", "mindcube_tiny.yaml", {"id": "among_1", "images": IMAGES, "question": "<image><image>\n" + QUESTION, "input_prompt": "See <image> and\n<image>.\nWhere?\n", "gt_answer": "A"}),
    ("mindcube", "mindcube_tiny.yaml", {"id": "among_2", "images": IMAGES, "question": QUESTION, "input_prompt": "<image> <image><image> end", "gt_answer": "A"}),
    ("mmsi_bench", "msr_bench.yaml", {"id": 1, "images": IMAGES, "question": QUESTION + "Options: A: x, B: y", "answer": "A", "question_type": "MSR"}),
    ("viewspatial", "viewspatial.yaml", {"images": IMAGES, "question": QUESTION, "choices": "A. right\nB. left", "answer": "A. right", "question_type": "Camera perspective - Relative Direction"}),
    ("embspatial", "embspatial.yaml", {"image": IMAGES[0], "question_id": "1", "question": QUESTION, "answer_options": OPTIONS, "answer": 0, "relation": "above", "data_source": "mp3d"}),
    ("blink", "blink_jigsaw.yaml", {"idx": "val_Jigsaw_1", "sub_task": "Jigsaw", "prompt": "Which?\n(A) x\n(B) y", "question": "Which?", "choices": ["x", "y"], "answer": "(A)", "image_1": IMAGES[0], "image_2": IMAGES[1], "image_3": None, "image_4": None}),
    ("3dsrbench", "3dsrbench_circular.yaml", {"index": "1", "image": IMAGES[0], "question": QUESTION, "A": "yes", "B": "no", "C": None, "D": "nan", "answer": "A", "category": "height_higher", "qid": "VIN6MS3J"}),
    ("erqa", "erqa.yaml", {"question_id": "ERQA_1", "question": QUESTION + "Choices: A. x B. y", "question_type": "Pointing", "answer": "A", "images": [*IMAGES, None]}),
    ("sat", "sat.yaml", {"image_bytes": IMAGES, "question": QUESTION, "answers": OPTIONS[:2], "correct_answer_idx": 0}),
    ("vsibench", "vsibench.yaml", {"id": 1, "dataset": "scannet", "scene_name": "scene0011_00", "question_type": "object_counting", "question": QUESTION, "options": None, "ground_truth": "4"}),
    ("vsibench", "vsibench.yaml", {"id": 2, "dataset": "scannet", "scene_name": "scene0011_00", "question_type": "route_planning", "question": QUESTION, "options": ["A. left", "B. right"], "ground_truth": "A"}),
    ("vsibench.multi_image_input", "vsibench_multiimage.yaml", {"id": 3, "dataset": "scannet", "scene_name": "scene0011_00", "question_type": "object_counting", "question": QUESTION, "options": None, "ground_truth": "4"}),
    ("revsi", "revsi_32_frame.yaml", {"scene_id": "scene0011_00", "num_frames": "32", "question_type": "object_abs_distance", "question": QUESTION, "options": None, "ground_truth": "4"}),
    ("revsi", "revsi_32_frame.yaml", {"scene_id": "scene0011_00", "num_frames": "32", "question_type": "route_planning", "question": QUESTION, "options": ["A. left", "B. right"], "ground_truth": "A"}),
    ("where2place", "where2place.yaml", {"question_id": 1, "question": QUESTION, "image": IMAGES[0]}),
    ("where2place", "where2place_json.yaml", {"question_id": 1, "question": QUESTION, "image": IMAGES[0]}),
    ("refspatial", "refspatial_location.yaml", {"id": 1, "object": "the lamp", "prompt": "Please point to the lamp.", "suffix": "Your answer should be a list.", "image": IMAGES[0]}),
    ("refspatial", "refspatial_location_json.yaml", {"id": 1, "object": "the lamp", "prompt": "Please point to the lamp.", "suffix": "Your answer should be a list.", "image": IMAGES[0]}),
    ("robo_spatial", "robo_spatial_context.yaml", {"category": "context", "question": "Where to put the lamp? Your answer should be formatted as a list of tuples, i.e. [(x1, y1), ...], where each tuple contains the x and y coordinates of a point satisfying the conditions above. The coordinates should be between 0 and 1, indicating the normalized pixel locations of the points.", "answer": "[(0.1, 0.2)]", "img": IMAGES[0]}),
    ("robo_spatial", "robo_spatial_configuration.yaml", {"category": "configuration", "question": "Is the lamp left of the chair? Answer yes or no.", "answer": "yes", "img": IMAGES[0]}),
]

NAN = float("nan")
VLMEVAL_ROWS = [
    ("mindcubebench", "MindCubeBench", {"images": 2, "input_prompt": "See <image> and\n<image>.\nWhere?\n"}),
    ("mindcubebench", "MindCubeBench", {"images": 2, "input_prompt": "<image> <image><image> end"}),
    ("mmsibench", "MMSIBench", {"images": 2, "question": QUESTION, "A": "x", "B": "y", "C": NAN}),
    ("mmsibench", "MMSIBench", {"images": 2, "question": QUESTION, "hint": "look up"}),
    ("viewspatialbench", "ViewSpatialBench", {"images": 1, "question": QUESTION, "candidates": "A. right\nB. left"}),
    ("embspatialbench", "EmbSpatialBench", {"images": 1, "question": QUESTION, "options": '["x", "y"]'}),
    ("embspatialbench", "EmbSpatialBench", {"images": 1, "question": QUESTION, "options": "['it''s x', 'y']"}),
    ("image_mcq", "ImageMCQDataset", {"images": 2, "question": QUESTION, "A": "x", "B": "y", "C": NAN, "D": NAN}),
    ("image_mcq", "ImageMCQDataset", {"images": 1, "question": QUESTION, "A": "x", "B": "y", "hint": "look up"}),
    ("image_mcq", "_3DSRBench", {"images": 1, "question": QUESTION, "A": "yes", "B": "no"}),
    ("erqabench", "ERQABench", {"images": 2, "question": "See this: and this. Where? é end", "visual_indices": "[9, 19]"}),
    ("erqabench", "ERQABench", {"images": 2, "question": "See this: and this. Where?", "visual_indices": "[9]"}),
    ("erqabench", "ERQABench", {"images": 2, "question": "See this: and this. Where?", "visual_indices": "[0, 99]"}),
    ("erqabench", "ERQABench", {"images": 2, "question": "See this: and this. Where?", "visual_indices": "[19, 9]"}),
    ("vsibench", "VsiBench", {"video": VIDEO, "question": QUESTION, "question_type": "object_counting", "candidates": NAN}),
    ("vsibench", "VsiBench", {"video": VIDEO, "question": QUESTION, "question_type": "route_planning", "candidates": "['A. left', 'B. right']"}),
    ("stibench", "STIBench", {"video": VIDEO, "question": QUESTION, "time_start": 1.5, "time_end": 4, "options": "['1 m', '2 m']"}),
    ("refspatialbench", "RefSpatialBench", {"images": 1, "question": "Please point to the lamp."}),
    ("refspatial", "RefSpatialDataset", {"images": 1, "prompt": "Please point to the lamp."}),
    ("robospatialbench", "RoboSpatialBench", {"images": 1, "question": "Where to put the lamp? Your answer should be a list.", "category": "context"}),
    ("robospatialbench", "RoboSpatialBench", {"images": 1, "question": "Is the lamp left? Answer yes or no.", "category": "configuration"}),
]


class LmmsPrompts:
    """Messages of lmms-eval's chat models."""

    def __init__(self, folder):
        self.lmms = LmmsEval(folder)
        for name in ["vsibench", "vsibench.multi_image_input", "revsi"]:
            module = self.lmms.module(name)
            for function in ["vsibench_doc_to_visual", "revsi_doc_to_visual"]:
                if hasattr(module, function):
                    setattr(module, function, lambda doc: [VIDEO])
            for function in ["vsibench_doc_to_visual_as_images", "sample_vsibench_video_frames"]:
                if hasattr(module, function):
                    setattr(module, function, lambda doc, settings=None: IMAGES)

    def config(self, folder, name):
        config = yaml.load((folder / name).read_text(), Loader)
        include = config.pop("include", None)
        return {**self.config(folder, include), **config} if include else config

    def case(self, task, name, row, model):
        folder = self.lmms.tasks / task.replace(".", "/")
        config, module = self.config(folder, name), self.lmms.module(task)
        # A YAML in a folder below has the functions of the folder above too.
        modules = [module, self.lmms.module(task.split(".")[0])]
        function = lambda key: next(  # noqa: E731
            getattr(it, config[key].split(".")[1]) for it in modules if hasattr(it, config[key].split(".")[1])
        )
        fields = {key: config.get(key) for key in ["lmms_eval_specific_kwargs", "model_specific_generation_kwargs", "generation_kwargs"]}
        made = object.__new__(self.lmms.api.ConfigurableTask)
        made.model_name = model
        made._config = self.lmms.api.TaskConfig(task=name, output_type="generate_until", **fields)
        made._prepare_model_specific_config()
        settings = made.lmms_eval_specific_kwargs
        if "doc_to_messages" in config:
            (message,) = function("doc_to_messages")(row, **({} if settings is None else {"lmms_eval_specific_kwargs": settings}))
            pieces = message["content"]
        else:
            to_text = function("doc_to_text")
            text = to_text(row) if settings is None else to_text(row, settings)
            pieces = [self.lmms.api.ConfigurableMessagesTask._visual_to_content(visual) for visual in function("doc_to_visual")(row)]
            pieces.append({"type": "text", "text": text})
        return {
            "harness": "lmms-eval",
            "benchmark": task.split(".")[0],
            "variant": f"{name}, {model}",
            "row": {key: plain(value) for key, value in row.items()},
            "message": [self.piece(piece) for piece in pieces],
        }

    @staticmethod
    def piece(piece):
        if piece["type"] == "text":
            return {"text": piece["text"]}
        url = piece["url"]
        return {"image": url.info["index"]} if isinstance(url, Image.Image) else {"video": url}


def vlmeval_classes(folder):
    """Gives the data set classes of VLMEvalKit, whose own package imports everything."""
    root = Path(folder) / "vlmeval"
    for name in ["vlmeval", "vlmeval.dataset"]:
        module = types.ModuleType(name)
        module.__path__ = [str(root / name.replace("vlmeval", "").strip("."))]
        sys.modules[name] = module
    for name in ["smp", "api", "utils", "tools", "config"]:
        sys.modules["vlmeval." + name] = Empty("vlmeval." + name)
    return lambda module, name: getattr(importlib.import_module("vlmeval.dataset." + module), name)


def vlmeval_case(cls, row, video_llm=None):
    dataset = object.__new__(cls)
    dataset.meta_only, dataset.data_root = False, ""
    dataset.dump_image = lambda line: [str(index) for index in range(line["images"])]
    dataset.save_video_frames = lambda *_: (["0", "1"], [0, 9], {"sample_fps": 2 / 3})
    inputs = [] if video_llm is None else [video_llm]
    message = dataset.build_prompt(pd.Series(row), *inputs)
    value = lambda piece: int(piece["value"]) if piece["type"] == "image" else piece["value"]  # noqa: E731
    return {
        "harness": "VLMEvalKit",
        "benchmark": cls.__name__,
        "variant": {None: "", True: "video model", False: "frames"}[video_llm],
        "row": {key: None if value != value else value for key, value in row.items()},
        "message": [{piece["type"]: value(piece)} for piece in message],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lmms-eval", type=Path, required=True)
    parser.add_argument("--vlmeval", type=Path, required=True)
    parser.add_argument("output", type=Path)
    options = parser.parse_args()
    sys.meta_path.append(EmptyPackages())
    prompts = LmmsPrompts(options.lmms_eval)
    cases = [prompts.case(task, name, dict(row), "other") for task, name, row in LMMS_ROWS]
    classes = vlmeval_classes(options.vlmeval)
    for module, name, row in VLMEVAL_ROWS:
        for video_llm in [True, False] if "video" in row else [None]:
            cases.append(vlmeval_case(classes(module, name), row, video_llm))
    text = ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases)
    options.output.write_text(f"[\n{text}\n]\n")
    print(f"prompts: {len(cases)}")


if __name__ == "__main__":
    main()
