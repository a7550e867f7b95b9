# params.yaml: read, or refused with one message that says what is wrong with it.
import sys
from pathlib import Path

from fourfold.errors import InputError
from fourfold.pipeline.params_check import check_params
from fourfold.pipeline.yaml_file import check_yaml


def stop(message):
    """End with the message alone; after an exception Snakemake would add a traceback."""
    sys.exit(f"error: {message}")


_config_files = list(workflow.config_settings.configfiles)  # read already, but not yet used
if Path("params.yaml").exists():
    _config_files.append("params.yaml")  # Snakemake reads it next
elif not _config_files:
    stop(
        f"no params.yaml in {Path.cwd()}; start snakemake in a project (`fourfold init FOLDER` makes "
        "one) or in the repository, or name the folder or the file: --directory, --configfile."
    )
try:
    for _file in _config_files:
        check_yaml(_file)
except InputError as error:
    stop(error)


configfile: "params.yaml"


try:
    # All of them, with every value.
    EXPERIMENTS = check_params(config, as_text=workflow.config_settings.config)
except InputError as error:
    stop(error)
