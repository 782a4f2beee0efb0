rule write_table1:
    input:
        predictions(SIMULATED),
        before=pretrained_predictions(SIMULATED),
    output:
        report(
            f"{RUN}/report/table1.csv",
            caption="../report/table1.rst",
            category="Tables",
        ),
        f"{RUN}/report/table1.md",
        f"{RUN}/report/table1.tex",
    log:
        f"{RUN}/logs/report/table1.log",
    benchmark:
        f"{RUN}/benchmarks/report/table1.tsv"
    threads: 1
    resources:
        mem_mb=grown(4000),
        runtime=grown(30),
    params:
        name="table1",
        results=subpath(output[0], ancestor=2),
        folder=subpath(output[0], parent=True),
        settings=read_by_table(SIMULATED),
        recipe=recipe("dfeat.report"),
    shell:
        "dfeat table {params.name} --results {params.results:q} --settings {params.settings:q}"
        " --out {params.folder:q} > {log:q} 2>&1"


use rule write_table1 as write_table2 with:
    input:
        predictions(REAL),
        before=pretrained_predictions(REAL),
    output:
        report(
            f"{RUN}/report/table2.csv",
            caption="../report/table2.rst",
            category="Tables",
        ),
        f"{RUN}/report/table2.md",
        f"{RUN}/report/table2.tex",
    log:
        f"{RUN}/logs/report/table2.log",
    benchmark:
        f"{RUN}/benchmarks/report/table2.tsv"
    params:
        name="table2",
        results=subpath(output[0], ancestor=2),
        folder=subpath(output[0], parent=True),
        settings=read_by_table(REAL),
        recipe=recipe("dfeat.report"),


rule study:
    input:
        predictions=lambda wildcards: predictions(sets_of_study(wildcards.study)),
        sets=lambda wildcards: [
            f"{RUN}/data/{name}/index.csv" for name in sets_of_study(wildcards.study)
        ],
    output:
        report(
            f"{RUN}/report/{{study}}.csv",
            caption="../report/study.rst",
            category="Beyond the paper",
        ),
        f"{RUN}/report/{{study}}.md",
    log:
        f"{RUN}/logs/report/{{study}}.log",
    benchmark:
        f"{RUN}/benchmarks/report/{{study}}.tsv"
    wildcard_constraints:
        study="sweep|object|part_cost|calibration|per_class",
    threads: 1
    resources:
        mem_mb=grown(4000),
        runtime=grown(30),
    params:
        results=subpath(output[0], ancestor=2),
        folder=subpath(output[0], parent=True),
        settings=lambda wildcards: read_by_table(sets_of_study(wildcards.study)),
        recipe=recipe("dfeat.report"),
    shell:
        "dfeat table {wildcards.study} --results {params.results:q} --settings {params.settings:q}"
        " --out {params.folder:q} > {log:q} 2>&1"


use rule study as label_table with:
    input:
        [
            f"{RUN}/evaluation/labels/{backbone}/verdicts.{kind}"
            for backbone in SETTINGS.training.backbones
            for kind in ("csv", "json")
        ],
    wildcard_constraints:
        study="label_preservation",
    params:
        settings=read_by_table(PUBLISHED),


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
        settings=read_by_efficiency(),
        recipe=recipe("dfeat.report"),
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
        settings=read_by_table(PUBLISHED),
        recipe=recipe("dfeat.report"),
    shell:
        "dfeat table claims --results {params.results:q} --settings {params.settings:q}"
        " --out {params.folder:q} > {log:q} 2>&1"


rule plot_accuracy:
    input:
        predictions(SIMULATED),
    output:
        report(
            f"{RUN}/report/accuracy.png",
            caption="../report/accuracy.rst",
            category="Figures",
        ),
        f"{RUN}/report/accuracy.svg",
    log:
        f"{RUN}/logs/report/accuracy.log",
    benchmark:
        f"{RUN}/benchmarks/report/accuracy.tsv"
    threads: 1
    resources:
        mem_mb=grown(4000),
        runtime=grown(30),
    params:
        name="accuracy",
        results=subpath(output[0], ancestor=2),
        folder=subpath(output[0], parent=True),
        settings=read_by_table(SIMULATED),
        recipe=recipe("dfeat.report.figures.curves"),
    shell:
        "dfeat figure {params.name} --results {params.results:q} --settings {params.settings:q}"
        " --out {params.folder:q} > {log:q} 2>&1"


