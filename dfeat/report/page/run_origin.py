"""The origin of a run: its configuration, versions and digests, and the command that repeats it.

What enters: a run's artifacts, and the benchmark files of its jobs. What leaves: rows for the page, and `config.yaml`,
the whole configuration of the run as one file.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import yaml

from dfeat.config import Settings
from dfeat.report.page.artifacts import Artifacts
from dfeat.report.page.views import CsvView, Value
from dfeat.report.tables.measured import benchmark_rows
from dfeat.storage.provenance import revision, versions

_PACKAGES: Final = (
    "dfeat", "torch", "torchvision", "timm", "diffusers", "transformers", "numpy", "pillow", "snakemake"
)  # fmt: skip
_MODEL_HEADS: Final = ("Method", "Architecture", "Seed", "Images", "Steps", "Seconds", "Weights, SHA-256")


def run_origin(artifacts: Artifacts, settings: Settings, config: Path) -> dict[str, Any]:
    """What the page shows of a run's origin; `config` is the path of its `config.yaml`."""
    return {
        "command": f"snakemake --cores all --resources gpu=1 --configfile {config}",
        "config": config_text(settings),
        "versions": {"python": platform.python_version(), **versions(*_PACKAGES), "commit": revision() or "not known"},
        "digests": _view(("File", "SHA-256", "Made by"), _digests(artifacts)),
        "models": _view(_MODEL_HEADS, _models(artifacts), 3),
    }


def config_text(settings: Settings) -> str:
    """The whole configuration as YAML, to be laid over `config.yaml`: sets and backbones that the run leaves out are null."""
    plain, default = settings.model_dump(mode="json"), Settings()
    plain["resources"] = {"threads": settings.resources.threads}  # other resources do not affect results
    plain["data"]["train"]["holdout"] = settings.data.train.holdout  # written at 0 too, which is not config.yaml's
    plain["data"]["evaluation"] |= dict.fromkeys(sorted(set(default.data.evaluation) - set(settings.data.evaluation)))
    left_out = set(default.training.backbones) - set(settings.training.backbones)
    plain["training"]["backbones"] |= dict.fromkeys(sorted(left_out))
    head = f"# The configuration of run {settings.run}, whole. Written with the report.\n"
    return head + yaml.dump(plain, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


class _Dumper(yaml.SafeDumper):
    """YAML whose text has the line breaks that it was written with; between single quotes some would be read as spaces."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, '"' if _BREAKS & set(text) else None)


_BREAKS: Final = frozenset("\r\x85\u2028\u2029\ufeff")
_Dumper.add_representer(str, _text)


def job_costs(results: Path) -> CsvView:
    """Every job's benchmark file: wall and CPU seconds and peak memory, as Snakemake measured them."""
    return _view(("Step", "Job", "Wall seconds", "CPU seconds", "Peak memory (MB)"), _jobs(results), 2)


def _digests(artifacts: Artifacts) -> Iterator[tuple[str, ...]]:
    results = artifacts.place.run
    for path, digest in artifacts.indexes.items():
        yield str(path.relative_to(results)), digest, "dfeat index"
    if artifacts.hidden:
        yield str(artifacts.place.parts().relative_to(results)), artifacts.hidden.digest, "dfeat parts"
    for digest, kinds in artifacts.diffusion_models().items():
        yield "diffusion model (all its files)", digest, f"read by dfeat {', '.join(kinds)}"


def _models(artifacts: Artifacts) -> Iterator[tuple[str, ...]]:
    for one in artifacts.models:
        facts = (str(one.run.get(key, "")) for key in ("images", "steps", "seconds", "model"))
        yield one.method, one.backbone, one.seed, *facts


def _jobs(results: Path) -> Iterator[tuple[str, ...]]:
    for path in sorted(results.glob("benchmarks/*/*.tsv")):
        for line in benchmark_rows(path):
            yield path.parent.name, path.stem, *(line.get(key) or "" for key in ("s", "cpu_time", "max_rss"))


def _view(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]], labels: int = 1) -> CsvView:
    lines = tuple(rows)
    numeric = tuple(all(line[place].replace(".", "", 1).isdigit() for line in lines) for place in range(len(heads)))
    return CsvView(heads, numeric, tuple(tuple(Value(text, text) for text in line) for line in lines), labels)
