# The networks: trained from the start, kept along such a run or trained on from one of those, and
# taken over from elsewhere.


rule train_endpoint:
    """Train one network, and keep it at some points of its run."""
    input:
        data=prepared_data,
    output:
        checkpoint=f"{REPLICATE}/endpoints/{{run}}.safetensors",
        trajectory=f"{REPLICATE}/trajectory/{{run}}.safetensors",
        training=f"{REPLICATE}/jobs/training-{{run}}.parquet",
        endpoints=f"{REPLICATE}/jobs/endpoints-{{run}}.parquet",
        cost=f"{REPLICATE}/jobs/cost-{{run}}.parquet",
    log:
        f"{REPLICATE}/log/train_endpoint-{{run}}.log",
    priority: 30
    threads: experiment_threads
    resources:
        torch_threads=experiment_threads,
        gpu=gpus,
        mem_mb=network_memory(training_vectors),
        runtime=network_runtime("train_endpoint"),
    params:
        job=network_job,
        settings=settings("train_endpoint"),
        seed=lambda wildcards: split_run(wildcards.run)[1],
        code=code("train_endpoint", builds_network=True),
        state=f"{REPLICATE}/unfinished-{{run}}",
    shell:
        "python -m fourfold train-endpoint {params.job} --threads {resources.torch_threads}"
        " --name {wildcards.run} --seed {params.seed} --settings {params.settings:q}"
        " --checkpoint {output.checkpoint} --trajectory {output.trajectory}"
        " --training {output.training} --endpoints {output.endpoints} --cost {output.cost}"
        " --state {params.state} > {log} 2>&1"


rule train_fork:
    """Train a network on from one that the replicate's first run has kept, in an order of its own."""
    input:
        data=prepared_data,
        trajectory=first_run,
    output:
        checkpoint=f"{REPLICATE}/endpoints/{{corners}}-{{position}}.safetensors",
        training=f"{REPLICATE}/jobs/training-{{corners}}-{{position}}.parquet",
        endpoints=f"{REPLICATE}/jobs/endpoints-{{corners}}-{{position}}.parquet",
        cost=f"{REPLICATE}/jobs/cost-{{corners}}-{{position}}.parquet",
    log:
        f"{REPLICATE}/log/train_fork-{{corners}}-{{position}}.log",
    wildcard_constraints:
        corners=corner_sets("fork"),
    priority: 30
    threads: experiment_threads
    resources:
        torch_threads=experiment_threads,
        gpu=gpus,
        mem_mb=network_memory(training_vectors),
        runtime=network_runtime("train_fork"),
    params:
        job=network_job,
        settings=settings("train_fork"),
        seed=lambda wildcards: TARGETS.corner_seeds(
            wildcards.experiment, wildcards.replicate, wildcards.corners
        )[int(wildcards.position)],
        start=fork_start,
        code=code("train_fork", builds_network=True),
        state=f"{REPLICATE}/unfinished-{{corners}}-{{position}}",
    shell:
        "python -m fourfold train-fork {params.job} --threads {resources.torch_threads}"
        " --name {wildcards.corners}-{wildcards.position} --seed {params.seed} {params.start}"
        " --settings {params.settings:q} --trajectory {input.trajectory}"
        " --checkpoint {output.checkpoint} --training {output.training}"
        " --endpoints {output.endpoints} --cost {output.cost} --state {params.state} > {log} 2>&1"


