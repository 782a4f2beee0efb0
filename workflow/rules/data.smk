rule demo_data:
    output:
        f"{RUN}/raw/drawn.json",
    log:
        f"{RUN}/logs/data/demo_data.log",
    benchmark:
        f"{RUN}/benchmarks/data/demo_data.tsv"
    threads: 1
    resources:
        mem_mb=grown(1000),
        runtime=grown(10),
    params:
        root=subpath(output[0], parent=True),
        drawn=SETTINGS.data.drawn,
        recipe=recipe("dfeat.demo.worlds"),
    shell:
        "dfeat demo-data --out {params.root:q} --seed {params.drawn.seed} --train {params.drawn.train}"
        " --val {params.drawn.val} --real {params.drawn.real}"
        " --parts {params.drawn.parts} > {log:q} 2>&1"


rule index_train:
    input:
        RAW,
    output:
        multiext(
            f"{RUN}/data/train/",
            "index.csv",
            "problems.csv",
            "classes.json",
            "annotations.json",
            "source.json",
        ),
    log:
        f"{RUN}/logs/data/index_train.log",
    benchmark:
        f"{RUN}/benchmarks/data/index_train.tsv"
    threads: 1
    resources:
        mem_mb=grown(4000),
        runtime=grown(30),
    params:
        folder=subpath(output[0], parent=True),
        settings=set_settings("train"),
        recipe=recipe("dfeat.data.index"),
    shell:
        "dfeat index train --settings {params.settings:q} --out {params.folder:q} > {log:q} 2>&1"


rule index_evaluation:
    input:
        RAW,
        classes=f"{RUN}/data/train/classes.json",
    output:
        multiext(f"{RUN}/data/{{set}}/", "index.csv", "problems.csv", "source.json"),
    log:
        f"{RUN}/logs/data/index_{{set}}.log",
    benchmark:
        f"{RUN}/benchmarks/data/index_{{set}}.tsv"
    wildcard_constraints:
        set="(?!train$)[A-Za-z0-9][A-Za-z0-9_.-]*",
    threads: 1
    resources:
        mem_mb=grown(4000),
        runtime=grown(30),
    params:
        folder=subpath(output[0], parent=True),
        settings=lambda wildcards: set_settings(wildcards.set),
        recipe=recipe("dfeat.data.index"),
    shell:
        "dfeat index {wildcards.set:q} --settings {params.settings:q} --classes {input.classes:q}"
        " --out {params.folder:q} > {log:q} 2>&1"


rule pixels:
    input:
        f"{RUN}/data/{{set}}/index.csv",
    output:
        f"{RUN}/data/{{set}}/pixels.h5",
    log:
        f"{RUN}/logs/data/pixels_{{set}}.log",
    benchmark:
        f"{RUN}/benchmarks/data/pixels_{{set}}.tsv"
    threads: 1
    resources:
        mem_mb=grown(2000),
        runtime=grown(60),
    params:
        folder=subpath(input[0], parent=True),
        settings=stage("pixels"),
        recipe=recipe("dfeat.data.pixels"),
    shell:
        "dfeat pixels --index {params.folder:q} --settings {params.settings:q} --out {output:q} > {log:q} 2>&1"
