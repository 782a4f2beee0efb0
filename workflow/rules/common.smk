# What every rules file uses: the checked settings, the names of artifacts, and what a stage is handed.
import sys
from pathlib import Path

from dfeat.doctor import missing_inputs
from dfeat.doctor.sizing import sized
from dfeat.errors import UserError
from dfeat import settings as dfeat_settings
from dfeat.evaluation.sets import (
    STUDY_TABLES,
    asked_figures,
    asked_tables,
    published_sets,
    sets_of,
    study_sets,
)
from dfeat.storage.provenance import declared_recipe, files_digest, settings_text
from dfeat.training.weights import has_imagenet_head
from snakemake.exceptions import WorkflowError


def checked(configuration):
    """The settings, or one sentence that says which key is wrong."""
    try:
        return sized(dfeat_settings.parse(dfeat_settings.Settings, configuration))
    except UserError as error:
        raise WorkflowError(str(error)) from None


def stop_where_inputs_are_missing(settings):
    """Exit 2, one sentence a fault, before any job is planned: a run would spoil hours in.

    Asked once, by the Snakemake a person started: neither by its jobs, which read these rules again, nor by
    `snakemake --lint`, which is the one that does not check environment variables.
    """
    if not (workflow.is_main_process and workflow.check_envvars):
        return
    faults = missing_inputs(settings)
    for fault in faults:
        print(f"dfeat: {fault}", file=sys.stderr)
    if faults:
        print(
            "dfeat: nothing was run; `dfeat doctor` says more, and `make demo` needs no data.",
            file=sys.stderr,
        )
        sys.exit(2)


SETTINGS = checked(config)
stop_where_inputs_are_missing(SETTINGS)
RUN = f"results/{SETTINGS.run}"
LEVELS = {name: chosen.levels for name, chosen in SETTINGS.data.evaluation.items()}
RAW = [f"{RUN}/raw/drawn.json"] if SETTINGS.data.drawn else []
THREADS = SETTINGS.resources.threads
GPU = SETTINGS.resources.gpu


wildcard_constraints:
    set="[A-Za-z0-9][A-Za-z0-9_.-]*",
    method="|".join(SETTINGS.training.methods),
    backbone="|".join(SETTINGS.training.backbones),
    seed=r"-?\d+",
    shard=r"\d+",
    level=r"\d+",


def stage(name, backbone=None, method=None, set_name=None):
    """A stage's part of the settings, as the one JSON argument that its verb takes."""
    return settings_text(
        dfeat_settings.stage_settings(SETTINGS, name, backbone, method, set_name)
    )


def whole_settings():
    """All settings as JSON, for figures and reports, but for what a job asks for, which is no one's result."""
    asked = dfeat_settings.ResourceSettings(threads=THREADS)
    plain = SETTINGS.model_copy(update={"resources": asked})
    return settings_text(plain)


def read_by_efficiency():
    """What the costs depend on: all settings but for resources and what the report alone shows."""
    shown = dfeat_settings.table_settings(SETTINGS, []).report
    plain = {"resources": dfeat_settings.ResourceSettings(), "report": shown}
    return settings_text(SETTINGS.model_copy(update=plain))


def read_by_table(sets):
    """What a table of these sets reads of the settings, as JSON."""
    return settings_text(dfeat_settings.table_settings(SETTINGS, sets))


def recipe(module):
    """The recipe number of a stage: a rule hands it on as a param, so a changed stage runs again."""
    return declared_recipe(module)


def set_settings(name):
    """The settings of one set, as JSON, but for what its index does not depend on: expected counts and levels."""
    if name == "train":
        unread = {"expected_images": None, "expected_classes": None}
        return settings_text(SETTINGS.data.train.model_copy(update=unread))
    unread = {
        "expected_images": None,
        "levels": (0,),
    }  # a study's levels say nothing of its index either
    return settings_text(SETTINGS.data.evaluation[name].model_copy(update=unread))


def grown(amount):
    """A resource that grows with each attempt."""
    return lambda wildcards, attempt: amount * attempt


