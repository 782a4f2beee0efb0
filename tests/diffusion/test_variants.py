"""Diffusers folders as people have them: what is read of them, and that nothing else is digested."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from dfeat.diffusion.layout import files_read, find_model
from dfeat.diffusion.models import DiffusionModel, load_model
from dfeat.diffusion.settings import LatentsStage, ModelSource
from dfeat.diffusion.variants import STEMS, chosen, variants
from dfeat.errors import UserError
from dfeat.storage.provenance import combined_digest, settings_text
from tests.conftest import CPU

Change = Callable[[Path], None]


@pytest.fixture
def folder(tiny_models: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_models["four"], tmp_path / "model"))


@pytest.fixture(scope="module")
def plain(tiny_models: dict[str, Path]) -> DiffusionModel:
    return load(tiny_models["four"])


def load(folder: Path, variant: str | None = None) -> DiffusionModel:
    return load_model(ModelSource(path=str(folder), variant=variant), "inpaint", CPU)


def values(model: DiffusionModel) -> list[torch.Tensor]:
    return [value for part in (model.unet, model.vae, model.text_encoder) for value in part.state_dict().values()]


def same(one: DiffusionModel, other: DiffusionModel) -> bool:
    return all(torch.equal(a, b) for a, b in zip(values(one), values(other), strict=True))


def weights(folder: Path, name: str) -> Path:
    return folder / name / f"{STEMS[name]}.safetensors"


def renamed(variant: str) -> Change:
    def change(folder: Path) -> None:
        for name in STEMS:
            weights(folder, name).rename(folder / name / f"{STEMS[name]}.{variant}.safetensors")

    return change


def sharded(shard: str, index: str) -> Change:
    """Split the weights of every component, with these names of shards and index."""

    def change(folder: Path) -> None:
        for name, stem in STEMS.items():
            whole = weights(folder, name)
            state = load_file(whole)
            whole.unlink()
            keys = sorted(state)
            parts = {shard.format(stem, number): keys[number - 1 :: 2] for number in (1, 2)}
            for file, part in parts.items():
                save_file({key: state[key] for key in part}, folder / name / file, {"format": "pt"})
            listed = {key: file for file, part in parts.items() for key in part}
            (folder / name / index.format(stem)).write_text(json.dumps({"metadata": {}, "weight_map": listed}))

    return change


LAYOUTS: dict[str, tuple[Change, str | None]] = {
    "fp16": (renamed("fp16"), None),
    "bf16": (renamed("bf16"), None),
    "non_ema asked for": (renamed("non_ema"), "non_ema"),
    "shards": (sharded("{}-{:05}-of-00002.safetensors", "{}.safetensors.index.json"), None),
    "shards of fp16": (sharded("{}.fp16-{:05}-of-00002.safetensors", "{}.safetensors.index.fp16.json"), None),
    "shards of fp16, before diffusers 0.29": (
        sharded("{}-{:05}-of-00002.fp16.safetensors", "{}.safetensors.fp16.index.json"), None),
    "shards of fp16, both": (sharded("{}-{:05}-of-00002.fp16.safetensors", "{}.safetensors.index.fp16.json"), "fp16"),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_way_to_write_weights_gives_those_of_the_plain_folder(
    layout: str, folder: Path, plain: DiffusionModel
) -> None:
    change, variant = LAYOUTS[layout]
    change(folder)
    model = load(folder, variant)
    assert same(model, plain)
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    assert set(model.digests) | {"model_index.json"} == set(names)  # all is read, and all that is read is digested
    assert set(files_read(names, variant, "there")) == set(names)


def test_diffusers_own_variants_are_read(folder: Path, plain: DiffusionModel) -> None:
    """As `save_pretrained` of the installed version writes them, in shards too."""
    for name in ("unet", "vae"):
        weights(folder, name).unlink()
        getattr(plain, name).save_pretrained(folder / name, variant="fp16", max_shard_size="150KB")
    assert len(list((folder / "unet").glob("*.fp16-*-of-*.safetensors"))) > 1
    assert same(load(folder), plain)


@pytest.mark.parametrize("variant", ["fp16", "ema", None])
def test_a_variant_that_is_asked_for_is_read_where_a_component_has_it(folder: Path, variant: str | None) -> None:
    state = load_file(weights(folder, "unet"))
    for number, other in enumerate(("fp16", "ema"), 1):
        path = folder / "unet" / f"{STEMS['unet']}.{other}.safetensors"
        save_file({key: value + number for key, value in state.items()}, path, {"format": "pt"})
    bias = load(folder, variant).unet.state_dict()["conv_in.bias"]
    assert torch.equal(bias, state["conv_in.bias"] + {"fp16": 1, "ema": 2, None: 0}[variant])


REFUSED: dict[str, tuple[Change, str | None, str]] = {
    "two variants": (
        lambda f: (renamed("fp16")(f), shutil.copy(f / "unet/diffusion_pytorch_model.fp16.safetensors", f / "unet/diffusion_pytorch_model.bf16.safetensors"))[0],
        None, r"unet has weights of the variants bf16 and fp16 alone; set diffusion\.model\.variant"),
    "one that is not the plain weights": (renamed("non_ema"), None, "of the variant non_ema alone; set diffusion.model.variant"),
    "one that is not there": (lambda f: None, "fp61", r"no weights of the variant 'fp61' .*; it has the plain ones"),
    "a shard is missing": (
        lambda f: (LAYOUTS["shards"][0](f), (f / "vae/diffusion_pytorch_model-00002-of-00002.safetensors").unlink())[0],
        None, "lists 'diffusion_pytorch_model-00002-of-00002.safetensors', which is no .safetensors file beside it"),
    "a shard lies elsewhere": (
        lambda f: (weights(f, "vae").unlink(), (f / "vae/diffusion_pytorch_model.safetensors.index.json").write_text('{"weight_map": {"a": "../unet/x.safetensors"}}'))[0],
        None, "lists '../unet/x.safetensors'"),
    "an index of nothing": (
        lambda f: (weights(f, "vae").unlink(), (f / "vae/diffusion_pytorch_model.safetensors.index.json").write_text("[]"))[0],
        None, "cannot read .*index.json"),
    "a name of another library": (lambda f: weights(f, "unet").rename(f / "unet/model.safetensors"), None, "has no .safetensors weights"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_clear_or_not_whole_is_refused(case: str, folder: Path) -> None:
    change, variant, sentence = REFUSED[case]
    change(folder)
    with pytest.raises(UserError, match=sentence):
        load(folder, variant)


def beside(folder: Path) -> None:
    """What a download of more, a person and the system leave beside what is read."""
    files = {
        "safety_checker/config.json": "{}", "feature_extractor/preprocessor_config.json": "{}", "assets/notes.json": "{}",
        "unet/notes.json": "{}", "unet/README.txt": "x", "unet/diffusion_pytorch_model.non_ema.safetensors": "x",
        "unet/diffusion_pytorch_model.fp16.safetensors": "x", "vae/diffusion_pytorch_model.bin": "x", "LICENSE.txt": "x",
        "text_encoder/model.fp16.safetensors": "x", "text_encoder/pytorch_model.bin": "x", "tokenizer/notes.txt": "x",
        "scheduler/scheduler_config-old.json": "{}", "unet/.ipynb_checkpoints/config.json": "{}", ".cache/x/y.json": "{}",
        "unet_old/config.json": "{}", "v2-1_512.safetensors": "x", "unet/model.onnx": "x",
    }  # fmt: skip
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def test_files_that_nobody_reads_do_not_change_the_digest(folder: Path, plain: DiffusionModel) -> None:
    beside(folder)
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(
        json.dumps(index | {"safety_checker": ["a", "B"], "_diffusers_version": "0"})
    )
    model = load(folder)
    assert model.digests == plain.digests and same(model, plain)


def edited(name: str, **changes: Any) -> Change:
    def change(folder: Path) -> None:
        (folder / name).write_text(json.dumps(json.loads((folder / name).read_text()) | changes))

    return change


@pytest.mark.parametrize(
    "change",
    [
        edited("vae/config.json", scaling_factor=0.2),
        edited("scheduler/scheduler_config.json", beta_end=0.013),
        edited("tokenizer/tokenizer_config.json", model_max_length=9),
        edited("model_index.json", text_encoder=["transformers", "CLIPTextModelWithProjection"]),
        lambda folder: (folder / "tokenizer/merges.txt").write_text("#version: 0.2\n"),
    ],
)
def test_files_that_are_read_change_it(change: Change, folder: Path) -> None:
    before = find_model(ModelSource(path=str(folder))).digests()
    change(folder)
    assert find_model(ModelSource(path=str(folder))).digests() != before


def test_the_digest_of_a_single_file_is_of_its_configurations_too(folder: Path, tmp_path: Path) -> None:
    single = tmp_path / "whole.safetensors"
    single.write_bytes(b"weights")
    source = ModelSource(path=str(single), config=str(folder))
    before = find_model(source).digests()
    assert "single" in before and not any(name.endswith(".safetensors") for name in before)
    beside(folder)
    for name in STEMS:
        weights(folder, name).unlink()
    assert find_model(source).digests() == before


def test_names_alone_tell_variants_apart() -> None:
    names = [
        "model.safetensors.index.fp16.json",
        "model.fp16-00001-of-00002.safetensors",
        "model.safetensors",
        "model.bin",
    ]
    assert variants(names, "text_encoder") == {"fp16": names[0], "": "model.safetensors"}
    assert chosen(names, "text_encoder", None, "") == "model.safetensors"
    assert variants(["diffusion_pytorch_model-00001-of-00002.safetensors"], "unet") == {}


def test_without_a_variant_settings_are_those_of_before() -> None:
    assert '"variant"' not in settings_text(LatentsStage())
    assert '"variant":"fp16"' in settings_text(LatentsStage(model=ModelSource(variant="fp16")))


def test_another_file_of_the_unet_is_read_in_its_place(folder: Path, plain: DiffusionModel, tmp_path: Path) -> None:
    state = load_file(weights(folder, "unet"))
    state["conv_in.bias"] = state["conv_in.bias"] + 1
    save_file(state, tmp_path / "clean.safetensors")
    weights(folder, "unet").unlink()  # it need not be there
    for use in ("features", "inpaint"):
        model = load_model(ModelSource(path=str(folder), unet=str(tmp_path / "clean.safetensors")), use, CPU)
        assert torch.equal(model.unet.conv_in.bias, plain.unet.conv_in.bias + 1)
        assert torch.equal(model.unet.conv_out.weight, plain.unet.conv_out.weight)
    before = model.digest
    save_file(state | {"conv_in.bias": state["conv_in.bias"] + 1}, tmp_path / "clean.safetensors")
    after = find_model(ModelSource(path=str(folder), unet=str(tmp_path / "clean.safetensors"))).digests()
    assert plain.digest != before != combined_digest(after)
    del state["conv_in.bias"]
    save_file(state, tmp_path / "less.safetensors")
    with pytest.raises(UserError, match=r"diffusion.model.unet .*less.safetensors lacks 1 weights \(conv_in.bias"):
        load_model(ModelSource(path=str(folder), unet=str(tmp_path / "less.safetensors")), "features", CPU)
    with pytest.raises(UserError, match=r"diffusion.model.unet is 'gone', which is no file"):
        load_model(ModelSource(path=str(folder), unet="gone"), "features", CPU)


def test_a_random_unet_is_always_the_same_and_leaves_the_generator_alone(folder: Path, plain: DiffusionModel) -> None:
    weights(folder, "unet").unlink()
    torch.manual_seed(3)
    before = torch.get_rng_state()
    one, other = (load_model(ModelSource(path=str(folder), unet="random"), "features", CPU) for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(one.unet.parameters(), other.unet.parameters(), strict=True))
    assert not torch.equal(one.unet.conv_in.weight, plain.unet.conv_in.weight)
    assert one.digest == other.digest != plain.digest
    assert "unet" not in ModelSource().model_dump()
