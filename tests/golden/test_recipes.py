"""A stage whose output changes must raise its RECIPE, or artifacts of the old kind would be reused.

Each stage's output on fixed input is digested; the digest is recorded beside the RECIPE it was made with. When
this test fails and the change is meant, raise RECIPE in the stage's module and record the new digest:
`python -m tests.golden.test_recipes` prints them. Floating-point outputs are rounded first, since sums differ
in their last bits between processors.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from dfeat.storage.provenance import declared_recipe

RECORDED = Path(__file__).parent / "recipes.json"
RNG_SEED = 5


def _digest(*values: object) -> str:
    digest = hashlib.sha256()
    for value in values:
        if isinstance(value, np.ndarray):
            rounded = np.round(value.astype(np.float64), 2) + 0.0 if np.issubdtype(value.dtype, np.floating) else value
            digest.update(np.ascontiguousarray(rounded).tobytes())
        else:
            digest.update(json.dumps(value, sort_keys=True).encode())
    return digest.hexdigest()[:16]


def parts() -> str:
    from dfeat.occlusion.parts import choose_parts

    rng = np.random.default_rng(RNG_SEED)
    choices = [choose_parts(rng.random((n, 16, 16)) < 0.3) for n in range(1, 8)]
    return _digest([[choice.chosen, choice.area] for choice in choices])


def patches() -> str:
    from dfeat.occlusion.patches import drop_for
    from dfeat.occlusion.settings import OcclusionSettings

    masks = [
        drop_for(OcclusionSettings(protocol=protocol), "n1_2", 40, 224, (333, 500), 0.875)
        for protocol in ("grid", "image", "random")
    ]
    return _digest(*masks)


def pixels() -> str:
    from dfeat.data.pixels import evaluation_crop

    ramp = (np.mgrid[0:50, 0:70].sum(0)[..., None] * np.array([1, 2, 0])).astype(np.uint8)
    return _digest((evaluation_crop(ramp, 0.875, 28) // 8).astype(np.uint8))


def drawings() -> str:
    from dfeat.demo.worlds import draw_one

    drawing = draw_one("train", 3, 0, 0)
    return _digest([[part, polygon.round(2).tolist()] for part, polygon in drawing.parts])


def training() -> str:
    from dfeat.data.crops import Crop
    from dfeat.methods.paint import partner_order
    from dfeat.training.dataset import cut, cut_mask
    from dfeat.training.loop import learning_rate
    from dfeat.training.settings import TrainingSettings

    settings = TrainingSettings()
    rates = [round(learning_rate(settings, step, 100), 6) for step in (0, 1, 50, 99)]
    ramp = (np.mgrid[0:50, 0:70].sum(0)[..., None] * np.array([1, 2, 0])).astype(np.uint8)
    crop = Crop((0.1, 0.2, 0.8, 0.9), True)
    crops = (cut(ramp, crop, 28) // 8).astype(np.uint8), cut_mask(ramp[..., 1] > 100, crop, 28)
    return _digest(rates, partner_order(["a", "b", "c", "d"], 0), *crops)


def noise() -> str:
    import torch

    from dfeat.diffusion.features import draw_noise
    from dfeat.randomness import seed_for

    seeds = [seed_for(0, key, "features 0") for key in ("n1_2", "n1_3")]
    return _digest(seeds, draw_noise((4, 2, 2), [torch.Generator().manual_seed(seed) for seed in seeds]).numpy())


STAGES = {
    "dfeat.occlusion.parts": parts,
    "dfeat.diffusion.latents": patches,
    "dfeat.evaluation.predict": patches,
    "dfeat.data.pixels": pixels,
    "dfeat.demo.worlds": drawings,
    "dfeat.training.loop": training,
    "dfeat.diffusion.features": noise,
}


@pytest.mark.parametrize("module", sorted(STAGES))
def test_output_and_recipe_change_together(module: str) -> None:
    recorded = json.loads(RECORDED.read_text())[module]
    assert {"recipe": declared_recipe(module), "digest": STAGES[module]()} == recorded


def test_every_stage_declares_its_recipe() -> None:
    for module in (
        *STAGES,
        "dfeat.data.index",
        "dfeat.diffusion.inpaint",
        "dfeat.report",
        "dfeat.report.figures.examples",
    ):
        assert declared_recipe(module) >= 1


if __name__ == "__main__":
    current = {module: {"recipe": declared_recipe(module), "digest": make()} for module, make in STAGES.items()}
    RECORDED.write_text(json.dumps(current, indent=1) + "\n")
    print(RECORDED.read_text())
