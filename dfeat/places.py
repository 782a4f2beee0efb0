"""Where everything that a run makes lies, and what its views are called.

What enters: the run's folder, a point of an ablation, and the names of sets, views, methods. What leaves: paths. The
rules ask with wildcards in place of names (`"{view}"`), the code with names; nobody else joins these paths. `place_of` goes the
other way: from a path to what the artifact there is.

    results/<run>                       a run
    results/<run>/ablation/<name>/<n>   point n of a grid: the same folders, as far as the point differs from the run
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

RESULTS: Final = Path("results")
ADOPTING: Final = "DFEAT_ADOPTING"
"""The environment variable that `dfeat adopt` starts Snakemake with: `made`, or `again`, which states no recipe for any job."""
TRAIN: Final = "train"
"""The training set, and the view of its images as they are."""
HOLDOUT: Final = "holdout"
"""The set of images that the training set holds out: choices are made on it, and nothing is trained on it."""
OCCLUDED: Final = "train-occluded"
"""The view of the training images with the chosen parts black."""

_ARTIFACT: Final = re.compile(
    r"""(?:^|/)((?:ablation/[^/]+/\d+/)?(?:
    data/[^/]+/(?:index\.csv|problems\.csv|classes\.json|annotations\.json|source\.json|pixels\.h5)
    |occlusion/parts\.json
    |diffusion/(?:inpaint|latents|features)/[^/]+/[^/]+\.h5
    |training/[^/]+/[^/]+/seed-?\d+/[^/]+
    |evaluation/(?:labels/[^/]+|[^/]+/[^/]+/seed-?\d+)/[^/]+
    |report/(?:\.made/)?[^/]+))$""",
    re.VERBOSE,
)


def place_of(path: Path) -> tuple[Path, str] | None:
    """The run's folder and the artifact's path inside it, with '/' between its parts; None for a path of another form.

    The path is read, not the file: links are not followed, and nothing need be there.
    """
    text = path.absolute().as_posix()
    found = _ARTIFACT.search(text)
    return (Path(text[: found.start(1)]), found[1]) if found else None


def job_of(artifact: Path) -> tuple[Place, str, str] | None:
    """The place, the step and the name of the job that makes a shard, a model, its predictions or verdicts in a run; None for
    anything else."""
    found = place_of(artifact)
    if found is None:
        return None
    run, inside = found
    point = re.match(r"ablation/[^/]+/\d+(?=/)", inside)
    at = f"/{point[0]}" if point else ""
    step, *names = f"/{inside}".removeprefix(f"{at}/").split("/")
    if step == "training":
        return Place(run, at), step, "_".join(names[:3])
    if step == "evaluation":
        first, backbone, seed_folder = names[0], names[1], names[2]
        if first == "labels":
            return Place(run, at), step, f"judge_{backbone}"
        return Place(run, at), step, evaluation_job(first, backbone, seed_folder, predicted_set(artifact))
    if step == "diffusion" and names[-1] != "pixels.h5":
        kind, view = names[:2]
        shard = names[2].removesuffix(".h5")
        return Place(run, at), step, f"{kind}_{shard}" if kind == "inpaint" else f"{kind}_{view}_{shard}"
    return None


def evaluation_job(method: str, backbone: str, seed_folder: str, set_name: str) -> str:
    """The name of the job that evaluates a model on a set; a backbone before fine-tuning has no seed."""
    model = f"{method}_{backbone}" if method == "pretrained" else f"{method}_{backbone}_{seed_folder}"
    return f"{model}@{set_name}"


def level_view(set_name: str, level: int | str) -> str:
    """The view of an evaluation set at a level of occlusion: SET@LEVEL."""
    return f"{set_name}@{level}"


def view_set(view: str) -> str:
    """The data set that a view is of."""
    return TRAIN if view in (TRAIN, OCCLUDED) else view.rpartition("@")[0]


def view_pictures(view: str) -> str:
    """How the images of a view are shown, as `dfeat latents --view` takes it: clean, parts, or drop:LEVEL."""
    return {TRAIN: "clean", OCCLUDED: "parts"}.get(view) or f"drop:{view.rpartition('@')[2]}"


def point_folder(ablation: str, number: int | str) -> str:
    """What the folder of a point adds to the run's, with a slash before it."""
    return f"/ablation/{ablation}/{number}"


