"""The cost model agrees with operations that are counted, and the plan with the settings."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from bench.architectures import stable_diffusion_21
from bench.flops import flops, pass_costs
from dfeat.cli import main
from dfeat.config import Settings
from dfeat.config.files import read_settings
from dfeat.costs.counts import parameters_run
from dfeat.costs.estimate import Cost
from dfeat.costs.measured import Speeds
from dfeat.costs.operations import (
    BACKBONES,
    DIFFUSION,
    PARAMETERS,
    TEXT,
    backbone_flops,
    diffusion_flops,
    until_parameters,
)
from dfeat.costs.plan import FASTER, as_plain, as_text, make_plan
from dfeat.costs.text import COLUMNS
from dfeat.costs.wall import devices_here, wall_time
from dfeat.devices.driver import Device
from dfeat.diffusion.features import find_block, forward_until
from dfeat.errors import UserError
from dfeat.section import parse

REPOSITORY = Path(__file__).parents[2]


TRAINED = 24_095 - 158 * 10
EXACT = [REPOSITORY / "config.yaml", REPOSITORY / "config" / "exact.yaml"]
PAPER = {"train": TRAINED, "imagenet_val": 7_900, "dfeat_real": 300}
META = torch.device("meta")
BLOCKS = [name for name in DIFFUSION if "." in name or name == "mid"]


@pytest.fixture(scope="module")
def networks() -> tuple:
    return stable_diffusion_21(META)


@pytest.mark.parametrize(
    ("resolution", "blocks"),
    [
        (512, BLOCKS),
        pytest.param(256, ["mid", "up.1"], marks=pytest.mark.slow),
        pytest.param(768, ["mid", "up.1"], marks=pytest.mark.slow),
    ],
)
def test_the_cost_model_of_diffusion_is_what_is_counted(networks: tuple, resolution: int, blocks: list[str]) -> None:
    unet, vae, text = networks
    side = resolution // 8
    pixels, latents = (torch.empty(1, n, s, s, device=META) for n, s in ((3, resolution), (4, side)))
    prompt, step = torch.empty(1, 77, 1024, device=META), torch.zeros(1, dtype=torch.long, device=META)
    counted = {
        "encode": flops(lambda: vae.encode(pixels)),
        "decode": flops(lambda: vae.decode(latents)),
        "unet": flops(lambda: unet(latents, step, encoder_hidden_states=prompt)),
        "shallow": pass_costs(resolution)["shallow"],
    }
    for name in blocks:
        block = find_block(unet, name)
        counted[name] = flops(partial(forward_until, unet, [block], latents, step, prompt))
    for name, value in counted.items():
        assert diffusion_flops(name, resolution) == pytest.approx(value, rel=0.02), name
    for name in blocks:
        block = find_block(unet, name)
        run = parameters_run(unet, partial(forward_until, unet, [block], latents, step, prompt))
        assert until_parameters((name,)) == pytest.approx(run, rel=1e-3), name
    assert PARAMETERS["encode"] == pytest.approx(parameters_run(vae, lambda: vae.encode(pixels)), rel=1e-3)
    for name, network in {"unet": unet, "decode": vae.decoder}.items():
        assert PARAMETERS[name] == pytest.approx(sum(p.numel() for p in network.parameters()), rel=1e-3)
    tokens = torch.zeros(1, 77, dtype=torch.long, device=META)
    assert flops(lambda: text(tokens)) == pytest.approx(TEXT, rel=0.02)


@pytest.mark.parametrize("name", BACKBONES)
def test_the_cost_model_of_backbones_is_what_is_counted(name: str) -> None:
    import timm

    with META:
        model = timm.create_model(name, num_classes=158)
        images = torch.empty(1, 3, 224, 224)
    assert backbone_flops(name, 224, training=False) == pytest.approx(flops(lambda: model(images)), rel=0.02)
    both = flops(lambda: model(images).sum(), backward=True)
    assert backbone_flops(name + ".some_tag", 224, training=True) == pytest.approx(both, rel=0.02)


@pytest.mark.parametrize("groups", [1, 2, 8])
@pytest.mark.parametrize("transposed", [False, True])
def test_gradients_of_a_convolution_cost_twice_its_forward_pass(groups: int, transposed: bool) -> None:
    kind = torch.nn.ConvTranspose2d if transposed else torch.nn.Conv2d
    layer, images = kind(8, 16, 3, stride=2, groups=groups), torch.randn(2, 8, 9, 9, requires_grad=True)
    assert flops(lambda: layer(images).sum(), backward=True) == 3 * flops(lambda: layer(images))


@pytest.mark.parametrize("device", ["T4", "V100", "A100", "H200", "RTX 4090", "L40S"])
def test_the_papers_run_is_planned_on_each_device(device: str) -> None:
    plan = make_plan(read_settings([REPOSITORY / "config.yaml"]), PAPER, Speeds(device))
    said = as_plain(plan)
    assert [row["step"] for row in said["steps"]] == [
        "pixels", "inpaint", "latents", "features", "training", "evaluation",
    ]  # fmt: skip
    for end in ("low", "central", "high"):
        assert said["hours"][end] == pytest.approx(sum(row["hours"][end] for row in said["steps"]))
    assert said["hours"]["low"] < 0.9 * said["hours"]["central"] < 0.8 * said["hours"]["high"]
    inpaint, training = said["steps"][1], said["steps"][4]
    assert inpaint["flops"] / TRAINED == pytest.approx(84.06e12, rel=0.01)
    assert (inpaint["jobs"], training["jobs"]) == (44, 36)  # whatever the device
    text = as_text(plan)
    assert f"on one {device}" in text
    assert all(line == line.rstrip() for line in text.splitlines())
    assert str(plan.hours) in text
    assert said["sources"] == list(dict.fromkeys(row["source"] for row in said["steps"] if row["flops"]))
    whole = as_text(plan, basis=True)
    assert max(map(len, (text + whole).splitlines())) <= COLUMNS
    for number, source in enumerate(said["sources"], 1):
        assert f"[{number}] {source}" in " ".join(whole.split()) and source[:40] not in text
    assert ("float16" if device in ("T4", "V100") else "bfloat16") in text


def test_savings_are_those_of_the_settings_and_none_is_left_in_the_fast_run(tmp_path: Path) -> None:
    shards = tmp_path / "shards.yaml"  # the same in both runs: each job embeds the prompts anew
    shards.write_text("diffusion: {inpaint: {shards: 12}, features: {shards: 1}}\n")
    plan = make_plan(read_settings([*EXACT, shards]), PAPER, Speeds("H200"))
    *single, together = plan.savings
    assert len(single) == len(FASTER)
    assert all(0 < saving.hours.central < together.hours.central < plan.hours.central for saving in single)
    assert single[0].flops == pytest.approx(TRAINED * 50 * diffusion_flops("unet", 512))
    files = [REPOSITORY / "config.yaml", REPOSITORY / "config" / "fast.yaml", shards]
    fast = make_plan(read_settings(files), PAPER, Speeds("H200"))
    assert fast.savings == []
    assert plan.hours.minus(fast.hours) == pytest.approx(together.hours, rel=0.05)


def test_training_and_inference_of_each_method_stand_side_by_side() -> None:
    plan = make_plan(read_settings([*EXACT, REPOSITORY / "config/controls.yaml"]), PAPER, Speeds("A100"))
    costs = {(cost.method, cost.backbone): cost for cost in plan.methods}
    assert len(costs) == 9 * 2
    features, inpaint, none = (costs[name, "swin"] for name in ("sd_features", "sd_inpaint", "none"))
    view = diffusion_flops("encode", 512) + diffusion_flops("mid", 512)
    assert features.training_flops - none.training_flops == pytest.approx(2 * view)
    assert features.inference_flops - none.inference_flops == pytest.approx(view)
    assert features.break_even == pytest.approx(2 * PAPER["train"])  # two views a training image, one a test image
    assert inpaint.break_even is None and inpaint.inference_flops == none.inference_flops
    assert features.shipped - none.shipped == pytest.approx(4 * (34.16e6 + 351.66e6))
    assert inpaint.training_memory > features.training_memory > none.training_memory == 3 * none.shipped
    assert features.inference_seconds > 40 * none.inference_seconds
    assert costs["sd_features_placebo", "swin"].inference_flops == features.inference_flops
    assert "45,030" in as_text(plan, basis=True) and as_plain(plan)["methods"][0]["method"] == "none"


def test_the_papers_run_takes_less_than_an_h100_day() -> None:
    plan = make_plan(read_settings([REPOSITORY / "config.yaml"]), PAPER, Speeds("H100"))
    assert plan.hours.central < 20 and plan.hours.high < 24
    hours = {cost.step: cost.hours(plan.speeds).central for cost in plan.costs}
    assert hours["training"] > plan.hours.central / 2


def test_copies_are_planned_as_so_many_images(tmp_path: Path) -> None:
    (tmp_path / "four.yaml").write_text("diffusion: {inpaint: {copies: 4}}\n")
    files = [REPOSITORY / "config.yaml"], [REPOSITORY / "config.yaml", tmp_path / "four.yaml"]
    plans = [make_plan(read_settings(paths), PAPER, Speeds("A100")) for paths in files]
    one, four = ({cost.step: cost for cost in plan.costs} for plan in plans)
    assert four["inpaint"].items == 4 * one["inpaint"].items
    assert four["inpaint"].bytes == pytest.approx(4 * one["inpaint"].bytes, abs=4)
    assert four["inpaint"].flops == pytest.approx(4 * one["inpaint"].flops, rel=1e-3)
    assert four["inpaint"].jobs == pytest.approx(4 * one["inpaint"].jobs, abs=3)
    assert four["pixels"].items - one["pixels"].items == 3 * PAPER["train"]
    assert four["training"] == one["training"] and four["features"] == one["features"]
    assert "4 copies an image" in as_text(plans[1], basis=True) and "copies" not in as_text(plans[0], basis=True)


@pytest.mark.parametrize(
    ("training", "device"),
    [
        ({"methods": ["none", "black_out", "replace", "cutmix"], "precision": "bfloat16"}, "A100"),
        ({"methods": ["none", "sd_features"]}, "T4"),
    ],
)
def test_a_plan_with_one_saving_left_is_printed(training: dict, device: str) -> None:
    plain = read_settings(EXACT).model_dump(mode="json")
    changed = parse(Settings, plain | {"training": plain["training"] | training})
    plan = make_plan(changed, PAPER, Speeds(device))
    saving = plan.savings
    assert len(saving) == 1
    assert as_text(plan).rstrip().splitlines()[-1].startswith(saving[0].setting)


def test_days_are_those_of_the_jobs_side_by_side() -> None:
    settings = read_settings([REPOSITORY / "config.yaml"])
    one, four = (make_plan(settings, PAPER, Speeds("A100"), count) for count in (None, 4))
    assert one.wall.hours == pytest.approx(one.hours) and one.wall.lines()[0].startswith("On one A100: about")
    each = {cost.step: cost.hours(four.speeds).central / cost.jobs for cost in four.costs if cost.flops}
    jobs = {cost.step: -(-cost.jobs // 4) for cost in four.costs if cost.flops}
    assert {step: hours.central for step, hours in four.wall.steps.items()} == pytest.approx(
        {step: each[step] * jobs[step] for step in each}
    )
    here = make_plan(
        settings, PAPER, Speeds("A100"), None, ["NVIDIA A100-SXM4-80GB"] * 4 + ["Tesla T4", "of no figures"]
    )
    assert here.wall.lines()[0].startswith("On the 4 x A100 and 1 x T4 here: about")
    assert here.wall.hours.central <= four.wall.hours.central
    assert as_plain(here)["wall"]["devices"] == ["A100"] * 4 + ["T4"]


def test_a_run_is_planned_on_the_devices_that_it_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    cards = [Device(f"GPU-{number}", "NVIDIA A100-SXM4-80GB", number) for number in range(4)]
    monkeypatch.delenv("DFEAT_DEVICES", raising=False)
    monkeypatch.setattr("dfeat.devices.driver._listed_by_nvml", lambda: tuple(cards))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,3")
    assert devices_here() == ["NVIDIA A100-SXM4-80GB"] * 2
    monkeypatch.setenv("DFEAT_DEVICES", "0 1")
    assert devices_here() == []


def test_a_job_goes_to_the_device_that_ends_it_first_and_a_training_takes_its_devices_together() -> None:
    settings = read_settings([REPOSITORY / "config.yaml"])
    step = Cost("training", 6, 0, 6e18, "bfloat16", "", jobs=6, compiled=True, pass_flops=1e14)
    fast, slow = (step.hours(Speeds(card)).central / 6 for card in ("H100", "T4"))
    assert slow > 6 * fast
    mixed = wall_time(settings, [step], Speeds("H100"), None, ["NVIDIA H100 80GB HBM3", "Tesla T4"])
    assert mixed.hours.central == pytest.approx(6 * fast)
    together = parse(Settings, settings.model_dump(mode="json") | {"training": {"gpus": 4}})
    alone, shared = (wall_time(one, [step], Speeds("A100"), 8, ()).hours.low for one in (settings, together))
    assert (
        0.75 * alone < shared < 0.8 * alone
    )  # three trainings one after another, each a quarter as long but for its start


def test_a_card_without_bfloat16_or_with_little_memory_is_told_what_to_set() -> None:
    settings = read_settings([REPOSITORY / "config.yaml"])
    text = " ".join(as_text(make_plan(settings, PAPER, Speeds("V100"))).split())
    assert "V100 has no units for bfloat16" in text and "precision to float16" in text and "has 16 GB" in text
    assert "units for" not in as_text(make_plan(settings, PAPER, Speeds("RTX 4090")))
    single = read_settings([REPOSITORY / "config.yaml", REPOSITORY / "config" / "single-gpu.yaml"])
    assert "units for" not in as_text(make_plan(single, PAPER, Speeds("V100")))


def test_what_cannot_be_planned_is_a_sentence() -> None:
    with pytest.raises(UserError, match="models of its own sizes"):
        make_plan(read_settings([REPOSITORY / "config.yaml", REPOSITORY / "config" / "demo.yaml"]), PAPER, Speeds("T4"))


def test_the_verb_prints_what_programs_read(monkeypatch: pytest.MonkeyPatch, capsys, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["dfeat", "plan", "--settings", "{}", "--device", "A100", "--json"])
    with pytest.raises(SystemExit, match="0"):
        main()
    said = json.loads(capsys.readouterr().out)
    assert said["device"] == "A100"
    assert said["images"] == PAPER | {"train": 24_095}  # no setting holds any out
    assert parse(Settings, {}).run == said["run"]
