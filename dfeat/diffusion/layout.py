"""Find the files of a diffusion model, digest them, and check that their configurations are compatible.

What enters: a `ModelSource`. What leaves: `ModelFiles`, and notes on unusual configurations or a UserError for
incompatible ones. This module reads names and configurations only, no weights, and does not import torch, so that
`dfeat doctor` can use it before a run.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

from dfeat import hub
from dfeat.diffusion.forward import noise_schedule
from dfeat.diffusion.settings import ModelSource
from dfeat.diffusion.variants import chosen, files_of, shards_in, variants
from dfeat.errors import UserError
from dfeat.section import LocalPath
from dfeat.shortage import pass_on
from dfeat.storage.provenance import bytes_digest, file_digest

Use = Literal["latents", "features", "inpaint"]
COMPONENTS: Final[dict[Use, tuple[str, ...]]] = {
    "latents": ("vae",),
    "features": ("unet", "text_encoder", "tokenizer", "scheduler"),
    "inpaint": ("vae", "unet", "text_encoder", "tokenizer", "scheduler"),
}
WEIGHTED: Final = ("vae", "unet", "text_encoder")
DEMO_MODEL: Final = Path(__file__).parents[1] / "demo" / "models" / "diffusion"
RANDOM: Final = "random"
"""In place of a file of the U-Net's weights: they are drawn."""
PICKLES: Final = (".ckpt", ".pt", ".pth", ".bin")
TOKENIZER_FILES: Final = (
    "tokenizer_config.json", "tokenizer.json", "vocab.json", "merges.txt", "special_tokens_map.json", "added_tokens.json",
)  # fmt: skip
"""What transformers reads of a tokenizer's folder, as far as it is there."""
_CLASSES: Final = {"vae": "AutoencoderKL", "unet": "UNet2DConditionModel", "text_encoder": "CLIPTextModel"}
"""The classes of Stable Diffusion's components: another one in model_index.json is part of the digest."""


@dataclass(frozen=True)
class ModelFiles:
    """A model on disk: a folder in the diffusers layout, and the file of its weights where `single` is given."""

    folder: Path
    single: Path | None = None
    variant: str | None = None
    unet: LocalPath | None = None
    """The file of the U-Net's weights where it is another one, or RANDOM."""

    def config(self, name: str) -> dict[str, Any]:
        """The configuration of a component. Raises UserError if it cannot be read."""
        path = self.folder / config_file(name)
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

    def weights(self, name: str) -> list[Path]:
        """The files that hold a component's weights; an index comes first. Raises UserError if it has none."""
        if name == "unet" and self.unet:
            return [] if self.unet == RANDOM else [Path(self.unet)]
        folder = self.folder / name
        names = [file.name for file in folder.iterdir() if file.is_file()]
        return files_of(folder / chosen(names, name, self.variant, str(folder)))

    def digests(self) -> dict[str, str]:
        """SHA-256 of every file that is read, by its path inside the folder; "single" for the single file.

        It is that of all components, so it is the same for every use, and files that lie beside them do not change it.
        """
        files = [self.folder / config_file(name) for name in (*WEIGHTED, "scheduler")]
        files += [self.folder / "tokenizer" / name for name in TOKENIZER_FILES]
        if not self.single:
            own = [name for name in WEIGHTED if (self.folder / name).is_dir() and not (name == "unet" and self.unet)]
            files += [file for name in own for file in self.weights(name)]
        named = {
            file.relative_to(self.folder).as_posix(): file_digest(file) for file in sorted(files) if file.is_file()
        }
        named |= {
            f"class of {name}": bytes_digest(found.encode())
            for name, usual in _CLASSES.items()
            if (self.folder / name).is_dir() and (found := self.class_name(name)) not in (None, usual)
        }
        if self.unet:
            named["other unet"] = bytes_digest(b"random") if self.unet == RANDOM else file_digest(Path(self.unet))
        return named | ({"single": file_digest(self.single)} if self.single else {})

    def missing(self, components: tuple[str, ...]) -> str | None:
        """A sentence naming the first of the components that is missing; None if all are present."""
        if not (self.folder / "model_index.json").is_file():
            return f"{self.folder} has no model_index.json; it must be a folder in the diffusers layout"
        for name in components:
            if not (self.folder / name).is_dir():
                return f"{self.folder} lacks the folder {name!r}, which this step needs"
            if name == "unet" and self.unet and self.unet != RANDOM and not Path(self.unet).is_file():
                return (
                    f"diffusion.model.unet is '{self.unet}', which is no file; give the .safetensors file, or 'random'"
                )
            if name in WEIGHTED and not self.single:
                try:
                    self.weights(name)
                except UserError as error:
                    return str(error)
        return self._lacks_variant(components)

    def _lacks_variant(self, components: tuple[str, ...]) -> str | None:
        """A sentence if no component has weights of the variant that is asked for."""
        weighted = [name for name in components if name in WEIGHTED and not self.single]
        weighted = [name for name in weighted if name != "unet" or not self.unet]
        found = {
            one for name in weighted for one in variants([file.name for file in (self.folder / name).iterdir()], name)
        }
        if self.variant is None or self.variant in found or not weighted:
            return None
        there = ", ".join(sorted(one or "the plain ones" for one in found))
        return f"{self.folder} has no weights of the variant {self.variant!r} (diffusion.model.variant); it has {there}"


