"""The library as people use it: images as they have them, one line each, and results that do not depend on how they cut a loop."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import dfeat
from dfeat import FeatureExtractor, Inpainter, load_images
from dfeat.errors import UserError
from tests.examples import EXAMPLES, cells, displayed, is_readable

Pixels = NDArray[np.uint8]


@pytest.fixture(scope="module")
def extract() -> FeatureExtractor:
    return FeatureExtractor.from_pretrained("demo", blocks="mid", timestep=100, device="cpu", batch_size=4)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Photographs of several sizes, kinds and modes; one is stored sideways."""
    folder, rng = tmp_path_factory.mktemp("photographs"), np.random.default_rng(5)
    coarse = rng.integers(0, 256, (4, 9, 12, 3), dtype=np.uint8).repeat(16, 1).repeat(16, 2)
    pictures = [Image.fromarray(one) for one in coarse]
    sideways = Image.Exif()
    sideways[274] = 6
    pictures[0].save(folder / "a.jpg", quality=95)
    pictures[1].resize((200, 100)).save(folder / "b.png")
    pictures[2].convert("L").save(folder / "c.png")
    pictures[3].transpose(Image.Transpose.ROTATE_90).save(folder / "d.jpg", exif=sideways, quality=95)
    (folder / "notes.txt").write_text("no image")
    return sorted(path for path in folder.iterdir() if path.suffix != ".txt")


@pytest.fixture(scope="module")
def squares(files: list[Path]) -> Pixels:
    return load_images(files, size=64)


WAYS: dict[str, Callable[[list[Path], Pixels], Any]] = {
    "paths": lambda files, squares: files,
    "texts": lambda files, squares: [str(file) for file in files],
    "a folder": lambda files, squares: files[0].parent,
    "PIL images of any sizes": lambda files, squares: [Image.open(file) for file in files],
    "a generator": lambda files, squares: (Image.open(file) for file in files),
    "one array, channels last": lambda files, squares: squares,
    "one array, channels first": lambda files, squares: squares.transpose(0, 3, 1, 2),
    "a list of arrays": lambda files, squares: list(squares),
    "a tensor of bytes, channels first": lambda files, squares: torch.from_numpy(squares).permute(0, 3, 1, 2),
    "a tensor from 0 to 1": lambda files, squares: torch.from_numpy(squares).permute(0, 3, 1, 2) / 255,
    "an array from 0 to 1": lambda files, squares: squares.astype(np.float32) / 255,
    "float64": lambda files, squares: squares / 255,
    "whole numbers of another type": lambda files, squares: squares.astype(np.int64),
    "opaque RGBA": lambda files, squares: np.concatenate([squares, np.full_like(squares[..., :1], 255)], axis=3),
    "PIL squares": lambda files, squares: [Image.fromarray(one) for one in squares],
    "a mixture": lambda files, squares: [files[0], Image.open(files[1]), squares[2], torch.from_numpy(squares[3])],
}


@pytest.mark.parametrize("way", WAYS)
def test_the_same_images_in_any_form_have_the_same_features(
    extract: FeatureExtractor, files: list[Path], squares: Pixels, way: str
) -> None:
    features, expected = extract(WAYS[way](files, squares)), extract(squares)
    assert features.shape == (4, extract.num_features) and features.dtype == torch.float32
    assert torch.equal(features, expected)


@pytest.mark.parametrize(
    "form", [Path, str, Image.open, lambda file: load_images(file, 64)[0], lambda file: load_images(file, 64)]
)
def test_one_image_is_a_batch_of_one(extract: FeatureExtractor, files: list[Path], form: Callable[[Path], Any]) -> None:
    assert torch.equal(extract(form(files[0])), extract([files[0]]))


