# What the surfaces are good for, and how far apart their corners are. Only merges run networks.


rule compare_ensembles:
    """Evaluate ensembles, rivals at equal cost, and picks, from cached logits alone."""
    input:
        logits=per_surface("logits/{surface}.safetensors"),
        grids=per_surface("tables/grid-{surface}.parquet"),
        costs=of_replicate(
            lambda wildcards: TARGETS.trained_costs(wildcards.experiment, wildcards.replicate)
        ),
        soups=f"{REPLICATE}/soups/greedy.safetensors",
    output:
        table=f"{REPLICATE}/tables/ensemble.parquet",
        csv=table_as_csv("ensemble"),
        rival=f"{REPLICATE}/tables/rival.parquet",
        rival_csv=table_as_csv("rival"),
        rival_difference=f"{REPLICATE}/tables/rival_difference.parquet",
        rival_difference_csv=table_as_csv("rival_difference"),
        pick=f"{REPLICATE}/tables/pick.parquet",
        pick_csv=table_as_csv("pick"),
        cost=f"{REPLICATE}/jobs/cost-ensembles.parquet",
    log:
        f"{REPLICATE}/log/compare_ensembles.log",
    resources:
        mem_mb=network_memory(evaluation_vectors),
        runtime=network_runtime(None),
    params:
        job=job,
        settings=settings("compare_ensembles"),
        surfaces=surfaces_as_json("compare_ensembles"),
        code=code("compare_ensembles"),
    shell:
        "python -m fourfold compare-ensembles {params.job} --settings {params.settings:q}"
        " --surfaces {params.surfaces:q} --logits {input.logits} --grids {input.grids}"
        " --costs {input.costs} --soups {input.soups} --ensemble {output.table} --rival {output.rival}"
        " --rival-difference {output.rival_difference} --pick {output.pick}"
        " --cost {output.cost} > {log} 2>&1"


rule compare_merges:
    """Evaluate merged networks: soups of corners, centers and best points of the surfaces."""
    input:
        data=prepared_data,
        grids=per_surface("tables/grid-{surface}.parquet"),
        surfaces=per_surface("surfaces/{surface}.safetensors"),
    output:
        table=f"{REPLICATE}/tables/merge.parquet",
        csv=table_as_csv("merge"),
        soups=f"{REPLICATE}/soups/greedy.safetensors",
        cost=f"{REPLICATE}/jobs/cost-merges.parquet",
    log:
        f"{REPLICATE}/log/compare_merges.log",
    threads: experiment_threads
    resources:
        torch_threads=experiment_threads,
        gpu=gpus,
        mem_mb=network_memory(evaluation_vectors),
        runtime=network_runtime(None),
    params:
        job=network_job,
        settings=settings("compare_merges"),
        described=surfaces_as_json("compare_merges"),
        code=code("compare_merges", builds_network=True),
    shell:
        "python -m fourfold compare-merges {params.job} --threads {resources.torch_threads} --settings {params.settings:q}"
        " --surfaces {params.described:q} --grids {input.grids} --files {input.surfaces}"
        " --output {output.table} --soups {output.soups} --cost {output.cost} > {log} 2>&1"


rule measure_geometry:
    """Measure distances between control points, and barriers and certificates of the surfaces."""
    input:
        surfaces=per_surface("surfaces/{surface}.safetensors"),
        logits=per_surface("logits/{surface}.safetensors"),
        grids=per_surface("tables/grid-{surface}.parquet"),
    output:
        geometry=f"{REPLICATE}/tables/geometry.parquet",
        geometry_csv=table_as_csv("geometry"),
        barrier=f"{REPLICATE}/tables/barrier.parquet",
        barrier_csv=table_as_csv("barrier"),
        certificate=f"{REPLICATE}/tables/certificate.parquet",
        certificate_csv=table_as_csv("certificate"),
        cost=f"{REPLICATE}/jobs/cost-geometry.parquet",
    log:
        f"{REPLICATE}/log/measure_geometry.log",
    resources:
        mem_mb=network_memory(evaluation_vectors),
        runtime=network_runtime(None),
    params:
        job=job,
        code=code("measure_geometry"),
    shell:
        "python -m fourfold measure-geometry {params.job} --surfaces {input.surfaces}"
        " --logits {input.logits} --grids {input.grids} --geometry {output.geometry}"
        " --barrier {output.barrier} --certificate {output.certificate} --cost {output.cost}"
        " > {log} 2>&1"


rule measure_differences:
    """Hold each surface against its corners: the claims' differences, with bootstrap intervals."""
    input:
        logits=per_surface("logits/{surface}.safetensors"),
        examples=per_surface("examples/{surface}.safetensors"),
    output:
        table=f"{REPLICATE}/tables/difference.parquet",
        csv=table_as_csv("difference"),
        cost=f"{REPLICATE}/jobs/cost-differences.parquet",
    log:
        f"{REPLICATE}/log/measure_differences.log",
    resources:
        mem_mb=network_memory(evaluation_vectors),
        runtime=network_runtime(None),
    params:
        job=job,
        kept=config["summary"]["kept"],
        code=code("measure_differences"),
    shell:
        "python -m fourfold measure-differences {params.job} --kept {params.kept}"
        " --logits {input.logits} --examples {input.examples} --output {output.table}"
        " --cost {output.cost} > {log} 2>&1"
