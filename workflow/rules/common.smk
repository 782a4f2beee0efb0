# What every rules file uses: the checked settings, and the run with the points of its ablations.


def beside_the_rules(name, files):
    """A folder of the workflow: found from its code, and named from the working folder where it lies in there.

    Where the workflow is read from a repository, Snakemake fetches the files into one folder of its cache.
    """
    rules = Path(workflow.current_basedir.get_path_or_uri(secret_free=False))
    if not rules.is_dir():
        return [Path(workflow.source_path(f"../{name}/{file}")) for file in files][
            0
        ].parent
    folder = Path(os.path.normpath(rules.absolute().parent / name))
    here = Path.cwd()
    folder = folder.relative_to(here) if folder.is_relative_to(here) else folder
    if set("{}<>") & set(str(folder)):
        stop(
            f"the workflow lies in {folder}, and Snakemake takes braces and angle brackets in a path for wildcards; "
            "move it to a folder without them"
        )
    return folder


@cache
def faults_of_data(read):
    return missing_data(SETTINGS, read)


@cache
def faults_of_weights(at, named):
    return missing_weights(RUN.at(at), named)


def with_weights_of(at):
    """The run itself, where a point of it starts from the same weights: they are looked at once."""
    own, weights = RUN.at(at), RUN.at("")
    same_model = own.diffusion.model == weights.diffusion.model
    same_painter = own.diffusion.inpainting_model == weights.diffusion.inpainting_model
    same_backbones = own.training.backbones == weights.training.backbones
    return "" if same_model and same_painter and same_backbones else at


def needs(*weights, data=False, rank=0):
    """The priority of a rule's jobs, `rank` for all. Snakemake works it out for the jobs that it will run, in a dry
    run too, and before the first starts; so here it stops where one of them misses something, one sentence a fault. A
    finished run needs neither data nor weights. `weights` are those of `look_at_weights`, with wildcards.
    """

    def priority(wildcards):
        if started_by_a_person() and not workflow.touch:
            at = with_weights_of(wildcards.get("at", ""))
            named = tuple(one.format(**wildcards) for one in weights)
            if faults_of_data(data) or faults_of_weights(at, named):
                faults = [*faults_of_weights(at, named), *missing_inputs(SETTINGS)]
                given = workflow.overwrite_configfiles or ()
                faults += unread_local([Path(file) for file in given])
                more = "nothing was run; `dfeat doctor` says more, and `make demo` needs no data."
                stop(*dict.fromkeys(faults), more)
        return rank

    return priority


def stop_where_half_adopted(place):
    """Stop where `dfeat adopt` was interrupted, when what is not whole may count as made."""
    if place.adopting.exists() and ADOPTING not in os.environ:
        stop(
            f"`dfeat adopt {place.run}` is at work or was interrupted; run it to its end"
        )


SETTINGS = exit_on_user_error(
    parse_section, Settings, *(planned_settings() or (config, configuration_files()))
)
if set('$`"\\') & set(str(Path.cwd())) and has_long_commands(SETTINGS):
    stop(
        f'the working folder {Path.cwd()} has one of $ ` " \\ in its name, which a shell would read in the long commands '
        "of this configuration; move it to a folder without them"
    )
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
# Where a scheduler is asked otherwise, what a job takes is a resource of its own. By default it is `gpu`, as it was before
# there was a choice: the text of a command that has another name in it would be another command, made again once.
TAKEN = (
    "{resources.gpu}" if SETTINGS.resources.request == "gpu" else "{resources.devices}"
)


# Snakemake asks a job that failed how often it may be tried again. A fault of the user or of the
# program stays one; a kill, a full disk or a lost device may be over.
Job.restart_times = property(
    lambda job: (
        0
        if any(ended_for_good(Path(log)) for log in job.log)
        else job.rule.restart_times
    )
)


# Snakemake takes a name of no rule for a file, and asks this of each target once all rules are known, before it plans.
if workflow.modifier.is_main_snakefile() and started_by_a_person():
    workflow.is_rule = named_or_made(workflow.is_rule)


wildcard_constraints:
    at=f"{RUN_ONLY}|{RUN.points_pattern()}",
    set="[A-Za-z0-9][A-Za-z0-9_.-]*",
    method="|".join(map(re.escape, RUN.methods)),
    backbone="|".join(map(re.escape, SETTINGS.training.backbones)),
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


def minutes(estimated, *read):
    """Minutes to ask a scheduler for, by a function of `dfeat.costs.limits`: of the settings at a job's point, and of the
    wildcards named in `read`. More with each attempt."""
    return lambda wildcards, attempt: attempt * estimated(
        RUN.at(wildcards.get("at", "")), *(wildcards[key] for key in read)
    )


def shard_runtime(kind, *views):
    """The same for one shard of each view (default: of the job's)."""
    return lambda wildcards, attempt: attempt * shard_minutes(
        RUN.at(wildcards.at), kind, *(views or [wildcards.view])
    )


def latents_stage(view):
    """What `dfeat latents` is given for a view of an evaluation set, as `stage` gives it."""
    return lambda wildcards: RUN.latents_stage(wildcards.at, view)


def latents_of(views):
    """The latents that the features of these levels of a set are of, a shard of each."""
    return lambda wildcards: [
        RUN.source(wildcards.at, "latents", view=view).shard(
            "latents", view, wildcards.shard, wildcards.shards
        )
        for view in views
    ]


def test_features(set_name, option=None):
    """The features that a model is given of a set, as an input; with an option of `dfeat evaluate`, as its words."""

    def found(wildcards):
        files = RUN.test_features(wildcards.at, wildcards.method, set_name)
        return [
            word
            for view, file in files
            for word in ([option, f"{view}={file}"] if option else [file])
        ]

    return found


def evaluate_stage(set_name, name="evaluate"):
    """What `dfeat evaluate` is given for a set, as `stage` gives it; `pretrained` of a backbone before fine-tuning."""
    return lambda wildcards: RUN.stage(
        wildcards.get("at", ""), name, wildcards.backbone, None, set_name
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


def made_again_where(otherwise, files):
    """Have Snakemake make a table, figure or the page again that records other sets or settings than the configured ones:
    a run that was copied without `.snakemake` has no other record of them."""
    if started_by_a_person() and not workflow.touch and otherwise():
        workflow.dag.forcefiles.update(map(str, files))


def inputs_of(made):
    """What a table or figure is made from."""
    made_again_where(partial(made_otherwise, RUN, made), made.files(RUN))
    return made.inputs(RUN)


def inputs_of_page(captions):
    """What the page shows."""
    page = HERE.published("index", ".html")
    made_again_where(partial(made_otherwise, RUN, captions=captions), page)
    return [file for made in wanted(SETTINGS) for file in made.files(RUN)]


def shown_first(made, captions):
    """The files of a table or figure, the first of them in Snakemake's own report."""
    first, *others = made.files(RUN)
    caption = str((captions / made.caption_file).absolute())
    return [report(first, caption=caption, category=made.category), *others]
