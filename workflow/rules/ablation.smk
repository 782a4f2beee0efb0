# The ablations: the run's own rules, at the points of a grid. What each is made of is worked out in points.smk.
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
        point_latents,
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


use rule judge as ablation_judge with:
    input:
        models=judges_at,
        index=f"{RUN}/data/train/index.csv",
        pixels=f"{RUN}/data/train/pixels.h5",
        parts=lambda wildcards: f"{place(wildcards, 'parts')}/occlusion/parts.json",
        inpainted=inpainted_at,
    output:
        verdicts=f"{POINT}/evaluation/labels/{{backbone}}/verdicts.csv",
        origin=f"{POINT}/evaluation/labels/{{backbone}}/verdicts.json",
    log:
        f"{RUN}/logs/ablation/{{ablation}}/{{point}}/judge_{{backbone}}.log",
    benchmark:
        f"{RUN}/benchmarks/ablation/{{ablation}}/{{point}}/judge_{{backbone}}.tsv"


use rule evaluate as ablation_evaluate with:
    input:
        model=point_model,
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
        f"{POINT}/evaluation/{{method}}/{{backbone}}/seed{{seed}}/predictions.json",
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