def test_features_do_not_depend_on_where_an_image_stands_nor_on_how_a_loop_is_cut(
    extract: FeatureExtractor, rng: np.random.Generator
) -> None:
    images = rng.integers(0, 256, (15, 64, 64, 3), dtype=np.uint8)
    whole = extract(images)
    close = {"rtol": 0, "atol": 2e-5}
    for row in (0, 7, 14):
        torch.testing.assert_close(extract(images[row]), whole[row : row + 1], **close)
    order = rng.permutation(15)
    torch.testing.assert_close(extract(images[order]), whole[order], **close)
    for sizes in ([8, 7], [1, 13, 1], [5, 5, 5]):
        cuts = np.cumsum([0, *sizes])
        parts = torch.cat([extract(images[low:high]) for low, high in pairwise(cuts)])
        torch.testing.assert_close(parts, whole, **close)
    assert (extract(images[:1], keys=["another"]) - whole[:1]).abs().max() > 0.01


def test_an_inpainting_depends_on_its_image_mask_prompt_and_seed_alone(rng: np.random.Generator) -> None:
    inpaint = Inpainter.from_pretrained("demo", steps=2, device="cpu", guidance_scale=3)
    images = rng.integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    mask = np.zeros((64, 64), bool)
    mask[10:40, 20:50] = True
    together = inpaint(images, mask, "A class of tiger", paste=True)
    alone = inpaint(images[2], mask, "A class of tiger", paste=True)
    assert np.abs(together[2].astype(int) - alone[0]).max() <= 1
    assert (together[:, ~mask] == images[:, ~mask]).all()
    assert (inpaint(images[2], mask, "A class of tiger", seeds=1) != alone).any()
    for given in (mask * np.uint8(255), mask.astype(float), Image.fromarray(mask), torch.from_numpy(mask)[None, None]):
        assert (inpaint(images[2], given, "A class of tiger", paste=True) == alone).all()
    hidden = images[2].copy()
    hidden[mask] = 7
    assert (inpaint(hidden, mask, "A class of tiger", paste=True) == alone).all()


