rule evaluate:
    input:
        model=lambda wildcards: RUN.weights(
            wildcards.at, wildcards.method, wildcards.backbone, wildcards.seed
        ),
        run=lambda wildcards: RUN.weights(
            wildcards.at, wildcards.method, wildcards.backbone, wildcards.seed
        ).with_name("run.json"),
        classes=HERE.classes(),
        sets=lambda wildcards: RUN.indexed(RUN.evaluated(wildcards.at)),
        features=lambda wildcards: [
            file for _, file in RUN.test_features(wildcards.at, wildcards.method)
        ],
    output:
        RUN.evaluation_files(POINT, "{method}", "{backbone}", "{seed}"),
    log:
        POINT.log("evaluation", "{method}_{backbone}_seed{seed}"),
    benchmark:
        POINT.benchmark("evaluation", "{method}_{backbone}_seed{seed}")
    wildcard_constraints:
        at=RUN_ONLY,
    priority: needs()
    threads: THREADS
    resources:
        **SETTINGS.resources.requested(GPU),
        mem_mb=per_attempt(SETTINGS.resources.mem_mb),
        runtime=minutes(evaluation_minutes, "backbone"),
    params:
        model=subpath(input.model, parent=True),
        data=subpath(input.classes, ancestor=2),
        folder=subpath(output[0], parent=True),
        features=lambda wildcards: [
            word
            for view, file in RUN.test_features(wildcards.at, wildcards.method)
            for word in ("--features", f"{view}={file}")
        ],
        settings=stage("evaluate"),
        recipe=recipe("dfeat.evaluation.predict"),
        threads=THREADS,
    shell:
        "dfeat evaluate --model {params.model:q} --data {params.data:q} {params.features:q}"
        " --settings {params.settings:q} --threads {params.threads}"
        f" --gpus {TAKEN}"
        " --out {params.folder:q} > {log:q} 2>&1"


# A point is evaluated on what its grid is measured on, so its files are not the run's.
use rule evaluate as evaluate_point with:
    output:
        RUN.evaluation_files(POINT, "{method}", "{backbone}", "{seed}", RUN.published),
    wildcard_constraints:
        at=RUN.points_pattern(RUN.published),


use rule evaluate as evaluate_point_on_holdout with:
    output:
        RUN.evaluation_files(
            POINT, "{method}", "{backbone}", "{seed}", RUN.holdout_levels
        ),
    wildcard_constraints:
        at=RUN.points_pattern(RUN.holdout_levels),


rule evaluate_pretrained:
    input:
        classes=HERE.classes(),
        sets=RUN.indexed(RUN.levels),
    output:
        RUN.evaluation_files(HERE, "pretrained", "{backbone}", "0"),
    log:
        HERE.log("evaluation", "pretrained_{backbone}"),
    benchmark:
        HERE.benchmark("evaluation", "pretrained_{backbone}")
    priority: needs(backbone_weights("{backbone}"))
    threads: THREADS
    resources:
        **SETTINGS.resources.requested(GPU),
        mem_mb=per_attempt(SETTINGS.resources.mem_mb),
        runtime=minutes(evaluation_minutes, "backbone"),
    params:
        data=subpath(input.classes, ancestor=2),
        folder=subpath(output[0], parent=True),
        settings=lambda wildcards: RUN.stage("", "pretrained", wildcards.backbone),
        recipe=recipe("dfeat.evaluation.predict"),
        threads=THREADS,
    shell:
        "dfeat evaluate --data {params.data:q} --settings {params.settings:q} --threads {params.threads}"
        f" --gpus {TAKEN}"
        " --out {params.folder:q} > {log:q} 2>&1"


rule judge:
    input:
        models=lambda wildcards: RUN.judges(wildcards.at, wildcards.backbone),
        index=HERE.index(TRAIN),
        pixels=HERE.pixels(TRAIN),
        parts=lambda wildcards: RUN.parts(wildcards.at),
        inpainted=lambda wildcards: RUN.inpainted(wildcards.at),
    output:
        verdicts=POINT.verdicts("{backbone}"),
        origin=POINT.verdicts("{backbone}").with_suffix(".json"),
    log:
        POINT.log("evaluation", "judge_{backbone}"),
    benchmark:
        POINT.benchmark("evaluation", "judge_{backbone}")
    priority: needs()
    threads: THREADS
    resources:
        **SETTINGS.resources.requested(GPU),
        mem_mb=per_attempt(SETTINGS.resources.mem_mb),
        runtime=minutes(judging_minutes, "backbone"),
    params:
        models=lambda wildcards, input: repeated(
            "--model", [Path(model).parent for model in input.models]
        ),
        folder=subpath(input.index, parent=True),
        settings=stage("judge"),
        recipe=recipe("dfeat.evaluation.predict"),
        threads=THREADS,
    shell:
        "dfeat judge {params.models:q} --index {params.folder:q} --pixels {input.pixels:q} --parts {input.parts:q}"
        " --inpainted {input.inpainted:q} --settings {params.settings:q} --threads {params.threads}"
        f" --gpus {TAKEN}"
        " --out {output.verdicts:q} > {log:q} 2>&1"
