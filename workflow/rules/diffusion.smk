rule inpaint:
    input:
        index=HERE.index(TRAIN),
        parts=lambda wildcards: RUN.parts(wildcards.at),
    output:
        POINT.shard("inpaint", TRAIN, "{shard}", "{shards}"),
    log:
        POINT.log("diffusion", "inpaint_{shard}-of-{shards}"),
    benchmark:
        POINT.benchmark("diffusion", "inpaint_{shard}-of-{shards}")
    threads: THREADS
    resources:
        gpu=GPU,
        mem_mb=per_attempt(SETTINGS.resources.mem_mb),
        runtime=shard_runtime("inpaint", TRAIN),
        workers=SETTINGS.resources.workers,
    params:
        folder=subpath(input.index, parent=True),
        settings=stage("inpaint"),
        recipe=recipe("dfeat.diffusion.inpaint"),
        threads=THREADS,
    shell:
        "dfeat inpaint --index {params.folder:q} --parts {input.parts:q} --shard {wildcards.shard}/{wildcards.shards}"
        " --settings {params.settings:q} --threads {params.threads} --gpus {resources.gpu}"
        " --workers {resources.workers} --out {output:q}"
        f"{BASE} > {{log:q}} 2>&1"


rule inpainted_pixels:
    input:
        lambda wildcards: RUN.shards(wildcards.at, "inpaint", TRAIN),
    output:
        POINT.inpainted(),
    log:
        POINT.log("diffusion", "inpainted_pixels"),
    benchmark:
        POINT.benchmark("diffusion", "inpainted_pixels")
    threads: 1
    resources:
        mem_mb=per_attempt(16000),
        runtime=per_attempt(60),
    params:
        settings=stage("pixels"),
        recipe=recipe("dfeat.data.pixels"),
        shards=lambda wildcards, input: repeated("--inpainted", input),
    shell:
        "dfeat pixels {params.shards:q} --settings {params.settings:q} --out {output:q}"
        f"{BASE} > {{log:q}} 2>&1"


rule latents:
    input:
        index=lambda wildcards: HERE.index(view_set(wildcards.view)),
        parts=lambda wildcards: (
            [RUN.parts(wildcards.at)] if wildcards.view == OCCLUDED else []
        ),
    output:
        POINT.shard("latents", "{view}", "{shard}", "{shards}"),
    log:
        POINT.log("diffusion", "latents_{view}_{shard}-of-{shards}"),
    benchmark:
        POINT.benchmark("diffusion", "latents_{view}_{shard}-of-{shards}")
    threads: THREADS
    resources:
        gpu=GPU,
        mem_mb=per_attempt(SETTINGS.resources.mem_mb),
        runtime=shard_runtime("latents"),
        workers=SETTINGS.resources.workers,
    params:
        folder=subpath(input.index, parent=True),
        view=lambda wildcards: view_pictures(wildcards.view),
        parts=lambda wildcards, input: ["--parts", input.parts] if input.parts else [],
        settings=lambda wildcards: RUN.latents_stage(wildcards.at, wildcards.view),
        recipe=recipe("dfeat.diffusion.latents"),
        threads=THREADS,
    shell:
        "dfeat latents --index {params.folder:q} --view {params.view} {params.parts:q}"
        " --shard {wildcards.shard}/{wildcards.shards} --settings {params.settings:q}"
        " --threads {params.threads} --gpus {resources.gpu} --workers {resources.workers} --out {output:q}"
        f"{BASE} > {{log:q}} 2>&1"


rule features:
    input:
        lambda wildcards: RUN.source(
            wildcards.at, "latents", view=wildcards.view
        ).shard("latents", wildcards.view, wildcards.shard, wildcards.shards),
    output:
        POINT.shard("features", "{view}", "{shard}", "{shards}"),
    log:
        POINT.log("diffusion", "features_{view}_{shard}-of-{shards}"),
    benchmark:
        POINT.benchmark("diffusion", "features_{view}_{shard}-of-{shards}")
    threads: THREADS
    resources:
        gpu=GPU,
        mem_mb=per_attempt(SETTINGS.resources.mem_mb),
        runtime=shard_runtime("features"),
    params:
        settings=stage("features"),
        recipe=recipe("dfeat.diffusion.features"),
        threads=THREADS,
    shell:
        "dfeat features --latents {input:q} --settings {params.settings:q}"
        " --threads {params.threads} --gpus {resources.gpu} --out {output:q}"
        f"{BASE} > {{log:q}} 2>&1"
