"""The rows of `python -m bench gpu`: what is measured, in which order, and how its batches are made.

What enters: a device and a folder with drawn photographs, their index, parts and pixel cache. What leaves: the endless work
of a row, which runs the code of a job: images prepared ahead by its threads or processes, computed by its functions, and
results fetched one batch behind. No file is written, neither shards nor checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from bench.evaluation import LEVELS, write_untrained
from bench.gpu_meter import Work, forget
from bench.networks import random_model
from bench.photographs import write_photographs_with_parts
from dfeat.costs.efficiency import Step
from dfeat.costs.operations import (
    INPAINTING,
    backbone_flops,
    diffusion_flops,
    feature_flops,
    inpaint_flops,
    until_flops,
)
from dfeat.data.index import Index, read_index
from dfeat.data.indexing import build_train_index
from dfeat.data.pixels import PixelCache, cache_index
from dfeat.data.settings import PixelsStage, TrainSet
from dfeat.diffusion.canvas import Canvas, Copy, Square, copies_of
from dfeat.diffusion.features import FeatureExtractor
from dfeat.diffusion.inpaint import Inpainter
from dfeat.diffusion.latents import encode, view_image
from dfeat.diffusion.models import DiffusionModel, compile_model
from dfeat.diffusion.settings import FeatureSettings, InpaintSettings, LatentsStage
from dfeat.diffusion.stream import Waiting, fetched, padded, prepared, to_device
from dfeat.evaluation.predict import TrainedModel, _predict_set
from dfeat.evaluation.settings import EvaluateStage, EvaluationSettings
from dfeat.methods import BLACK_OUT
from dfeat.occlusion.parts import choose_all, read_parts
from dfeat.occlusion.settings import OcclusionSettings, PartsStage
from dfeat.occlusion.views import TestOcclusion
from dfeat.section import parse
from dfeat.training.dataset import TrainingBatches
from dfeat.training.loop import _step, build_optimizer
from dfeat.training.network import FusionNetwork, untrained_backbone
from dfeat.training.settings import Backbone, TrainingSettings
from dfeat.training.sources import Inputs, read_sources
from dfeat.training.workers import prepared_batches

CONVNEXT: Final = "convnext_base"
SWIN: Final = "swin_base_patch4_window7_224"
DDIM: Final = "ddim"
SOLVER: Final = "dpmsolver++"
STEPS: Final = {DDIM: 50, SOLVER: 25}
BRIEF: Final = 4
"""Steps of an inpainting that warms up or is profiled."""
HALF: Final = "bfloat16"
BATCHES: Final = 8
"""Batches of a set that is evaluated: its last one nothing overlaps."""


@dataclass(frozen=True)
class Row:
    """One line of the table: a step of the pipeline in a precision at a batch size."""

    step: Step
    precision: str
    batch: int
    kind: str = ""
    """The sampler of an inpainting; the backbone of a training or an evaluation."""
    compiled: bool = False

    def __str__(self) -> str:
        kind = {DDIM: "DDIM 50", SOLVER: "DPM++ 25", CONVNEXT: "ConvNeXt-B", SWIN: "Swin-B"}.get(self.kind, "")
        return f"{f'{self.step} {kind}'.strip()}, {self.precision}, batch {self.batch}{', compiled' * self.compiled}"


ROWS: Final = (
    # What config.yaml's hours are made of, as they are run.
    Row("latents", HALF, 32),
    Row("features", HALF, 32),
    Row("training", HALF, 64, CONVNEXT, compiled=True),
    Row("training", HALF, 64, SWIN, compiled=True),
    Row("inpaint", HALF, 32, DDIM),
    Row("evaluation", "float32", 128, CONVNEXT),
    # Half of the steps, what exact arithmetic costs, and what compiling gives.
    Row("inpaint", HALF, 32, SOLVER),
    Row("training", HALF, 64, CONVNEXT),
    Row("latents", "float32", 8),
    Row("features", "float32", 32),
    Row("training", "float32", 64, CONVNEXT),
    Row("training", "tf32", 64, CONVNEXT),
    Row("latents", "tf32", 32),
    Row("features", "tf32", 32),
    Row("evaluation", HALF, 128, CONVNEXT),
    Row("features", HALF, 32, compiled=True),
    Row("latents", HALF, 32, compiled=True),
    Row("inpaint", HALF, 32, SOLVER, compiled=True),
    # The other 16 bits, and what batch sizes do.
    Row("latents", "float16", 32),
    Row("features", "float16", 32),
    Row("inpaint", "float16", 32, SOLVER),
    Row("features", HALF, 8),
    Row("features", HALF, 128),
    Row("latents", HALF, 8),
    Row("inpaint", HALF, 8, SOLVER),
    Row("training", HALF, 16, CONVNEXT),
    Row("training", HALF, 256, CONVNEXT),
    Row("training", HALF, 64, SWIN),
    Row("evaluation", "float32", 128, SWIN),
    Row("inpaint", "tf32", 8, SOLVER),
    Row("training", "tf32", 64, SWIN),
    Row("training", "float32", 64, SWIN),
    Row("inpaint", "float32", 4, SOLVER),
    Row("inpaint", HALF, 32, DDIM, compiled=True),
)
"""All rows, the most telling ones first: what the time does not suffice for is left out from the end."""


def in_miniature() -> list[Row]:
    """A row of every kind, in batches of 2: each step, sampler, backbone and precision, and compiled."""
    kinds: set[object] = set()
    chosen = []
    for row in ROWS:
        new = {row.step, row.kind, row.precision, row.compiled} - kinds
        if new:
            kinds |= new
            chosen.append(replace(row, batch=2))
    return chosen


@dataclass
class Place:
    """What rows are measured on: a device, and drawn photographs in a folder with all that is made of them before."""

    root: Path
    device: torch.device
    workers: int
    small: bool = False
    """Whether networks, images and numbers of steps are tiny."""
    images: int = 256
    index: Index = field(init=False)
    _model: tuple[tuple[str, bool], DiffusionModel] | None = None

    def __post_init__(self) -> None:
        folder = self.root / "train"
        write_photographs_with_parts(self.root / "raw", self.images)
        build_train_index(TrainSet(root=str(self.root / "raw")), folder)
        choose_all(folder, PartsStage(), self.parts_file)
        cache_index(folder, PixelsStage(short_side=self.side), folder / "pixels.h5")
        self.index = read_index(folder)

    @property
    def parts_file(self) -> Path:
        """The chosen parts of all images."""
        return self.root / "parts.json"

    @property
    def resolution(self) -> int:
        """Side of the square that the diffusion model works on."""
        return 64 if self.small else 512

    @property
    def side(self) -> int:
        """Short side of a cached image."""
        return 64 if self.small else 256

    @property
    def image_size(self) -> int:
        """Side of a classifier's input."""
        return 32 if self.small else 224

    def model(self, row: Row) -> DiffusionModel:
        """The diffusion model of a row, the same one as the row before had if it fits (see `release`)."""
        if self._model is None:
            model = random_model(self.device, row.precision, self.small)
            compile_model(model, row.compiled, "eager" if self.small else "inductor")
            self._model = (row.precision, row.compiled), model
        return self._model[1]

    def release(self, row: Row) -> None:
        """Let go of what the row before had on the device and this row has no use for."""
        if self._model and (row.step not in _DIFFUSION or self._model[0] != (row.precision, row.compiled)):
            self._model = None
        forget(self.device)

    def backbone(self, row: Row) -> Backbone:
        """The backbone of a row; in small, one of a few channels by either name."""
        small = {"depths": [1, 1, 1, 1], "dims": [8, 16, 24, 32]}
        return Backbone(name="convnext_atto", kwargs=small) if self.small else Backbone(name=row.kind)

    def inpainting(self, row: Row, brief: bool = False) -> InpaintSettings:
        """The settings of a row's inpainting."""
        steps = 2 if self.small else BRIEF if brief else STEPS[row.kind]
        chosen = {"scheduler": row.kind, "steps": steps, "prompt": "A class of tiger"}
        return parse(InpaintSettings, chosen, "inpaint")


