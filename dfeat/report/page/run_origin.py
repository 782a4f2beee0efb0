"""Where a run comes from: its configuration, versions and digests, and the command that repeats it.

What enters: `results/<run>`; files that are not there are left out. What leaves: rows for the page, and
`config.yaml`, the whole configuration of the run as one file.
"""

from __future__ import annotations

import csv
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from dfeat.config import Settings
from dfeat.report.numbers.paper import backbone_name, method_name
from dfeat.report.page.views import CsvView
from dfeat.storage.provenance import file_digest, revision, versions
from dfeat.storage.records import read_json

_PACKAGES: Final = (
    "dfeat",
    "torch",
    "torchvision",
    "timm",
    "diffusers",
    "transformers",
    "numpy",
    "pillow",
    "snakemake",
)


@dataclass(frozen=True)
class Origin:
    """What the page says of a run's origin. `digests` and `models` are (name, SHA-256 or figure ...) rows."""

    command: str
    config: str
    versions: dict[str, str]
    digests: CsvView
    models: CsvView


def origin(results: Path, settings: Settings, config: Path) -> Origin:
    """The origin of the run; `config` is where its `config.yaml` lies."""
    return Origin(
        command=f"snakemake --cores all --resources gpu=1 --configfile {config}",
        config=config_text(settings),
        versions={"python": platform.python_version(), **versions(*_PACKAGES), "commit": revision() or "not known"},
        digests=_view(("file", "SHA-256", "made by"), _digests(results)),
        models=_view(
            ("method", "backbone", "seed", "images", "steps", "seconds", "weights, SHA-256"), _models(results)
        ),
    )


def config_text(settings: Settings) -> str:
    """The whole configuration as YAML, to be laid over `config.yaml`: sets that the run leaves out are null."""
    plain = settings.model_dump(mode="json")
    left_out = set(Settings().data.evaluation) - set(settings.data.evaluation)
    plain["resources"] = {"threads": settings.resources.threads}  # what else a job asks for changes no result
    plain["data"]["evaluation"] |= dict.fromkeys(sorted(left_out))
    head = f"# The configuration of run {settings.run}, whole. Written with the report.\n"
    return head + yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=100)


def job_costs(results: Path) -> CsvView:
    """Every job's benchmark file: wall and CPU seconds and peak memory, as Snakemake measured them."""
    return _view(("step", "job", "wall seconds", "CPU seconds", "peak memory (MB)"), _jobs(results / "benchmarks"))


def diffusion_models(results: Path) -> dict[str, list[str]]:
    """The digests of the diffusion models that made the run's shards, each with the kinds of shards it made."""
    from dfeat.storage.shards import open_shard

    models: dict[str, list[str]] = {}
    for folder in sorted(path for path in (results / "diffusion").glob("*") if path.is_dir()):
        for path in sorted(folder.glob("*/*-of-*.h5"))[:1]:
            with open_shard(path, folder.name) as file:
                models.setdefault(str(file.attrs["model"]), []).append(folder.name)
    return models


def _digests(results: Path) -> Iterator[tuple[str, ...]]:
    verbs = {"data/*/index.csv": "dfeat index", "occlusion/parts.json": "dfeat parts"}
    for pattern, verb in verbs.items():
        for path in sorted(results.glob(pattern)):
            yield str(path.relative_to(results)), file_digest(path), verb
    for digest, kinds in diffusion_models(results).items():
        yield "diffusion model (all its files)", digest, f"read by dfeat {', '.join(kinds)}"


def _models(results: Path) -> Iterator[tuple[str, ...]]:
    for path in sorted((results / "training").glob("*/*/seed*/run.json")):
        run = read_json(path, "train")
        method, backbone, seed = path.parts[-4:-1]
        figures = (str(run.get(key, "")) for key in ("images", "steps", "seconds", "model"))
        yield method_name(method), backbone_name(backbone), seed.removeprefix("seed"), *figures


def _jobs(folder: Path) -> Iterator[tuple[str, ...]]:
    for path in sorted(folder.glob("*/*.tsv")):
        with path.open(encoding="utf-8", newline="") as file:
            for line in csv.DictReader(file, delimiter="\t"):
                yield path.parent.name, path.stem, *(line.get(key) or "" for key in ("s", "cpu_time", "max_rss"))


def _view(columns: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> CsvView:
    lines = tuple(rows)
    numeric = tuple(all(line[place].replace(".", "", 1).isdigit() for line in lines) for place in range(len(columns)))
    return CsvView(columns, numeric, lines)