use rule plot_accuracy as plot_gain with:
    input:
        predictions(),
    output:
        report(
            f"{RUN}/report/gain.png",
            caption="../report/gain.rst",
            category="Figures",
        ),
        f"{RUN}/report/gain.svg",
    log:
        f"{RUN}/logs/report/gain.log",
    benchmark:
        f"{RUN}/benchmarks/report/gain.tsv"
    params:
        name="gain",
        results=subpath(output[0], ancestor=2),
        folder=subpath(output[0], parent=True),
        settings=read_by_table(PUBLISHED),
        recipe=recipe("dfeat.report.figures.curves"),


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
        name="figure2",
        results=subpath(output[0], ancestor=2),
        folder=subpath(output[0], parent=True),
        settings=whole_settings(),
        recipe=recipe("dfeat.report.figures.examples"),
    shell:
        "dfeat figure {params.name} --results {params.results:q} --settings {params.settings:q}"
        " --out {params.folder:q} > {log:q} 2>&1"


use rule show_inpainted as show_sheet with:
    output:
        report(
            f"{RUN}/report/sheet.png",
            caption="../report/sheet.rst",
            category="Figures",
        ),
        f"{RUN}/report/sheet.svg",
    log:
        f"{RUN}/logs/report/sheet.log",
    benchmark:
        f"{RUN}/benchmarks/report/sheet.tsv"
    params:
        name="sheet",
        results=subpath(output[0], ancestor=2),
        folder=subpath(output[0], parent=True),
        settings=whole_settings(),
        recipe=recipe("dfeat.report.figures.examples"),


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
        recipe=recipe("dfeat.report.figures.examples"),
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
        recipe=recipe("dfeat.report.figures.gallery"),
    shell:
        "dfeat figure gallery --results {params.results:q} --settings {params.settings:q}"
        " --out {params.folder:q} > {log:q} 2>&1"


rule plot_cost:
    input:
        f"{RUN}/report/efficiency.csv",
    output:
        report(
            f"{RUN}/report/cost.png",
            caption="../report/cost.rst",
            category="Figures",
        ),
        f"{RUN}/report/cost.svg",
    log:
        f"{RUN}/logs/report/cost.log",
    benchmark:
        f"{RUN}/benchmarks/report/cost.tsv"
    threads: 1
    resources:
        mem_mb=grown(4000),
        runtime=grown(30),
    params:
        name="cost",
        results=subpath(output[0], ancestor=2),
        folder=subpath(output[0], parent=True),
        settings=read_by_table(LEVELS),
        recipe=recipe("dfeat.report.figures.maps"),
    shell:
        "dfeat figure {params.name} --results {params.results:q} --settings {params.settings:q}"
        " --out {params.folder:q} > {log:q} 2>&1"


use rule plot_cost as plot_part_cost with:
    input:
        f"{RUN}/report/part_cost.csv",
    output:
        report(
            f"{RUN}/report/part_cost.png",
            caption="../report/part_cost.rst",
            category="Figures",
        ),
        f"{RUN}/report/part_cost.svg",
    log:
        f"{RUN}/logs/report/part_cost_figure.log",
    benchmark:
        f"{RUN}/benchmarks/report/part_cost_figure.tsv"
    params:
        name="part_cost",
        results=subpath(output[0], ancestor=2),
        folder=subpath(output[0], parent=True),
        settings=read_by_table(PUBLISHED),
        recipe=recipe("dfeat.report.figures.maps"),


rule write_report:
    input:
        tables=[
            f"{RUN}/report/{name}.{kind}"
            for name in ("table1", "table2")
            for kind in ("csv", "md", "tex")
        ],
        figures=[
            f"{RUN}/report/{name}.{kind}"
            for name in FIGURES
            for kind in ("png", "svg")
        ],
        gallery=f"{RUN}/report/gallery.json" if "gallery" in FIGURES else [],
        claims=f"{RUN}/report/claims.md",
        efficiency=(
            f"{RUN}/report/efficiency.csv"
            if "none" in SETTINGS.training.methods
            else []
        ),
        more=[f"{RUN}/report/{name}.{kind}" for name in ASKED for kind in ("csv", "md")],
        captions=collect("workflow/report/{name}.rst", name=CAPTIONS),
    output:
        multiext(f"{RUN}/report/", "config.yaml", "data_card.md", "model_card.md"),
        page=report(
            f"{RUN}/report/index.html",
            caption="../report/report.rst",
            category="Report",
        ),
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
        captions=lambda wildcards, input: Path(input.captions[0]).parent,
        settings=whole_settings(),
        templates=files_digest("dfeat.report.page", "templates"),
        recipe=recipe("dfeat.report.page"),
    shell:
        "dfeat report --results {params.results:q} --captions {params.captions:q} --settings {params.settings:q}"
        " --out {output.page:q} > {log:q} 2>&1"