def flops_of(row: Row) -> float:
    """FLOPs of one image of a row at the true sizes; of one level, in an evaluation."""
    if row.step == "latents":
        return diffusion_flops("encode", 512)
    if row.step == "features":
        chosen = FeatureSettings()
        return feature_flops(chosen, until_flops(chosen.blocks, 512))
    if row.step == "inpaint":
        settings = InpaintSettings(scheduler=row.kind, steps=STEPS[row.kind])  # type: ignore[arg-type]
        return inpaint_flops(settings, {name: diffusion_flops(name, 512) for name in INPAINTING})
    return backbone_flops(row.kind, 224, training=row.step == "training")


def work_of(row: Row, place: Place) -> Work:
    """The endless work of a row."""
    return WORK[row.step](row, place)


def _latents(row: Row, place: Place) -> Work:
    model, waiting = place.model(row), Waiting()
    stage = LatentsStage(resolution=place.resolution)

    def prepare(record: Any) -> Any:
        return view_image(place.index, record, "clean", stage, None)

    images = waiting.of(prepared(cycle(place.index.records), prepare, place.workers, 2 * row.batch))
    return _alike(row, images, lambda batch: (encode(model, np.stack(batch)).half(),), waiting)


def _features(row: Row, place: Place) -> Work:
    model, waiting, cells = place.model(row), Waiting(), place.resolution // 8
    latents = np.random.default_rng(0).normal(size=(row.batch, 4, cells, cells)).astype(np.float16)
    extractor = FeatureExtractor(model, FeatureSettings(), model.scaling_factor, batch_size=row.batch)

    def compute(batch: list[Any]) -> tuple[torch.Tensor, ...]:
        rows = np.stack([one for _, one in batch])
        return (extractor.from_latents(to_device(rows, place.device), [key for key, _ in batch]).half(),)

    rows = cycle((str(number), one) for number, one in enumerate(latents))
    return _alike(row, waiting.of(rows), compute, waiting)


