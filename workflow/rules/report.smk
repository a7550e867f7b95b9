# Tables of single jobs gathered, figures, the headline table over all experiments, and housekeeping.


rule collect_tables:
    """Gather the tables of single jobs, and write every table of a replicate as CSV as well."""
    input:
        training=lambda wildcards: [
            *per_seed("jobs/training-seed{seed}.parquet")(wildcards),
            f"{REPLICATE}/jobs/training-bezier.parquet".format(**wildcards),
        ],
        endpoints=per_seed("jobs/endpoints-seed{seed}.parquet"),
        cost=lambda wildcards: [
            *per_seed("jobs/cost-seed{seed}.parquet")(wildcards),
            *expand(f"{REPLICATE}/jobs/cost-{{item}}.parquet", item=COST_ITEMS, **wildcards),
        ],
        tables=expand(
            f"{REPLICATE}/tables/{{table}}.parquet",
            table=[table for table in TABLES if table not in GATHERED_TABLES],
            allow_missing=True,
        ),
    output:
        gathered=expand(
            f"{REPLICATE}/tables/{{table}}.parquet", table=GATHERED_TABLES, allow_missing=True
        ),
        csv=report(
            expand(f"{REPLICATE}/tables/csv/{{table}}.csv", table=TABLES, allow_missing=True),
            caption="../report/tables.rst",
            category="{experiment}",
            subcategory="tables, replicate {replicate}",
        ),
    log:
        f"{REPLICATE}/log/collect_tables.log",
    resources:
        mem_mb=plain_memory,
        runtime=plain_runtime,
    params:
        code=code("collect_tables"),
        tables=lambda wildcards, output: str(Path(output.gathered[0]).parent),
    shell:
        "python -m fourfold collect-tables --training {input.training} --endpoints {input.endpoints}"
        " --cost {input.cost} --tables {input.tables} --output {params.tables} > {log} 2>&1"


rule plot_figures:
    """Draw all figures of one replicate; one job, since starting seaborn costs more than a figure."""
    input:
        grids=expand(
            f"{REPLICATE}/tables/grid-{{surface}}.parquet", surface=SURFACES, allow_missing=True
        ),
        tables=expand(
            f"{REPLICATE}/tables/{{table}}.parquet",
            table=["merge", "ensemble", "difference", "geometry", "training", "endpoints"],
            allow_missing=True,
        ),
    output:
        **{
            figure: report(
                f"{REPLICATE}/figures/{figure}.png",
                caption=f"../report/{figure}.rst",
                category="{experiment}",
                subcategory="figures, replicate {replicate}",
                labels={"figure": figure},
            )
            for figure in FIGURES
        },
        svg=expand(f"{REPLICATE}/figures/{{figure}}.svg", figure=FIGURES, allow_missing=True),
    log:
        f"{REPLICATE}/log/plot_figures.log",
    resources:
        mem_mb=plain_memory,
        runtime=plain_runtime,
    params:
        code=code("plot_figures"),
        tables=lambda wildcards, input: str(Path(input.tables[0]).parent),
        figures=lambda wildcards, output: str(Path(output.svg[0]).parent),
        surfaces=SURFACES,
    shell:
        "python -m fourfold plot-figures --tables {params.tables} --surfaces {params.surfaces}"
        " --output {params.figures} > {log} 2>&1"


rule summarize:
    """Write the headline table over all experiments and replicates, its figure and its metrics."""
    input:
        grid=per_replicate("tables/grid-{surface}.parquet", surface=SURFACES),
        barrier=per_replicate("tables/barrier.parquet"),
        ensemble=per_replicate("tables/ensemble.parquet"),
        merge=per_replicate("tables/merge.parquet"),
        geometry=per_replicate("tables/geometry.parquet"),
        cost=per_replicate("tables/cost.parquet"),
        difference=per_replicate("tables/difference.parquet"),
    output:
        table="results/summary.parquet",
        text="results/summary.md",
        metrics="results/metrics.json",
        csv=report("results/summary.csv", caption="../report/summary.rst", category="summary"),
        figure=report(
            "results/figures/summary.png", caption="../report/summary.rst", category="summary"
        ),
        svg="results/figures/summary.svg",
    log:
        "results/log/summarize.log",
    resources:
        mem_mb=plain_memory,
        runtime=plain_runtime,
    params:
        kept=config["summary"]["kept"],
        code=code("summarize"),
    shell:
        "python -m fourfold summarize --grid {input.grid} --barrier {input.barrier}"
        " --ensemble {input.ensemble} --merge {input.merge}"
        " --geometry {input.geometry} --cost {input.cost} --difference {input.difference}"
        " --kept {params.kept} --output results > {log} 2>&1"


rule record_hashes:
    """Record the hashes of all files of a replicate, for `fourfold verify`."""
    input:
        files=lambda wildcards: replicate_files(**wildcards),
    output:
        f"{REPLICATE}/hashes.json",
    log:
        f"{REPLICATE}/log/record_hashes.log",
    resources:
        mem_mb=plain_memory,
        runtime=plain_runtime,
    params:
        folder=REPLICATE,
        code=code("record_hashes"),
    shell:
        "python -m fourfold record-hashes --files {input.files} --folder {params.folder}"
        " > {log} 2>&1"


rule record_summary_hashes:
    """Record the hashes of the files over all experiments."""
    input:
        files=SUMMARY,
    output:
        "results/hashes.json",
    log:
        "results/log/record_summary_hashes.log",
    resources:
        mem_mb=plain_memory,
        runtime=plain_runtime,
    params:
        code=code("record_hashes"),
    shell:
        "python -m fourfold record-hashes --files {input.files} --folder results > {log} 2>&1"


localrules:
    prune_results,


rule prune_results:
    """Move files of what is gone from `run` (experiments, replicates, seeds, data) to .pruned/."""
    log:
        "results/log/prune_results.log",
    run:
        prune()
