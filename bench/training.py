"""Time of a training step outside forward pass, backward pass and optimiser step, and peak memory of a training.

A resnet18 at 224 px is trained with blacked-out twins from the pixel cache, with two threads, by the training loop in
its own process. Reading, cropping, painting, normalising and reporting are outside. Times are processor times of the
thread that runs the loop, on which other programs have little influence.
"""

from __future__ import annotations

import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np

from bench.memory import megabytes
from bench.table import Comparison, Result

STEPS: Final = 6
BATCH: Final = 16
BACKBONE: Final = "resnet18"
THREADS: Final = 2


@dataclass(frozen=True)
class Steps:
    """Seconds of each step inside and outside the network, and the peak memory of the process in MB."""

    inside: list[float]
    outside: list[float]
    megabytes: float


def run(rounds: int = 5, backbone: str = BACKBONE, batch: int = BATCH, **_: Any) -> Result:
    """Train STEPS + `rounds` steps and compare the time outside the network with that of the whole step."""
    with ProcessPoolExecutor(1, get_context("spawn")) as apart:
        found = apart.submit(train_some, backbone, batch, STEPS + rounds).result()
    outside = 1000 * median(found.outside)
    whole = outside + 1000 * median(found.inside)
    row = Comparison(
        "training, outside the network", outside, whole, "ms/step", 0.05, "the whole step", bound="at most"
    )
    memory = f"{found.megabytes:,.0f} MB at most, with weights, momentum and the cached pixels that were read"
    return Result([row], {"trained": f"{backbone}, batches of {batch}, {THREADS} threads", "memory": memory})


def train_some(backbone: str, batch: int, steps: int) -> Steps:
    """Train `steps` steps, and time all but the first."""
    import torch

    from bench.photographs import write_photographs
    from dfeat.data.pixels import PixelCache
    from dfeat.diffusion.stream import Waiting
    from dfeat.methods import BLACK_OUT
    from dfeat.training import loop
    from dfeat.training.checkpoint import Checkpoints, State
    from dfeat.training.dataset import TrainingBatches
    from dfeat.training.network import FusionNetwork, untrained_backbone
    from dfeat.training.settings import Backbone, TrainingSettings
    from dfeat.training.sources import Sources
    from dfeat.training.team import Team

    torch.set_num_threads(THREADS)
    started: list[float] = []
    ended: list[float] = []
    with tempfile.TemporaryDirectory(prefix="dfeat-bench-") as name:
        index = write_photographs(Path(name), steps * batch // 2)
        labels = {record.key: record.label for record in index.records}
        sources = Sources(
            PixelCache(index.folder / "pixels.h5"),
            list(labels),
            labels,
            [info.wnid for info in index.classes],
            _left_halves(list(labels), index.records[0].height, index.records[0].width),
        )
        settings = TrainingSettings(
            batch_size=batch, epochs=1, backbones={backbone: Backbone(name=backbone)}, methods=(BLACK_OUT.name,)
        )
        model = FusionNetwork(untrained_backbone(settings.backbones[backbone]), len(index.classes))
        model.to(memory_format=torch.channels_last)
        optimizer = loop.build_optimizer(model, settings)
        model.register_forward_pre_hook(lambda *_: started.append(time.thread_time()))
        optimizer.register_step_post_hook(lambda *_: ended.append(time.thread_time()))
        batches = TrainingBatches(BLACK_OUT.name, sources, settings, 0, 0)
        cpu = torch.device("cpu")
        with Checkpoints(Path(name), "", model, optimizer, 0, writes=False) as none:
            loop._fit(model, optimizer, batches, State(), cpu, 0, none, lambda: False, Team(), Waiting())
    inside = [end - start for start, end in zip(started[1:], ended[1:], strict=True)]
    outside = [start - end for end, start in zip(ended[1:], started[2:], strict=False)]
    return Steps(inside, outside, megabytes("VmHWM"))


def _left_halves(keys: list[str], height: int, width: int) -> Any:
    """Parts that hide the left half of each image."""
    from pycocotools import mask as coco_mask

    from dfeat.occlusion.parts import Parts

    mask = np.zeros((height, width), np.uint8, order="F")
    mask[:, : width // 2] = 1
    row = {"mask": coco_mask.encode(mask)}
    return Parts(dict.fromkeys(keys, row), {})
