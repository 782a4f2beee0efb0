# Grids of settings. A point shares every artifact of the run that its changed settings do not reach.
from functools import cache

from dfeat.settings import ablation_points, stage_settings

POINT = f"{RUN}/ablation/{{ablation}}/{{point}}"


wildcard_constraints:
    ablation="|".join(SETTINGS.ablation),
    point=r"\d+",


@cache
def points(name):
    """The settings of a grid's points; sets of the paper's tables only."""
    sets = {name: SETTINGS.data.evaluation[name] for name in PUBLISHED}
    data = SETTINGS.data.model_copy(update={"evaluation": sets})
    return [
        one
        for _, one in ablation_points(SETTINGS.model_copy(update={"data": data}), name)
    ]


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


def point_inputs(wildcards):
    """What a method needs beside pixels and parts, as the point has it."""
    if wildcards.method == "sd_inpaint":
        folder = place(wildcards, "inpaint")
        return {
            "inpainted": f"{folder}/diffusion/inpaint/train/pixels.h5",
            **verdict_inputs(wildcards.backbone),
        }
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
        f"{RUN}/ablation/{wildcards.ablation}/{number}/evaluation/{method}/{backbone}/seed{seed}/{name}@{level}.csv"
        for number in range(len(points(wildcards.ablation)))
        for method in asked.methods
        for backbone in training.backbones
        for seed in training.seeds
        for name in PUBLISHED
        for level in LEVELS[name]
    ]


use rule parts as ablation_parts with:
    output:
        f"{POINT}/occlusion/parts.json",
    log:
        f"{RUN}/logs/ablation/{{ablation}}/{{point}}/parts.log",
    benchmark:
        f"{RUN}/benchmarks/ablation/{{ablation}}/{{point}}/parts.tsv"
    params:
        settings=at_stage("parts"),


use rule inpaint as ablation_inpaint with:
    input:
        index=f"{RUN}/data/train/index.csv",
        parts=lambda wildcards: f"{place(wildcards, 'parts')}/occlusion/parts.json",
    output:
        f"{POINT}/diffusion/inpaint/train/{{shard}}-of-{{shards}}.h5",
    log:
        f"{RUN}/logs/ablation/{{ablation}}/{{point}}/inpaint_{{shard}}-of-{{shards}}.log",
    benchmark:
        f"{RUN}/benchmarks/ablation/{{ablation}}/{{point}}/inpaint_{{shard}}-of-{{shards}}.tsv"
    params:
        settings=at_stage("inpaint"),


use rule inpainted_pixels as ablation_inpainted_pixels with:
    input:
        lambda wildcards: [
            f"{RUN}/ablation/{wildcards.ablation}/{wildcards.point}/diffusion/inpaint/train/{number}-of-{count}.h5"
            for count in [at(wildcards).diffusion.inpaint.shards]
            for number in range(count)
        ],
    output:
        f"{POINT}/diffusion/inpaint/train/pixels.h5",
    log:
        f"{RUN}/logs/ablation/{{ablation}}/{{point}}/inpainted_pixels.log",
    benchmark:
        f"{RUN}/benchmarks/ablation/{{ablation}}/{{point}}/inpainted_pixels.tsv"


use rule latents as ablation_latents with:
    input:
        index=f"{RUN}/data/train/index.csv",
        parts=lambda wildcards: f"{place(wildcards, 'parts')}/occlusion/parts.json",
    output:
        f"{POINT}/diffusion/latents/{{view}}/{{shard}}-of-{{shards}}.h5",
    log:
        f"{RUN}/logs/ablation/{{ablation}}/{{point}}/latents_{{view}}_{{shard}}-of-{{shards}}.log",
    benchmark:
        f"{RUN}/benchmarks/ablation/{{ablation}}/{{point}}/latents_{{view}}_{{shard}}-of-{{shards}}.tsv"
    params:
        settings=at_stage("latents"),


use rule features as ablation_features with:
    input:
        lambda wildcards: place(wildcards, "latents", view=wildcards.view)
        + f"/diffusion/latents/{wildcards.view}/{wildcards.shard}-of-{wildcards.shards}.h5",
    output:
        f"{POINT}/diffusion/features/{{view}}/{{shard}}-of-{{shards}}.h5",
    log:
        f"{RUN}/logs/ablation/{{ablation}}/{{point}}/features_{{view}}_{{shard}}-of-{{shards}}.log",
    benchmark:
        f"{RUN}/benchmarks/ablation/{{ablation}}/{{point}}/features_{{view}}_{{shard}}-of-{{shards}}.tsv"
    params:
        settings=at_stage("features"),


