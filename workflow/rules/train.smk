# The corners: independently trained networks, and checkpoints along their runs.


rule train_endpoint:
    """Train one network and keep checkpoints of it along the way."""
    input:
        data=prepared_data,
    output:
        checkpoint=f"{REPLICATE}/endpoints/seed{{seed}}.safetensors",
        trajectory=directory(f"{REPLICATE}/trajectory/seed{{seed}}"),
        training=f"{REPLICATE}/jobs/training-seed{{seed}}.parquet",
        endpoints=f"{REPLICATE}/jobs/endpoints-seed{{seed}}.parquet",
        cost=f"{REPLICATE}/jobs/cost-seed{{seed}}.parquet",
    log:
        f"{REPLICATE}/log/train_endpoint-seed{{seed}}.log",
    priority: 20
    threads: experiment_threads
    params:
        job=job,
        settings=settings("model", "augment", "endpoint"),
        code=code("train_endpoint"),
    shell:
        "python -m fourfold train-endpoint {params.job} --threads {threads} --seed {wildcards.seed}"
        " --settings {params.settings:q} --checkpoint {output.checkpoint}"
        " --trajectory {output.trajectory} --training {output.training}"
        " --endpoints {output.endpoints} --cost {output.cost} > {log} 2>&1"
