"""The application every verb is registered with, and the options that several verbs share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from typer.core import TyperGroup

from dfeat import __version__
from dfeat.errors import UserError

if TYPE_CHECKING:
    from dfeat.config import Settings
    from dfeat.diffusion.settings import ModelSource
    from dfeat.section import Section

GROUPS: Final = {
    "Start here": ("doctor", "fetch", "plan", "status", "verify", "adopt", "near"),
    "Use a trained model": ("predict",),
    "Steps, which snakemake runs": ("index", "parts", "pixels", "inpaint", "latents", "features", "train", "evaluate", "judge"),
    "Results": ("table", "figure", "report"),
    "For maintainers": ("demo-data", "schema"),
}  # fmt: skip
"""The verbs by what they are for, in the order of `dfeat --help`."""


class _Groups(TyperGroup):
    """The verbs in groups, each with its first sentence whole."""

    def _shown(self, verb: str) -> bool:
        return verb in self.commands and not self.commands[verb].hidden

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the verbs; those of no group come last."""
        named = {verb for verbs in GROUPS.values() for verb in verbs}
        groups = {**GROUPS, "Others": tuple(verb for verb in self.commands if verb not in named)}
        for title, verbs in groups.items():
            rows = [(verb, self.commands[verb].get_short_help_str(1000)) for verb in verbs if self._shown(verb)]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    cls=_Groups,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Occlusion-robust classifiers with a frozen diffusion model. Each verb is one step; snakemake runs them all.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"dfeat {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Occlusion-robust classifiers with a frozen diffusion model. Each verb is one step; snakemake runs them all."""


SettingsJson = Annotated[str, typer.Option("--settings", help="this step's part of config.yaml, as JSON")]
ConfigFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--config",
        "--configfile",
        help="config.yaml and overlays; later wins; default: config.yaml, and local.yaml if there",
    ),
]
AllSettings = Annotated[str | None, typer.Option("--settings", help="all settings as JSON, in place of files")]
Out = Annotated[Path, typer.Option("--out", help="where the result goes")]
IndexFolder = Annotated[Path, typer.Option("--index", help="folder that `dfeat index` wrote")]
Threads = Annotated[int, typer.Option("--threads", min=1, help="torch threads; results depend on it, so keep it fixed")]
Gpus = Annotated[int, typer.Option("--gpus", min=0, help="devices to take from those of this machine; 0: the CPU")]
Workers = Annotated[int, typer.Option("--workers", min=0, help="threads or processes that prepare images ahead")]
Outs = Annotated[list[Path], typer.Option("--out", help="where the result goes, once each")]
Keep = Annotated[bool, typer.Option("--keep", help="leave results that stand whole and were made from the same")]
Base = Annotated[
    Path | None,
    typer.Option("--base", help="results/<run> of another run: link its result if settings and inputs are the same"),
]
ShardOf = Annotated[str, typer.Option("--shard", help="which part of the rows, i/n")]


def shard_of(text: str) -> tuple[int, int]:
    """The i and n of `--shard i/n`. Raises UserError for anything else."""
    number, _, count = text.partition("/")
    if not (number.isdigit() and count.isdigit()):
        raise UserError(f"--shard {text!r} is not i/n, e.g. 0/12")
    return int(number), int(count)


def check_inputs(**made_by: Iterable[Path | None]) -> None:
    """Refuse inputs that are not there, before torch is imported and a device is taken.

    Each verb that makes some of them, with their paths; None is an option that was left out.
    """
    from dfeat.storage.records import cannot_read

    for verb, paths in made_by.items():
        for path in filter(None, paths):
            try:
                path.stat()
            except OSError as error:
                raise cannot_read(path, verb, error) from None


def linked_from(
    base: Path | None, verb: str, module: str, outputs: Sequence[Path], inputs: Iterable[Path | None], stage: Section,
    source: ModelSource | None = None,
) -> bool:  # fmt: skip
    """Whether a job's outputs could be linked from the base run (`storage.reuse`), before a device is taken.

    `module` declares the stage's RECIPE, the last of `outputs` records it; `source` is the diffusion model that is read.
    """
    if base is None:
        return False
    from dfeat.storage.provenance import declared_recipe
    from dfeat.storage.reuse import reused

    given = [path for path in inputs if path is not None]
    return reused(base, verb, outputs, given, declared_recipe(module), stage, _same_model(source))


def left_to_make(
    base: Path | None, keep: bool, verb: str, shards: Mapping[Path, Sequence[Path]], stage: Section, source: ModelSource
) -> list[Path]:
    """The shards that a job has to compute: neither standing, where it is to `keep` those, nor linked from the base run.

    `shards` has the inputs of each. The other arguments are those of `linked_from`; the module is named as the verb.
    """
    from dfeat.progress import say
    from dfeat.storage.provenance import declared_recipe
    from dfeat.storage.reuse import renew, stands

    module, same_model = f"dfeat.diffusion.{verb}", _same_model(source)
    left = []
    for shard, inputs in shards.items():
        if keep and stands(shard, verb, inputs, declared_recipe(module), stage, same_model):
            say(f"{shard}: stands, made from the same by the same settings")
            renew(shard, {path for all_inputs in shards.values() for path in all_inputs})
        elif not linked_from(base, verb, module, [shard], inputs, stage, source):
            left.append(shard)
    return left


def one_each(option: str, given: Sequence[Any], outs: Sequence[Path]) -> None:
    """Refuse outputs that are not as many as what they are made of."""
    if len(given) != len(outs):
        raise UserError(
            f"{len(given)} {option} and {len(outs)} --out are given; give one --out for each, in their order"
        )


def _same_model(source: ModelSource | None) -> Callable[[Mapping[str, Any]], bool]:
    """Whether the weights that a record names are those of today; nothing is asked where no model is read."""
    from dfeat.diffusion.layout import find_model
    from dfeat.storage.provenance import combined_digest

    today: list[str] = []

    def same(recorded: Mapping[str, Any]) -> bool:
        if source is not None and not today:
            today.append(combined_digest(find_model(source).digests()))
        return source is None or recorded.get("model") == today[0]

    return same


def one_config_each(words: Sequence[str]) -> list[str]:
    """A command line in which each file of `--config A.yaml B.yaml`, as Snakemake takes them, has an option of its own."""
    given: list[str] = []
    option = ""
    for word in words:
        option = (
            word
            if word in ("--config", "--configfile")
            else option
            if word.endswith((".yaml", ".yml", ".json"))
            else ""
        )
        again = option and word != option and given[-1] != option
        given += [option, word] if again else [word]
    return given


def all_settings(config: list[Path] | None, settings: str | None) -> Settings:
    """The settings of `--config` or `--settings`; those of config.yaml and local.yaml where neither is given."""
    from dfeat.config import Settings
    from dfeat.config.files import own_files, read_settings
    from dfeat.section import parse

    if settings is None:
        return read_settings(config or own_files())
    if config:
        raise UserError("give either --config or --settings")
    return parse(Settings, settings, "--settings")


def example(command: str) -> str:
    """A verb's epilog: its example, in lines that can be pasted as they stand. It breaks before options."""
    lines = [""]
    for word in command.split(" --"):
        start = f"{lines[-1]} --{word}" if lines[-1] else word
        if len(start) <= 100:
            lines[-1] = start
        else:
            lines.append(f"    --{word}")
    return "\b\nExample: " + " \\\n".join(lines)
