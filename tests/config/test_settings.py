"""Settings: faults are sentences, the schema is in step, and a stage is handed only what it reads."""

from __future__ import annotations

import copy
import json
import re
from functools import reduce
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic_core import to_jsonable_python
from snakemake.cli import parse_config

from dfeat.cli.common import all_settings
from dfeat.config import Settings, config_schema, stage_settings
from dfeat.config.files import lay_over, read_settings, unread_local
from dfeat.costs.efficiency import Step
from dfeat.costs.estimate import work_of
from dfeat.errors import UserError
from dfeat.methods import NAMES, PAPER_NAMES
from dfeat.report.catalogue import whole_settings
from dfeat.section import parse
from dfeat.storage.provenance import settings_text

ROOT = Path(__file__).parents[2]


def laid(below: dict, above: dict) -> dict:
    """A mapping laid over another, as Snakemake does."""
    content: dict = copy.deepcopy(below)
    lay_over(content, above)
    return content


def merged(*names: str) -> dict:
    """Configuration files laid over each other, as Snakemake does."""
    return reduce(laid, (yaml.safe_load((ROOT / name).read_text()) for name in names), {})


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"trainig": {}}, "unknown key 'trainig'; did you mean 'training'?"),
        ({"training": {"learning_rat": 1}}, "did you mean 'learning_rate'?"),
        ({"training": {"epochs": "many"}}, "'training.epochs' is 'many'"),
        ({"training": {"methods": ["none", "none"]}}, "has a value twice"),
        ({"training": {"backbones": {"a": {"nam": "x"}}}}, "did you mean 'name'?"),
        ({"data": {"evaluation": {"mine": {"rot": "x"}}}}, "did you mean 'root'?"),
        ({"data": {"evaluation": {"mine": {"root": "x", "levels": [0, 120]}}}}, "less than or equal to 100"),
        ({"diffusion": {"features": {"blocks": ["middle"]}}}, "use mid, down.<i> or up.<i>"),
        ({"diffusion": {"resolution": 100}}, "multiple of 8"),
        ({"training": {"crop_scale": [1.0, 0.1]}}, "with 0 < least <= most <= 1"),
        ({"training": {"crop_scale": [2, 5]}}, "'training.crop_scale' is [2, 5]: is no range of areas"),
        ({"training": {"crop_scale": [0, 1]}}, "with 0 < least <= most <= 1"),
        ({"training": {"backbones": {"convnext": None, "swin": None}}}, "training.backbones has none left"),
        ({"data": {"evaluation": {"train": {"root": "x"}}}}, "a set named 'train', as the training images or"),
        ({"data": {"evaluation": {"train-occluded": {"root": "x"}}}}, "give it another name"),
        ({"diffusion": {"model": {"revision": "main"}}}, "'diffusion.model.revision' is 'main': is no commit"),
        (
            {"training": {"backbones": {"a": {"name": "x", "revision": "v1"}}}},
            "in the path that `hf download MODEL` prints",
        ),
        ({"run": "../../etc"}, "'run' is '../../etc': is part of a path, so give letters, digits"),
        ({"data": {"train": {"wnid": "cat"}}}, "'data.train.wnid' is 'cat': is no wnid; give one such as n02487347"),
        ({"occlusion": {"patch": 15}}, "does not divide training.image_size 224"),
        ({"data": {"short_side": 128}}, "raise data.short_side"),
    ],
)
def test_a_wrong_setting_is_a_sentence_that_names_the_key(change: dict, sentence: str) -> None:
    with pytest.raises(UserError) as error:
        parse(Settings, change)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [('{"run": "a", "run": "b"}', "duplicate key 'run'"), ("[" * 100_000, "cannot be read as JSON"),
     ('{"report": {"confidence": NaN}}', "'report.confidence' is nan: input should be a finite number"),
     ('{"report": {"note": "\\u0000"}}', "has a NUL character in it")],
)  # fmt: skip
def test_a_verb_refuses_hostile_json_in_a_sentence(text: str, sentence: str) -> None:
    with pytest.raises(UserError) as error:
        parse(Settings, text, "--settings")
    assert sentence in str(error.value) and len(str(error.value)) < 300


def test_broken_json_is_a_sentence() -> None:
    with pytest.raises(UserError, match="is not JSON"):
        parse(Settings, "{run: demo", "--settings")


def test_the_schema_is_in_step_with_the_models() -> None:
    assert (ROOT / "workflow/schemas/config.schema.json").read_text() == config_schema(), "run `make schema`"


