# The workflow stands in workflow/Snakefile, where catalogues and snakedeploy look for it.
include: "workflow/Snakefile"
