# What every rules file uses: the checked settings, and the run with the points of its ablations.
import os
import sys
import zlib
from base64 import b64decode, b64encode
from functools import partial
from pathlib import Path

from snakemake.exceptions import WorkflowError

try:
    from dfeat.config import Settings
    from dfeat.config.points import RUN_ONLY, Run
    from dfeat.costs.limits import shard_minutes, training_minutes
    from dfeat.doctor import missing_inputs
    from dfeat.errors import UserError
    from dfeat.places import (
        ADOPTING,
        HOLDOUT,
        OCCLUDED,
        RESULTS,
        TRAIN,
        Place,
        level_view,
        view_pictures,
        view_set,
    )
    from dfeat.report.catalogue import catalogue, wanted, whole_settings
    from dfeat.section import parse as parse_section
    from dfeat.storage.provenance import declared_recipe, files_digest, settings_text
    from dfeat.storage.reuse import remove_broken_links
except ModuleNotFoundError as missing:
    if not (missing.name or "").startswith("dfeat"):
        raise
    raise WorkflowError(
        "the package dfeat is not installed in the environment that Snakemake runs in; install it there: "
        f"pip install {Path(workflow.basedir)}"
    ) from None


LISTINGS = {"--list-rules", "--list", "-l", "--list-target-rules", "--lt"}


def started_by_a_person():
    """Whether this is the Snakemake that a person started to make something: neither one of its jobs, which read these
    rules again, nor a list of rules, nor `snakemake --lint`, which is the one that does not check environment variables.
    """
    listing = LISTINGS & set(sys.argv)
    return workflow.is_main_process and workflow.check_envvars and not listing


def stop(*sentences):
    """Print the sentences and exit 2, as `dfeat` does for a user's mistake."""
    if not started_by_a_person():
        raise WorkflowError("; ".join(sentences))
    for sentence in sentences:
        print(f"dfeat: {sentence}", file=sys.stderr)
    sys.exit(2)


def exit_on_user_error(function, *arguments):
    """Call the function; on a UserError print its message and exit 2."""
    try:
        return function(*arguments)
    except UserError as error:
        stop(str(error))


def configuration_files():
    """The names of what the configuration was read from, as faults name it."""
    overlays = [Path(file) for file in workflow.overwrite_configfiles or ()]
    names = [
        str(file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file)
        for file in overlays
    ]
    values = ["--config"] if workflow.config_settings.config else []
    return " + ".join(dict.fromkeys(["config.yaml", *names, *values]))


def beside_the_rules(name):
    """A folder of the workflow: found from its code, and named from the working folder where it lies in there."""
    rules = Path(workflow.current_basedir.get_path_or_uri(secret_free=False))
    folder = Path(os.path.normpath(rules.absolute().parent / name))
    here = Path.cwd()
    return folder.relative_to(here) if folder.is_relative_to(here) else folder


def stop_where_inputs_are_missing(settings):
    """Stop before any job is planned if data or weights are missing, one sentence per fault."""
    faults = missing_inputs(settings) if started_by_a_person() else []
    if faults:
        more = (
            "nothing was run; `dfeat doctor` says more, and `make demo` needs no data."
        )
        stop(*faults, more)


def stop_where_half_adopted(place):
    """Stop where `dfeat adopt` was interrupted, when what is not whole may count as made."""
    if place.adopting.exists() and ADOPTING not in os.environ:
        stop(
            f"`dfeat adopt {place.run}` is at work or was interrupted; run it to its end"
        )


def checked_settings(handed):
    """The settings that the Snakemake was started with. Its jobs on other machines read these rules again, when the
    configuration files may be others by now: they take what their Snakemake hands over in this environment variable.
    """
    if not workflow.is_main_process:
        if handed not in os.environ:
            stop(
                f"a job lacks the environment variable {handed}, in which Snakemake hands over its settings; let the "
                "executor pass the environment of its Snakemake on to the jobs"
            )
        text = zlib.decompress(b64decode(os.environ[handed])).decode()
        return parse_section(Settings, text, handed)
    settings = exit_on_user_error(
        parse_section, Settings, config, configuration_files()
    )
    packed = zlib.compress(settings.model_dump_json().encode())
    os.environ[handed] = b64encode(packed).decode()
    return settings


# A workflow may have this one several times as a module; its jobs read the modules in the same order.
HANDED = f"DFEAT_SETTINGS_{sum(name.startswith('DFEAT_SETTINGS_') for name in workflow.envvars)}"
SETTINGS = checked_settings(HANDED)


envvars:
    HANDED,


stop_where_inputs_are_missing(SETTINGS)
RUN = Run(SETTINGS)
HERE = RUN.place
if started_by_a_person():
    stop_where_half_adopted(HERE)
    remove_broken_links(HERE.run)
POINT = Place(HERE.run, "{at}")
RAW = [HERE.run / "raw" / "drawn.json"] if SETTINGS.data.drawn else []
BASE = f" --base {RESULTS / SETTINGS.base}" if SETTINGS.base else ""
THREADS = SETTINGS.resources.threads
GPU = SETTINGS.resources.gpu


wildcard_constraints:
    at=f"{RUN_ONLY}|{RUN.points_pattern()}",
    set="[A-Za-z0-9][A-Za-z0-9_.-]*",
    method="|".join(RUN.methods),
    backbone="|".join(SETTINGS.training.backbones),
    seed=r"-?\d+",
    shard=r"\d+",
    level=r"\d+",


def stage(name, *read):
    """A stage's part of the settings at a job's point, as the one JSON argument that its verb takes. `read` are the
    names of the wildcards that it depends on too."""
    return lambda wildcards: RUN.stage(
        wildcards.at, name, *(wildcards[key] for key in read)
    )


def recipe(module):
    """The recipe number of a stage: a param, so that a changed stage runs again. `dfeat adopt` has another one recorded
    for what is to be made again."""
    return "none" if os.environ.get(ADOPTING) == "again" else declared_recipe(module)


def per_attempt(amount):
    """A resource that grows with each attempt."""
    return lambda wildcards, attempt: amount * attempt


def repeated(option, files):
    """A command-line option, once for each file."""
    return [word for file in files for word in (option, str(file))]


def gpu_minutes(kind, view=None):
    """Minutes to ask a scheduler for, for one shard of a view; more with each attempt."""
    return lambda wildcards, attempt: attempt * shard_minutes(
        RUN.at(wildcards.at), kind, view or wildcards.view
    )


def method_inputs(wildcards):
    """What a method reads beside pixels and parts."""
    return RUN.method_inputs(wildcards.at, wildcards.method, wildcards.backbone)


def method_options(wildcards, input):
    """The same as options of `dfeat train`."""
    words = []
    for name, files in method_inputs(wildcards).items():
        files = files if isinstance(files, list) else [files]
        words += repeated(f"--{name.replace('_', '-')}", files)
    return words


def when_planned(function):
    """As an input or a param: called only where the job is wanted, so that a table that the run has no sets for stops
    no other."""
    return lambda wildcards: exit_on_user_error(function)


def shown_first(made, captions):
    """The files of a table or figure, the first of them in Snakemake's own report."""
    first, *others = made.files(RUN)
    caption = str((captions / f"{made.caption or made.name}.rst").absolute())
    return [report(first, caption=caption, category=made.category), *others]
