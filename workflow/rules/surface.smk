# The surfaces: linear through independent networks, optimized, and linear through one run.


rule build_linear_surface:
    """Span the bilinear surface by the four corners; nothing is trained."""
    input:
        data=prepared_data,
        corners=per_seed("endpoints/seed{seed}.safetensors"),
    output:
        surface=f"{REPLICATE}/surfaces/linear.safetensors",
        cost=f"{REPLICATE}/jobs/cost-linear.parquet",
    log:
        f"{REPLICATE}/log/build_linear_surface.log",
    threads: experiment_threads
    resources:
        gpu=gpus,
        mem_mb=network_memory(evaluation_vectors),
        runtime=network_runtime(comparison_epochs),
    params:
        job=job,
        settings=settings("model"),
        code=code("build_linear_surface"),
    shell:
        "python -m fourfold build-linear-surface {params.job} --threads {threads}"
        " --settings {params.settings:q} --corners {input.corners} --output {output.surface}"
        " --cost {output.cost} > {log} 2>&1"


rule fit_bezier_surface:
    """Fit the free control points of a Bezier surface with the four corners fixed."""
    input:
        data=prepared_data,
        corners=per_seed("endpoints/seed{seed}.safetensors"),
    output:
        surface=f"{REPLICATE}/surfaces/bezier.safetensors",
        training=f"{REPLICATE}/jobs/training-bezier.parquet",
        cost=f"{REPLICATE}/jobs/cost-bezier-fit.parquet",
    log:
        f"{REPLICATE}/log/fit_bezier_surface.log",
    priority: 10
    threads: experiment_threads
    resources:
        gpu=gpus,
        mem_mb=network_memory(fitting_vectors),
        runtime=network_runtime(fitting_epochs),
    params:
        job=job,
        settings=settings("model", "augment", "bezier"),
        seed=lambda wildcards: (
            EXPERIMENTS[wildcards.experiment]["seeds"]["bezier"] + int(wildcards.replicate)
        ),
        state=f"{REPLICATE}/unfinished-bezier",
        code=code("fit_bezier_surface"),
    shell:
        "python -m fourfold fit-bezier-surface {params.job} --threads {threads} --seed {params.seed}"
        " --settings {params.settings:q} --corners {input.corners} --output {output.surface}"
        " --training {output.training} --cost {output.cost} --state {params.state} > {log} 2>&1"


rule select_trajectory_surface:
    """Span the bilinear surface by four selected checkpoints of one run; nothing is trained."""
    input:
        data=prepared_data,
        checkpoints=first_run_checkpoints,
    output:
        surface=f"{REPLICATE}/surfaces/trajectory.safetensors",
        selection=f"{REPLICATE}/tables/selection.parquet",
        cost=f"{REPLICATE}/jobs/cost-trajectory-select.parquet",
    log:
        f"{REPLICATE}/log/select_trajectory_surface.log",
    threads: experiment_threads
    resources:
        gpu=gpus,
        mem_mb=network_memory(evaluation_vectors),
        runtime=network_runtime(comparison_epochs),
    params:
        job=job,
        settings=settings("model", "augment", "trajectory", grid=EVALUATION),
        code=code("select_trajectory_surface"),
    shell:
        "python -m fourfold select-trajectory-surface {params.job} --threads {threads}"
        " --settings {params.settings:q} --checkpoints {input.checkpoints}"
        " --output {output.surface} --selection {output.selection} --cost {output.cost}"
        " > {log} 2>&1"
