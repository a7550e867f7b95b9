# The surfaces: as they lie between their corners, or with their free control points fitted.


rule build_linear_surface:
    """Span a surface by its corners; nothing is trained."""
    input:
        corners=corner_files,
    output:
        surface=f"{REPLICATE}/surfaces/{{surface}}.safetensors",
        cost=f"{REPLICATE}/jobs/cost-{{surface}}.parquet",
    log:
        f"{REPLICATE}/log/build_linear_surface-{{surface}}.log",
    wildcard_constraints:
        surface=one_of(name for name, one in config["surfaces"].items() if one["fit"] is None),
    priority: 20
    resources:
        mem_mb=network_memory(evaluation_vectors),
        runtime=network_runtime(None),
    params:
        job=job,
        shape=shape("build_linear_surface"),
        code=code("build_linear_surface"),
    shell:
        "python -m fourfold build-linear-surface {params.job} --name {wildcards.surface}"
        " --shape {params.shape:q} --corners {input.corners} --output {output.surface}"
        " --cost {output.cost} > {log} 2>&1"


rule fit_bezier_surface:
    """Fit the free control points of a surface with its corners fixed, or all of them."""
    input:
        data=prepared_data,
        corners=corner_files,
    output:
        surface=f"{REPLICATE}/surfaces/{{surface}}.safetensors",
        training=f"{REPLICATE}/jobs/training-{{surface}}.parquet",
        cost=f"{REPLICATE}/jobs/cost-{{surface}}.parquet",
    log:
        f"{REPLICATE}/log/fit_bezier_surface-{{surface}}.log",
    wildcard_constraints:
        surface=one_of(name for name, one in config["surfaces"].items() if one["fit"] is not None),
    priority: 20
    threads: experiment_threads
    resources:
        torch_threads=experiment_threads,
        gpu=gpus,
        mem_mb=network_memory(fitting_vectors),
        runtime=network_runtime("fit_bezier_surface"),
    params:
        job=network_job,
        settings=settings("fit_bezier_surface"),
        shape=shape("fit_bezier_surface"),
        start=start,
        seed=lambda wildcards: TARGETS.fit_seed(wildcards.replicate),
        state=f"{REPLICATE}/unfinished-{{surface}}",
        code=code("fit_bezier_surface", builds_network=True),
    shell:
        "python -m fourfold fit-bezier-surface {params.job} --threads {resources.torch_threads} --seed {params.seed}"
        " --name {wildcards.surface} --shape {params.shape:q} --settings {params.settings:q}"
        " {params.start} --output {output.surface} --training {output.training}"
        " --cost {output.cost} --state {params.state} > {log} 2>&1"
