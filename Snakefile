# Main entry point: `snakemake --cores N` builds everything that `run:` in params.yaml names.
from snakemake.utils import min_version

import fourfold

min_version("9.20")


# Used only with --software-deployment-method apptainer; the Dockerfile makes the image.
container: f"docker-daemon://fourfold:{fourfold.__version__}"


include: "workflow/rules/params.smk"
include: "workflow/rules/common.smk"
include: "workflow/rules/resources.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/surface.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/compare.smk"
include: "workflow/rules/records.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/progress.smk"


report: "workflow/report/workflow.rst"


onstart:
    check_writable()
    hold_folder()
    warn_of_bfloat16()
    lift_rate_limit()
    tell_plan()


onerror:
    tell_end()
    explain_kill(log)


onsuccess:
    tell_end()
    print_headline()


rule all:
    """Build the tables and figures of every experiment in `run:`, and the headline table."""
    default_target: True
    input:
        TARGETS.all_results(),
