rule train:
    input:
        unpack(method_inputs),
        index=f"{RUN}/data/train/index.csv",
        pixels=f"{RUN}/data/train/pixels.h5",
        parts=f"{RUN}/occlusion/parts.json",
    output:
        multiext(
            f"{RUN}/training/{{method}}/{{backbone}}/seed{{seed}}/",
            "model.safetensors",
            "metrics.jsonl",
            "run.json",
        ),
    log:
        f"{RUN}/logs/training/{{method}}_{{backbone}}_seed{{seed}}.log",
    benchmark:
        f"{RUN}/benchmarks/training/{{method}}_{{backbone}}_seed{{seed}}.tsv"
    threads: THREADS * SETTINGS.training.gpus
    resources:
        gpu=GPU * SETTINGS.training.gpus,
        mem_mb=grown(SETTINGS.resources.mem_mb),
        runtime=lambda wildcards, attempt: attempt
        * training_minutes(SETTINGS, wildcards.backbone, wildcards.method),
    params:
        data=subpath(input.index, parent=True),
        folder=subpath(output[0], parent=True),
        options=method_options,
        settings=lambda wildcards: stage("train", wildcards.backbone, wildcards.method),
        recipe=recipe("dfeat.training.loop"),
        threads=THREADS,
        workers=SETTINGS.resources.workers,
    shell:
        "dfeat train --method {wildcards.method} --seed {wildcards.seed} --index {params.data:q}"
        " --pixels {input.pixels:q} --parts {input.parts:q} {params.options:q} --settings {params.settings:q}"
        " --threads {params.threads} --gpus {resources.gpu} --workers {params.workers} --out {params.folder:q} > {log:q} 2>&1"
