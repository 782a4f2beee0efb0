rule train:
    input:
        unpack(method_inputs),
        index=HERE.index(TRAIN),
        pixels=HERE.pixels(TRAIN),
        parts=lambda wildcards: RUN.parts(wildcards.at),
    output:
        multiext(
            f"{POINT.model('{method}', '{backbone}', '{seed}')}/",
            "model.safetensors",
            "metrics.jsonl",
            "run.json",
        ),
    log:
        POINT.log("training", "{method}_{backbone}_seed{seed}"),
    benchmark:
        POINT.benchmark("training", "{method}_{backbone}_seed{seed}")
    priority: needs(backbone_weights("{backbone}"))
    threads: THREADS * SETTINGS.training.gpus
    resources:
        **SETTINGS.resources.requested(GPU * SETTINGS.training.gpus),
        mem_mb=per_attempt(SETTINGS.resources.mem_mb),
        runtime=minutes(training_minutes, "backbone", "method"),
        workers=SETTINGS.resources.workers,
        checkpoint_minutes=SETTINGS.resources.checkpoint_minutes,
    params:
        data=subpath(input.index, parent=True),
        folder=subpath(output[0], parent=True),
        options=method_options,
        settings=stage("train", "backbone", "method"),
        recipe=recipe("dfeat.training.loop"),
        threads=THREADS,
    shell:
        "dfeat train --method {wildcards.method} --seed {wildcards.seed} --index {params.data:q}"
        " --pixels {input.pixels:q} --parts {input.parts:q} {params.options:q} --settings {params.settings:q}"
        " --threads {params.threads}"
        f" --gpus {TAKEN}"
        " --workers {resources.workers}"
        " --checkpoint-minutes {resources.checkpoint_minutes} --out {params.folder:q} > {log:q} 2>&1"
