# The corners: independently trained networks, and checkpoints along their runs.

# Which epochs are kept differs between experiments, and names of outputs can't depend on wildcards:
# so each experiment has a rule of its own, equal but for these names. (One folder as the output would
# do with one rule, but Snakemake compares folders by their time alone, and reruns after a clone.)
for _experiment, _settings in EXPERIMENTS.items():

    rule:
        name:
            f"train_endpoint_{in_rule_name(_experiment)}"
        input:
            data=prepared_data,
        output:
            checkpoint=f"{REPLICATE}/endpoints/seed{{seed}}.safetensors",
            trajectory=expand(
                f"{REPLICATE}/trajectory/seed{{seed}}-epoch{{epoch}}.safetensors",
                epoch=_settings["endpoint"]["checkpoints"],
                allow_missing=True,
            ),
            training=f"{REPLICATE}/jobs/training-seed{{seed}}.parquet",
            endpoints=f"{REPLICATE}/jobs/endpoints-seed{{seed}}.parquet",
            cost=f"{REPLICATE}/jobs/cost-seed{{seed}}.parquet",
        log:
            f"{REPLICATE}/log/train_endpoint-seed{{seed}}.log",
        wildcard_constraints:
            experiment=re.escape(_experiment),
        priority: 20
        threads: experiment_threads
        resources:
            gpu=gpus,
            mem_mb=network_memory(training_vectors),
            runtime=network_runtime(training_epochs),
        params:
            job=job,
            settings=settings("model", "augment", "endpoint"),
            code=code("train_endpoint"),
            trajectory=lambda wildcards, output: str(Path(output.trajectory[0]).parent),
            state=f"{REPLICATE}/unfinished-seed{{seed}}",
        shell:
            "python -m fourfold train-endpoint {params.job} --threads {threads}"
            " --seed {wildcards.seed} --settings {params.settings:q}"
            " --checkpoint {output.checkpoint} --trajectory {params.trajectory}"
            " --training {output.training} --endpoints {output.endpoints} --cost {output.cost}"
            " --state {params.state} > {log} 2>&1"
