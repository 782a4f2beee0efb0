"""A trained classifier of a run, on images of a user's own: as a library, and for `dfeat predict`.

What enters: a model's folder, and images as people have them. What leaves: probabilities and names of classes. An image
goes the way of the evaluation: resized as the run's pixel caches are, cropped as its evaluation crops; for a classifier that
fuses diffusion features (Fig. 1b) these are made here, from the crop that the diffusion model saw.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import torch
from numpy.typing import NDArray

from dfeat.data.given import in_folder, pictures
from dfeat.data.index import read_classes
from dfeat.data.pixels import evaluation_crop, resize, resized_shape
from dfeat.data.records import ClassInfo, table_text
from dfeat.data.settings import CROP_PCT, PixelsStage
from dfeat.diffusion.features import FeatureExtractor
from dfeat.diffusion.fitting import SOON
from dfeat.diffusion.inputs import (
    by_argument,
    checked_arguments,
    checked_batch_size,
    checked_precision,
    one_each,
    pixel_keys,
)
from dfeat.diffusion.latents import encode
from dfeat.diffusion.models import chosen_device, load_model
from dfeat.diffusion.settings import FeatureSettings, ModelSource
from dfeat.errors import UserError
from dfeat.evaluation.predict import TrainedModel
from dfeat.methods import method as method_of
from dfeat.places import Place, place_of, predictions_origin
from dfeat.progress import progress, say, shows_bars
from dfeat.section import parse
from dfeat.storage.expected import expected_settings

BATCH: Final = 64
PRECISIONS: Final = ("float32", "tf32", "bfloat16")


@dataclass(frozen=True)
class Preparation:
    """How a run prepares an image for evaluation, and its diffusion model; what no run tells is the default."""

    pixels: PixelsStage
    crop_pct: float = CROP_PCT
    model: dict[str, Any] | None = None
    """`diffusion.model` of the run's configuration."""


