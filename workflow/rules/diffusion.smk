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
    priority: needs("inpainted")
    threads: THREADS
    resources:
        **SETTINGS.resources.requested(GPU),
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
        " --settings {params.settings:q} --threads {params.threads}"
        f" --gpus {TAKEN}"
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
    priority: needs()
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
        index=HERE.index(TRAIN),
        parts=lambda wildcards: (
            [RUN.parts(wildcards.at)] if wildcards.view == OCCLUDED else []
        ),
    output:
        POINT.shard("latents", "{view}", "{shard}", "{shards}"),
    log:
        POINT.log("diffusion", "latents_{view}_{shard}-of-{shards}"),
    benchmark:
        POINT.benchmark("diffusion", "latents_{view}_{shard}-of-{shards}")
    wildcard_constraints:
        view=f"{TRAIN}|{OCCLUDED}",
    priority: needs("features")
    threads: THREADS
    resources:
        **SETTINGS.resources.requested(GPU),
        mem_mb=per_attempt(SETTINGS.resources.mem_mb),
        runtime=shard_runtime("latents"),
        workers=SETTINGS.resources.workers,
    params:
        folder=subpath(input.index, parent=True),
        view=lambda wildcards: view_pictures(wildcards.view),
        parts=lambda wildcards, input: ["--parts", input.parts] if input.parts else [],
        settings=stage("latents"),
        recipe=recipe("dfeat.diffusion.latents"),
        threads=THREADS,
    shell:
        "dfeat latents --index {params.folder:q} --view {params.view} {params.parts:q}"
        " --shard {wildcards.shard}/{wildcards.shards} --settings {params.settings:q}"
        " --threads {params.threads}"
        f" --gpus {TAKEN}"
        " --workers {resources.workers} --out {output:q}"
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
    wildcard_constraints:
        view=f"{TRAIN}|{OCCLUDED}",
    priority: needs("features")
    threads: THREADS
    resources:
        **SETTINGS.resources.requested(GPU),
        mem_mb=per_attempt(SETTINGS.resources.mem_mb),
        runtime=shard_runtime("features"),
    params:
        settings=stage("features"),
        recipe=recipe("dfeat.diffusion.features"),
        threads=THREADS,
    shell:
        "dfeat features --latents {input:q} --settings {params.settings:q}"
        " --threads {params.threads}"
        f" --gpus {TAKEN}"
        " --out {output:q}"
        f"{BASE} > {{log:q}} 2>&1"


# Of evaluation sets one job makes a shard of several levels. An output that stands is left to the job, which keeps it where
# it was made from the same by the same settings: a further level makes no other one again.
for made, views in RUN.level_jobs("latents"):

    rule:
        name:
            made
        input:
            index=HERE.index(view_set(views[0])),
        output:
            [
                update(POINT.shard("latents", view, "{shard}", "{shards}"))
                for view in views
            ],
        log:
            POINT.log("diffusion", f"latents_{views[0]}_{{shard}}-of-{{shards}}"),
        benchmark:
            POINT.benchmark("diffusion", f"latents_{views[0]}_{{shard}}-of-{{shards}}")
        priority: needs("features")
        threads: THREADS
        resources:
            **SETTINGS.resources.requested(GPU),
            mem_mb=per_attempt(SETTINGS.resources.mem_mb),
            runtime=shard_runtime("latents", *views),
            workers=SETTINGS.resources.workers,
        params:
            folder=subpath(input.index, parent=True),
            views=repeated("--view", map(view_pictures, views)),
            outs=lambda wildcards, output: repeated("--out", output),
            settings=latents_stage(views[0]),
            recipe=recipe("dfeat.diffusion.latents"),
            threads=THREADS,
        shell:
            "dfeat latents --index {params.folder:q} {params.views:q} --shard {wildcards.shard}/{wildcards.shards}"
            " --settings {params.settings:q} --threads {params.threads}"
            f" --gpus {TAKEN}"
            " --workers {resources.workers} {params.outs:q} --keep"
            f"{BASE} > {{log:q}} 2>&1"


for made, views in RUN.level_jobs("features"):

    rule:
        name:
            made
        input:
            latents_of(views),
        output:
            [
                update(POINT.shard("features", view, "{shard}", "{shards}"))
                for view in views
            ],
        log:
            POINT.log("diffusion", f"features_{views[0]}_{{shard}}-of-{{shards}}"),
        benchmark:
            POINT.benchmark("diffusion", f"features_{views[0]}_{{shard}}-of-{{shards}}")
        priority: needs("features")
        threads: THREADS
        resources:
            **SETTINGS.resources.requested(GPU),
            mem_mb=per_attempt(SETTINGS.resources.mem_mb),
            runtime=shard_runtime("features", *views),
        params:
            latents=lambda wildcards, input: repeated("--latents", input),
            outs=lambda wildcards, output: repeated("--out", output),
            settings=stage("features"),
            recipe=recipe("dfeat.diffusion.features"),
            threads=THREADS,
        shell:
            "dfeat features {params.latents:q} --settings {params.settings:q} --threads {params.threads}"
            f" --gpus {TAKEN}"
            " {params.outs:q} --keep"
            f"{BASE} > {{log:q}} 2>&1"
