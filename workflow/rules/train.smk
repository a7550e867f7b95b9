# The networks: independently trained ones, and those kept along their runs.


rule train_endpoint:
    """Train one network, and keep it at some points of its run."""
    input:
        data=prepared_data,
    output:
        checkpoint=f"{REPLICATE}/endpoints/seed{{seed}}.safetensors",
        trajectory=f"{REPLICATE}/trajectory/seed{{seed}}.safetensors",
        training=f"{REPLICATE}/jobs/training-seed{{seed}}.parquet",
        endpoints=f"{REPLICATE}/jobs/endpoints-seed{{seed}}.parquet",
        cost=f"{REPLICATE}/jobs/cost-seed{{seed}}.parquet",
    log:
        f"{REPLICATE}/log/train_endpoint-seed{{seed}}.log",
    priority: 30
    threads: experiment_threads
    resources:
        gpu=gpus,
        mem_mb=network_memory(training_vectors),
        runtime=network_runtime(training_epochs),
    params:
        job=network_job,
        settings=settings("train_endpoint"),
        code=code("train_endpoint", builds_network=True),
        state=f"{REPLICATE}/unfinished-seed{{seed}}",
    shell:
        "python -m fourfold train-endpoint {params.job} --threads {threads}"
        " --seed {wildcards.seed} --settings {params.settings:q}"
        " --checkpoint {output.checkpoint} --trajectory {output.trajectory}"
        " --training {output.training} --endpoints {output.endpoints} --cost {output.cost}"
        " --state {params.state} > {log} 2>&1"


rule select_trajectory_corners:
    """Choose four of the networks that one run kept, on val or in advance; nothing is trained."""
    input:
        data=prepared_data,
        trajectory=first_run,
    output:
        corners=f"{REPLICATE}/corners/{{corners}}.json",
        selection=f"{REPLICATE}/tables/selection-{{corners}}.parquet",
        csv=table_as_csv("selection-{corners}"),
        cost=f"{REPLICATE}/jobs/cost-{{corners}}-corners.parquet",
    log:
        f"{REPLICATE}/log/select_trajectory_corners-{{corners}}.log",
    priority: 20
    threads: experiment_threads
    resources:
        gpu=gpus,
        mem_mb=network_memory(evaluation_vectors),
        runtime=network_runtime(comparison_epochs),
    params:
        job=network_job,
        settings=settings("select_trajectory_corners"),
        code=code("select_trajectory_corners", builds_network=True),
    shell:
        "python -m fourfold select-trajectory-corners {params.job} --threads {threads}"
        " --settings {params.settings:q} --name {wildcards.corners}"
        " --trajectory {input.trajectory} --output {output.corners}"
        " --selection {output.selection} --cost {output.cost} > {log} 2>&1"