@dataclass(frozen=True)
class Place:
    """The artifacts of a run, or of a point of one of its ablations where `at` is given (`point_folder`).

    Every method returns the path of a file, or of the folder that holds an artifact's files where it says so.
    """

    run: Path
    at: str = ""

    @property
    def home(self) -> Path:
        """The folder that the steps' folders lie in."""
        return Path(f"{self.run}{self.at}")

    @property
    def report(self) -> Path:
        """The folder of tables, figures and the page; a run's only."""
        return self.run / "report"

    @property
    def adopting(self) -> Path:
        """The file that stands there while `dfeat adopt` has not come to its end; a run's only."""
        return self.run / ".adopting"

    def data(self, set_name: str) -> Path:
        """The folder of a set's index and pixels; a run's only."""
        return self.run / "data" / set_name

    def index(self, set_name: str) -> Path:
        """The index of a set."""
        return self.data(set_name) / "index.csv"

    def classes(self) -> Path:
        """The classes of the training set, which are the run's."""
        return self.data(TRAIN) / "classes.json"

    def pixels(self, set_name: str) -> Path:
        """The cache of a set's decoded pixels."""
        return self.data(set_name) / "pixels.h5"

    def parts(self) -> Path:
        """The chosen parts."""
        return self.home / "occlusion" / "parts.json"

    def view(self, kind: str, view: str) -> Path:
        """The folder of a view's shards; `kind` is inpaint, latents or features."""
        return self.home / "diffusion" / kind / view

    def shard(self, kind: str, view: str, number: int | str, count: int | str) -> Path:
        """One shard of a view."""
        return self.view(kind, view) / f"{number}-of-{count}.h5"

    def shards(self, kind: str, view: str, count: int) -> list[Path]:
        """All shards of a view."""
        return [self.shard(kind, view, number, count) for number in range(count)]

    def inpainted(self) -> Path:
        """The cache of decoded inpainted images."""
        return self.view("inpaint", TRAIN) / "pixels.h5"

    def model(self, method: str, backbone: str, seed: int | str) -> Path:
        """The folder of a trained model."""
        return self.home / "training" / method / backbone / f"seed{seed}"

    def weights(self, method: str, backbone: str, seed: int | str) -> Path:
        """The weights of a trained model."""
        return self.model(method, backbone, seed) / "model.safetensors"

    @property
    def evaluation(self) -> Path:
        """The folder of all predictions."""
        return self.home / "evaluation"

    def predictions(self, method: str, backbone: str, seed: int | str) -> Path:
        """The folder of a model's predictions."""
        return predictions_folder(self.evaluation, method, backbone, seed)

    def verdicts(self, backbone: str) -> Path:
        """The verdicts of a backbone's None models on the inpainted images; verdicts.json lies beside."""
        return self.evaluation / "labels" / backbone / "verdicts.csv"

    def log(self, step: str, job: str) -> Path:
        """What a job prints."""
        return Path(f"{self.run}/logs{self.at}") / step / f"{job}.log"

    def benchmark(self, step: str, job: str) -> Path:
        """What Snakemake measured of a job."""
        return Path(f"{self.run}/benchmarks{self.at}") / step / f"{job}.tsv"

    def attempts(self, step: str, job: str) -> Path:
        """What the attempts of a job measured themselves, a line each time."""
        return self.benchmark(step, job).with_suffix(".jsonl")

    def published(self, name: str, *suffixes: str) -> list[Path]:
        """The files of a table or figure."""
        return [self.report / f"{name}{suffix}" for suffix in suffixes]


def predictions_folder(evaluation: Path, method: str, backbone: str, seed: int | str) -> Path:
    """The folder of a model's predictions below a folder `evaluation`."""
    return evaluation / method / backbone / f"seed{seed}"


def predictions_origin(set_name: str) -> str:
    """The name of the file that records what a model's predictions on a set are of."""
    return f"{set_name}.json"


def prediction_files(levels: Mapping[str, Iterable[int]]) -> Iterator[str]:
    """The names of a model's prediction files on these sets at these levels, each set's record after them."""
    for set_name, of_set in levels.items():
        yield from (f"{level_view(set_name, level)}.csv" for level in of_set)
        yield predictions_origin(set_name)


def predicted_set(file: Path) -> str:
    """The set that a prediction file is on, or a record of such files."""
    return view_set(file.stem) if file.suffix == ".csv" else file.stem
