rule table:
    input:
        lambda wildcards: predictions(
            SIMULATED if wildcards.table == "table1" else REAL
        ),
        before=lambda wildcards: pretrained_predictions(
            SIMULATED if wildcards.table == "table1" else REAL
        ),
    output:
        report(
            f"{RUN}/report/{{table}}.csv",
            caption="../report/{table}.rst",
            category="Tables",
        ),
        f"{RUN}/report/{{table}}.md",
        f"{RUN}/report/{{table}}.tex",
    log:
        f"{RUN}/logs/report/{{table}}.log",
    benchmark:
        f"{RUN}/benchmarks/report/{{table}}.tsv"
    wildcard_constraints:
        table="table[12]",
    threads: 1
    resources:
        mem_mb=grown(4000),
        runtime=grown(30),
    params:
        results=subpath(output[0], ancestor=2),
        folder=subpath(output[0], parent=True),
        settings=lambda wildcards: read_by_table(
            SIMULATED if wildcards.table == "table1" else REAL
        ),
        recipe=recipe("dfeat.evaluation"),
    shell:
        "dfeat table {wildcards.table} --results {params.results:q} --settings {params.settings:q}"
        " --out {params.folder:q} > {log:q} 2>&1"


rule measure_efficiency:
    input:
        predictions(),
        [f"{RUN}/data/{name}/index.csv" for name in ("train", *LEVELS)],
    output:
        report(
            f"{RUN}/report/efficiency.csv",
            caption="../report/efficiency.rst",
            category="Tables",
        ),
        multiext(f"{RUN}/report/efficiency", ".json", ".md"),
    log:
        f"{RUN}/logs/report/efficiency.log",
    benchmark:
        f"{RUN}/benchmarks/report/efficiency.tsv"
    threads: 1
    resources:
        mem_mb=grown(4000),
        runtime=grown(30),
    params:
        results=subpath(output[0], ancestor=2),
        folder=subpath(output[0], parent=True),
        settings=whole_settings(),
        recipe=recipe("dfeat.evaluation"),
    shell:
        "dfeat table efficiency --results {params.results:q} --settings {params.settings:q}"
        " --out {params.folder:q} > {log:q} 2>&1"


rule write_claims:
    input:
        predictions(),
        # without None nothing is compared, neither in accuracy nor in cost
        (f"{RUN}/report/efficiency.json" if "none" in SETTINGS.training.methods else []),
    output:
        report(
            f"{RUN}/report/claims.md",
            caption="../report/claims.rst",
            category="Claims",
        ),
    log:
        f"{RUN}/logs/report/claims.log",
    benchmark:
        f"{RUN}/benchmarks/report/claims.tsv"
    threads: 1
    resources:
        mem_mb=grown(4000),
        runtime=grown(30),
    params:
        results=subpath(output[0], ancestor=2),
        folder=subpath(output[0], parent=True),
        settings=read_by_table(LEVELS),
        recipe=recipe("dfeat.evaluation"),
    shell:
        "dfeat table claims --results {params.results:q} --settings {params.settings:q}"
        " --out {params.folder:q} > {log:q} 2>&1"


rule plot:
    input:
        lambda wildcards: predictions(
            SIMULATED if wildcards.figure == "accuracy" else None
        ),
    output:
        report(
            f"{RUN}/report/{{figure}}.png",
            caption="../report/{figure}.rst",
            category="Figures",
        ),
        f"{RUN}/report/{{figure}}.svg",
    log:
        f"{RUN}/logs/report/{{figure}}.log",
    benchmark:
        f"{RUN}/benchmarks/report/{{figure}}.tsv"
    wildcard_constraints:
        figure="accuracy|gain",
    threads: 1
    resources:
        mem_mb=grown(4000),
        runtime=grown(30),
    params:
        results=subpath(output[0], ancestor=2),
        folder=subpath(output[0], parent=True),
        settings=whole_settings(),
        recipe=recipe("dfeat.evaluation"),
    shell:
        "dfeat figure {wildcards.figure} --results {params.results:q} --settings {params.settings:q}"
        " --out {params.folder:q} > {log:q} 2>&1"


