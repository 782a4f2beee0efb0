# What every rules file uses: the checked settings, the names of artifacts, and what a stage is handed.
import sys
from pathlib import Path

from dfeat.doctor import missing_inputs
from dfeat.costs.sizing import sized, training_minutes
from dfeat.errors import UserError
from dfeat.config import ResourceSettings, Settings, stage_settings, table_settings
from dfeat.section import parse as parse_section
from dfeat.report.catalogue import asked_figures, asked_tables
from dfeat.report.numbers.sets import STUDY_TABLES, published_sets, sets_of, study_sets
from dfeat.storage.provenance import declared_recipe, files_digest, settings_text
from dfeat.training.weights import has_imagenet_head
from snakemake.exceptions import WorkflowError


def asked_by_a_person():
    """Whether this is the Snakemake a person started: neither one of its jobs, which read these rules again, nor
    `snakemake --lint`, which is the one that does not check environment variables."""
    return workflow.is_main_process and workflow.check_envvars


def stop(*sentences):
    """Say them and exit 2, as `dfeat` does for a user's mistake; before any job is planned."""
    if not asked_by_a_person():
        raise WorkflowError("; ".join(sentences))
    for sentence in sentences:
        print(f"dfeat: {sentence}", file=sys.stderr)
    sys.exit(2)


def or_stop(made, *of):
    """What the function makes of these; where it refuses, its sentence and an end."""
    try:
        return made(*of)
    except UserError as error:
        stop(str(error))


def given_files():
    """The names of what the configuration was read from, as faults name it."""
    overlays = [Path(file) for file in workflow.overwrite_configfiles or ()]
    names = [
        str(file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file)
        for file in overlays
    ]
    values = ["--config"] if workflow.config_settings.config else []
    return " + ".join(dict.fromkeys(["config.yaml", *names, *values]))


def checked(configuration):
    """The settings, or one sentence that says which key is wrong."""
    return parse_section(Settings, configuration, given_files())


def stop_where_inputs_are_missing(settings):
    """A run would spoil hours in: one sentence a fault. Asked once."""
    faults = missing_inputs(settings) if asked_by_a_person() else []
    if faults:
        more = (
            "nothing was run; `dfeat doctor` says more, and `make demo` needs no data."
        )
        stop(*faults, more)


STATED = or_stop(checked, config)
SETTINGS = or_stop(sized, STATED)
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
    return settings_text(stage_settings(SETTINGS, name, backbone, method, set_name))


def whole_settings():
    """All settings as JSON, for figures and reports, but for what a job asks for, which is no one's result."""
    asked = ResourceSettings(threads=THREADS)
    plain = SETTINGS.model_copy(update={"resources": asked})
    return settings_text(plain)


def read_by_efficiency():
    """What the costs depend on: all settings but for resources and what the report alone shows."""
    shown = table_settings(SETTINGS, []).report
    plain = {"resources": ResourceSettings(), "report": shown}
    return settings_text(SETTINGS.model_copy(update=plain))


def read_by_table(sets):
    """What a table of these sets reads of the settings, as JSON."""
    return settings_text(table_settings(SETTINGS, sets))


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
    of_train = wildcards.view in ("train", "train-occluded")
    return "train" if of_train else wildcards.view.rpartition("@")[0]


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
    folder = f"{RUN}/evaluation/labels/{backbone}"
    return {
        "verdicts": f"{folder}/verdicts.csv",
        "verdicts_origin": f"{folder}/verdicts.json",
    }


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


def prediction_files(sets):
    """The names of a model's prediction files on the given sets, with that of what they are of; none without sets."""
    files = [f"{name}@{level}.csv" for name in sets for level in LEVELS[name]]
    return [*files, "predictions.json"] if files else []


def predictions(sets=None):
    """The prediction files of all models on the given sets (default: all), and what says what they are of."""
    training = SETTINGS.training
    return [
        f"{RUN}/evaluation/{method}/{backbone}/seed{seed}/{file}"
        for file in prediction_files(PUBLISHED if sets is None else sets)
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
        f"{RUN}/evaluation/pretrained/{backbone}/seed0/{file}"
        for file in prediction_files(sets)
        for backbone in BEFORE
    ]


def sets_of_study(table):
    """The sets of a table beyond the paper's; one sentence where the run has none."""
    if table not in STUDY_TABLES:
        return PUBLISHED
    return or_stop(study_sets, STUDY_TABLES[table], SETTINGS)


PUBLISHED = published_sets(SETTINGS)
SIMULATED = sets_of("table1", SETTINGS)
REAL = sets_of("table2", SETTINGS)
ASKED = asked_tables(SETTINGS)
FIGURES = asked_figures(SETTINGS)
CAPTIONS = [*FIGURES, "efficiency"]