@pytest.mark.parametrize(("overlays", "controls"), [
    ((), 0), (("config/demo.yaml",), 1), (("config/demo.yaml", "config/smoke.yaml"), 0), (("config/controls.yaml",), 3),
    (("config/without-dfeat.yaml",), 0), (("config/fast.yaml",), 0), (("config/single-gpu.yaml",), 0), (("config/exact.yaml",), 0),
])  # fmt: skip
def test_the_shipped_configurations_are_valid_and_train_the_papers_methods(
    overlays: tuple[str, ...], controls: int
) -> None:
    methods = parse(Settings, merged("config.yaml", *overlays)).training.methods
    assert methods[: len(PAPER_NAMES)] == PAPER_NAMES and len(methods) == len(PAPER_NAMES) + controls


def test_the_overlay_for_one_card_computes_in_what_that_card_has() -> None:
    settings = parse(Settings, merged("config.yaml", "config/single-gpu.yaml"))
    assert settings.resources.device == "T4"
    assert (settings.training.precision, settings.training.accumulate) == ("float32", 8)
    assert settings.diffusion.model.precision == "float16"


def test_config_yaml_says_what_the_defaults_are() -> None:
    """All but the holdout, 0 where a configuration does not name it, and what is chosen for the speed of a GPU: a verb that
    is given less computes in float32, as the library does."""
    written = parse(Settings, merged("config.yaml"))
    diffusion = {"model": {"precision": "bfloat16"}, "batch_size": 32}
    fast = {"diffusion": diffusion, "training": {"precision": "bfloat16", "compile": True}}
    assert written == parse(Settings, {"data": {"train": {"holdout": 10}}, **fast})


def test_the_exact_run_computes_in_float32_alone() -> None:
    settings = parse(Settings, merged("config.yaml", "config/exact.yaml"))
    steps: tuple[Step, ...] = get_args(Step)
    assert {(work.precision, work.compiled) for work in (work_of(settings, step) for step in steps)} == {
        ("float32", False)
    }


def test_an_overlay_takes_sets_and_backbones_away_with_null() -> None:
    less = {"data": {"evaluation": {"dfeat_real": None}}, "training": {"backbones": {"swin": None}}}
    whole = merged("config.yaml")
    whole["data"]["evaluation"] |= less["data"]["evaluation"]
    whole["training"]["backbones"] |= less["training"]["backbones"]
    settings = parse(Settings, whole)
    assert list(settings.data.evaluation) == ["imagenet_val"]
    assert list(settings.training.backbones) == ["convnext"]


def test_a_users_own_paths_are_laid_over_config_yaml_where_no_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text((ROOT / "config.yaml").read_text())
    Path("local.yaml").write_text((ROOT / "config/local.example.yaml").read_text().replace("A100", "rtx 4090"))
    local, named = all_settings(None, None), all_settings([Path("config.yaml")], None)
    assert list(local.data.evaluation) == ["imagenet_val"] and local.resources.device == "RTX 4090"
    assert list(named.data.evaluation) == ["imagenet_val", "dfeat_real"]
    assert unread_local([Path("config.yaml"), Path("local.yaml").absolute()]) == unread_local([]) == []
    assert "local.yaml was not read" in unread_local([Path("config.yaml")])[0]
    without = read_settings([ROOT / "config.yaml", ROOT / "config/without-dfeat.yaml"])
    assert without == named.model_copy(update={"data": local.data})


def test_every_choice_that_is_documented_is_a_setting_with_that_default() -> None:
    """The bold entries of docs/choices.md: `section.key: value`, further keys of the same section without it."""
    entries = re.findall(r"^\*\*[^*]+\*\* \((`[^)]+`)\)", (ROOT / "docs/choices.md").read_text(), re.MULTILINE)
    assert len(entries) > 20
    for entry in entries:
        section = ""
        for code in re.findall(r"`([^`]+)`", entry.replace("\n", " ")):
            path, _, value = code.partition(": ")
            section, key = path.rsplit(".", 1) if "." in path else (section, path)
            found: Any = parse(Settings, merged("config.yaml"))
            for name in f"{section}.{key}".strip(".").split("."):
                assert name in type(found).model_fields, f"{code}: no setting {section}.{key}"
                found = getattr(found, name)
            assert not value or to_jsonable_python(found) == yaml.safe_load(value), code


