# Tables of single jobs gathered, figures, the headline table over all experiments, and housekeeping.


rule collect_tables:
    """Gather the tables of single jobs."""
    input:
        training=job_parts("training"),
        endpoints=job_parts("endpoints"),
        cost=job_parts("cost"),
    output:
        training=f"{REPLICATE}/tables/training.parquet",
        training_csv=table_as_csv("training"),
        endpoints=f"{REPLICATE}/tables/endpoints.parquet",
        endpoints_csv=table_as_csv("endpoints"),
        cost=f"{REPLICATE}/tables/cost.parquet",
        cost_csv=table_as_csv("cost"),
    log:
        f"{REPLICATE}/log/collect_tables.log",
    resources:
        mem_mb=plain_memory,
        runtime=plain_runtime,
    params:
        code=code("collect_tables"),
        tables=lambda wildcards, output: str(Path(output.training).parent),
    shell:
        "python -m fourfold collect-tables --training {input.training} --endpoints {input.endpoints}"
        " --cost {input.cost} --output {params.tables} > {log} 2>&1"


rule plot_figures:
    """Draw the figures that each replicate has; one job, since starting seaborn costs more than a figure."""
    input:
        tables=drawn_tables,
    output:
        **drawn(*FIGURES),
    log:
        f"{REPLICATE}/log/plot_figures.log",
    resources:
        mem_mb=plain_memory,
        runtime=plain_runtime,
    params:
        code=code("plot_figures"),
        tables=lambda wildcards, input: list(
            dict.fromkeys(str(Path(file).parent) for file in input.tables)
        ),
        figures=lambda wildcards, output: str(Path(output.svg[0]).parent),
        names=lambda wildcards, output: [Path(figure).stem for figure in output.svg],
        surfaces=surfaces_as_json("plot_figures"),
    shell:
        "python -m fourfold plot-figures --tables {params.tables} --surfaces {params.surfaces:q}"
        " --figures {params.names} --output {params.figures} > {log} 2>&1"


# Figures that only some experiments have, see `Targets`.


use rule plot_figures as plot_careful with:
    output:
        **drawn("careful"),
    log:
        f"{REPLICATE}/log/plot_careful.log",


use rule plot_figures as plot_convergence with:
    input:
        tables=drawn_tables_of_all,
    output:
        png=report(
            "results/{experiment}/figures/convergence.png",
            caption="../report/convergence.rst",
            category="{experiment}",
            subcategory="figures, all replicates",
            labels={"figure": "convergence"},
        ),
        svg=["results/{experiment}/figures/convergence.svg"],
    log:
        "results/log/plot_convergence-{experiment}.log",


rule plot_plane:
    """Draw the loss on the plane through three networks; not every experiment has one."""
    input:
        plane=f"{REPLICATE}/tables/plane.parquet",
        path=f"{REPLICATE}/tables/plane_path.parquet",
    output:
        png=report(
            f"{REPLICATE}/figures/plane.png",
            caption="../report/plane.rst",
            category="{experiment}",
            subcategory="figures, replicate {replicate}",
            labels={"figure": "plane"},
        ),
        svg=f"{REPLICATE}/figures/plane.svg",
    log:
        f"{REPLICATE}/log/plot_plane.log",
    resources:
        mem_mb=plain_memory,
        runtime=plain_runtime,
    params:
        code=code("plot_plane"),
        figures=lambda wildcards, output: str(Path(output.svg).parent),
        surfaces=surfaces_as_json("plot_plane"),
    shell:
        "python -m fourfold plot-plane --plane {input.plane} --path {input.path}"
        " --surfaces {params.surfaces:q} --output {params.figures} > {log} 2>&1"


rule plot_experiments:
    """Draw the linear and the Bezier surface of all experiments of a scale side by side."""
    input:
        grid=lambda wildcards: [
            f"results/{experiment}/0/tables/grid-{surface}.parquet"
            for experiment in TARGETS.of_scale(wildcards.scale)
            for surface in TARGETS.surfaces(experiment)
        ],
    output:
        png=report(
            "results/figures/experiments-{scale}.png",
            caption="../report/experiments.rst",
            category="summary",
        ),
        svg="results/figures/experiments-{scale}.svg",
    log:
        "results/log/plot_experiments-{scale}.log",
    resources:
        mem_mb=plain_memory,
        runtime=plain_runtime,
    params:
        code=code("plot_experiments"),
        surfaces=lambda wildcards: json.dumps(
            {name: TARGETS.described(name) for name in TARGETS.of_scale(wildcards.scale)}
        ),
        cells=lambda wildcards: json.dumps(TARGETS.cells(wildcards.scale)),
        stem=lambda wildcards, output: output.svg.removesuffix(".svg"),
    shell:
        "python -m fourfold plot-experiments --grid {input.grid} --surfaces {params.surfaces:q}"
        " --cells {params.cells:q} --output {params.stem} > {log} 2>&1"


rule summarize:
    """Write the headline table over all experiments and replicates, its figure and its metrics."""
    input:
        grid=of_all_surfaces("tables/grid-{surface}.parquet"),
        barrier=TARGETS.per_replicate("tables/barrier.parquet"),
        certificate=TARGETS.per_replicate("tables/certificate.parquet"),
        ensemble=TARGETS.per_replicate("tables/ensemble.parquet"),
        merge=TARGETS.per_replicate("tables/merge.parquet"),
        geometry=TARGETS.per_replicate("tables/geometry.parquet"),
        cost=TARGETS.per_replicate("tables/cost.parquet"),
        difference=TARGETS.per_replicate("tables/difference.parquet"),
        rival=TARGETS.per_replicate("tables/rival.parquet"),
        rival_difference=TARGETS.per_replicate("tables/rival_difference.parquet"),
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
        arguments=arguments_file(surfaces=ALL_DESCRIBED),
        code=code("summarize"),
    shell:
        "python -m fourfold summarize @{params.arguments} --kept {params.kept} --output results"
        " > {log} 2>&1"


rule plot_explorer:
    """Write the page in which all experiments are explored; it needs no network to be read."""
    input:
        grid=of_all_surfaces("tables/grid-{surface}.parquet"),
        logits=of_all_surfaces("logits/{surface}.safetensors"),
        barrier=TARGETS.per_replicate("tables/barrier.parquet"),
        merge=TARGETS.per_replicate("tables/merge.parquet"),
        ensemble=TARGETS.per_replicate("tables/ensemble.parquet"),
        rival=TARGETS.per_replicate("tables/rival.parquet"),
    output:
        page="results/explorer.html",
    log:
        "results/log/plot_explorer.log",
    resources:
        mem_mb=plain_memory,
        runtime=plain_runtime,
    params:
        arguments=arguments_file(surfaces=ALL_DESCRIBED),
        code=code("plot_explorer"),
    shell:
        "python -m fourfold plot-explorer @{params.arguments} --output {output.page} > {log} 2>&1"


localrules:
    prune_results,


rule prune_results:
    """Move files of what is gone from `run` (experiments, replicates, seeds, data) to .pruned/."""
    log:
        ".snakemake/log/prune_results.log",  # in results/ it would be a change of what DVC keeps
    run:
        prune(log[0])
