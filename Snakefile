# The workflow stands in workflow/Snakefile, where catalogues and snakedeploy look for it. `include:` would drop its default
# target.
workflow.include("workflow/Snakefile", overwrite_default_target=True)