def batched(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Lists of `size` items each, the last one shorter."""
    items = iter(items)
    while batch := list(islice(items, size)):
        yield batch


class Classifier:
    """A classifier that a run trained.

    >>> classify = Classifier.from_pretrained("results/demo/training/sd_features/swin/seed0")    # doctest: +SKIP
    >>> probabilities, names = classify("photographs/")                                         # doctest: +SKIP
    """

    def __init__(
        self,
        model: TrainedModel,
        classes: Sequence[ClassInfo],
        extract: FeatureExtractor | None = None,
        preparation: Preparation | None = None,
        batch_size: int = BATCH,
    ) -> None:
        """`extract` makes the features of a model that fuses them."""
        self.model = model
        self.classes = tuple(classes)
        self.extract = extract
        self.preparation = preparation or Preparation(PixelsStage())
        self.batch_size = checked_batch_size(batch_size)

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        *,
        diffusion: str | Path | None = None,
        revision: str | None = None,
        device: torch.device | str | None = None,
        precision: Any = "float32",
        batch_size: int = BATCH,
        **others: Any,
    ) -> Self:
        """Load a model of a run, from results/<run>/training/<method>/<backbone>/seed<n>.

        Args:
            folder: Its folder. In a run's results the run's classes and settings are read too; elsewhere classes have
                numbers, and images are prepared as by default.
            diffusion: For a model that fuses diffusion features, the diffusion model that they were made with (folder, Hub id
                or "demo"); None: the one of the run's configuration.
            revision: Its commit, for a Hub id.
            device: A torch device; None: CUDA where there is one.
            precision: "float32", "tf32" or "bfloat16".
            batch_size: Images that are computed at once.
            others: Nothing more; a name from another library is answered with the one that it has here.

        Raises:
            UserError: A folder that has no whole model, a diffusion model that is missing or another one than the
                classifier was trained with, or a method whose features are not those of the image.
        """
        checked_arguments(others, inspect.signature(cls.from_pretrained).parameters.keys() - {"others"})
        named = checked_precision(precision)
        if named not in PRECISIONS:
            raise UserError(f"precision is {precision!r}; use {', '.join(PRECISIONS[:-1])} or {PRECISIONS[-1]}")
        folder, on = Path(folder), chosen_device(device)
        if not (folder / "run.json").is_file():
            raise UserError(_no_model(folder))
        if shows_bars():  # the first load imports timm
            say(f"loading the classifier {folder} onto {on}")
        model = TrainedModel(folder, on, named)
        place = place_of(folder / "run.json")
        preparation = _preparation(place) if place else None
        classes = _classes(place, model.run["classes"])
        extract = None
        if model.run["features"] is not None:
            source = _source(model, preparation, diffusion, revision)
            with by_argument():
                extract = _extractor(model, source, on)
        return cls(model, classes, extract, preparation, batch_size)

    @property
    def names(self) -> list[str]:
        """The names of the classes (C), in the order of the probabilities."""
        return [info.name for info in self.classes]

    def __call__(self, images: Any, keys: Sequence[str] | None = None) -> tuple[NDArray[np.float32], list[str]]:
        """The probabilities (B, C) float32 of the classes for images, and the name of the most probable one of each.

        `images` are as people have them, of any sizes, see `dfeat.load_images`. `keys` seed the noise of diffusion features
        (None: a digest of the pixels; a run takes its index's keys). Raises UserError for images that are none.
        """
        found = pictures(images)
        names = None if keys is None else one_each(keys, len(found), "keys")
        rows = []
        with progress(len(found), "classify", delay=SOON) as bar:
            for start in range(0, len(found), self.batch_size):
                part = slice(start, start + self.batch_size)
                rows.append(self._probabilities(found[part], None if names is None else names[part]))
                bar.update(len(rows[-1]))
        if not rows:
            raise UserError("images is empty; give at least one")
        probabilities = np.concatenate(rows)
        return probabilities, [self.names[best] for best in probabilities.argmax(1)]

    def _probabilities(self, images: list[NDArray[np.uint8]], keys: list[str] | None) -> NDArray[np.float32]:
        """The probabilities (b, C) of one batch."""
        crops, stage = [], self.preparation.pixels
        for image in images:
            cached = resize(
                image, *resized_shape(image.shape[0], image.shape[1], stage.short_side), stage.interpolation
            )
            crops.append(evaluation_crop(cached, self.preparation.crop_pct, self.model.image_size))
        features = None if self.extract is None else self._features(images, keys)
        return self.model.probabilities(np.stack(crops), features).cpu().numpy()

    def _features(self, images: list[NDArray[np.uint8]], keys: list[str] | None) -> NDArray[np.float16]:
        """l_d (b, D) float16, by way of latents in float16, as shards have them."""
        assert self.extract is not None
        seen = self.model.run["features"]["latents"]
        squares = np.stack([evaluation_crop(image, seen["crop_pct"], seen["resolution"]) for image in images])
        latents = encode(self.extract.model, squares).half()
        features = self.extract.from_latents(latents, pixel_keys(squares) if keys is None else keys)
        return features.flatten(1).half().cpu().numpy()

    def save_for_timm(self, folder: str | Path) -> None:
        """Write the network so that timm loads it: `timm.create_model("local-dir:FOLDER", pretrained=True)`.

        Raises UserError for a model that fuses diffusion features, for which timm has no architecture.
        """
        import timm

        if self.extract is not None:
            raise UserError(
                "this classifier fuses diffusion features, and timm has no such architecture; use it through dfeat"
            )
        backbone = self.model.run["settings"]["backbone"]
        options = dict(backbone["kwargs"])
        network = timm.create_model(backbone["name"].partition(".")[0], num_classes=len(self.classes), **options)
        classifier, state = self.model.classifier, {}
        for name, value in classifier.backbone.state_dict().items():
            state[name] = value.cpu()
        head = network.pretrained_cfg["classifier"]
        state |= {
            f"{head}.weight": classifier.head.weight.detach().cpu(),
            f"{head}.bias": classifier.head.bias.detach().cpu(),
        }
        network.load_state_dict(state)
        mean, std = classifier.statistics
        size = self.model.image_size
        own = {
            "mean": mean,
            "std": std,
            "input_size": (3, size, size),
            "crop_pct": self.preparation.crop_pct,
            "interpolation": "bicubic",
        }
        labels = {
            "label_names": [info.wnid for info in self.classes],
            "label_descriptions": {info.wnid: info.name for info in self.classes},
        }
        timm.models.save_for_hf(
            network,
            str(folder),
            model_config={"pretrained_cfg": network.pretrained_cfg | own, **labels},
            model_args=options,
            safe_serialization=True,
        )

    def to(self, device: torch.device | str) -> Self:
        """Move the model to a device; returns the classifier. UserError for one that torch does not reach here."""
        self.model.device = chosen_device(device)
        self.model.classifier.to(self.model.device)
        if self.extract is not None:
            self.extract.to(self.model.device)
        return self

    def __repr__(self) -> str:
        run, size = self.model.run, self.model.image_size
        return (
            f"<Classifier {run['method']} on {run['settings']['backbone']['name']}, seed {run['seed']}: {len(self.classes)} "
            f"classes, {size} px, {self.model.precision} on {self.model.device}>"
        )


def predicted(classifier: Classifier, images: Path, top: int) -> str:
    """A CSV of the images of a file, folder or archive: file, and the `top` most probable classes of each."""
    count = min(top, len(classifier.classes))
    header = ("file", *(f"{what}{rank}" for rank in range(1, count + 1) for what in ("class", "p")))
    rows, names = [], classifier.names
    for batch in batched(in_folder(images), classifier.batch_size):
        probabilities, _ = classifier([picture for _, picture in batch])
        for (file, _), row in zip(batch, probabilities, strict=True):
            best = np.argsort(-row, kind="stable")[:count]
            rows.append((file, *(value for place in best for value in (names[place], f"{row[place]:.6f}"))))
    return table_text(header, rows)


def _no_model(folder: Path) -> str:
    """The sentence for a folder that no model is in: with one that is below it."""
    for inside in ("*", "*/*", "*/*/*", "training/*/*/*"):  # of a backbone, a method, all models, a run
        below = min((file.parent for file in folder.glob(f"{inside}/run.json")), default=None)
        if below is not None:
            return f"{folder} is not itself a model's folder; give one below it, such as {below}"
    lacks = "has no model (run.json)" if folder.is_dir() else "is no folder" if folder.exists() else "is missing"
    return f"{folder} {lacks}; give a model's folder, results/<run>/training/<method>/<backbone>/seed<n>"


def _preparation(place: tuple[Path, str]) -> Preparation:
    """What the configuration of a run says, if the run has one."""
    run, inside = place
    point, _, _ = inside.rpartition("training/")
    at = f"/{point.rstrip('/')}" if point else ""

    def settings(path: Path) -> dict[str, Any]:
        return expected_settings(path) or {}

    own, whole = Place(run, at), Place(run)
    predicted = inside.removeprefix(point).split("/")[1:4]
    evaluated = settings(own.predictions(predicted[0], predicted[1], 0) / predictions_origin("any"))
    latents = settings(own.shard("latents", "train", 0, 1)) or settings(whole.shard("latents", "train", 0, 1))
    return Preparation(
        parse(PixelsStage, settings(whole.pixels("train")), "the run's settings"),
        evaluated.get("evaluation", {}).get("crop_pct", CROP_PCT),
        latents.get("model"),
    )


def _classes(place: tuple[Path, str] | None, count: int) -> Sequence[ClassInfo]:
    """The classes of the run, or numbers."""
    path = Place(place[0]).classes() if place else None
    if path is None or not path.is_file():
        return [ClassInfo(str(number), f"class {number}") for number in range(count)]
    classes = read_classes(path)
    if len(classes) != count:
        raise UserError(f"{path} has {len(classes)} classes, but the model {count}; it is of another run")
    return classes


def _source(
    model: TrainedModel, preparation: Preparation | None, path: str | Path | None, revision: str | None
) -> ModelSource:
    """Where the diffusion model is whose features the classifier fuses."""
    if method_of(model.run["method"]).exchange is not None:
        raise UserError(
            f"{model.run['method']} is a control: it fuses the features of other images, and has none for yours"
        )
    if path is not None:
        return parse(ModelSource, {"path": str(path), "revision": revision}, "model")
    if preparation is None or preparation.model is None:
        raise UserError(
            "this classifier fuses diffusion features; give diffusion='...', the model that they were made with"
        )
    return parse(ModelSource, preparation.model, "the run's settings")


def _extractor(model: TrainedModel, source: ModelSource, device: torch.device) -> FeatureExtractor:
    """The extractor of the features that a classifier was trained with."""
    wanted = model.run["features"]
    loaded = load_model(source, "inpaint", device)
    if loaded.digest != wanted["model"]:
        raise UserError(
            f"{source.path} is another diffusion model than the one whose features this classifier was trained with; give "
            "diffusion='...', the folder or Hub id of that one"
        )
    given = {name: value for name, value in wanted["features"].items() if name != "shards"}
    settings = parse(FeatureSettings, json.loads(json.dumps(given)), str(model.run["method"]))
    extractor = FeatureExtractor(loaded, settings, loaded.scaling_factor, batch_size=BATCH)
    extractor.name = str(source.path)
    return extractor
