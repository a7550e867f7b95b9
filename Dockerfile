# The software of every rule, for `snakemake --software-deployment-method apptainer`:
#   docker build --tag fourfold:0.1.0 .
FROM python:3.12-slim
RUN apt-get update && apt-get install --yes --no-install-recommends git && rm -rf /var/lib/apt/lists/*
WORKDIR /fourfold
COPY pyproject.toml setup.py constraints.txt README.md LICENSE ./
COPY Snakefile params.yaml dvc.yaml .gitignore .dvcignore ./
COPY .dvc/config .dvc/.gitignore .dvc/
COPY workflow workflow
COPY profiles profiles
COPY src src
RUN python -m pip install --no-cache-dir -c constraints.txt '.[pipeline]'