use rule train as ablation_train with:
    input:
        unpack(point_inputs),
        index=f"{RUN}/data/train/index.csv",
        pixels=f"{RUN}/data/train/pixels.h5",
        parts=lambda wildcards: f"{place(wildcards, 'parts')}/occlusion/parts.json",
    output:
        multiext(
            f"{POINT}/training/{{method}}/{{backbone}}/seed{{seed}}/",
            "model.safetensors",
            "metrics.jsonl",
            "run.json",
        ),
    log:
        f"{RUN}/logs/ablation/{{ablation}}/{{point}}/train_{{method}}_{{backbone}}_seed{{seed}}.log",
    benchmark:
        f"{RUN}/benchmarks/ablation/{{ablation}}/{{point}}/train_{{method}}_{{backbone}}_seed{{seed}}.tsv"
    params:
        settings=at_stage("train", read=("backbone", "method")),


use rule evaluate as ablation_evaluate with:
    input:
        model=lambda wildcards: place(
            wildcards, "train", method=wildcards.method, backbone=wildcards.backbone
        )
        + f"/training/{wildcards.method}/{wildcards.backbone}/seed{wildcards.seed}/model.safetensors",
        classes=f"{RUN}/data/train/classes.json",
        sets=[
            f"{RUN}/data/{name}/{file}"
            for name in PUBLISHED
            for file in ("index.csv", "pixels.h5")
        ],
        features=lambda wildcards: [file for _, file in point_test_features(wildcards)],
    output:
        [
            f"{POINT}/evaluation/{{method}}/{{backbone}}/seed{{seed}}/{name}@{level}.csv"
            for name in PUBLISHED
            for level in LEVELS[name]
        ],
    log:
        f"{RUN}/logs/ablation/{{ablation}}/{{point}}/evaluate_{{method}}_{{backbone}}_seed{{seed}}.log",
    benchmark:
        f"{RUN}/benchmarks/ablation/{{ablation}}/{{point}}/evaluate_{{method}}_{{backbone}}_seed{{seed}}.tsv"
    params:
        features=lambda wildcards: [
            word
            for view, file in point_test_features(wildcards)
            for word in ("--features", f"{view}={file}")
        ],
        settings=at_stage("evaluate"),


rule compare_points:
    input:
        point_predictions,
    output:
        report(
            f"{RUN}/report/ablation_{{ablation}}.csv",
            caption="../report/ablation.rst",
            category="Beyond the paper",
        ),
        f"{RUN}/report/ablation_{{ablation}}.md",
    log:
        f"{RUN}/logs/report/ablation_{{ablation}}.log",
    benchmark:
        f"{RUN}/benchmarks/report/ablation_{{ablation}}.tsv"
    threads: 1
    resources:
        mem_mb=grown(4000),
        runtime=grown(30),
    params:
        results=subpath(output[0], ancestor=2),
        folder=subpath(output[0], parent=True),
        settings=whole_settings(),
        recipe=recipe("dfeat.evaluation"),
    shell:
        "dfeat ablation {wildcards.ablation} --results {params.results:q} --settings {params.settings:q}"
        " --out {params.folder:q} > {log:q} 2>&1"


rule plot_points:
    input:
        f"{RUN}/report/ablation_{{ablation}}.csv",
    output:
        report(
            f"{RUN}/report/ablation_{{ablation}}.png",
            caption="../report/ablation.rst",
            category="Beyond the paper",
        ),
        f"{RUN}/report/ablation_{{ablation}}.svg",
    log:
        f"{RUN}/logs/report/ablation_{{ablation}}_figure.log",
    benchmark:
        f"{RUN}/benchmarks/report/ablation_{{ablation}}_figure.tsv"
    threads: 1
    resources:
        mem_mb=grown(2000),
        runtime=grown(10),
    params:
        results=subpath(output[0], ancestor=2),
        folder=subpath(output[0], parent=True),
        settings=whole_settings(),
        recipe=recipe("dfeat.evaluation.plots"),
    shell:
        "dfeat figure ablation_{wildcards.ablation} --results {params.results:q} --settings {params.settings:q}"
        " --out {params.folder:q} > {log:q} 2>&1"


for asked in SETTINGS.ablation:

    rule:
        name:
            f"ablation_{asked}"
        input:
            multiext(f"{RUN}/report/ablation_{asked}", ".csv", ".md", ".png", ".svg"),