rule show_inpainted:
    input:
        index=f"{RUN}/data/train/index.csv",
        parts=f"{RUN}/occlusion/parts.json",
        shards=shards_of("inpaint", "train"),
    output:
        report(
            f"{RUN}/report/figure2.png",
            caption="../report/figure2.rst",
            category="Figures",
        ),
        f"{RUN}/report/figure2.svg",
    log:
        f"{RUN}/logs/report/figure2.log",
    benchmark:
        f"{RUN}/benchmarks/report/figure2.tsv"
    threads: 1
    resources:
        mem_mb=grown(4000),
        runtime=grown(30),
    params:
        results=subpath(output[0], ancestor=2),
        folder=subpath(output[0], parent=True),
        settings=whole_settings(),
        recipe=recipe("dfeat.evaluation.pictures"),
    shell:
        "dfeat figure figure2 --results {params.results:q} --settings {params.settings:q}"
        " --out {params.folder:q} > {log:q} 2>&1"


rule show_test_sets:
    input:
        [f"{RUN}/data/{name}/index.csv" for name in LEVELS],
    output:
        report(
            f"{RUN}/report/figure3.png",
            caption="../report/figure3.rst",
            category="Figures",
        ),
        f"{RUN}/report/figure3.svg",
    log:
        f"{RUN}/logs/report/figure3.log",
    benchmark:
        f"{RUN}/benchmarks/report/figure3.tsv"
    threads: 1
    resources:
        mem_mb=grown(4000),
        runtime=grown(30),
    params:
        results=subpath(output[0], ancestor=2),
        folder=subpath(output[0], parent=True),
        settings=whole_settings(),
        recipe=recipe("dfeat.evaluation.pictures"),
    shell:
        "dfeat figure figure3 --results {params.results:q} --settings {params.settings:q}"
        " --out {params.folder:q} > {log:q} 2>&1"


rule show_gallery:
    input:
        index=f"{RUN}/data/train/index.csv",
        parts=f"{RUN}/occlusion/parts.json",
        pixels=f"{RUN}/data/train/pixels.h5",
        inpainted=f"{RUN}/diffusion/inpaint/train/pixels.h5",
    output:
        report(
            f"{RUN}/report/gallery.png",
            caption="../report/gallery.rst",
            category="Figures",
        ),
        f"{RUN}/report/gallery.svg",
        f"{RUN}/report/gallery.json",
    log:
        f"{RUN}/logs/report/gallery.log",
    benchmark:
        f"{RUN}/benchmarks/report/gallery.tsv"
    threads: 1
    resources:
        mem_mb=grown(4000),
        runtime=grown(60),
    params:
        results=subpath(output[0], ancestor=2),
        folder=subpath(output[0], parent=True),
        settings=whole_settings(),
        recipe=recipe("dfeat.evaluation.gallery"),
    shell:
        "dfeat figure gallery --results {params.results:q} --settings {params.settings:q}"
        " --out {params.folder:q} > {log:q} 2>&1"


rule write_report:
    input:
        tables=[
            f"{RUN}/report/{name}.{kind}"
            for name in ("table1", "table2")
            for kind in ("csv", "md", "tex")
        ],
        figures=[
            f"{RUN}/report/{name}.{kind}"
            for name in ("figure2", "figure3", "accuracy", "gain", "gallery")
            for kind in ("png", "svg")
        ],
        gallery=f"{RUN}/report/gallery.json",
        claims=f"{RUN}/report/claims.md",
        captions=collect("workflow/report/{name}.rst", name=CAPTIONS),
    output:
        report(
            f"{RUN}/report/index.html",
            caption="../report/report.rst",
            category="Report",
        ),
        f"{RUN}/report/config.yaml",
    log:
        f"{RUN}/logs/report/report.log",
    benchmark:
        f"{RUN}/benchmarks/report/report.tsv"
    threads: 1
    resources:
        mem_mb=grown(2000),
        runtime=grown(10),
    params:
        results=subpath(output[0], ancestor=2),
        captions="workflow/report",
        settings=whole_settings(),
        templates=files_digest("dfeat.evaluation.report", "templates"),
        recipe=recipe("dfeat.evaluation.report"),
    shell:
        "dfeat report --results {params.results:q} --captions {params.captions:q} --settings {params.settings:q}"
        " --out {output[0]:q} > {log:q} 2>&1"
