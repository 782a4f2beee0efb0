"""Find the files of a diffusion model, digest them, and check that their configurations are compatible.

What enters: a `ModelSource`. What leaves: `ModelFiles`, and notes on unusual configurations or a UserError for
incompatible ones. This module reads names and configurations only, no weights, and does not import torch, so that
`dfeat doctor` can use it before a run.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from dfeat.diffusion.forward import noise_schedule
from dfeat.diffusion.settings import ModelSource
from dfeat.errors import UserError
from dfeat.shortage import pass_on
from dfeat.storage.provenance import file_digest

Use = Literal["latents", "features", "inpaint"]
COMPONENTS: Final[dict[Use, tuple[str, ...]]] = {
    "latents": ("vae",),
    "features": ("unet", "text_encoder", "tokenizer", "scheduler"),
    "inpaint": ("vae", "unet", "text_encoder", "tokenizer", "scheduler"),
}
WEIGHTED: Final = ("vae", "unet", "text_encoder")
DEMO_MODEL: Final = Path(__file__).parents[1] / "demo" / "models" / "diffusion"
PICKLES: Final = (".ckpt", ".pt", ".pth", ".bin")
_HUB_FILES: Final = ["model_index.json", "*/*.json", "*/*.safetensors", "*/*.txt"]


@dataclass(frozen=True)
class ModelFiles:
    """A model on disk: a folder in the diffusers layout, and the file of its weights where `single` is given."""

    folder: Path
    single: Path | None = None

    def config(self, name: str) -> dict[str, Any]:
        """The configuration of a component. Raises UserError if it cannot be read."""
        path = self.folder / name / ("scheduler_config.json" if name == "scheduler" else "config.json")
        try:
            return dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise UserError(f"cannot read {path} ({error}); download the model again") from None

    def class_name(self, component: str) -> str | None:
        """The class of a component in model_index.json; None where it names none."""
        try:
            return str(json.loads((self.folder / "model_index.json").read_text(encoding="utf-8"))[component][1])
        except (OSError, ValueError, LookupError, TypeError) as error:
            pass_on(error, str(self.folder))
            return None

    def digests(self) -> dict[str, str]:
        """SHA-256 of every file that affects a result, by its path inside the folder; "single" for the single file."""
        patterns = ["*/*.json", "*/*.txt"] + ([] if self.single else ["*/*.safetensors"])
        files = sorted(file for pattern in patterns for file in self.folder.glob(pattern))
        named = {file.relative_to(self.folder).as_posix(): file_digest(file) for file in files}
        return named | ({"single": file_digest(self.single)} if self.single else {})

    def missing(self, components: tuple[str, ...]) -> str | None:
        """A sentence naming the first of the components that is missing; None if all are present."""
        if not (self.folder / "model_index.json").is_file():
            return f"{self.folder} has no model_index.json; it must be a folder in the diffusers layout"
        for name in components:
            if not (self.folder / name).is_dir():
                return f"{self.folder} lacks the folder {name!r}, which this step needs"
            if name in WEIGHTED and not self.single and not any((self.folder / name).glob("*.safetensors")):
                return (
                    f"{self.folder / name} has no .safetensors weights; pickled weights in a folder are not loaded, "
                    "get the model's .safetensors files"
                )
        return None


def local_files(source: ModelSource) -> ModelFiles | None:
    """The files of a model with a local path; None for a Hub id. Raises UserError for a path that is neither."""
    if source.path == "demo":
        return ModelFiles(DEMO_MODEL)
    path, named = Path(source.path), str(source.path)
    if path.is_dir():
        return ModelFiles(path)
    if path.is_file():
        return _single(path, source)
    local = named.startswith((".", "/", "~", "$")) or path.suffix in (".safetensors", *PICKLES)
    if local or named.count("/") != 1:
        raise UserError(
            f"diffusion.model.path {source.path!r} is no file or folder; give a folder in the diffusers layout, a "
            ".safetensors file, a Hub id with its revision, or 'demo'"
        )
    if source.revision is None:
        raise UserError(
            f"diffusion.model.path {source.path!r} is no local folder; to fetch it as a Hub id set "
            "diffusion.model.revision to a commit, so that the run can be repeated (40 digits, in the path that "
            f"`hf download {source.path}` prints)"
        )
    return None


def find_model(source: ModelSource) -> ModelFiles:
    """The files of `source`; huggingface_hub fetches a Hub id at its pinned revision. Raises UserError if it cannot."""
    files = local_files(source)
    if files is not None:
        return files
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return ModelFiles(
            Path(snapshot_download(str(source.path), revision=source.revision, allow_patterns=_HUB_FILES))
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise UserError(
            f"cannot fetch {source.path} at {source.revision} ({error}); download it and give its folder"
        ) from None


def _single(path: Path, source: ModelSource) -> ModelFiles:
    """The files of a whole checkpoint in one file, which lacks the model's configuration: `source.config` has it."""
    if path.suffix in PICKLES and not source.allow_pickle:
        raise UserError(
            f"diffusion.model.path {source.path!r} is a pickle, which can run code when it is opened; get the "
            ".safetensors file, or set diffusion.model.allow_pickle: true to read only its tensors"
        )
    if path.suffix not in (".safetensors", *PICKLES):
        raise UserError(f"diffusion.model.path {source.path!r} is a {path.suffix or 'nameless'} file, not .safetensors")
    folder = Path(source.config) if source.config else None
    if folder is None or not folder.is_dir():
        raise UserError(
            f"diffusion.model.path {source.path!r} is a single file, which has no configuration; set "
            "diffusion.model.config to the model's folder in the diffusers layout (its .json and tokenizer files are "
            f"enough, weights are not needed){'' if folder is None else f'; {source.config!r} is no folder'}"
        )
    return ModelFiles(folder, path)


