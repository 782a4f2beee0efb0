rule demo_data:
    output:
        HERE.run / "raw" / "drawn.json",
    log:
        HERE.log("data", "demo_data"),
    benchmark:
        HERE.benchmark("data", "demo_data")
    threads: 1
    resources:
        mem_mb=per_attempt(1000),
        runtime=per_attempt(10),
    params:
        root=subpath(output[0], parent=True),
        drawn=SETTINGS.data.drawn,
        # Snakemake compares no objects, so an edit of `data.drawn` is seen in its text.
        asked=lambda wildcards: settings_text(SETTINGS.data.drawn),
        recipe=recipe("dfeat.demo.worlds"),
    shell:
        "dfeat demo-data --out {params.root:q} --seed {params.drawn.seed} --train {params.drawn.train}"
        " --val {params.drawn.val} --real {params.drawn.real}"
        " --parts {params.drawn.parts} > {log:q} 2>&1"


INDEX = (
    "index.csv",
    "problems.csv",
    "classes.json",
    "annotations.json",
    "source.json",
)
HELD_OUT = [HERE.data(HOLDOUT)] if SETTINGS.data.train.holdout else []


# One reading of the files gives both indexes, so that no image can be in both.
rule index_train:
    input:
        RAW,
    output:
        multiext(f"{HERE.data(TRAIN)}/", *INDEX),
        [folder / name for folder in HELD_OUT for name in INDEX],
    log:
        HERE.log("data", "index_train"),
    benchmark:
        HERE.benchmark("data", "index_train")
    priority: needs(data=True)
    threads: 1
    resources:
        mem_mb=per_attempt(4000),
        runtime=per_attempt(30),
    params:
        folder=subpath(output[0], parent=True),
        holdout=repeated("--holdout", HELD_OUT),
        settings=lambda wildcards: RUN.index_settings(TRAIN),
        recipe=recipe("dfeat.data.indexing"),
    shell:
        "dfeat index train --settings {params.settings:q} --out {params.folder:q} {params.holdout:q}"
        f"{BASE} > {{log:q}} 2>&1"


rule index_evaluation:
    input:
        RAW,
        classes=HERE.classes(),
    output:
        multiext(f"{HERE.data('{set}')}/", "index.csv", "problems.csv", "source.json"),
    log:
        HERE.log("data", "index_{set}"),
    benchmark:
        HERE.benchmark("data", "index_{set}")
    wildcard_constraints:
        set=f"(?!(?:{TRAIN}|{HOLDOUT})$)[A-Za-z0-9][A-Za-z0-9_.-]*",
    # Before all that waits for the training index alone: what is wrong with a set shows before hours of training.
    priority: needs(data=True, rank=1)
    threads: 1
    resources:
        mem_mb=per_attempt(4000),
        runtime=per_attempt(30),
    params:
        folder=subpath(output[0], parent=True),
        settings=lambda wildcards: RUN.index_settings(wildcards.set),
        recipe=recipe("dfeat.data.indexing"),
    shell:
        "dfeat index {wildcards.set:q} --settings {params.settings:q} --classes {input.classes:q}"
        " --out {params.folder:q}"
        f"{BASE} > {{log:q}} 2>&1"


rule pixels:
    input:
        HERE.index("{set}"),
    output:
        HERE.pixels("{set}"),
    log:
        HERE.log("data", "pixels_{set}"),
    benchmark:
        HERE.benchmark("data", "pixels_{set}")
    priority: needs()
    threads: 1
    resources:
        mem_mb=per_attempt(2000),
        runtime=per_attempt(60),
    params:
        folder=subpath(input[0], parent=True),
        settings=lambda wildcards: RUN.stage("", "pixels"),
        recipe=recipe("dfeat.data.pixels"),
    shell:
        "dfeat pixels --index {params.folder:q} --settings {params.settings:q} --out {output:q}"
        f"{BASE} > {{log:q}} 2>&1"