@pytest.mark.parametrize(
    ("stage", "change", "sentence"),
    [
        ("inpaint", {"batch_size": 0}, "'batch_size' is 0"),
        ("features", {"batch_size": 0}, "'batch_size' is 0"),
        ("latents", {"views": 0}, "'views' is 0"),
        ("latents", {"image_size": 0}, "'image_size' is 0"),
        ("latents", {"resolution": 60}, "multiple of 8"),
        ("inpaint", {"resolution": 60}, "multiple of 8"),
        ("latents", {"crop_pct": 5}, "'crop_pct' is 5"),
        ("latents", {"flip": 2}, "'flip' is 2"),
        ("latents", {"crop_scale": [2, 5]}, "with 0 < least <= most <= 1"),
        ("evaluate", {"levels": {"dfeat_real": [400]}}, "less than or equal to 100"),
        ("evaluate", {"levels": {"dfeat_real": []}}, "'levels.dfeat_real' is []"),
        ("pretrained", {"image_size": 0}, "'image_size' is 0"),
    ],
)
def test_a_verb_refuses_what_config_yaml_would(stage: str, change: dict, sentence: str) -> None:
    given = stage_settings(Settings(), stage, "swin")
    with pytest.raises(UserError) as error:
        parse(type(given), given.model_dump(mode="json") | change, "--settings")
    assert sentence in str(error.value)


def test_a_verb_that_is_given_nothing_takes_the_defaults_of_the_sections() -> None:
    for stage in ("parts", "pixels", "inpaint", "latents", "features"):
        whole = stage_settings(Settings(), stage)
        assert type(whole)() == whole


def test_a_changed_training_setting_changes_no_other_stage() -> None:
    before, after = Settings(), parse(Settings, {"training": {"learning_rate": 0.1, "beta": 0.9}})
    for stage in ("parts", "pixels", "inpaint", "latents", "features", "evaluate"):
        assert settings_text(stage_settings(before, stage)) == settings_text(stage_settings(after, stage))


def test_the_least_visible_share_is_read_by_the_choice_of_parts_alone_and_written_only_where_it_is_set() -> None:
    before, after = Settings(), parse(Settings, {"occlusion": {"min_visible": 0.25}})
    for stage in ("pixels", "inpaint", "latents", "test_latents", "features", "evaluate", "pretrained", "train"):
        given = [settings_text(stage_settings(run, stage, "swin")) for run in (before, after)]
        assert given[0] == given[1] and "min_visible" not in given[0]
    assert settings_text(stage_settings(before, "parts")) == '{"share":0.5,"unit":"category"}'
    assert '"min_visible":0.25' in settings_text(stage_settings(after, "parts"))
    assert "min_visible" not in settings_text(before) and '"min_visible":0.25' in settings_text(after)
    assert parse(Settings, json.loads(settings_text(after))) == after


def test_rates_by_method_and_backbone_reach_their_own_trainings_alone() -> None:
    rates = {"none": {"swin": 0.03}, "cutmix": {"swin": 0.001, "convnext": 0.01}}
    before, after = Settings(), parse(Settings, {"training": {"learning_rates": rates}})
    changed = {
        (method, backbone)
        for method in NAMES
        for backbone in before.training.backbones
        if stage_settings(before, "train", backbone, method) != stage_settings(after, "train", backbone, method)
    }
    assert changed == {("none", "swin"), ("cutmix", "swin")}  # a rate that is the one for all is no other setting
    given = json.loads(settings_text(stage_settings(after, "train", "swin", "none")))["training"]
    assert given["learning_rate"] == 0.03 and "learning_rates" not in given
    assert "learning_rates" not in settings_text(before) and parse(Settings, json.loads(settings_text(after))) == after


@pytest.mark.parametrize(
    ("rates", "sentence"),
    [
        ({"none": {"swinn": 0.1}}, "no backbone of the run (convnext, swin); did you mean 'swin'?"),
        ({"nonne": {"swin": 0.1}}, "did you mean 'none'"),
        ({"none": {"swin": 0}}, "'training.learning_rates.none.swin' is 0: input should be greater than 0"),
    ],
)
def test_a_rate_for_what_the_run_does_not_train_is_refused(rates: dict, sentence: str) -> None:
    with pytest.raises(UserError) as error:
        parse(Settings, {"training": {"learning_rates": rates}})
    assert sentence in str(error.value)


def test_the_name_of_the_held_out_images_is_no_other_sets() -> None:
    with pytest.raises(UserError, match="a set named 'holdout', as the training images or those held out of them"):
        parse(Settings, {"data": {"evaluation": {"holdout": {"root": "x"}}}})


def test_a_method_is_not_handed_what_only_others_read() -> None:
    before = Settings()
    after = parse(Settings, {"training": {"beta": 0.9, "seeds": [5]}, "occlusion": {"protocol": "image"}})
    changed = {
        method
        for method in NAMES
        if stage_settings(before, "train", "swin", method) != stage_settings(after, "train", "swin", method)
    }
    assert changed == {"replace"}


