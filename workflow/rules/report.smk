CAPTIONS = beside_the_rules(
    "report", ["report.rst", *(made.caption_file for made in catalogue(SETTINGS))]
)


for made in catalogue(SETTINGS):

    rule:
        name:
            made.rule
        input:
            when_planned(partial(inputs_of, made)),
        output:
            shown_first(made, CAPTIONS),
        log:
            HERE.log("report", made.job),
        benchmark:
            HERE.benchmark("report", made.job)
        threads: 1
        resources:
            mem_mb=per_attempt(4000),
            runtime=per_attempt(made.minutes),
        params:
            command=made.command,
            results=subpath(output[0], ancestor=2),
            folder=subpath(output[0], parent=True),
            settings=when_planned(partial(made.given, SETTINGS)),
            recipe=recipe(made.recipe),
        shell:
            "dfeat {params.command} --results {params.results:q} --settings {params.settings:q}"
            " --out {params.folder:q} > {log:q} 2>&1"


for target in dict.fromkeys(made.name for made in catalogue(SETTINGS)):

    rule:
        name:
            target
        input:
            [
                file
                for made in catalogue(SETTINGS)
                if made.name == target
                for file in made.files(RUN)
            ],


rule write_report:
    input:
        made=when_planned(partial(inputs_of_page, CAPTIONS)),
        captions=sorted(CAPTIONS.glob("*.rst")),
    output:
        multiext(f"{HERE.report}/", "config.yaml", "data_card.md", "model_card.md"),
        page=report(
            HERE.report / "index.html",
            caption=str((CAPTIONS / "report.rst").absolute()),
            category="Report",
        ),
    log:
        HERE.log("report", "report"),
    benchmark:
        HERE.benchmark("report", "report")
    threads: 1
    resources:
        mem_mb=per_attempt(2000),
        runtime=per_attempt(10),
    params:
        results=subpath(output[0], ancestor=2),
        captions=lambda wildcards, input: Path(input.captions[0]).parent,
        settings=lambda wildcards: as_argument(whole_settings(SETTINGS)),
        templates=files_digest("dfeat.report.page", "templates"),
        recipe=recipe("dfeat.report.page"),
    shell:
        "dfeat report --results {params.results:q} --captions {params.captions:q} --settings {params.settings:q}"
        " --out {output.page:q} > {log:q} 2>&1"
