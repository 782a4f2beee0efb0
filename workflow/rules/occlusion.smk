rule parts:
    input:
        index=HERE.index(TRAIN),
        annotations=HERE.data(TRAIN) / "annotations.json",
    output:
        POINT.parts(),
    log:
        POINT.log("occlusion", "parts"),
    benchmark:
        POINT.benchmark("occlusion", "parts")
    threads: 1
    resources:
        mem_mb=per_attempt(2000),
        runtime=per_attempt(30),
    params:
        folder=subpath(input.index, parent=True),
        settings=stage("parts"),
        recipe=recipe("dfeat.occlusion.parts"),
    shell:
        "dfeat parts --index {params.folder:q} --settings {params.settings:q} --out {output:q}"
        f"{BASE} > {{log:q}} 2>&1"
