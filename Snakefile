# The paper's whole job. Every step has one name: a rules file, a package dfeat/<step>, a folder results/<run>/<step>.
from snakemake.utils import min_version

min_version("9.10")


configfile: "config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/occlusion.smk"
include: "workflow/rules/diffusion.smk"
include: "workflow/rules/training.smk"
include: "workflow/rules/evaluation.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/points.smk"
include: "workflow/rules/ablation.smk"


rule all:
    default_target: True
    input:
        f"{RUN}/report/index.html",


rule table1:
    input:
        multiext(f"{RUN}/report/table1", ".csv", ".md", ".tex"),


rule table2:
    input:
        multiext(f"{RUN}/report/table2", ".csv", ".md", ".tex"),


rule figure2:
    input:
        multiext(f"{RUN}/report/figure2", ".png", ".svg"),


rule sheet:
    input:
        multiext(f"{RUN}/report/sheet", ".png", ".svg"),


rule figure3:
    input:
        multiext(f"{RUN}/report/figure3", ".png", ".svg"),


rule accuracy:
    input:
        multiext(f"{RUN}/report/accuracy", ".png", ".svg"),


rule gain:
    input:
        multiext(f"{RUN}/report/gain", ".png", ".svg"),


rule efficiency:
    input:
        multiext(f"{RUN}/report/efficiency", ".csv", ".json", ".md"),


rule cost:
    input:
        multiext(f"{RUN}/report/cost", ".png", ".svg"),


rule gallery:
    input:
        multiext(f"{RUN}/report/gallery", ".png", ".svg", ".json"),


rule claims:
    input:
        f"{RUN}/report/claims.md",


rule report:
    input:
        f"{RUN}/report/index.html",


rule sweep:
    input:
        multiext(f"{RUN}/report/sweep", ".csv", ".md"),


rule object_occlusion:
    input:
        multiext(f"{RUN}/report/object", ".csv", ".md"),


rule part_cost:
    input:
        multiext(f"{RUN}/report/part_cost", ".csv", ".md", ".png", ".svg"),


rule calibration:
    input:
        multiext(f"{RUN}/report/calibration", ".csv", ".md"),


rule per_class:
    input:
        multiext(f"{RUN}/report/per_class", ".csv", ".md"),


rule label_preservation:
    input:
        multiext(f"{RUN}/report/label_preservation", ".csv", ".md"),