def check_pairing(files: ModelFiles, precision: str, resolution: int | None = None) -> list[str]:
    """Check that a model's configurations are compatible; returns notes on unusual ones that may still work.

    Raises:
        UserError: A U-Net with other than 4 or 9 input channels or with further conditioning inputs, a noise schedule
            that is not DDPM's, a prediction type that the U-Net was not trained with, a text encoder of another width, a resolution more than a factor of 2
            from the trained one, or float16 where attention is known to overflow.
    """
    where, unet = files.folder, files.config("unet")
    channels, prediction = unet.get("in_channels", 4), noise_schedule(files).prediction_type
    if channels not in (4, 9):
        raise UserError(f"the U-Net of {where} takes {channels} channels; use one of 4 (blended) or 9 (inpainting)")
    if unet.get("class_embed_type") or unet.get("addition_embed_type"):
        raise UserError(
            f"the U-Net of {where} needs more inputs than latents and a prompt (class_embed_type or "
            "addition_embed_type is set: unCLIP, SDXL); give a Stable Diffusion 1 or 2 model"
        )
    if channels == 9 and prediction != "epsilon":
        raise UserError(f"{where} pairs a 9-channel U-Net with {prediction}; inpainting U-Nets predict epsilon")
    # Only the text encoder of Stable Diffusion 2 (OpenCLIP ViT-H) is 1024 wide.
    second = unet.get("cross_attention_dim") == 1024
    if channels == 4 and second and unet.get("sample_size") == 96 and prediction == "epsilon":
        raise UserError(
            f"{where} pairs the 768 px U-Net of Stable Diffusion 2 with epsilon, but that U-Net predicts v; set "
            "prediction_type in scheduler/scheduler_config.json to v_prediction"
        )
    notes = []
    if second and unet.get("sample_size") == 64 and prediction == "v_prediction":
        notes.append(
            f"{where} pairs a 512 px U-Net of Stable Diffusion 2 with v_prediction; the published ones of that size "
            "(2-base, 2-1-base) predict epsilon. Unless yours was trained further to predict v, set prediction_type in "
            "scheduler/scheduler_config.json to epsilon"
        )
    if precision == "float16" and prediction == "v_prediction" and second and unet.get("upcast_attention") is not True:
        raise UserError(
            f"{where} is a v-prediction Stable Diffusion 2 whose U-Net lacks upcast_attention; in float16 it gives "
            "black images; use precision bfloat16 or float32, or set upcast_attention in unet/config.json"
        )
    width = files.config("text_encoder").get("hidden_size")
    if width is not None and width != unet.get("cross_attention_dim"):
        raise UserError(
            f"the text encoder of {where} is {width} wide, but its U-Net needs {unet.get('cross_attention_dim')}: they are "
            "from different models; get the model again"
        )
    return notes + _resolution_notes(files, unet.get("sample_size"), resolution)


def _resolution_notes(files: ModelFiles, sample_size: Any, resolution: int | None) -> list[str]:
    if resolution is None or not isinstance(sample_size, int):
        return []
    trained = sample_size * 2 ** (len(files.config("vae").get("block_out_channels", range(4))) - 1)
    if not trained / 2 <= resolution <= trained * 2:
        raise UserError(
            f"diffusion.resolution is {resolution}, but {files.folder} was trained at {trained} px (sample_size "
            f"{sample_size}); use {trained}, or at least {trained // 2} and at most {trained * 2}"
        )
    note = f"{files.folder} was trained at {trained} px and is used at {resolution} px (diffusion.resolution)"
    return [note] if trained != resolution else []
