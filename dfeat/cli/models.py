"""Classifiers: train, evaluate."""

from __future__ import annotations

import sys
from pathlib import Path
from traceback import clear_frames
from typing import Annotated

import typer

from dfeat.cli.common import Gpus, IndexFolder, Out, SettingsJson, Threads, app, check_inputs, example
from dfeat.errors import UserError


@app.command(
    epilog=example(
        "dfeat train --method none --seed 0 --index results/demo/data/train"
        " --pixels results/demo/data/train/pixels.h5 --parts results/demo/occlusion/parts.json"
        ' --settings \'{"backbone": {"name": "convnext_atto", "weights": "demo:convnext",'
        ' "kwargs": {"depths": [1, 2, 3, 1], "dims": [40, 80, 160, 240]}},'
        ' "training": {"image_size": 64, "epochs": 1}}\' --out out/model'
    )
)
def train(
    method: Annotated[str, typer.Option(help="a method, as in training.methods")],
    seed: Annotated[int, typer.Option(help="draws initial head, order, crops")],
    index: IndexFolder,
    settings: SettingsJson,
    out: Out,
    pixels: Annotated[Path, typer.Option(help="pixel cache of the training images")],
    parts: Annotated[Path, typer.Option(help="parts.json")],
    inpainted: Annotated[Path | None, typer.Option(help="pixel cache of the inpainted images")] = None,
    features: Annotated[list[Path] | None, typer.Option(help="features of the originals, a shard each time")] = None,
    twin_features: Annotated[list[Path] | None, typer.Option(help="features of the occluded twins, likewise")] = None,
    verdicts: Annotated[Path | None, typer.Option(help="verdicts.csv of `dfeat judge`")] = None,
    workers: Annotated[int, typer.Option(min=0, help="processes that prepare batches; changes no result")] = 0,
    checkpoint_minutes: Annotated[int, typer.Option(min=0, help="between two checkpoints; 0: after every step")] = 10,
    threads: Threads = 4,
    gpus: Gpus = 1,
) -> None:
    """Fine-tune one backbone by one method with one seed.

    Inpainted images and features are for methods that need them.
    """
    from dfeat.methods import method as method_of
    from dfeat.section import parse
    from dfeat.training.settings import TrainStage

    chosen = method_of(method).name
    stage = parse(TrainStage, settings, "--settings")
    own, twins = tuple(features or ()), tuple(twin_features or ())
    check_inputs(
        index=[index / "index.csv"],
        parts=[parts],
        pixels=[pixels, inpainted],
        features=[*own, *twins],
        judge=[verdicts],
    )

    from dfeat.devices import compute_on
    from dfeat.devices.attempts import attempt
    from dfeat.progress import say
    from dfeat.training.loop import train as run_training
    from dfeat.training.probe import explained
    from dfeat.training.sources import Inputs
    from dfeat.training.team import end, is_member, launch, lost_peer

    inputs = Inputs(index, pixels, parts, inpainted, own, twins, verdicts)
    team = stage.training.gpus
    if team > 1 and not is_member():
        compute_on(gpus and team, threads, f"train {out}")
        raise typer.Exit(launch(team, sys.argv[1:]))
    try:
        explain = explained(stage.backbone, stage.training.image_size, stage.training.drop_path)
        with attempt(out / "run.json"), explain:
            device = compute_on(gpus and team, threads, f"train {out}")
            done = run_training(chosen, inputs, stage, seed, out, device, workers, checkpoint_minutes)
    except SystemExit as told:
        if is_member() and isinstance(told.code, int):
            end(told.code)
        raise
    except RuntimeError as error:
        if is_member() and lost_peer(error):
            clear_frames(error.__traceback__)  # ends the workers
            end(1)  # an ordinary exit would wait for the one that is gone
        raise
    say(f"model written to {out}: {done}")
    if is_member():
        end(0)


