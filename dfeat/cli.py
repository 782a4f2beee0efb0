"""The command line: one verb a rule, arguments in, one call out. No logic lives here.

Exit status 0 on success, 2 on a user's mistake (one line: what, where, what to do), 1 on the program's own
fault. Every heavy import stays in the verb that needs it, so `dfeat --help` answers at once.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from dfeat.errors import UserError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Occlusion-robust classifiers with a frozen diffusion model. Each verb is one step; snakemake runs them all.",
)

SettingsJson = Annotated[str, typer.Option("--settings", help="this step's part of config.yaml, as JSON")]
Out = Annotated[Path, typer.Option("--out", help="where the result goes")]
IndexFolder = Annotated[Path, typer.Option("--index", help="folder that `dfeat index` wrote")]
Threads = Annotated[int, typer.Option("--threads", min=1, help="torch threads; results depend on it, so keep it fixed")]
ShardOf = Annotated[str, typer.Option("--shard", help="which part of the rows, i/n")]


@app.command(
    epilog='Example: dfeat index train --settings \'{"root": "data/PartImageNet"}\' --out results/paper/data/train'
)
def index(
    name: Annotated[str, typer.Argument(help="'train', or the name of an evaluation set")],
    settings: SettingsJson,
    out: Out,
    classes: Annotated[Path | None, typer.Option(help="the train set's classes.json, for an evaluation set")] = None,
) -> None:
    """List the images of a set, check every record, and write index.csv and problems.csv."""
    from dfeat.data.index import build_evaluation_index, build_train_index
    from dfeat.settings import EvaluationSet, TrainSet, parse

    if name == "train":
        built = build_train_index(parse(TrainSet, settings, "data.train"), out)
    elif classes is None:
        raise UserError(f"the set {name!r} needs --classes, the classes.json in the train set's index")
    else:
        built = build_evaluation_index(name, parse(EvaluationSet, settings, f"data.evaluation.{name}"), classes, out)
    typer.echo(f"{name}: {len(built.records)} images, {len(built.classes)} classes; problems in {out / 'problems.csv'}")


@app.command(epilog="Example: dfeat parts --index results/paper/data/train --out results/paper/occlusion/parts.json")
def parts(index: IndexFolder, out: Out, settings: SettingsJson = "{}") -> None:
    """Choose the parts to hide: the half of an object's parts that covers the most."""
    from dfeat.occlusion.parts import choose_all
    from dfeat.settings import PartsStage, parse

    typer.echo(f"{choose_all(index, parse(PartsStage, settings, 'occlusion'), out)} images have parts to hide")


@app.command(epilog="Example: dfeat pixels --index results/paper/data/train --out results/paper/data/train/pixels.h5")
def pixels(
    out: Out,
    index: Annotated[Path | None, typer.Option(help="folder that `dfeat index` wrote")] = None,
    inpainted: Annotated[list[Path] | None, typer.Option(help="inpaint shard, once for each")] = None,
    settings: SettingsJson = "{}",
) -> None:
    """Decode images once into the cache that training and evaluation read."""
    from dfeat.data.pixels import cache_index, cache_inpainted
    from dfeat.settings import PixelsStage, parse

    stage = parse(PixelsStage, settings, "data")
    if bool(index) == bool(inpainted):
        raise UserError("give either --index or --inpainted")
    count = cache_index(index, stage, out) if index else cache_inpainted(inpainted or [], stage, out)
    typer.echo(f"{count} images decoded into {out}")


@app.command(
    epilog='Example: dfeat inpaint --index results/demo/data/train --parts results/demo/occlusion/parts.json --settings \'{"model": {"path": "demo"}, "resolution": 64}\' --out 0.h5'
)
def inpaint(
    index: IndexFolder,
    parts: Annotated[Path, typer.Option(help="parts.json")],
    settings: SettingsJson,
    out: Out,
    shard: ShardOf = "0/1",
    threads: Threads = 4,
) -> None:
    """Fill the chosen parts with the diffusion model, one shard of the training images."""
    from dfeat.devices import pick_device, set_threads
    from dfeat.diffusion.inpaint import inpaint_shard
    from dfeat.settings import InpaintStage, parse

    set_threads(threads)
    stage = parse(InpaintStage, settings, "diffusion")
    typer.echo(f"{inpaint_shard(index, parts, stage, out, pick_device(), _shard(shard))} images inpainted into {out}")


