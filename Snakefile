# The paper's whole job. Every step has one name: a rules file, a package dfeat/<step>, a folder results/<run>/<step>.
# Targets: `all`, `report`, and every table and figure by its name (dfeat/report/catalogue.py; `snakemake --list-rules`).
from pathlib import Path

from snakemake.utils import min_version

min_version("9.10")


include: "workflow/rules/configuration.smk"


# The working folder's own configuration, or else the project's.
OWN = "config.yaml"
CONFIGURATION = OWN if Path(OWN).exists() else str(workflow.source_path(OWN))


if planned_settings() is None:
    check_configuration(CONFIGURATION)
    if Path(PINNED).exists():

        configfile: str(PINNED)
    configfile: CONFIGURATION


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/occlusion.smk"
include: "workflow/rules/diffusion.smk"
include: "workflow/rules/training.smk"
include: "workflow/rules/evaluation.smk"
include: "workflow/rules/report.smk"


# Once a run is planned, before its first job: a dry run has no hooks, and jobs have none.
onstart:
    mark_under_way(HERE.run)
    exit_on_user_error(write_expected, RUN)
    if workflow.non_local_exec:
        hand_over(SETTINGS)


rule all:
    default_target: True
    input:
        HERE.report / "index.html",


rule report:
    input:
        HERE.report / "index.html",
