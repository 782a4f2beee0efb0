# A set's job is its own, so that a further set is evaluated alone.
for set_name in RUN.all_levels:

    rule:
        name:
            f"evaluate_on_{set_name}"
        input:
            model=lambda wildcards: RUN.weights(
                wildcards.at, wildcards.method, wildcards.backbone, wildcards.seed
            ),
            run=lambda wildcards: RUN.weights(
                wildcards.at, wildcards.method, wildcards.backbone, wildcards.seed
            ).with_name("run.json"),
            classes=HERE.classes(),
            set=RUN.indexed(set_name),
            features=test_features(set_name),
        output:
            RUN.evaluation_files(POINT, "{method}", "{backbone}", "{seed}", set_name),
        log:
            POINT.log(
                "evaluation",
                evaluation_job("{method}", "{backbone}", "seed{seed}", set_name),
            ),
        benchmark:
            POINT.benchmark(
                "evaluation",
                evaluation_job("{method}", "{backbone}", "seed{seed}", set_name),
            )
        wildcard_constraints:
            at=RUN.evaluated_at(set_name),
        priority: needs()
        threads: THREADS
        resources:
            **SETTINGS.resources.requested(GPU),
            mem_mb=per_attempt(SETTINGS.resources.mem_mb),
            runtime=minutes(partial(evaluation_minutes, set_name=set_name), "backbone"),
        params:
            model=subpath(input.model, parent=True),
            data=subpath(input.classes, ancestor=2),
            folder=subpath(output[0], parent=True),
            features=test_features(set_name, "--features"),
            settings=evaluate_stage(set_name),
            recipe=recipe("dfeat.evaluation.predict"),
            threads=THREADS,
        shell:
            "dfeat evaluate --model {params.model:q} --data {params.data:q} {params.features:q}"
            " --settings {params.settings:q} --threads {params.threads}"
            f" --gpus {TAKEN}"
            " --out {params.folder:q} > {log:q} 2>&1"


for set_name in RUN.levels:

    rule:
        name:
            f"evaluate_pretrained_on_{set_name}"
        input:
            classes=HERE.classes(),
            set=RUN.indexed(set_name),
        output:
            RUN.evaluation_files(HERE, "pretrained", "{backbone}", "0", set_name),
        log:
            HERE.log(
                "evaluation",
                evaluation_job("pretrained", "{backbone}", "seed0", set_name),
            ),
        benchmark:
            HERE.benchmark(
                "evaluation",
                evaluation_job("pretrained", "{backbone}", "seed0", set_name),
            )
        priority: needs(backbone_weights("{backbone}"))
        threads: THREADS
        resources:
            **SETTINGS.resources.requested(GPU),
            mem_mb=per_attempt(SETTINGS.resources.mem_mb),
            runtime=minutes(partial(evaluation_minutes, set_name=set_name), "backbone"),
        params:
            data=subpath(input.classes, ancestor=2),
            folder=subpath(output[0], parent=True),
            settings=evaluate_stage(set_name, "pretrained"),
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