@app.command(
    epilog='Example: dfeat latents --index results/demo/data/imagenet_val --view drop:40 --settings \'{"model": {"path": "demo"}, "resolution": 64}\' --out 0.h5'
)
def latents(
    index: IndexFolder,
    view: Annotated[str, typer.Option(help="clean, parts, or drop:P (percent)")],
    settings: SettingsJson,
    out: Out,
    parts: Annotated[Path | None, typer.Option(help="parts.json, for the view 'parts'")] = None,
    shard: ShardOf = "0/1",
    threads: Threads = 4,
) -> None:
    """Encode a view of each image once with the VAE; features of any setting start from it."""
    from dfeat.devices import pick_device, set_threads
    from dfeat.diffusion.latents import encode_view
    from dfeat.settings import LatentsStage, parse

    set_threads(threads)
    stage = parse(LatentsStage, settings, "diffusion")
    typer.echo(f"{encode_view(index, view, stage, out, pick_device(), parts, _shard(shard))} latents written to {out}")


@app.command(
    epilog='Example: dfeat features --latents latents.h5 --settings \'{"model": {"path": "demo"}}\' --out features.h5'
)
def features(
    latents: Annotated[Path, typer.Option(help="latents shard")], settings: SettingsJson, out: Out, threads: Threads = 4
) -> None:
    """Extract intermediate U-Net features with the null prompt from cached latents."""
    from dfeat.devices import pick_device, set_threads
    from dfeat.diffusion.features import extract_features
    from dfeat.settings import FeaturesStage, parse

    set_threads(threads)
    stage = parse(FeaturesStage, settings, "diffusion")
    typer.echo(f"features of {extract_features(latents, stage, out, pick_device())} images written to {out}")


@app.command(
    epilog="Example: dfeat train --method none --seed 0 --index results/demo/data/train --pixels pixels.h5 --parts parts.json --settings '{...}' --out results/demo/training/none/swin/seed0"
)
def train(
    method: Annotated[str, typer.Option(help="none, blackout, replace, cutmix, sd_inpaint or sd_features")],
    seed: Annotated[int, typer.Option(help="draws initial head, order, crops")],
    index: IndexFolder,
    settings: SettingsJson,
    out: Out,
    pixels: Annotated[Path, typer.Option(help="pixel cache of the training images")],
    parts: Annotated[Path, typer.Option(help="parts.json")],
    inpainted: Annotated[Path | None, typer.Option(help="pixel cache of the inpainted images, for sd_inpaint")] = None,
    features: Annotated[list[Path] | None, typer.Option(help="features of the originals, for sd_features")] = None,
    twin_features: Annotated[
        list[Path] | None, typer.Option(help="features of the occluded twins, for sd_features")
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="processes that prepare batches; changes no result")] = 0,
    threads: Threads = 4,
) -> None:
    """Fine-tune one backbone by one method with one seed."""
    from dfeat.devices import pick_device, set_threads
    from dfeat.settings import METHODS, TrainStage, parse
    from dfeat.training.loop import Inputs
    from dfeat.training.loop import train as run_training

    chosen = next((known for known in METHODS if known == method), None)
    if chosen is None:
        raise UserError(f"no method {method!r}; use one of {', '.join(METHODS)}")
    set_threads(threads)
    inputs = Inputs(index, pixels, parts, inpainted, tuple(features or ()), tuple(twin_features or ()))
    run_training(chosen, inputs, parse(TrainStage, settings, "training"), seed, out, pick_device(), workers)
    typer.echo(f"model written to {out}")