def test_another_model_may_inpaint_and_features_stay_those_of_the_first() -> None:
    both = parse(Settings, {"diffusion": {"model": {"path": "a"}}})
    apart = parse(Settings, {"diffusion": {"model": {"path": "a"}, "inpaint_model": {"path": "b"}}})
    assert stage_settings(both, "inpaint").model.path == "a"  # type: ignore[attr-defined]
    assert stage_settings(apart, "inpaint").model.path == "b"  # type: ignore[attr-defined]
    for stage in ("latents", "features"):
        assert settings_text(stage_settings(apart, stage)) == settings_text(stage_settings(both, stage))


GIVEN = {
    "run": "mine", "base": None,
    "data": {"train": {"expected_images": None, "holdout": 3}, "evaluation": {"dfeat_real": None}, "short_side": 300},
    "diffusion": {"inpaint": {"shards": None, "guidance_interval": [0, 0.5], "crop": True}, "views": 2},
    "training": {
        "learning_rate": 1e-3, "epochs": 7, "seeds": [0, 5], "learning_rates": {"none": {"swin": 1e-2}}, "halve": True,
        "backbones": {
            "convnext": None,
            "swin": {"weights": None, "kwargs": {"window_size": 7, "qkv_bias": False, "ape": True, "eps": 1e-6, "a": None, "depths": [2, 2], "act_layer": "gelu"}},
        },
    },
    "ablation": {"mine": {"methods": ["none"], "grid": {"training.weight_decay": [0, 1e-3, 0.5]}}},
    "resources": {"measured": None, "workers": 0},
}  # fmt: skip
"""Values of all kinds, as a file has them."""


def written(value: Any, number: str = "{!r}") -> str:
    """YAML in one line, as one would type it; `number` may be with an exponent."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {written(one, number)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return f"[{', '.join(written(one, number) for one in value)}]"
    if isinstance(value, float):
        return number.format(value)
    return value if isinstance(value, str) else json.dumps(value)


@pytest.mark.parametrize("number", ["{!r}", "{:g}", "{:e}"])
def test_a_setting_is_the_same_however_it_is_given(number: str) -> None:
    """On the command line of Snakemake, which leaves text inside a mapping, in YAML 1.1 and to a verb."""
    base = merged("config.yaml")
    wanted = parse(Settings, laid(base, GIVEN))
    typed_in = [f"{section}={written(value, number)}" for section, value in GIVEN.items()]
    assert parse(Settings, laid(base, parse_config(typed_in))) == wanted
    assert parse(Settings, laid(base, yaml.safe_load(written(GIVEN, number)))) == wanted
    assert parse(Settings, settings_text(wanted), "--settings") == wanted
    backbone = wanted.training.backbones["swin"]
    assert (backbone.kwargs, backbone.weights) == (GIVEN["training"]["backbones"]["swin"]["kwargs"], None)
    assert wanted.ablation["mine"].grid["training.weight_decay"] == (0, 1e-3, 0.5)


@pytest.mark.parametrize(("word", "value"), [
    ("~", None), ("", ""), ("NULL", None), ("yes", True), ("Off", False), ("FALSE", False), ("-.5E+3", -500.0), ("+7", 7),
    ("1e999", "1e999"), ("010", "010"), ("1_0", "1_0"), ("0x1", "0x1"), ("nan", "nan"), ("9" * 50, "9" * 50), ("None", "None"),
])  # fmt: skip
def test_text_for_a_backbone_is_what_it_is_in_a_file_and_no_more(word: str, value: Any) -> None:
    found = parse(Settings, {"training": {"backbones": {"a": {"name": "x", "kwargs": {"b": [word]}}}}})
    assert found.training.backbones["a"].kwargs == {"b": [value]}


def test_pins_are_revisions_of_the_models_that_have_none_of_their_own() -> None:
    one, other = "1" * 40, "2" * 40
    model, named = {"path": "a/model"}, {"name": "convnext_base.fb_in1k"}
    chosen = parse(
        Settings,
        {
            "pins": {"a/model": one, "convnext_base.fb_in1k": one, "b/unused": one, "swin_tiny": None},
            "diffusion": {"model": model, "inpaint_model": model | {"revision": other}},
            "training": {
                "backbones": {"pinned": named, "own": named | {"revision": other}, "local": named | {"weights": "x"}}
            },
        },
    )
    assert (chosen.diffusion.model.revision, chosen.diffusion.inpainting_model.revision) == (one, other)
    revisions = {name: backbone.revision for name, backbone in chosen.training.backbones.items()}
    assert revisions == {"pinned": one, "own": other, "local": None}
    assert parse(Settings, chosen.model_dump(mode="json")) == chosen
    assert "pins" not in Settings().model_dump()
    assert "pins" not in whole_settings(chosen).model_dump()
    with pytest.raises(UserError, match=r"'pins\.a/model' is 'main': is no commit"):
        parse(Settings, {"pins": {"a/model": "main"}})
