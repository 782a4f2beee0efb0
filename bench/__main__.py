"""`python -m bench NAME ...`: compare the fast path with its peers, in counted operations and in times."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench import NAMES, WITHOUT_GPU, run
from dfeat.devices import set_threads
from dfeat.progress import exit_on_user_error

_HELP = "\n\n".join(f"{name}: {what}" for name, what in NAMES.items())


def bench(
    names: Annotated[list[str] | None, typer.Argument(help="benchmarks to run; default: all that need no GPU")] = None,
    resolution: Annotated[int, typer.Option(min=64, help="flops: side of the image, a multiple of 64")] = 512,
    rounds: Annotated[int, typer.Option(min=1, help="how often each way is timed; medians are reported")] = 5,
    sizes: Annotated[str, typer.Option(help="scale: numbers of images")] = "1000,4000,16000",
    threads: Annotated[int, typer.Option(min=1, help="torch threads")] = 2,
    seconds: Annotated[float, typer.Option(min=1, help="gpu: seconds after which no further row is begun")] = 480,
    workers: Annotated[int, typer.Option(min=0, help="gpu: threads or processes that prepare images")] = 8,
    dry: Annotated[bool, typer.Option("--dry", help="gpu: tiny networks on the CPU; the figures mean nothing")] = False,
    out: Annotated[Path | None, typer.Option(help="JSON file for the figures")] = None,
) -> None:
    """Compare the fast path with its peers."""
    if resolution % 64:
        raise typer.BadParameter(
            f"{resolution} is not a multiple of 64, as the U-Net's levels require; give one, e.g. 512",
            param_hint="--resolution",
        )
    if not all(size.strip().isdigit() for size in sizes.split(",")):
        raise typer.BadParameter(
            f"{sizes!r} is not a list of numbers; give one, e.g. 1000,4000,16000", param_hint="--sizes"
        )
    set_threads(threads)
    options = {"resolution": resolution, "rounds": rounds, "sizes": [int(size) for size in sizes.split(",")]}
    run(names or WITHOUT_GPU, out, seconds=seconds, workers=workers, dry=dry, **options)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command(epilog=_HELP)(bench)
    exit_on_user_error(app)
