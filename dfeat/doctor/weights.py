"""The weights before a run: where they come from, whether they are there and go together, and their digests.

What enters: the settings. What leaves: a `WeightsReport` for each model. No weights are read but to digest them, and
torch is imported for a backbone alone that was never built here (`backbones`).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from dfeat.config import Settings
from dfeat.diffusion.layout import COMPONENTS, check_pairing, is_hub_id, local_files
from dfeat.diffusion.settings import ModelSource
from dfeat.doctor.backbones import backbone_faults, is_trained
from dfeat.errors import UserError
from dfeat.hub import cached, offline
from dfeat.methods import method, needed
from dfeat.storage.provenance import combined_digest, file_digest
from dfeat.training.settings import Backbone
from dfeat.training.weights import SUFFIXES, USUAL, has_imagenet_head, weights_path


@dataclass
class WeightsReport:
    """The weights of a model: where they come from, and their digests where they are local."""

    name: str
    source: str
    digests: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def backbone_weights(backbone: str) -> str:
    """The weights of a backbone, as `look_at_weights` is asked for them."""
    return f"training.backbones.{backbone}"


def look_at_weights(settings: Settings, digest: bool, only: Collection[str] | None = None) -> list[WeightsReport]:
    """All models that the run's methods use; `digest` reads local files whole, which takes a second a gigabyte.

    `only`: what of them is looked at, of `inpainted` and `features` (the diffusion models for these) and `backbone_weights`.
    """
    diffusion = [_diffusion_report(settings, source, digest) for source in diffusion_models(settings, only)]
    return [*diffusion, *_backbone_weights(settings, digest, only)]


def diffusion_models(settings: Settings, only: Collection[str] | None = None) -> list[ModelSource]:
    """The diffusion models that the run's methods use, or that `only` names: one for both uses, or one for each."""
    used = {"features": settings.diffusion.model, "inpainted": settings.diffusion.inpainting_model}
    needs = needed(settings.training.methods) if only is None else only
    return list(dict.fromkeys(source for need, source in used.items() if need in needs))


def _diffusion_report(settings: Settings, source: ModelSource, digest: bool) -> WeightsReport:
    report = WeightsReport("diffusion", str(source.path))
    try:
        files = local_files(source)
        if files is None:
            report.source = (
                f"{source.path} at {source.revision}, fetched from the Hub on first use, or by `dfeat fetch`"
            )
            if offline():
                report.notes.append(_absent(str(source.path), source.revision))
            return report
        if is_hub_id(source):
            report.source = f"{source.path} at {source.revision}, in {files.folder}"
        fault = files.missing(COMPONENTS["inpaint"])
        if fault:
            raise UserError(fault)
        report.notes = check_pairing(files, source.precision, settings.diffusion.resolution)
        if digest:
            digests = files.digests()
            report.digests = {"all": combined_digest(digests)} | digests
    except UserError as error:
        others = [name for name in settings.training.methods if not method(name).needs]
        way = f"; to go on without it set training.methods to [{', '.join(others)}]" if others else ""
        report.faults.append(f"{error}{way}")
    return report


def _absent(name: str, revision: str | None) -> str:
    return f"{name} at {revision} is not on this disk, and HF_HUB_OFFLINE is set; run `dfeat fetch` where there is a network"


def _backbone_weights(settings: Settings, digest: bool, only: Collection[str] | None) -> list[WeightsReport]:
    reports = []
    for name, backbone in settings.training.backbones.items():
        if only is not None and backbone_weights(name) not in only:
            continue
        report = WeightsReport(name, f"{backbone.name}, fetched by timm on first use")
        if backbone.weights is not None:
            report.source = f"{backbone.name} from {backbone.weights}"
            try:
                path = weights_path(backbone.weights)
                if not path.is_file() or not path.name.endswith(SUFFIXES):
                    raise UserError(
                        f"{backbone.weights!r} is no file of weights ({', '.join(SUFFIXES)}); give the file, or null and run "
                        "`dfeat fetch`"
                    )
                if digest:
                    report.digests = {"all": file_digest(path)}
            except UserError as error:
                report.faults.append(f"training.backbones.{name}.weights {error}")
        elif backbone.revision is None:
            report.faults.append(
                f"training.backbones.{name} takes the latest weights of {backbone.name} on the Hub, so that the run cannot "
                "be repeated; run `dfeat fetch`, which gets and pins them, or set "
                f"training.backbones.{name}.revision to a commit (in the path that `hf download timm/{backbone.name}` "
                "prints), or .weights to a local .safetensors file"
            )
        else:
            _look_at_hub_weights(report, backbone, backbone.revision, digest)
        training = settings.training
        if (backbone.weights is None or not report.faults) and not is_trained(settings, name):
            found = backbone_faults(backbone, training.image_size, training.drop_path)
            report.faults += [f"training.backbones.{name}: {fault}" for fault in found]
        if training.head == "pretrained" and backbone.weights is not None and not has_imagenet_head(backbone):
            report.faults.append(
                f"training.head is pretrained, and {backbone.weights}, the weights of training.backbones.{name}, has no head for "
                "ImageNet-1k; set training.head to new"
            )
        reports.append(report)
    return reports


def _look_at_hub_weights(report: WeightsReport, backbone: Backbone, revision: str, digest: bool) -> None:
    """Where pinned weights of timm are, as far as its registry need not be asked: most are in timm/<name>."""
    repository = f"timm/{backbone.name}"
    found = next(filter(None, (cached(repository, revision, file) for file in USUAL)), None)
    at = f"{backbone.name} at {revision}"
    report.source = f"{at}, {f'in {found.parent}' if found else 'fetched on first use, or by `dfeat fetch`'}"
    if found is None and offline():
        report.notes.append(_absent(backbone.name, revision))
    elif found is not None and digest:
        report.digests = {"all": file_digest(found)}
