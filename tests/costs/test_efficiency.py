"""Speeds: a figure with its source for whatever can be configured, ordered as physics has it, and measured ones first."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import get_args

import pytest

from dfeat.config import Settings
from dfeat.costs.counts import count, stated
from dfeat.costs.efficiency import SHARES, STEPS, Range, Work, expected_speed
from dfeat.costs.measured import ASIDE, read_measured, speeds_of
from dfeat.devices.cards import CARDS, card_of, checked_card
from dfeat.diffusion.settings import ModelSource
from dfeat.errors import UserError
from dfeat.section import Precision, parse
from dfeat.storage.atomic import write_json
from tests.conftest import World

LARGE = 1e14
"""FLOPs of a pass that no host is too slow for."""
FOUND = {"precision": "bfloat16", "compiled": True, "flops": 3e14, "passes": 40}


@pytest.mark.parametrize(("card", "precision", "step"), product(CARDS, get_args(Precision), STEPS))
def test_whatever_can_be_configured_has_a_speed_with_a_source(card: str, precision: str, step: str) -> None:
    eager, compiled = (expected_speed(card, Work(step, precision, on, LARGE)) for on in (False, True))
    for speed in (eager, compiled):
        assert 0 < speed.flops.low < speed.flops.central < speed.flops.high < CARDS[card].peak[precision]
        assert len(speed.source) > 40
        assert speed.seconds(1e15).low < speed.seconds(1e15).central < speed.seconds(1e15).high
    assert all(fast >= slow for fast, slow in zip(compiled.flops, eager.flops, strict=True))


def test_half_the_bits_are_never_slower_on_a_card_that_has_the_units() -> None:
    for card, step, on in product(("A100", "H100", "H200"), STEPS, (False, True)):
        exact, rounded, half = (
            expected_speed(card, Work(step, precision, on, LARGE)).flops
            for precision in ("float32", "tf32", "bfloat16")
        )
        assert all(one < two < three for one, two, three in zip(exact, rounded, half, strict=True)), (card, step)


def test_every_source_says_what_was_measured_or_that_it_is_an_estimate() -> None:
    for *_, source in SHARES:
        assert source.startswith(("an estimate", "Diffusers' documentation", "timm's results")), source


def test_public_rates_lie_within_what_they_are_the_source_of() -> None:
    """U-Net passes a second of Stable Diffusion 1.5 (803 GFLOP a row, two rows an image) in Diffusers' documentation."""
    row = 803e9
    for card, images, rates, compiled in (
        ("A100", 16, (3.04, 3.6), False),
        ("A100", 16, (3.83, 4.68), True),
        ("V100", 16, (1.66, 1.66), False),
        ("V100", 16, (1.90, 1.92), True),
        ("V100", 4, (5.89, 5.96), False),
        ("RTX 3090", 16, (1.69, 1.7), False),
        ("RTX 3090", 16, (1.91, 1.93), True),
        ("RTX 4090", 16, (3.17, 3.2), False),
        ("RTX 4090", 16, (3.84, 3.85), True),
        ("T4", 16, (1 / 2.34, 1 / 2.30), False),
        ("T4", 4, (1.99, 2.03), True),
        ("T4", 1, (6.9, 6.95), False),
    ):
        flops = 2 * images * row
        low, _, high = expected_speed(card, Work("inpaint", "float16", compiled, flops)).flops
        assert all(0.98 * low < rate * flops < 1.02 * high for rate in rates), (card, images)


def test_a_small_batch_on_a_fast_card_is_bound_by_launches_and_says_so() -> None:
    row = 262e9
    few, many = (expected_speed("H100", Work("features", "bfloat16", False, rows * row)) for rows in (4, 64))
    assert few.flops.central < many.flops.central / 3 and "launching" in few.source and "launching" not in many.source
    slow = [expected_speed("T4", Work("features", "float16", False, rows * row)).flops for rows in (4, 64)]
    assert slow[0].central == slow[1].central  # on a slow card the same rows keep the device busy
    # an A100 makes one image at a time: 31.2 passes a second of two rows, where the host launches 32 ms for each
    alone = expected_speed("A100", Work("inpaint", "float16", False, 2 * 803e9)).flops
    assert alone.low < 31.2 * 2 * 803e9 < alone.high


@pytest.mark.parametrize(
    "name",
    [
        "MIG 1g.10gb", "NVIDIA H100 80GB HBM3 MIG 1g.10gb", "NVIDIA H100 PCIe", "NVIDIA H100 NVL", "Quadro RTX 4000",
        "Quadro RTX 6000", "NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA GeForce RTX 3090 Ti", "NVIDIA L40", "", "NVIDIA", "40",
        "pretended",
    ],
)  # fmt: skip
def test_a_part_of_a_card_and_another_model_are_not_the_card(name: str) -> None:
    assert card_of(name) is None
    with pytest.raises(UserError, match=r"known are T4, V100, .*RTX 5090; for another give .*--tflops 82"):
        checked_card(name)


