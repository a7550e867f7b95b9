# Every surface passes through the same evaluation.


rule evaluate_grid:
    """Evaluate a surface on a grid, along its edges and at random points, on all splits."""
    input:
        data=prepared_data,
        surface=f"{REPLICATE}/surfaces/{{surface}}.safetensors",
    output:
        table=f"{REPLICATE}/tables/grid-{{surface}}.parquet",
        csv=f"{REPLICATE}/tables/csv/grid-{{surface}}.csv",  # as large as all others in the report
        logits=f"{REPLICATE}/logits/{{surface}}.safetensors",
        examples=f"{REPLICATE}/examples/{{surface}}.safetensors",
        cost=f"{REPLICATE}/jobs/cost-{{surface}}-grid.parquet",
    log:
        f"{REPLICATE}/log/evaluate_grid-{{surface}}.log",
    priority: 10
    threads: experiment_threads
    resources:
        torch_threads=experiment_threads,
        gpu=gpus,
        mem_mb=network_memory(evaluation_vectors),
        runtime=network_runtime("evaluate_grid"),
    params:
        job=network_job,
        settings=settings("evaluate_grid"),
        code=code("evaluate_grid", builds_network=True),
    shell:
        "python -m fourfold evaluate-grid {params.job} --threads {resources.torch_threads} --settings {params.settings:q}"
        " --surface {input.surface} --output {output.table} --logits {output.logits}"
        " --examples {output.examples} --cost {output.cost} > {log} 2>&1"


rule measure_plane:
    """Evaluate the networks on the plane through three of them, and project others onto it."""
    input:
        data=prepared_data,
        surfaces=per_surface("surfaces/{surface}.safetensors"),
        runs=plane_runs,
    output:
        table=f"{REPLICATE}/tables/plane.parquet",
        csv=table_as_csv("plane"),
        path=f"{REPLICATE}/tables/plane_path.parquet",
        path_csv=table_as_csv("plane_path"),
        cost=f"{REPLICATE}/jobs/cost-plane.parquet",
    log:
        f"{REPLICATE}/log/measure_plane.log",
    threads: experiment_threads
    resources:
        torch_threads=experiment_threads,
        gpu=gpus,
        mem_mb=network_memory(plane_vectors),
        runtime=network_runtime("measure_plane"),
    params:
        job=network_job,
        settings=settings("measure_plane"),
        through=lambda wildcards: TARGETS.plane(wildcards.experiment),
        code=code("measure_plane", builds_network=True),
    shell:
        "python -m fourfold measure-plane {params.job} --threads {resources.torch_threads} --settings {params.settings:q}"
        " --through {params.through} --surfaces {input.surfaces} --runs {input.runs}"
        " --output {output.table} --path {output.path} --cost {output.cost} > {log} 2>&1"