def test_masks_of_files_follow_their_images(files: list[Path], tmp_path: Path) -> None:
    inpaint = Inpainter.from_pretrained("demo", steps=1, device="cpu")
    image = Image.open(files[1])
    mask = np.zeros(image.size[::-1], np.uint8)
    mask[:, : image.width // 2] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    filled = inpaint(files[1], tmp_path / "mask.png", "", paste=True)
    assert (filled[0][:, 34:] == load_images(files[1], 64)[0][:, 34:]).all()


def test_transparency_lies_over_white_and_soft_masks_hide_above_half(rng: np.random.Generator) -> None:
    from dfeat.data.given import masks_of

    clear = np.zeros((2, 16, 16, 4), np.uint8)
    assert (load_images(clear) == 255).all()
    ramp = np.linspace(0, 255, 16).astype(np.uint8)[None].repeat(16, 0)
    assert (masks_of(ramp, [(16, 16)])[0] == (ramp > 127.5)).all()
    assert (masks_of(ramp / 255, [(16, 16)])[0] == (ramp > 127.5)).all()
    assert not masks_of(np.zeros((16, 16)), [(16, 16)])[0].any()


def test_loaded_images_are_of_one_size(files: list[Path]) -> None:
    assert load_images(files, 32).shape == (4, 32, 32, 3)
    upright = load_images(files[3])
    assert upright.shape == (1, 144, 192, 3)  # stored as 144 wide and 192 high, to be turned
    with pytest.raises(UserError, match=r"several sizes .* give load_images a `size`"):
        load_images(files)


def test_sizes_far_from_the_models_own_are_warned_of(extract: FeatureExtractor) -> None:
    with pytest.warns(UserWarning, match="256 x 256 pixels, and this model was trained on 64 x 64; resize=True"):
        extract(np.zeros((1, 256, 256, 3), np.uint8))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert extract(np.zeros((1, 256, 300, 3), np.uint8), resize=True).shape == (1, 96)


def test_an_extractor_tells_what_it_is(extract: FeatureExtractor) -> None:
    assert repr(extract) == "<FeatureExtractor demo: mid at timestep 100, 96 features, 64 px, float32 on cpu>"
    assert extract.num_features == len(extract.feature_names) == 96
    wide = FeatureExtractor.from_pretrained("demo", blocks=["down.0", "up.1"], timestep=[50, 100], pool=2, device="cpu")
    features = wide(np.zeros((1, 64, 64, 3), np.uint8))
    assert wide.num_features == len(wide.feature_names) == features.shape[1]
    assert wide.feature_names[1] == "down.0[0, 0, 1] t=50" and len(set(wide.feature_names)) == wide.num_features
    assert wide.to("cpu") is wide
    steps = FeatureExtractor.from_pretrained("demo", timestep=np.array([50, 100]), device="cpu")
    assert steps.settings.timesteps == (50, 100)


def test_a_device_that_is_not_here_leaves_a_model_where_it_is(extract: FeatureExtractor) -> None:
    for device in ("cuda:99", "gpu", "mps:7"):
        with pytest.raises(UserError, match=r"^device is '"):
            extract.to(device)
    assert extract(np.zeros((1, 64, 64, 3), np.uint8)).shape == (1, 96)


def test_a_long_call_draws_a_bar_in_a_notebook_and_nothing_in_a_script(
    extract: FeatureExtractor, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("dfeat.diffusion.fitting.SOON", 0)
    images = np.zeros((9, 64, 64, 3), np.uint8)
    extract(images)
    assert capfd.readouterr().err == ""
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    extract(images)
    said = capfd.readouterr().err
    assert "encode: 100%" in said and "features: 100%" in said and "9/9" in said


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"torch_dtype": torch.float16}, "there is no argument 'torch_dtype'; did you mean 'precision'"),
        ({"precision": "fp61"}, "'precision' is 'fp61'"),
        ({"block": "mid"}, "did you mean 'blocks'"),
        ({"timestep": 5000}, "^'timestep' is 5000: input should be less than or equal to 999$"),
        ({"timestep": [1, 5000]}, "^'timestep.1' is 5000: input should be less than or equal to 999$"),
        ({"blocks": "middle"}, "use mid, down.<i> or up.<i>"),
        ({"blocks": "down.9"}, "^blocks has 'down.9', but this U-Net has 2 down blocks"),
        ({"device": "cuda:99"}, "device is 'cuda:99'"),
        ({"device": "gpu"}, "device is 'gpu', which is none of torch's; use 'cpu', 'cuda'"),
        ({"device": object()}, "device is <object"),
        ({"timestep": "soon"}, "^'timestep' is 'soon'"),
        ({"timestep": 25.5}, "^'timestep' is 25.5"),
        ({"timestep": None}, "^'timestep' is None"),
        ({"blocks": 3}, "^'blocks' is 3"),
    ],
)
def test_errors_name_arguments(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        FeatureExtractor.from_pretrained("demo", **given)
    assert "diffusion." not in str(error.value) and "constrained" not in str(error.value)


def test_words_of_other_libraries_are_answered() -> None:
    with pytest.raises(UserError, match="'num_inference_steps'; did you mean 'steps'"):
        Inpainter.from_pretrained("demo", num_inference_steps=3)
    with pytest.raises(UserError, match="set revision to a commit") as error:
        FeatureExtractor.from_pretrained("somebody/some-model")
    assert "diffusion." not in str(error.value)
    assert (
        FeatureExtractor.from_pretrained("demo", precision=torch.bfloat16, device="cpu").model.precision == "bfloat16"
    )
    assert FeatureExtractor.from_pretrained("demo", precision="bf16", device="cpu").model.precision == "bfloat16"


@pytest.mark.parametrize(("name", "pictures"), [("features.py", 1), ("inpainting.py", 2)])
def test_an_example_runs_and_its_cells_show_what_can_be_read(
    name: str, pictures: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shown = displayed(EXAMPLES / name)
    assert sum(isinstance(value, Image.Image) for value in shown) == pictures and len(shown) > pictures
    assert all(map(is_readable, shown))


def test_every_example_is_short_and_a_notebook() -> None:
    for path in EXAMPLES.glob("*.py"):
        kinds = [kind for kind, _ in cells(path)]
        assert kinds[:2] == ["markdown", "code"] and len(path.read_text().splitlines()) < 60
        assert path.read_text().startswith("# %% [markdown]\n# # ")


def test_the_package_offers_its_names_and_imports_nothing_for_them() -> None:
    assert set(dfeat.__all__) <= set(dir(dfeat))
    code = "import sys, dfeat; print(*sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "numpy", "diffusers", "PIL"} & set(said)