@app.command(
    epilog='Example: dfeat evaluate --model results/demo/training/none/swin/seed0 --data results/demo/data --settings \'{"levels": {"dfeat": [0]}}\' --out predictions'
)
def evaluate(
    model: Annotated[Path, typer.Option(help="folder that `dfeat train` wrote")],
    data: Annotated[Path, typer.Option(help="folder with SET/index.csv and SET/pixels.h5 for each set")],
    settings: SettingsJson,
    out: Out,
    features: Annotated[
        list[str] | None, typer.Option(help="SET@LEVEL=FILE, for models with diffusion features")
    ] = None,
    threads: Threads = 4,
) -> None:
    """Predict every image of every set at each of its levels of occlusion."""
    from dfeat.devices import pick_device, set_threads
    from dfeat.evaluation.predict import evaluate as run_evaluation
    from dfeat.settings import EvaluateStage, parse

    set_threads(threads)
    shards: dict[str, list[Path]] = {}
    for item in features or []:
        view, _, path = item.partition("=")
        if not view.rpartition("@")[2].isdigit() or not path:
            raise UserError(f"--features {item!r} is not SET@LEVEL=FILE, e.g. imagenet_val@40=features.h5")
        shards.setdefault(view, []).append(Path(path))
    stage = parse(EvaluateStage, settings, "evaluation")
    written = run_evaluation(model, data, shards, stage, out, pick_device())
    typer.echo(f"{len(written)} files of predictions in {out}")


@app.command(
    epilog='Example: dfeat table table1 --results results/demo --settings "$(cat settings.json)" --out results/demo/report'
)
def table(
    name: Annotated[str, typer.Argument(help="table1, table2 or claims")],
    results: Annotated[Path, typer.Option(help="results/<run>")],
    settings: SettingsJson,
    out: Out,
) -> None:
    """Make a table (csv, md, tex), or claims.md, from the stored predictions."""
    from dfeat.evaluation.claims import write_claims
    from dfeat.evaluation.tables import write_table
    from dfeat.settings import Settings, parse

    chosen = parse(Settings, settings)
    evaluation = results / "evaluation"
    makers = {
        "table1": lambda: write_table("table1", evaluation, chosen, out),
        "table2": lambda: write_table("table2", evaluation, chosen, out),
        "claims": lambda: write_claims(evaluation, chosen, out),
    }
    if name not in makers:
        raise UserError(f"no table {name!r}; use {', '.join(makers)}")
    makers[name]()


@app.command(
    epilog='Example: dfeat figure figure2 --results results/demo --settings "$(cat settings.json)" --out results/demo/report'
)
def figure(
    name: Annotated[str, typer.Argument(help="figure2, figure3, accuracy or gain")],
    results: Annotated[Path, typer.Option(help="results/<run>")],
    settings: SettingsJson,
    out: Out,
) -> None:
    """Draw a figure (png, svg)."""
    from dfeat.evaluation.pictures import draw_figure
    from dfeat.settings import Settings, parse

    draw_figure(name, results, parse(Settings, settings), out)


@app.command(
    epilog='Example: dfeat report --results results/demo --settings "$(cat settings.json)" --out results/demo/report/report.html'
)
def report(results: Annotated[Path, typer.Option(help="results/<run>")], settings: SettingsJson, out: Out) -> None:
    """Put tables, figures, claims and provenance on one page to open in a browser."""
    from dfeat.evaluation.report import write_report
    from dfeat.settings import Settings, parse
    from dfeat.storage.provenance import versions

    packages = versions("torch", "timm", "diffusers", "numpy", "pillow", "snakemake")
    write_report(results / "report", parse(Settings, settings), {"versions": packages}, out)


@app.command(epilog="Example: dfeat bench --out bench.json")
def bench(
    resolution: Annotated[int, typer.Option(min=64, help="side of the image in pixels, a multiple of 64")] = 512,
    out: Annotated[Path | None, typer.Option(help="where the counts go as JSON")] = None,
) -> None:
    """Count what the fast path saves: FLOPs of features and inpainting beside those of their peers."""
    from dfeat.bench import run

    if resolution % 64:
        raise UserError(f"--resolution {resolution} is no multiple of 64, which the U-Net's levels need")
    run(resolution, out)


