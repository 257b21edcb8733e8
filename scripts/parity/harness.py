"""lmms-eval's modules from an unpacked wheel, without the packages that they import."""

import importlib
import importlib.abc
import importlib.machinery
import sys
import types
from pathlib import Path
from types import SimpleNamespace

import loguru
import yaml


class Empty(types.ModuleType):
    """A module of a package that is not installed: each of its members is an empty class."""

    __path__ = []

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        members = {
            "__init__": lambda self, *_, **__: None,
            "__init_subclass__": classmethod(lambda cls, **_: None),
            "__call__": lambda self, *inputs, **_: inputs[0] if inputs else None,
            "__getattr__": lambda self, name: {},
            "__or__": lambda self, other: other,
        }
        setattr(self, name, type(name, (), members))
        return self.__dict__[name]


class EmptyPackages(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds an empty module for what nothing else finds."""

    def find_spec(self, name, path, target=None):
        if name.split(".")[0] == "lmms_eval":
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec):
        return Empty(spec.name)

    def exec_module(self, module):
        pass


class Loader(yaml.SafeLoader):
    """Reads a task's YAML; `!function` gives the name of the function."""


Loader.add_constructor("!function", lambda loader, node: node.value)


class LmmsEval:
    """lmms-eval's scoring of one document."""

    def __init__(self, folder):
        self.tasks = Path(folder) / "lmms_eval" / "tasks"
        sys.path.insert(0, str(folder))
        importlib.import_module("huggingface_hub.constants").HF_HOME = ""
        utils = importlib.import_module("lmms_eval.utils")
        utils.get_datetime_str = lambda *_, **__: ""
        self.api = importlib.import_module("lmms_eval.api.task")
        self.metrics = importlib.import_module("lmms_eval.api.metrics")
        self.group = importlib.import_module("lmms_eval.api.group")
        self.evaluator = importlib.import_module("lmms_eval.evaluator")
        loguru.logger.remove()

    def module(self, task):
        return importlib.import_module(f"lmms_eval.tasks.{task}.utils")

    def score(self, task, doc, answer, reasoning_tags=None):
        """What the harness makes of an answer: the task's own result."""
        request = SimpleNamespace(filtered_resps={"none": answer}, raw_filtered_resps={})
        made = self.evaluator._process_document_results(
            (0, doc, [request]), task=task, filter_key="none", reasoning_tags=reasoning_tags, log_samples=False
        )
        return made.metrics

    def task(self, process_results):
        """A task that scores with a function."""
        task = object.__new__(self.api.ConfigurableTask)
        task.OUTPUT_TYPE = "generate_until"
        task._config = SimpleNamespace(process_results=process_results, repeats=1, doc_to_choice=None)
        return task

    def sat_task(self):
        """SAT has no function: its YAML has a metric and a filter."""
        config = yaml.load((self.tasks / "sat" / "sat.yaml").read_text(), Loader)
        (metric,) = config["metric_list"]
        task = self.task(None)
        task._metric_fn_list = {metric["metric"]: self.metrics.exact_match_fn}
        settings = {"metric", "aggregation", "higher_is_better"}
        task._metric_fn_kwargs = {metric["metric"]: {key: metric[key] for key in metric if key not in settings}}
        task.multiple_target = False
        task.doc_to_target = self.module("sat").sat_doc_to_target
        (ensemble,) = config["filter_list"]
        (step,) = ensemble["filter"]
        name = step.pop("function").split(".")[1]
        return task, getattr(self.module("sat"), name)(**step)
