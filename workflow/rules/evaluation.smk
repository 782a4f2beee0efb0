rule evaluate:
    input:
        model=f"{RUN}/training/{{method}}/{{backbone}}/seed{{seed}}/model.safetensors",
        run=f"{RUN}/training/{{method}}/{{backbone}}/seed{{seed}}/run.json",
        classes=f"{RUN}/data/train/classes.json",
        sets=[
            f"{RUN}/data/{name}/{file}"
            for name in LEVELS
            for file in ("index.csv", "pixels.h5")
        ],
        features=test_features,
    output:
        [
            f"{RUN}/evaluation/{{method}}/{{backbone}}/seed{{seed}}/{name}@{level}.csv"
            for name, levels in LEVELS.items()
            for level in levels
        ],
        f"{RUN}/evaluation/{{method}}/{{backbone}}/seed{{seed}}/predictions.json",
    log:
        f"{RUN}/logs/evaluation/{{method}}_{{backbone}}_seed{{seed}}.log",
    benchmark:
        f"{RUN}/benchmarks/evaluation/{{method}}_{{backbone}}_seed{{seed}}.tsv"
    threads: THREADS
    resources:
        gpu=GPU,
        mem_mb=grown(SETTINGS.resources.mem_mb),
        runtime=grown(SETTINGS.resources.runtime),
    params:
        model=subpath(input.model, parent=True),
        data=subpath(input.classes, ancestor=2),
        folder=subpath(output[0], parent=True),
        features=test_feature_options,
        settings=stage("evaluate"),
        recipe=recipe("dfeat.evaluation.predict"),
        threads=THREADS,
    shell:
        "dfeat evaluate --model {params.model:q} --data {params.data:q} {params.features:q}"
        " --settings {params.settings:q} --threads {params.threads} --gpus {resources.gpu}"
        " --out {params.folder:q} > {log:q} 2>&1"


rule evaluate_pretrained:
    input:
        classes=f"{RUN}/data/train/classes.json",
        sets=[
            f"{RUN}/data/{name}/{file}"
            for name in LEVELS
            for file in ("index.csv", "pixels.h5")
        ],
    output:
        [
            f"{RUN}/evaluation/pretrained/{{backbone}}/seed0/{name}@{level}.csv"
            for name, levels in LEVELS.items()
            for level in levels
        ],
        f"{RUN}/evaluation/pretrained/{{backbone}}/seed0/predictions.json",
    log:
        f"{RUN}/logs/evaluation/pretrained_{{backbone}}.log",
    benchmark:
        f"{RUN}/benchmarks/evaluation/pretrained_{{backbone}}.tsv"
    threads: THREADS
    resources:
        gpu=GPU,
        mem_mb=grown(SETTINGS.resources.mem_mb),
        runtime=grown(SETTINGS.resources.runtime),
    params:
        data=subpath(input.classes, ancestor=2),
        folder=subpath(output[0], parent=True),
        settings=lambda wildcards: stage("pretrained", wildcards.backbone),
        recipe=recipe("dfeat.evaluation.predict"),
        threads=THREADS,
    shell:
        "dfeat evaluate --data {params.data:q} --settings {params.settings:q} --threads {params.threads}"
        " --gpus {resources.gpu} --out {params.folder:q} > {log:q} 2>&1"


rule judge:
    input:
        models=lambda wildcards: [
            f"{RUN}/training/none/{wildcards.backbone}/seed{seed}/model.safetensors"
            for seed in SETTINGS.training.seeds
        ],
        index=f"{RUN}/data/train/index.csv",
        pixels=f"{RUN}/data/train/pixels.h5",
        parts=f"{RUN}/occlusion/parts.json",
        inpainted=f"{RUN}/diffusion/inpaint/train/pixels.h5",
    output:
        verdicts=f"{RUN}/evaluation/labels/{{backbone}}/verdicts.csv",
        origin=f"{RUN}/evaluation/labels/{{backbone}}/verdicts.json",
    log:
        f"{RUN}/logs/evaluation/judge_{{backbone}}.log",
    benchmark:
        f"{RUN}/benchmarks/evaluation/judge_{{backbone}}.tsv"
    threads: THREADS
    resources:
        gpu=GPU,
        mem_mb=grown(SETTINGS.resources.mem_mb),
        runtime=grown(SETTINGS.resources.runtime),
    params:
        models=lambda wildcards, input: [
            word
            for model in input.models
            for word in ("--model", model.rpartition("/")[0])
        ],
        folder=subpath(input.index, parent=True),
        settings=stage("judge"),
        recipe=recipe("dfeat.evaluation.predict"),
        threads=THREADS,
    shell:
        "dfeat judge {params.models:q} --index {params.folder:q} --pixels {input.pixels:q} --parts {input.parts:q}"
        " --inpainted {input.inpainted:q} --settings {params.settings:q} --threads {params.threads}"
        " --gpus {resources.gpu} --out {output.verdicts:q} > {log:q} 2>&1"
