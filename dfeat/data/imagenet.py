"""ImageNet-1k val in the layouts people have it [Sec. 4.1].

What enters: a `Source` (folder or archive) with folders by wnid, or with flat `ILSVRC2012_val_*.JPEG` and a
label file. What leaves: a `Candidate` for each image whose class is known. Label files: see `labels.py`.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from dfeat.data.classes import is_wnid
from dfeat.data.files import classified, images_of
from dfeat.data.images import stem_of
from dfeat.data.labels import LISTS, Labels, read_labels
from dfeat.data.records import Candidate, ClassInfo, Problems
from dfeat.data.settings import EvaluationSet
from dfeat.data.sources import Source
from dfeat.errors import UserError
from dfeat.section import LocalPath


def read_imagenet(
    source: Source, settings: EvaluationSet, classes: tuple[ClassInfo, ...], problems: Problems
) -> tuple[str, list[Candidate]]:
    """("folders" or "flat", the images with a class, in the run or not). UserError for flat ones without labels."""
    images = images_of(source)
    flat = [name for name in images if _named_class(name) is None]
    labels: Labels | None = None
    if settings.labels is not None:
        path = _label_path(settings.labels, source.root)
        labels = read_labels(path)
        source.used.update(name for name in source.names() if PurePosixPath(name).name in {path.name, *LISTS})
    elif flat and len(flat) == len(images):
        raise UserError(
            f"{source.root} holds images without class folders ({flat[0]}, ...); set `labels` of the set to the file "
            "with their classes: lines of file name and wnid, or ILSVRC2012_validation_ground_truth.txt of the devkit"
        )
    candidates: dict[str, Candidate] = {}

    def class_of(name: str) -> str | None:
        return _named_class(name) or (labels.find(stem_of(name)) if labels is not None else None)

    for name, wnid in classified(source, class_of, problems):
        key = stem_of(name)
        if wnid is None:
            problems.add(key, "class", f"{name} is in no wnid folder and in no label file", "image dropped")
        elif key in candidates:
            problems.add(key, "key", f"{name} has the name of {candidates[key].file}", "first kept, this one dropped")
        else:
            candidates[key] = Candidate(key, name, wnid)
    return ("flat" if len(flat) == len(images) else "folders"), list(candidates.values())


def _named_class(name: str) -> str | None:
    """The wnid of the nearest folder, or at the end of the name (ILSVRC2012_val_00000001_n01751748)."""
    path = PurePosixPath(name.lower())
    pieces = path.stem.split("_")
    return next((part for part in (*reversed(path.parts[:-1]), pieces[-1], pieces[0]) if is_wnid(part)), None)


def _label_path(labels: LocalPath, root: Path) -> Path:
    for path in (Path(labels), root / labels, root.parent / labels):
        if path.is_file():
            return path
    raise UserError(f"the label file {labels} is missing, here and beside {root}; give its path in `labels` of the set")
