# The configuration, from its files to the rules and to the jobs: bounded, and unchanged on its way.
import os
import re
import sys
from functools import cache, partial
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.jobs import Job

try:
    from dfeat.config import Settings
    from dfeat.config.files import LOCAL, OWN, PINNED, read_pins, unread_local
    from dfeat.config.reading import read_mapping
    from dfeat.config.bounds import has_long_commands
    from dfeat.config.expected import write_expected
    from dfeat.config.points import RUN_ONLY, Run
    from dfeat.costs.limits import (
        evaluation_minutes,
        judging_minutes,
        shard_minutes,
        training_minutes,
    )
    from dfeat.doctor import missing_data, missing_inputs, missing_weights
    from dfeat.doctor.weights import backbone_weights
    from dfeat.errors import UserError, nearest
    from dfeat.progress import ended_for_good
    from dfeat.places import (
        ADOPTING,
        HOLDOUT,
        OCCLUDED,
        RESULTS,
        TRAIN,
        Place,
        evaluation_job,
        level_view,
        view_pictures,
        view_set,
    )
    from dfeat.report.catalogue import catalogue, wanted, whole_settings
    from dfeat.report.made import made_otherwise
    from dfeat.section import parse as parse_section
    from dfeat.storage.atomic import mark_under_way, write_bytes
    from dfeat.storage.provenance import (
        as_argument,
        bytes_digest,
        declared_recipe,
        files_digest,
        settings_text,
    )
    from dfeat.storage.reuse import remove_broken_links
except ModuleNotFoundError as missing:
    if not (missing.name or "").startswith("dfeat"):
        raise
    rules = Path(workflow.current_basedir.get_path_or_uri(secret_free=True)).absolute()
    hosted = "the repository of this workflow, at the same version"
    project = os.path.normpath(rules / "../..") if rules.is_dir() else hosted
    raise WorkflowError(
        "the package dfeat is not installed in the environment that Snakemake runs in; install it there: "
        f"pip install {project}"
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


def reads_local():
    """Whether local.yaml is laid over config.yaml: where the command names no file."""
    return not workflow.overwrite_configfiles and LOCAL.exists()


def named_or_made(is_rule):
    """`workflow.is_rule`, which stops at a target that is neither a rule nor a file that is there or that a rule makes."""

    def checked(name):
        found = is_rule(name)
        planning = workflow.dag_settings is not None and not found
        if planning and os.sep not in name and not Path(name).exists():
            if not any(one.is_producer(name) for one in workflow.rules):
                targets = [
                    one.name for one in workflow.rules if not one.has_wildcards()
                ]
                stop(
                    f"no target {name!r}{nearest(name, targets) or ';'} `snakemake --list-target-rules` prints them all"
                )
        return found

    return checked


def configuration_files():
    """The names of what the configuration was read from, as faults name it."""
    overlays = [Path(file) for file in workflow.overwrite_configfiles or ()]
    overlays += [LOCAL.absolute()] if reads_local() else []
    names = [
        str(file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file)
        for file in overlays
    ]
    values = ["--config"] if workflow.config_settings.config else []
    return " + ".join(dict.fromkeys(["config.yaml", *names, *values]))


def check_configuration(below):
    """Refuse a file of the configuration that does not end, or that two readers would read otherwise. Snakemake has
    read those of `--configfile` by now; a profile of this project looks at them first. A module is given values.
    """
    if workflow.modifier.skip_configfile:
        return
    exit_on_user_error(read_pins)
    own = [LOCAL] if reads_local() else []
    for file in [below, *own, *(workflow.overwrite_configfiles or ())]:
        if Path(file).exists():
            exit_on_user_error(read_mapping, Path(file))


# A job on a cluster is a Snakemake of its own. It is handed the settings that its plan was made from as a file, by
# this key: `--config` as typed and files that were edited since would give it others.
PLANNED = "planned_settings"


def planned_settings():
    """The settings of the plan that this job is from, as JSON text and the name of its file; nothing where this is no
    job on a cluster."""
    name = workflow.config_settings.config.get(PLANNED)
    if name is None or workflow.is_main_process:
        return None
    content = Path(name).read_bytes()
    if bytes_digest(content) != Path(name).stem:
        raise WorkflowError(
            f"{name} is not what was planned from; start Snakemake anew"
        )
    return content.decode(), name


def hand_over(settings):
    """Write the settings of this plan where its jobs on a cluster read them, in place of files and `--config`."""
    text = settings_text(settings).encode()
    path = Path(".snakemake") / "settings" / f"{bytes_digest(text)}.json"
    if not path.exists():
        write_bytes(path, text, recorded=False)
    workflow.config_settings.config_args = [f"{PLANNED}={path}"]
    workflow.config_settings.configfiles = []
