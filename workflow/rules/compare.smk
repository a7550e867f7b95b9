# What the surfaces are good for, and how far apart their corners are.


rule compare_ensembles:
    """Evaluate ensembles of corners and of points of the surfaces, from cached logits alone."""
    input:
        data=prepared_data,
        logits=expand(
            f"{REPLICATE}/logits/{{surface}}.safetensors", surface=SURFACES, allow_missing=True
        ),
    output:
        table=f"{REPLICATE}/tables/ensemble.parquet",
        cost=f"{REPLICATE}/jobs/cost-ensembles.parquet",
    log:
        f"{REPLICATE}/log/compare_ensembles.log",
    threads: experiment_threads
    resources:
        gpu=gpus,
        mem_mb=network_memory(evaluation_vectors),
        runtime=network_runtime(comparison_epochs),
    params:
        job=job,
        settings=settings("model", "ensemble"),
        code=code("compare_ensembles"),
    shell:
        "python -m fourfold compare-ensembles {params.job} --threads {threads}"
        " --settings {params.settings:q} --logits {input.logits} --output {output.table}"
        " --cost {output.cost} > {log} 2>&1"


rule compare_merges:
    """Evaluate merged networks: soups of corners, centers and best points of the surfaces."""
    input:
        data=prepared_data,
        grids=expand(
            f"{REPLICATE}/tables/grid-{{surface}}.parquet", surface=SURFACES, allow_missing=True
        ),
        surfaces=expand(
            f"{REPLICATE}/surfaces/{{surface}}.safetensors",
            surface=LINEAR_SURFACES,
            allow_missing=True,
        ),
    output:
        table=f"{REPLICATE}/tables/merge.parquet",
        cost=f"{REPLICATE}/jobs/cost-merges.parquet",
    log:
        f"{REPLICATE}/log/compare_merges.log",
    threads: experiment_threads
    resources:
        gpu=gpus,
        mem_mb=network_memory(evaluation_vectors),
        runtime=network_runtime(comparison_epochs),
    params:
        job=job,
        settings=settings("model", "augment", grid=EVALUATION),
        code=code("compare_merges"),
    shell:
        "python -m fourfold compare-merges {params.job} --threads {threads} --settings {params.settings:q}"
        " --grids {input.grids} --surfaces {input.surfaces} --output {output.table}"
        " --cost {output.cost} > {log} 2>&1"


rule measure_geometry:
    """Measure distances between control points, and the barriers of the surfaces."""
    input:
        data=prepared_data,
        surfaces=expand(
            f"{REPLICATE}/surfaces/{{surface}}.safetensors", surface=SURFACES, allow_missing=True
        ),
        logits=expand(
            f"{REPLICATE}/logits/{{surface}}.safetensors", surface=SURFACES, allow_missing=True
        ),
        grids=expand(
            f"{REPLICATE}/tables/grid-{{surface}}.parquet", surface=SURFACES, allow_missing=True
        ),
    output:
        geometry=f"{REPLICATE}/tables/geometry.parquet",
        barrier=f"{REPLICATE}/tables/barrier.parquet",
        cost=f"{REPLICATE}/jobs/cost-geometry.parquet",
    log:
        f"{REPLICATE}/log/measure_geometry.log",
    threads: experiment_threads
    resources:
        gpu=gpus,
        mem_mb=network_memory(evaluation_vectors),
        runtime=network_runtime(comparison_epochs),
    params:
        job=job,
        settings=settings("model"),
        code=code("measure_geometry"),
    shell:
        "python -m fourfold measure-geometry {params.job} --threads {threads}"
        " --settings {params.settings:q} --surfaces {input.surfaces} --logits {input.logits}"
        " --grids {input.grids} --geometry {output.geometry} --barrier {output.barrier}"
        " --cost {output.cost} > {log} 2>&1"


rule measure_differences:
    """Hold each surface against its corners: the claims' differences, with bootstrap intervals."""
    input:
        data=prepared_data,
        logits=expand(
            f"{REPLICATE}/logits/{{surface}}.safetensors", surface=SURFACES, allow_missing=True
        ),
        examples=expand(
            f"{REPLICATE}/examples/{{surface}}.safetensors", surface=SURFACES, allow_missing=True
        ),
    output:
        table=f"{REPLICATE}/tables/difference.parquet",
        cost=f"{REPLICATE}/jobs/cost-differences.parquet",
    log:
        f"{REPLICATE}/log/measure_differences.log",
    threads: experiment_threads
    resources:
        gpu=gpus,
        mem_mb=network_memory(evaluation_vectors),
        runtime=network_runtime(comparison_epochs),
    params:
        job=job,
        settings=settings("model"),
        kept=config["summary"]["kept"],
        code=code("measure_differences"),
    shell:
        "python -m fourfold measure-differences {params.job} --threads {threads}"
        " --settings {params.settings:q} --kept {params.kept} --logits {input.logits}"
        " --examples {input.examples} --output {output.table} --cost {output.cost} > {log} 2>&1"