def _inpaint(row: Row, place: Place) -> Work:
    model, waiting = place.model(row), Waiting()
    parts = read_parts(place.parts_file, index=place.index.digest)
    square = Square(0, 0, place.resolution)

    def batches(settings: InpaintSettings, waiting: Waiting) -> Iterator[int]:
        inpainter = Inpainter(model, settings)

        def prepare(copy: Copy) -> Any:
            picture, mask = place.index.load(copy.record), parts.mask(copy.record.key)
            return copy, Canvas(copy, picture, mask, square, place.resolution, settings).to_fill()

        def compute(batch: list[Any]) -> tuple[torch.Tensor, ...]:
            squares, seeds = np.stack([one for _, one in batch]), [copy.seed for copy, _ in batch]
            return inpainter.fill(squares[..., :3], squares[..., 3] > 0, [settings.prompt] * len(batch), seeds)

        copies = [copy for record in place.index.records for copy in copies_of(record, settings)]
        return _counted(row, waiting.of(prepared(cycle(copies), prepare, place.workers, 2 * row.batch)), compute)

    return Work(batches(place.inpainting(row), waiting), batches(place.inpainting(row, brief=True), Waiting()), waiting)


def _training(row: Row, place: Place) -> Work:
    chosen = {"batch_size": row.batch, "precision": row.precision, "image_size": place.image_size, "epochs": 1_000_000}
    settings, waiting = parse(TrainingSettings, chosen, "training"), Waiting()
    inputs = Inputs(place.index.folder, place.index.folder / "pixels.h5", place.parts_file)
    sources = read_sources(BLACK_OUT.name, inputs, settings)
    model = FusionNetwork(untrained_backbone(place.backbone(row)), sources.classes)
    model.to(place.device, memory_format=torch.channels_last).train()
    if row.compiled:
        model.backbone.compile(dynamic=False, backend="eager" if place.small else "inductor")
    optimizer = build_optimizer(model, settings)

    def compute(batch: Any) -> tuple[torch.Tensor, ...]:
        return (_step(model, optimizer, batch.to(place.device), settings)[0][None],)

    def steps() -> Iterator[int]:
        batches = TrainingBatches(BLACK_OUT.name, sources, settings, 0, 0)
        with closing(prepared_batches(batches, 0, place.workers, place.device.type == "cuda")) as coming:
            for _ in fetched(waiting.of(coming), compute):
                yield row.batch

    running = steps()
    return Work(running, running, waiting)


def _evaluation(row: Row, place: Place) -> Work:
    stage = EvaluateStage(
        evaluation=EvaluationSettings(batch_size=row.batch, crop_pct=1.0 if place.small else 0.875),
        levels={"set": LEVELS},
        occlusion=OcclusionSettings(patch=8 if place.small else 16),
    )
    folder = place.root / "models" / row.kind
    if not folder.exists():
        write_untrained(folder, place.backbone(row), len(place.index.classes), place.image_size)
    model = TrainedModel(folder, place.device, row.precision)
    occlusion = TestOcclusion.of(place.index, stage.occlusion, None, model.image_size, stage.evaluation.crop_pct)
    pixels = PixelCache(place.index.folder / "pixels.h5")

    def sets(batches: int) -> Iterator[int]:
        records = tuple(islice(cycle(place.index.records), batches * row.batch))
        while True:
            _predict_set(model, records, pixels, dict.fromkeys(LEVELS), stage, occlusion, "set")
            yield len(LEVELS) * len(records)

    return Work(sets(1 if place.small else BATCHES), sets(1))  # how long a set waits for its images is not told apart


def _alike(row: Row, items: Iterator[Any], compute: Callable[[list[Any]], Any], waiting: Waiting) -> Work:
    """Work all of whose batches are alike."""
    running = _counted(row, items, compute)
    return Work(running, running, waiting)


def _counted(row: Row, items: Iterator[Any], compute: Callable[[list[Any]], Any]) -> Iterator[int]:
    with closing(items):  # type: ignore[type-var]
        for _ in fetched(padded(items, row.batch), compute):
            yield row.batch


_DIFFUSION: Final = ("latents", "features", "inpaint")
WORK: Final[dict[str, Callable[[Row, Place], Work]]] = {
    "latents": _latents, "features": _features, "inpaint": _inpaint, "training": _training, "evaluation": _evaluation,
}  # fmt: skip