@pytest.mark.parametrize(
    ("card", "names"),
    [
        ("H100", "NVIDIA H100 80GB HBM3|h100|H100 SXM5|nvidia-h100"),
        ("H200", "NVIDIA H200|h200"),
        ("A100", "NVIDIA A100-SXM4-40GB|NVIDIA A100 80GB PCIe|NVIDIA A100-PCIE-40GB|a100"),
        ("V100", "Tesla V100-SXM2-16GB|Tesla V100-PCIE-32GB|Tesla V100S-PCIE-32GB|v100"),
        ("T4", "Tesla T4|NVIDIA T4|t4"),
        ("L40S", "NVIDIA L40S|l40s"),
        ("RTX A6000", "NVIDIA RTX A6000|a6000|Rtx-A6000"),
        ("RTX 6000 Ada", "NVIDIA RTX 6000 Ada Generation|rtx6000ada|6000 ada"),
        ("RTX 4090", "NVIDIA GeForce RTX 4090|rtx 4090|RTX4090|4090|GeForce RTX 4090 24 GB"),
        ("RTX 3090", "NVIDIA GeForce RTX 3090|3090"),
    ],
)
def test_a_card_goes_by_all_its_names(card: str, names: str) -> None:
    for name in names.split("|"):
        assert checked_card(name) == card, name
        assert parse(Settings, {"resources": {"device": name}}).resources.device == card


def test_a_card_by_its_peak_alone_is_taken_for_one_of_the_common_ones() -> None:
    speeds = speeds_of(Settings(), tflops=165.2)
    for step, on in product(STEPS, (False, True)):
        work = Work(step, "bfloat16", on, LARGE)
        known, guessed = expected_speed("RTX 4090", work).flops, speeds.of(work).flops
        assert guessed.low < known.low and known.high < 1.05 * guessed.high, (step, on)
    assert speeds.of(Work("training", "float32", False, LARGE)).flops.high < 165.2e12 / 2


def test_ranges_are_printed_short() -> None:
    assert [str(Range(*row)) for row in ((1.84, 2.3, 3.36), (0.012, 0.034, 0.1), (99.6, 136.4, 1234))] == [
        "2.3 (1.8 to 3.4)", "0.03 (0.01 to 0.10)", "136 (100 to 1,234)",
    ]  # fmt: skip


def written(path: Path, card: str, **steps: dict) -> Path:
    write_json(path, {"card": card, "torch": "2.15.0", "date": "2026-11-27", "steps": steps})
    return path


def test_a_measured_speed_stands_for_what_was_measured_and_for_nothing_else(tmp_path: Path) -> None:
    file = written(tmp_path / "h100.json", "NVIDIA H100 80GB HBM3", inpaint=FOUND)
    speeds = speeds_of(Settings(), file=file)
    assert speeds.card == "H100"
    as_measured = Work("inpaint", "bfloat16", True, 1e10)  # its batch was measured, so launches do not bound it again
    assert speeds.of(as_measured).flops == ASIDE.times(3e14)
    assert "NVIDIA H100 80GB HBM3 with torch 2.15.0 on 2026-11-27" in speeds.of(as_measured).source
    assert speeds.share(as_measured) == pytest.approx(ASIDE.times(3e14 / 989e12))
    for other in (
        Work("inpaint", "bfloat16", False, LARGE),
        Work("inpaint", "float16", True, LARGE),
        Work("training", "bfloat16", True, LARGE),
    ):
        assert speeds.of(other) == expected_speed("H100", other)
    configured = parse(Settings, {"resources": {"device": "H100", "measured": str(file)}})
    assert speeds_of(configured) == speeds == speeds_of(configured, "H100")
    assert speeds_of(configured, "A100").measured is None  # another card is asked for by name


def test_a_card_without_a_known_peak_may_be_measured(tmp_path: Path) -> None:
    file = written(tmp_path / "4070.json", "NVIDIA GeForce RTX 4070", inpaint=FOUND)
    speeds = speeds_of(Settings(), file=file)
    work = Work("inpaint", "bfloat16", True, LARGE)
    assert speeds.of(work).flops.central == 3e14 and speeds.share(work) is None
    assert speeds.share(Work("training", "bfloat16", True, LARGE)) is not None


def test_a_file_of_another_card_or_of_another_kind_is_refused(tmp_path: Path) -> None:
    file = written(tmp_path / "t4.json", "Tesla T4", inpaint=FOUND)
    with pytest.raises(UserError, match=r"measured on 'Tesla T4', and the cards are A100 by resources.device; give T4"):
        speeds_of(parse(Settings, {"resources": {"measured": str(file)}}))
    with pytest.raises(UserError, match="the cards are H200 by --device"):
        speeds_of(Settings(), "H200", file)
    with pytest.raises(UserError, match=r"none.json.*plan --calibrate"):
        speeds_of(Settings(), file=tmp_path / "none.json")
    with pytest.raises(UserError, match=r"steps\.inpaint\.flops"):
        read_measured(written(tmp_path / "zero.json", "Tesla T4", inpaint={**FOUND, "flops": 0}))
    file.write_text(json.dumps(json.loads(file.read_text()) | {"card": "NVIDIA A100"}))
    with pytest.raises(UserError, match=r"t4\.json"):
        read_measured(tmp_path / ".." / tmp_path.name / "t4.json")


def test_operations_are_counted_where_the_diffusion_model_is_gone(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    here = world.settings
    gone = here.model_copy(
        update={"diffusion": here.diffusion.model_copy(update={"model": ModelSource(path="/gone/model")})}
    )
    counted, whole = count(gone), count(here)
    assert counted.forward == whole.forward and counted.unet == stated(gone).unet != whole.unet
    assert (
        "those of Stable Diffusion 2, since none can be loaded: diffusion.model.path '/gone/model'"
        in capsys.readouterr().err
    )