@app.command(epilog="Example: dfeat demo-data --out demo-data")
def demo_data(
    out: Out,
    seed: int = 0,
    train: Annotated[int, typer.Option(min=1, help="training images a class")] = 60,
    val: Annotated[int, typer.Option(min=1, help="simulated-occlusion images a class")] = 40,
    real: Annotated[int, typer.Option(min=1, help="really occluded images a class")] = 15,
) -> None:
    """Draw the built-in data sets in the layouts of the real ones."""
    from dfeat.demo.worlds import write_demo_data

    write_demo_data(out, seed=seed, train=train, val=val, real=real)
    typer.echo(f"PartImageNet, imagenet/val and dfeat, as drawn objects, in {out}")


@app.command(epilog="Example: dfeat demo-model diffusion --index results/demo/data/train --out new-model --minutes 90")
def demo_model(
    part: Annotated[str, typer.Argument(help="diffusion, or a backbone of --settings")],
    out: Out,
    index: Annotated[Path | None, typer.Option(help="the train set's index, for the diffusion model")] = None,
    settings: SettingsJson = "{}",
    minutes: Annotated[float, typer.Option(min=0.01, help="training time of the diffusion model")] = 90,
    epochs: Annotated[int, typer.Option(min=1, help="training length of a backbone")] = 40,
    seed: int = 0,
    threads: Threads = 2,
) -> None:
    """Train a model that ships with the package: the latent diffusion model, or a backbone."""
    from dfeat.demo.models import train_backbone, train_diffusion
    from dfeat.devices import set_threads

    set_threads(threads)
    if part != "diffusion":
        train_backbone(part, settings, out, epochs, seed)
    elif index is None:
        raise UserError("the diffusion model needs --index, the train set's index: it is trained on those images alone")
    else:
        train_diffusion(index, out, minutes, seed)


@app.command(epilog="Example: dfeat doctor --config config.yaml --config config/single-gpu.yaml")
def doctor(
    config: Annotated[list[Path] | None, typer.Option(help="config.yaml and overlays, once each; later wins")] = None,
    settings: Annotated[str | None, typer.Option(help="all settings as JSON, in place of files")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="the report for programs")] = False,
    torch: Annotated[bool, typer.Option("--torch", help="let torch name the devices; takes seconds")] = False,
) -> None:
    """Look for what would spoil a run before it starts: data, weights, disk, time. Exits 2 where something would."""
    import json

    from dfeat.doctor import examine
    from dfeat.doctor.config import read_settings
    from dfeat.doctor.text import as_plain, as_text
    from dfeat.settings import Settings, parse

    chosen = parse(Settings, settings, "--settings") if settings else read_settings(config or [Path("config.yaml")])
    report = examine(chosen, ask_torch=torch)
    typer.echo(json.dumps(as_plain(report), indent=1) if as_json else as_text(report, chosen))
    if report.faults:
        raise typer.Exit(2)


@app.command(epilog="Example: dfeat schema --out workflow/schemas/config.schema.json")
def schema(out: Out) -> None:
    """Write the JSON Schema of config.yaml."""
    from dfeat.settings import config_schema
    from dfeat.storage.atomic import write_text

    write_text(out, config_schema())


def _shard(text: str) -> tuple[int, int]:
    number, _, count = text.partition("/")
    if not (number.isdigit() and count.isdigit()):
        raise UserError(f"--shard {text!r} is not i/n, e.g. 0/12")
    return int(number), int(count)


def main() -> None:
    """Run the command line; a user's mistake is one line on standard error and exit status 2."""
    try:
        app()
    except UserError as error:
        typer.echo(f"dfeat: {error}", err=True)
        sys.exit(2)
    except (BrokenPipeError, KeyboardInterrupt):
        sys.exit(130)


if __name__ == "__main__":
    main()
