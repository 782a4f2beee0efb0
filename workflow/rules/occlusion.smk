rule parts:
    input:
        index=f"{RUN}/data/train/index.csv",
        annotations=f"{RUN}/data/train/annotations.json",
    output:
        f"{RUN}/occlusion/parts.json",
    log:
        f"{RUN}/logs/occlusion/parts.log",
    benchmark:
        f"{RUN}/benchmarks/occlusion/parts.tsv"
    threads: 1
    resources:
        mem_mb=grown(2000),
        runtime=grown(30),
    params:
        folder=subpath(input.index, parent=True),
        settings=stage("parts"),
        recipe=recipe("dfeat.occlusion.parts"),
    shell:
        "dfeat parts --index {params.folder:q} --settings {params.settings:q} --out {output:q} > {log:q} 2>&1"