rule import_corners:
    """Take over a network that was trained elsewhere."""
    input:
        data=prepared_data,
    output:
        checkpoint=f"{REPLICATE}/endpoints/{{corners}}-{{position}}.safetensors",
        endpoints=f"{REPLICATE}/jobs/endpoints-{{corners}}-{{position}}.parquet",
        cost=f"{REPLICATE}/jobs/cost-{{corners}}-{{position}}.parquet",
    log:
        f"{REPLICATE}/log/import_corners-{{corners}}-{{position}}.log",
    wildcard_constraints:
        corners=corner_sets("files"),
    priority: 30
    threads: experiment_threads
    resources:
        torch_threads=experiment_threads,
        gpu=gpus,
        mem_mb=network_memory(evaluation_vectors),
        runtime=network_runtime(None),
    params:
        job=network_job,
        settings=settings("import_corners"),
        stated=stated_file,
        sha256=imported_hash,
        code=code("import_corners", builds_network=True),
    shell:
        "python -m fourfold import-corners {params.job} --threads {resources.torch_threads}"
        " --name {wildcards.corners}-{wildcards.position} --stated {params.stated:q}"
        " --settings {params.settings:q} --checkpoint {output.checkpoint}"
        " --endpoints {output.endpoints} --cost {output.cost} > {log} 2>&1"


rule select_trajectory_corners:
    """Choose some of the networks that one run kept, on val or in advance; nothing is trained."""
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
    wildcard_constraints:
        corners=corner_sets("run"),
    priority: 20
    threads: experiment_threads
    resources:
        torch_threads=experiment_threads,
        gpu=gpus,
        mem_mb=network_memory(evaluation_vectors),
        runtime=network_runtime(None),
    params:
        job=network_job,
        settings=settings("select_trajectory_corners"),
        code=code("select_trajectory_corners", builds_network=True),
    shell:
        "python -m fourfold select-trajectory-corners {params.job} --threads {resources.torch_threads}"
        " --settings {params.settings:q} --name {wildcards.corners}"
        " --trajectory {input.trajectory} --output {output.corners}"
        " --selection {output.selection} --cost {output.cost} > {log} 2>&1"


rule align_corners:
    """Permute and rotate the hidden units of networks so that they lie close to one another."""
    input:
        data=prepared_data,
        networks=made_from,
    output:
        networks=f"{REPLICATE}/corners/{{corners}}.safetensors",
        cost=f"{REPLICATE}/jobs/cost-{{corners}}-corners.parquet",
    log:
        f"{REPLICATE}/log/align_corners-{{corners}}.log",
    wildcard_constraints:
        corners=corner_sets("aligned"),
    priority: 20
    threads: experiment_threads
    resources:
        torch_threads=experiment_threads,
        gpu=gpus,
        mem_mb=network_memory(evaluation_vectors),
        runtime=network_runtime(None),
    params:
        job=network_job,
        settings=settings("align_corners"),
        code=code("align_corners", builds_network=True),
    shell:
        "python -m fourfold align-corners {params.job} --threads {resources.torch_threads}"
        " --settings {params.settings:q} --name {wildcards.corners} --corners {input.networks}"
        " --output {output.networks} --cost {output.cost} > {log} 2>&1"


rule randomize_corners:
    """Turn the differences between networks into random directions: a null model of them."""
    input:
        data=prepared_data,
        networks=made_from,
    output:
        networks=f"{REPLICATE}/corners/{{corners}}.safetensors",
        cost=f"{REPLICATE}/jobs/cost-{{corners}}-corners.parquet",
    log:
        f"{REPLICATE}/log/randomize_corners-{{corners}}.log",
    wildcard_constraints:
        corners=corner_sets("random"),
    priority: 20
    threads: experiment_threads
    resources:
        torch_threads=experiment_threads,
        gpu=gpus,
        mem_mb=network_memory(evaluation_vectors),
        runtime=network_runtime(None),
    params:
        job=network_job,
        settings=settings("randomize_corners"),
        seed=lambda wildcards: TARGETS.fit_seed(wildcards.replicate),
        code=code("randomize_corners", builds_network=True),
    shell:
        "python -m fourfold randomize-corners {params.job} --threads {resources.torch_threads} --seed {params.seed}"
        " --settings {params.settings:q} --name {wildcards.corners} --corners {input.networks}"
        " --output {output.networks} --cost {output.cost} > {log} 2>&1"
