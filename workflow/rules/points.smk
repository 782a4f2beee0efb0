# Grids of settings. A point shares every artifact of the run that its changed settings do not reach.
from functools import cache

from dfeat.costs.sizing import sized_point
from dfeat.config import ablation_points, stage_settings

POINT = f"{RUN}/ablation/{{ablation}}/{{point}}"


wildcard_constraints:
    ablation="|".join(SETTINGS.ablation),
    point=r"\d+",


@cache
def points(name):
    """The settings of a grid's points; sets of the paper's tables only."""
    sets = {name: SETTINGS.data.evaluation[name] for name in PUBLISHED}
    data = SETTINGS.data.model_copy(update={"evaluation": sets})
    run = SETTINGS.model_copy(update={"data": data})
    made = or_stop(ablation_points, run, name)
    return [sized_point(one, STATED, SETTINGS) for _, one in made]


def at(wildcards):
    """The settings of the point that a file belongs to."""
    return points(wildcards.ablation)[int(wildcards.point)]


def at_stage(name, **more):
    """A stage's part of the point's settings, as the one JSON argument that its verb takes."""
    return lambda wildcards: settings_text(
        stage_settings(
            at(wildcards),
            name,
            *(getattr(wildcards, key) for key in more.get("read", ())),
        )
    )


def differs(settings, name, *read):
    """Whether a stage is given something else than in the run."""
    return stage_settings(settings, name, *read) != stage_settings(
        SETTINGS, name, *read
    )


def reached(settings, artifact, view="", method="", backbone=""):
    """Whether a point's changed settings reach an artifact, by itself or by what it is made of."""
    if artifact == "parts":
        return differs(settings, "parts")
    if artifact == "inpaint":
        return differs(settings, "inpaint") or reached(settings, "parts")
    if artifact == "verdicts":
        return reached(settings, "inpaint") or reached(
            settings, "train", method="none", backbone=backbone
        )
    if artifact == "latents":
        return view == "train-occluded" and reached(settings, "parts")
    if artifact == "features":
        return differs(settings, "features") or reached(settings, "latents", view)
    read = {"sd_inpaint": ["inpaint"], "sd_features": ["features"]}.get(method, [])
    return (
        differs(settings, "train", backbone, method)
        or reached(settings, "parts")
        or any(reached(settings, kind, "train") for kind in read)
    )


def place(wildcards, artifact, **of):
    """The folder that a point takes an artifact from: its own, or the run's."""
    own = f"{RUN}/ablation/{wildcards.ablation}/{wildcards.point}"
    return own if reached(at(wildcards), artifact, **of) else RUN


def features_at(wildcards, view):
    """All feature shards of a view, as the point has them."""
    folder = place(wildcards, "features", view=view)
    count = at(wildcards).diffusion.features.shards
    return [
        f"{folder}/diffusion/features/{view}/{number}-of-{count}.h5"
        for number in range(count)
    ]


def inpainted_at(wildcards):
    """The cache of inpainted images, as the point has it."""
    return f"{place(wildcards, 'inpaint')}/diffusion/inpaint/train/pixels.h5"


def judges_at(wildcards):
    """The None models of a backbone that judge the point's inpainted images."""
    folder = place(wildcards, "train", method="none", backbone=wildcards.backbone)
    return [
        f"{folder}/training/none/{wildcards.backbone}/seed{seed}/model.safetensors"
        for seed in SETTINGS.training.seeds
    ]


def point_inputs(wildcards):
    """What a method needs beside pixels and parts, as the point has it."""
    if wildcards.method == "sd_inpaint":
        found = {"inpainted": inpainted_at(wildcards)}
        if at(wildcards).training.inpainted == "accepted":
            folder = place(wildcards, "verdicts", backbone=wildcards.backbone)
            found["verdicts"] = (
                f"{folder}/evaluation/labels/{wildcards.backbone}/verdicts.csv"
            )
        return found
    if wildcards.method == "sd_features":
        found = {"features": features_at(wildcards, "train")}
        if at(wildcards).training.twin_features != "clean":
            found["twin_features"] = features_at(wildcards, "train-occluded")
        return found
    return {}


def point_test_features(wildcards):
    """(SET@LEVEL, file) of the test-time features of a point's model."""
    if wildcards.method != "sd_features":
        return []
    views = [f"{name}@{level}" for name in PUBLISHED for level in LEVELS[name]]
    return [(view, file) for view in views for file in features_at(wildcards, view)]


def point_predictions(wildcards):
    """The prediction files of all points of a grid, and the folder of each point's evaluation for each model."""
    asked = SETTINGS.ablation[wildcards.ablation]
    training = SETTINGS.training
    return [
        f"{RUN}/ablation/{wildcards.ablation}/{number}/evaluation/{method}/{backbone}/seed{seed}/{file}"
        for number in range(len(points(wildcards.ablation)))
        for method in asked.methods
        for backbone in training.backbones
        for seed in training.seeds
        for file in prediction_files(PUBLISHED)
    ]


def point_latents(wildcards):
    """The latents that a point's features start from."""
    folder = place(wildcards, "latents", view=wildcards.view)
    return f"{folder}/diffusion/latents/{wildcards.view}/{wildcards.shard}-of-{wildcards.shards}.h5"


def point_model(wildcards):
    """The model that is evaluated at a point."""
    method, backbone = wildcards.method, wildcards.backbone
    folder = place(wildcards, "train", method=method, backbone=backbone)
    return (
        f"{folder}/training/{method}/{backbone}/seed{wildcards.seed}/model.safetensors"
    )