@app.command(
    epilog=example(
        "dfeat evaluate --model results/demo/training/none/swin/seed0 --data results/demo/data"
        ' --settings \'{"levels": {"dfeat_real": [0]}}\' --out out/predictions'
    )
)
def evaluate(
    data: Annotated[Path, typer.Option(help="folder with SET/index.csv and SET/pixels.h5 for each set")],
    settings: SettingsJson,
    out: Out,
    model: Annotated[
        Path | None, typer.Option(help="folder that `dfeat train` wrote; left out: the settings' backbone as it came")
    ] = None,
    features: Annotated[
        list[str] | None, typer.Option(help="SET@LEVEL=FILE, for models with diffusion features")
    ] = None,
    threads: Threads = 4,
    gpus: Gpus = 1,
) -> None:
    """Predict every image at every level of occlusion."""
    from dfeat.evaluation.settings import EvaluateStage, PretrainedStage
    from dfeat.section import parse

    shards: dict[str, list[Path]] = {}
    for item in features or []:
        view, _, path = item.partition("=")
        if not view.rpartition("@")[2].isdigit() or not path:
            raise UserError(f"--features {item!r} is not SET@LEVEL=FILE, e.g. imagenet_val@40=features.h5")
        shards.setdefault(view, []).append(Path(path))
    stage = parse(EvaluateStage if model else PretrainedStage, settings, "--settings")
    check_inputs(
        train=[model and model / "run.json"],
        index=[data / name / "index.csv" for name in stage.sets],
        pixels=[data / name / "pixels.h5" for name in stage.sets],
        features=[path for paths in shards.values() for path in paths],
    )

    from dfeat.devices import compute_on
    from dfeat.devices.attempts import attempt
    from dfeat.evaluation.predict import evaluate as run_evaluation
    from dfeat.evaluation.predict import evaluate_pretrained
    from dfeat.places import predictions_origin
    from dfeat.training.probe import explained

    with attempt(out / predictions_origin(stage.sets[0])):
        device = compute_on(gpus, threads, f"evaluate {out}")
        if model:
            written = run_evaluation(model, data, shards, stage, out, device)
        else:
            assert isinstance(stage, PretrainedStage)
            with explained(stage.backbone, stage.image_size):
                written = evaluate_pretrained(data, stage, out, device)
    typer.echo(f"predictions of {', '.join(path.stem for path in written)} in {out}")


@app.command(
    epilog=example(
        "dfeat judge --model results/demo/training/none/swin/seed0 --index results/demo/data/train"
        " --pixels results/demo/data/train/pixels.h5 --parts results/demo/occlusion/parts.json"
        " --inpainted results/demo/diffusion/inpaint/train/pixels.h5 --out out/verdicts.csv"
    )
)
def judge(
    model: Annotated[list[Path], typer.Option(help="folder of a model of the method none, once a seed")],
    index: IndexFolder,
    pixels: Annotated[Path, typer.Option(help="pixel cache of the training images")],
    parts: Annotated[Path, typer.Option(help="parts.json")],
    inpainted: Annotated[Path, typer.Option(help="pixel cache of the inpainted images")],
    out: Out,
    settings: SettingsJson = "{}",
    threads: Threads = 4,
    gpus: Gpus = 1,
) -> None:
    """Judge whether inpainted images still show their class.

    By models that never saw an inpainted image.
    """
    from dfeat.evaluation.settings import JudgeStage
    from dfeat.section import parse

    stage = parse(JudgeStage, settings, "--settings")
    check_inputs(
        train=[folder / "run.json" for folder in model],
        index=[index / "index.csv"],
        pixels=[pixels, inpainted],
        parts=[parts],
    )

    from dfeat.devices import compute_on
    from dfeat.devices.attempts import attempt
    from dfeat.evaluation.judge import judge as run_judge

    with attempt(out):
        device = compute_on(gpus, threads, f"judge {out}")
        accepted = run_judge(model, index, pixels, parts, inpainted, stage, out, device)
    typer.echo(f"{accepted} inpainted images accepted")


@app.command(epilog=example("dfeat predict results/demo/training/none/swin/seed0 results/demo/raw/dfeat_real"))
def predict(
    model: Annotated[Path, typer.Argument(help="a model's folder, results/<run>/training/<method>/<backbone>/seed<n>")],
    images: Annotated[Path, typer.Argument(help="a folder or archive of images, or one image")],
    out: Annotated[Path | None, typer.Option(help="CSV file; by default the rows are printed")] = None,
    diffusion: Annotated[
        Path | None, typer.Option(help="diffusion model of a classifier that fuses its features")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="its commit, for a Hub id")] = None,
    top: Annotated[int, typer.Option(min=1, help="classes an image")] = 5,
    threads: Threads = 4,
    gpus: Gpus = 1,
) -> None:
    """Classify your own images with a trained model.

    Prints each file with its most probable classes and their probabilities.
    """
    if not images.exists():
        raise UserError(f"{images} is missing; give a folder or archive of images, or one image")

    from dfeat.devices import compute_on
    from dfeat.evaluation.classifier import Classifier, predicted

    device = compute_on(gpus, threads, f"predict {model}")
    classifier = Classifier.from_pretrained(model, diffusion=diffusion, revision=revision, device=device)
    text = predicted(classifier, images, top)
    if out is None:
        typer.echo(text, nl=False)
        return

    from dfeat.storage.atomic import write_bytes

    write_bytes(out, text.encode())
