rule inpaint:
    input:
        index=f"{RUN}/data/train/index.csv",
        parts=f"{RUN}/occlusion/parts.json",
    output:
        f"{RUN}/diffusion/inpaint/train/{{shard}}-of-{{shards}}.h5",
    log:
        f"{RUN}/logs/diffusion/inpaint_{{shard}}-of-{{shards}}.log",
    benchmark:
        f"{RUN}/benchmarks/diffusion/inpaint_{{shard}}-of-{{shards}}.tsv"
    threads: THREADS
    resources:
        gpu=GPU,
        mem_mb=grown(SETTINGS.resources.mem_mb),
        runtime=grown(SETTINGS.resources.runtime),
        workers=SETTINGS.resources.workers,
    params:
        folder=subpath(input.index, parent=True),
        settings=stage("inpaint"),
        recipe=recipe("dfeat.diffusion.inpaint"),
        threads=THREADS,
    shell:
        "dfeat inpaint --index {params.folder:q} --parts {input.parts:q} --shard {wildcards.shard}/{wildcards.shards}"
        " --settings {params.settings:q} --threads {params.threads} --gpus {resources.gpu}"
        " --workers {resources.workers} --out {output:q} > {log:q} 2>&1"


rule inpainted_pixels:
    input:
        shards_of("inpaint", "train"),
    output:
        f"{RUN}/diffusion/inpaint/train/pixels.h5",
    log:
        f"{RUN}/logs/diffusion/inpainted_pixels.log",
    benchmark:
        f"{RUN}/benchmarks/diffusion/inpainted_pixels.tsv"
    threads: 1
    resources:
        mem_mb=grown(16000),
        runtime=grown(60),
    params:
        settings=stage("pixels"),
        recipe=recipe("dfeat.data.pixels"),
        shards=lambda wildcards, input: [
            word for shard in input for word in ("--inpainted", shard)
        ],
    shell:
        "dfeat pixels {params.shards:q} --settings {params.settings:q} --out {output:q} > {log:q} 2>&1"


rule latents:
    input:
        index=lambda wildcards: f"{RUN}/data/{view_set(wildcards)}/index.csv",
        parts=lambda wildcards: (
            [f"{RUN}/occlusion/parts.json"] if view_name(wildcards) == "parts" else []
        ),
    output:
        f"{RUN}/diffusion/latents/{{view}}/{{shard}}-of-{{shards}}.h5",
    log:
        f"{RUN}/logs/diffusion/latents_{{view}}_{{shard}}-of-{{shards}}.log",
    benchmark:
        f"{RUN}/benchmarks/diffusion/latents_{{view}}_{{shard}}-of-{{shards}}.tsv"
    threads: THREADS
    resources:
        gpu=GPU,
        mem_mb=grown(SETTINGS.resources.mem_mb),
        runtime=grown(SETTINGS.resources.runtime),
        workers=SETTINGS.resources.workers,
    params:
        folder=subpath(input.index, parent=True),
        view=view_name,
        parts=lambda wildcards, input: ["--parts", input.parts] if input.parts else [],
        settings=lambda wildcards: stage(
            "latents" if view_set(wildcards) == "train" else "test_latents",
            set_name=view_set(wildcards),
        ),
        recipe=recipe("dfeat.diffusion.latents"),
        threads=THREADS,
    shell:
        "dfeat latents --index {params.folder:q} --view {params.view} {params.parts:q}"
        " --shard {wildcards.shard}/{wildcards.shards} --settings {params.settings:q}"
        " --threads {params.threads} --gpus {resources.gpu} --workers {resources.workers} --out {output:q} > {log:q} 2>&1"


rule features:
    input:
        f"{RUN}/diffusion/latents/{{view}}/{{shard}}-of-{{shards}}.h5",
    output:
        f"{RUN}/diffusion/features/{{view}}/{{shard}}-of-{{shards}}.h5",
    log:
        f"{RUN}/logs/diffusion/features_{{view}}_{{shard}}-of-{{shards}}.log",
    benchmark:
        f"{RUN}/benchmarks/diffusion/features_{{view}}_{{shard}}-of-{{shards}}.tsv"
    threads: THREADS
    resources:
        gpu=GPU,
        mem_mb=grown(SETTINGS.resources.mem_mb),
        runtime=grown(SETTINGS.resources.runtime),
    params:
        settings=stage("features"),
        recipe=recipe("dfeat.diffusion.features"),
        threads=THREADS,
    shell:
        "dfeat features --latents {input:q} --settings {params.settings:q}"
        " --threads {params.threads} --gpus {resources.gpu} --out {output:q} > {log:q} 2>&1"
