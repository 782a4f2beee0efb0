"""The one place that loads a diffusion model: checks that it fits its use, and digests its weights.

What enters: a `ModelSource` (local folder in the diffusers layout, Hub id with revision, or "demo" for the
model that ships with the package) and the use. What leaves: a frozen `DiffusionModel` on its device.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import torch

from dfeat.errors import UserError
from dfeat.settings import ModelSource
from dfeat.storage.provenance import combined_digest, file_digest

Use = Literal["latents", "features", "inpaint"]
DEMO_MODEL: Final = Path(__file__).parents[1] / "demo" / "models" / "diffusion"
DTYPES: Final = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_COMPONENTS: Final[dict[Use, tuple[str, ...]]] = {
    "latents": ("vae",),
    "features": ("unet", "text_encoder", "tokenizer", "scheduler"),
    "inpaint": ("vae", "unet", "text_encoder", "tokenizer", "scheduler"),
}


@dataclass
class DiffusionModel:
    """The parts of a pipeline that a use needs; those it does not need are None. All weights are frozen."""

    vae: Any
    unet: Any
    text_encoder: Any
    tokenizer: Any
    scheduler: Any
    digest: str
    device: torch.device
    dtype: torch.dtype

    @property
    def scaling_factor(self) -> float:
        """Latents times this have about unit variance; what the U-Net was trained on."""
        return float(self.vae.config.scaling_factor)

    @torch.no_grad()
    def embed(self, prompts: list[str]) -> torch.Tensor:
        """Text embeddings (prompts, tokens, width); the empty string is the null prompt."""
        tokens = self.tokenizer(
            prompts, padding="max_length", max_length=self.tokenizer.model_max_length, truncation=True, return_tensors="pt"
        )
        return self.text_encoder(tokens.input_ids.to(self.device))[0]


def load_model(source: ModelSource, use: Use, device: torch.device) -> DiffusionModel:
    """Load what `use` needs from `source`.

    Raises UserError where the folder is no diffusers model, weights are missing, a U-Net has other than 4 or 9
    input channels, or the scheduler's prediction type is not one the U-Net can have been trained with.
    """
    folder = resolve(source)
    _check_layout(folder, _COMPONENTS[use])
    dtype = DTYPES[source.precision]
    parts = {name: _load_component(folder, name, dtype, device) for name in _COMPONENTS[use]}
    if "unet" in parts:
        _check_pairing(folder, parts["unet"], parts["scheduler"], dtype)
    everything = dict.fromkeys(("vae", "unet", "text_encoder", "tokenizer", "scheduler")) | parts
    return DiffusionModel(**everything, digest=weights_digest(folder), device=device, dtype=dtype)


def resolve(source: ModelSource) -> Path:
    """The local folder of `source`; a Hub id is fetched by huggingface_hub at its pinned revision."""
    if source.path == "demo":
        return DEMO_MODEL
    folder = Path(source.path).expanduser()
    if folder.is_dir():
        return folder
    if source.path.count("/") != 1 or source.path.startswith((".", "/", "~")):
        raise UserError(f"diffusion.model.path {source.path!r} is no folder; give a folder in the diffusers layout, a Hub id, or 'demo'")
    if source.revision is None:
        raise UserError(
            f"diffusion.model.path {source.path!r} is no local folder; to fetch it as a Hub id set "
            "diffusion.model.revision to a commit, so that the run can be repeated"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(source.path, revision=source.revision, allow_patterns=_HUB_FILES))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise UserError(f"cannot fetch {source.path} at {source.revision} ({error}); download it and give its folder") from None


_HUB_FILES: Final = ["model_index.json", "*/*.json", "*/*.safetensors", "*/*.txt"]


def weights_digest(folder: Path) -> str:
    """SHA-256 over the weight files and configurations of all components, independent of where they lie."""
    files = sorted([*folder.glob("*/*.safetensors"), *folder.glob("*/*.json"), *folder.glob("*/*.txt")])
    return combined_digest({file.relative_to(folder).as_posix(): file_digest(file) for file in files})


def _check_layout(folder: Path, components: tuple[str, ...]) -> None:
    if not (folder / "model_index.json").is_file():
        raise UserError(f"{folder} holds no model_index.json; it must be a folder in the diffusers layout")
    for name in components:
        if not (folder / name).is_dir():
            raise UserError(f"{folder} lacks the folder {name!r}, which this step needs")
        weights = [*(folder / name).glob("*.safetensors")]
        if name in {"vae", "unet", "text_encoder"} and not weights:
            raise UserError(f"{folder / name} holds no .safetensors weights; pickled weights are not loaded")


def _load_component(folder: Path, name: str, dtype: torch.dtype, device: torch.device) -> Any:
    import diffusers
    import transformers

    library, cls = json.loads((folder / "model_index.json").read_text())[name]
    module = {"diffusers": diffusers, "transformers": transformers}.get(library)
    if module is None or not hasattr(module, cls):
        raise UserError(f"{folder}/model_index.json names {library}.{cls} as {name}, which is not known here")
    if name in {"tokenizer", "scheduler"}:
        return getattr(module, cls).from_pretrained(folder / name)
    options: dict[str, Any] = {"use_safetensors": True, ("dtype" if library == "transformers" else "torch_dtype"): dtype}
    if not any(not file.stem.endswith(".fp16") for file in (folder / name).glob("*.safetensors")):
        options["variant"] = "fp16"
    model = getattr(module, cls).from_pretrained(folder / name, **options)
    memory_format = torch.channels_last if name in {"vae", "unet"} else torch.preserve_format
    return model.to(device=device, memory_format=memory_format).eval().requires_grad_(False)


def _check_pairing(folder: Path, unet: Any, scheduler: Any, dtype: torch.dtype) -> None:
    channels = unet.config.in_channels
    if channels not in (4, 9):
        raise UserError(f"the U-Net of {folder} takes {channels} channels; 4 (blended) or 9 (inpainting) are known")
    prediction = scheduler.config.prediction_type
    if prediction not in ("epsilon", "v_prediction"):
        raise UserError(f"the scheduler of {folder} predicts {prediction!r}; epsilon and v_prediction are known")
    if channels == 9 and prediction != "epsilon":
        raise UserError(f"{folder} pairs a 9-channel U-Net with {prediction}; inpainting U-Nets predict epsilon")
    if dtype == torch.float16 and prediction == "v_prediction" and unet.config.get("upcast_attention") is not True \
            and unet.config.cross_attention_dim == 1024:
        raise UserError(
            f"{folder} is a v-prediction Stable Diffusion 2 whose U-Net lacks upcast_attention; in float16 it gives "
            "black images. Use precision bfloat16 or float32, or set upcast_attention in unet/config.json"
        )