def view_name(wildcards):
    """The view behind a set's name in the diffusion step: train, train-occluded, or SET@LEVEL."""
    if wildcards.view == "train":
        return "clean"
    if wildcards.view == "train-occluded":
        return "parts"
    return f"drop:{wildcards.view.rpartition('@')[2]}"


def view_set(wildcards):
    """The data set that a view is of."""
    return (
        "train"
        if wildcards.view.startswith("train")
        else wildcards.view.rpartition("@")[0]
    )


def shards_of(kind, view):
    """All shards of a view."""
    count = (
        SETTINGS.diffusion.inpaint.shards
        if kind == "inpaint"
        else SETTINGS.diffusion.features.shards
    )
    return [
        f"{RUN}/diffusion/{kind}/{view}/{number}-of-{count}.h5"
        for number in range(count)
    ]


def method_inputs(wildcards):
    """What a method needs beside pixels and parts."""
    if wildcards.method == "sd_inpaint":
        return {
            "inpainted": f"{RUN}/diffusion/inpaint/train/pixels.h5",
            **verdict_inputs(wildcards.backbone),
        }
    if wildcards.method == "sd_features":
        clean = {"features": shards_of("features", "train")}
        if SETTINGS.training.twin_features == "clean":
            return clean
        return clean | {"twin_features": shards_of("features", "train-occluded")}
    return {}


def verdict_inputs(backbone):
    """Where rejected twins are left out: the verdicts that say which."""
    if SETTINGS.training.inpainted == "all":
        return {}
    return {"verdicts": f"{RUN}/evaluation/labels/{backbone}/verdicts.csv"}


def method_options(wildcards, input):
    """The same as options of `dfeat train`."""
    return options(
        input,
        {
            "inpainted": "--inpainted",
            "verdicts": "--verdicts",
            "features": "--features",
            "twin_features": "--twin-features",
        },
    )


def options(input, names):
    """Named inputs as repeated command-line options."""
    words = []
    for name, option in names.items():
        files = input.get(name, [])
        for file in [files] if isinstance(files, str) else files:
            words += [option, str(file)]
    return words


def test_features(wildcards):
    """The features of every level of every set, for the method that fuses them."""
    return [file for _, file in labelled_features(wildcards.method)]


def test_feature_options(wildcards):
    """The same as options of `dfeat evaluate`: --features SET@LEVEL=FILE."""
    return [
        word
        for view, file in labelled_features(wildcards.method)
        for word in ("--features", f"{view}={file}")
    ]


def labelled_features(method):
    """(SET@LEVEL, file) of all test-time features a method reads."""
    if method != "sd_features":
        return []
    views = [f"{name}@{level}" for name, levels in LEVELS.items() for level in levels]
    return [(view, file) for view in views for file in shards_of("features", view)]


def predictions(sets=None):
    """The prediction files of all models on the given sets (default: all)."""
    training = SETTINGS.training
    return [
        f"{RUN}/evaluation/{method}/{backbone}/seed{seed}/{name}@{level}.csv"
        for name in (PUBLISHED if sets is None else sets)
        for level in LEVELS[name]
        for method in training.methods
        for backbone in training.backbones
        for seed in training.seeds
    ]


BEFORE = [
    name
    for name, chosen in SETTINGS.training.backbones.items()
    if SETTINGS.report.before_fine_tuning and has_imagenet_head(chosen)
]


def pretrained_predictions(sets):
    """The prediction files of the backbones before fine-tuning on the given sets."""
    return [
        f"{RUN}/evaluation/pretrained/{backbone}/seed0/{name}@{level}.csv"
        for name in sets
        for level in LEVELS[name]
        for backbone in BEFORE
    ]


def sets_of_study(table):
    """The sets of a table beyond the paper's; one sentence where the run has none."""
    try:
        return (
            study_sets(STUDY_TABLES[table], SETTINGS)
            if table in STUDY_TABLES
            else PUBLISHED
        )
    except UserError as error:
        raise WorkflowError(str(error)) from None


PUBLISHED = published_sets(SETTINGS)
SIMULATED = sets_of("table1", SETTINGS)
REAL = sets_of("table2", SETTINGS)
ASKED = asked_tables(SETTINGS)
FIGURES = asked_figures(SETTINGS)
CAPTIONS = [*FIGURES, "efficiency"]
