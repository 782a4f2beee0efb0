"""A job that was killed goes on from the batches that it had finished, and its shard has the bytes of an undisturbed one."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from dfeat.diffusion import features, inpaint, latents
from dfeat.occlusion.parts import choose_all
from dfeat.storage.journal import journals
from tests.conftest import CPU, World

from .test_fitting import small_device


@dataclass
class Stage:
    """A stage that writes its shard into a folder, and what it does before and after a batch."""

    run: Callable[[Path], object]
    network: Callable[[Any], torch.nn.Module]
    a_batch: int
    """Forward passes of the network in one batch."""
    room: int = 1_000
    """Rows that the network has room for; a pass of more is not counted."""
    passes: int = 0
    before: Callable[[int], None] = field(default=lambda _batch: None)
    sizes: list[int] = field(default_factory=list)
    shapes: set[tuple[int, ...]] = field(default_factory=set)

    def watch(self, model: Any) -> Any:
        small_device(self.network(model), self.room, self.sizes)
        self.network(model).register_forward_pre_hook(self.count)
        return model

    def count(self, _module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        self.shapes.add(tuple(inputs[0].shape))
        if self.passes % self.a_batch == 0:
            self.before(self.passes // self.a_batch)
        self.passes += 1

    def batches(self, out: Path, before: Callable[[int], None] = lambda _batch: None) -> int:
        """Run it into a folder; returns how many batches were computed. `before` is called with the number of each."""
        self.passes, self.before = 0, before
        self.sizes.clear()
        self.run(out)
        assert self.passes % self.a_batch == 0
        return self.passes // self.a_batch


@pytest.fixture
def stages(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Stage]:
    """Inpainting of several shapes and copies, latents of several crops, features of several noises and timesteps."""
    one_part = tmp_path / "parts.json"
    choose_all(world.train, world.stage("parts").model_copy(update={"share": 0.01}), one_part)
    painted, encoded, featured = (world.stage(name) for name in ("inpaint", "latents", "features"))
    painted = painted.model_copy(
        update={"batch_size": 2, "inpaint": painted.inpaint.model_copy(update={"crop": True, "copies": 2})}
    )
    encoded = encoded.model_copy(update={"batch_size": 2, "views": 3})
    several = featured.features.model_copy(update={"ensemble": 2, "timestep": (50, 100)})
    featured = featured.model_copy(update={"batch_size": 2, "features": several})
    source = tmp_path / "latents.h5"
    latents.encode_view(world.train, "clean", encoded, source, CPU, shard=(1, 11))

    def paint(out: Path) -> object:
        return inpaint.inpaint_shard(world.train, one_part, painted, out / "a.h5", CPU, (4, 8))

    def encode(out: Path) -> object:
        return latents.encode_view(world.train, "clean", encoded, out / "a.h5", CPU, shard=(1, 11))

    made = {
        "inpaint": Stage(paint, lambda model: model.unet, painted.inpaint.steps),
        "latents": Stage(encode, lambda model: model.vae.encoder, 1),
        "features": Stage(
            lambda out: features.extract_features(source, featured, out / "a.h5", CPU), lambda model: model.unet, 4
        ),
    }
    for name, module in (("inpaint", inpaint), ("latents", latents), ("features", features)):
        load, watch = module.load_model, made[name].watch  # type: ignore[attr-defined]
        monkeypatch.setattr(module, "load_model", lambda *given, load=load, watch=watch: watch(load(*given)))
    return made


@pytest.mark.parametrize("name", ["inpaint", "latents", "features"])
def test_a_killed_job_computes_what_it_had_not_finished_and_ends_with_the_same_bytes(
    name: str, stages: dict[str, Stage], tmp_path: Path
) -> None:
    stage, whole = stages[name], tmp_path / "whole"

    def as_it_stands(batch: int) -> None:
        """What a kill at the beginning of a batch leaves."""
        shutil.copytree(whole, tmp_path / str(batch)) if whole.exists() else (tmp_path / str(batch)).mkdir()

    count = stage.batches(whole, as_it_stands)
    assert count >= 4
    assert (len(stage.shapes) > 1) is (name == "inpaint"), "its squares are of several sides"
    undisturbed = (whole / "a.h5").read_bytes()
    assert not journals(whole / "a.h5")
    rng = random.Random(name)
    for batch in rng.sample(range(count), 2):
        killed = tmp_path / str(batch)
        assert stage.batches(killed) == count - batch
        assert (killed / "a.h5").read_bytes() == undisturbed
        assert not journals(killed / "a.h5")
    torn = tmp_path / "torn"
    last = max(batch for batch in range(count) if journals(tmp_path / str(batch) / "a.h5"))
    shutil.copytree(tmp_path / str(last), torn)
    (journal,) = journals(torn / "a.h5")
    journal.write_bytes(journal.read_bytes()[: -rng.randrange(1, 200)])  # killed while it was written
    assert stage.batches(torn) == count - last + 1
    assert (torn / "a.h5").read_bytes() == undisturbed


@pytest.mark.parametrize("name", ["inpaint", "features"])
def test_it_goes_on_at_the_size_that_fitted_the_device(name: str, stages: dict[str, Stage], tmp_path: Path) -> None:
    """Rows are computed at the batch shape of an undisturbed job, of which their last bits depend."""
    stage, whole, killed = stages[name], tmp_path / "whole", tmp_path / "killed"
    stage.room, stage.a_batch = (2, 4) if name == "inpaint" else (1, 8)  # guidance doubles the rows: one image fits

    def snapshot(batch: int) -> None:
        if batch == 2:
            shutil.copytree(whole, killed)

    count = stage.batches(whole, snapshot)
    assert stage.sizes[0] > stage.room
    assert stage.batches(killed) == count - 2
    assert stage.sizes[0] == stage.room
    assert (killed / "a.h5").read_bytes() == (whole / "a.h5").read_bytes()


def test_two_jobs_of_one_shard_at_once_end_with_the_same_bytes(stages: dict[str, Stage], tmp_path: Path) -> None:
    """As where Snakemake was killed, and is started again while its jobs live on."""
    stage, out = stages["features"], tmp_path / "out"
    computed: list[int] = []

    def start_another(batch: int) -> None:
        if batch == 2:
            passes = stage.passes
            computed.append(stage.batches(out))
            assert len(journals(out / "a.h5")) == 1, "that of the first job stands"
            computed.append((out / "a.h5").stat().st_mtime_ns)
            stage.passes = passes

    alone = tmp_path / "alone"
    count = stage.batches(alone)
    assert stage.batches(out, start_another) == count
    assert computed[0] == count - 2
    assert (out / "a.h5").read_bytes() == (alone / "a.h5").read_bytes()
    assert not journals(out / "a.h5")