def config_file(name: str) -> str:
    """The configuration of a component, by its path inside the model's folder."""
    return f"{name}/{'scheduler_config' if name == 'scheduler' else 'config'}.json"


def files_read(names: Collection[str], variant: str | None, where: str) -> list[str]:
    """The files that are read of a model in the diffusers layout, among the names of all of its files.

    Raises UserError, which names `where` they are, if it has none for a component.
    """
    fixed = ["model_index.json", *(config_file(name) for name in (*WEIGHTED, "scheduler"))]
    read = [name for name in (*fixed, *(f"tokenizer/{name}" for name in TOKENIZER_FILES)) if name in names]
    for component in WEIGHTED:
        inside = [name.partition("/")[2] for name in names if name.startswith(f"{component}/")]
        first = chosen(inside, component, variant, f"{where}/{component}")
        shards = [] if first.endswith(".safetensors") else shards_in(inside, first)
        read += [f"{component}/{name}" for name in (first, *shards)]
    return read


def is_hub_id(source: ModelSource) -> bool:
    """Whether `path` is the id of a repository on the Hub rather than something on this disk."""
    named = str(source.path)
    local = named.startswith((".", "/", "~", "$")) or named.endswith((".safetensors", *PICKLES))
    return named.count("/") == 1 and not local and not source.path.exists()


def local_files(source: ModelSource) -> ModelFiles | None:
    """The files of a model on this disk; None for a Hub id whose files are not here yet.

    Raises UserError for a path that is neither, and for a Hub id without a revision.
    """
    files = _local_files(source)
    return files and replace(files, unet=source.unet)


def _local_files(source: ModelSource) -> ModelFiles | None:
    if source.path == "demo":
        return ModelFiles(DEMO_MODEL)
    path = Path(source.path)
    if path.is_dir():
        return ModelFiles(path, variant=source.variant)
    if path.is_file():
        return _single(path, source)
    if not is_hub_id(source):
        raise UserError(
            f"diffusion.model.path {source.path!r} is no file or folder; give a folder in the diffusers layout, a "
            ".safetensors file, a Hub id with its revision, or 'demo'"
        )
    if source.revision is None:
        raise UserError(
            f"diffusion.model.path {source.path!r} is no local folder; if it is a Hub id, `dfeat fetch` gets its files and "
            "pins them, or set diffusion.model.revision to a commit, so that the run can be repeated (40 digits, in the "
            f"path that `hf download {source.path}` prints)"
        )
    index = hub.cached(str(source.path), source.revision, "model_index.json")
    files = ModelFiles(index.parent, variant=source.variant) if index else None
    # huggingface_hub's cache may have been filled for another use, and a fetch been interrupted.
    return files if files and not files.missing(COMPONENTS["inpaint"]) else None


def find_model(source: ModelSource) -> ModelFiles:
    """The files of `source`; those of a Hub id that are not here are fetched at its commit. UserError if they cannot be."""
    files = local_files(source)
    if files is not None:
        return files
    assert source.revision is not None
    try:
        names = hub.list_files(str(source.path), source.revision).files
        read = files_read(names, source.variant, str(source.path))
        folder = hub.snapshot(str(source.path), source.revision, read)
        return ModelFiles(folder, variant=source.variant, unet=source.unet)
    except UserError as error:
        why = str(error)
        if not why.startswith("cannot fetch"):
            why = f"cannot fetch {source.path} at {source.revision} ({why})"
        raise type(error)(
            f"{why}; run `dfeat fetch` where there is a network, or download it and give its folder"
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
