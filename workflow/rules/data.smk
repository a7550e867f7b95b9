# Data sets, shared by all experiments on them.


rule prepare_data:
    """Decode a data set once, split it, and store the splits as uint8 tensors."""
    output:
        expand("data/{{dataset}}/{split}.safetensors", split=SPLITS),
    log:
        "results/log/prepare_data-{dataset}.log",
    threads: 2
    resources:
        mem_mb=data_memory,
        runtime=data_runtime,
    params:
        settings=lambda wildcards: json.dumps(config["datasets"][wildcards.dataset], sort_keys=True),
        code=code("prepare_data"),
    shell:
        "python -m fourfold prepare-data --name {wildcards.dataset} --settings {params.settings:q}"
        " --output data/{wildcards.dataset} --threads {threads} > {log} 2>&1"


rule data:
    """Prepare the data sets of the experiments in `run`."""
    input:
        TARGETS.data_files(),
