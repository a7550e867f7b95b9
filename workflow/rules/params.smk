# params.yaml: read, or refused with one message that says what is wrong with it.
import math
import sys
from pathlib import Path

import yaml
from jsonschema import Draft202012Validator, validators

from fourfold.errors import InputError
from fourfold.pipeline.yaml_file import check_yaml


def stop(message):
    """End with the message alone; after an exception Snakemake would add a traceback."""
    sys.exit(f"error: {message}")


_config_files = list(workflow.config_settings.configfiles)  # read already, but not yet used
if Path("params.yaml").exists():
    _config_files.append("params.yaml")  # Snakemake reads it next
elif not _config_files:
    stop(
        f"no params.yaml in {Path.cwd()}; start snakemake in the repository, or name the folder or "
        "the file: --directory, --configfile."
    )
try:
    for _file in _config_files:
        check_yaml(_file)
except InputError as error:
    stop(error)


configfile: "params.yaml"


def is_integer(checker, value):
    """Return whether a value can count something; 4.0, an integer for JSON, would fail in a job."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(checker, value):
    """Return whether a value is a number, and neither infinite nor -0.0, which is a typing error."""
    is_finite = isinstance(value, float) and math.isfinite(value)
    return is_integer(checker, value) or (is_finite and str(value) != "-0.0")


def cure(value, types):
    """Return how to write a value that was meant to have one of the types, where that is certain."""
    text = str(value).strip()
    if "array" in types and isinstance(value, str):
        return f"; write [{text}]"
    if "null" in types and text.lower() in ("none", "null", "nil", "nan"):
        return "; write null"
    if "boolean" in types and text.lower() in ("true", "false"):
        return f"; write {text.lower()} without quotes"
    if "string" in types and isinstance(value, (int, float)):
        return f"; in quotes it is text, '{text}'"
    try:
        number = float(text)
    except ValueError:
        return ""
    if "integer" in types and number.is_integer():
        return f"; write {int(number)}"
    if "number" not in types or not math.isfinite(number):
        return ""
    if number == 0:
        return "; write 0.0"
    mantissa, e, exponent = text.lower().partition("e")
    if not e:
        return f"; write {text} without quotes"
    # YAML 1.1 takes 1e-3 and 1.0e3 for text: it wants a point, and a sign.
    point, sign = "" if "." in mantissa else ".0", "" if exponent[0] in "+-" else "+"
    return f"; write {mantissa}{point}e{sign}{exponent}"


def check_schema():
    """Refuse unknown keys and impossible values: one line for each, with key, value and rule.

    (Snakemake's own `validate` prints the whole section of the schema and of the params around it.)
    """
    path = Path(workflow.basedir) / "workflow" / "schemas" / "params.schema.yaml"
    types = Draft202012Validator.TYPE_CHECKER.redefine_many(
        {"integer": is_integer, "number": is_number}
    )
    validator = validators.extend(Draft202012Validator, type_checker=types)(
        yaml.safe_load(path.read_text(encoding="utf-8"))
    )
    lines, given = [], workflow.config_settings.config
    for error in validator.iter_errors(config):
        key = ".".join(map(str, error.absolute_path)) or "top level"
        line = f"{key}: {error.message}"
        if error.validator == "type":
            allowed = error.validator_value
            line += cure(error.instance, {allowed} if isinstance(allowed, str) else set(allowed))
            if len(error.absolute_path) > 1 and error.absolute_path[0] in given:
                line += " in a file, for --configfile: within --config, Snakemake reads all as text"
        if error.validator == "additionalProperties" and "properties" in error.schema:
            line += f"; allowed: {', '.join(error.schema['properties'])}"
        if "description" in error.schema:
            line += f" ({error.schema['description'].rstrip('.')})"
        lines.append(line)
    if lines:
        stop("\n".join(["params.yaml can't be used:", *sorted(lines)]))


check_schema()

EXPERIMENTS = config["experiments"]


def in_rule_name(experiment):
    """Return an experiment's name as part of a rule's, which is an identifier."""
    return re.sub("[-.]", "_", experiment)


def check_params():
    """Refuse what a schema can't see: names that point nowhere, epochs that are never reached."""
    of_rule = {}
    for name in EXPERIMENTS:
        other = of_rule.setdefault(in_rule_name(name), name)
        if other != name:
            stop(
                f"experiments.{other} and experiments.{name} would share the rule "
                f"train_endpoint_{in_rule_name(name)}; rename one of them."
            )
    for name in config["run"]:
        if name not in EXPERIMENTS:
            stop(
                f"run names the experiment {name!r}, which params.yaml doesn't define; "
                f"choose from {', '.join(EXPERIMENTS)}."
            )
    for name, experiment in EXPERIMENTS.items():
        key, endpoint = f"experiments.{name}", experiment["endpoint"]
        if experiment["dataset"] not in config["datasets"]:
            stop(
                f"{key}.dataset is {experiment['dataset']!r}, which `datasets` doesn't define; "
                f"choose from {', '.join(config['datasets'])}."
            )
        late = [epoch for epoch in endpoint["checkpoints"] if epoch > endpoint["epochs"]]
        if late:
            stop(
                f"{key}.endpoint.checkpoints has {late}, but endpoint.epochs is "
                f"{endpoint['epochs']}; list epochs from 1 to {endpoint['epochs']}."
            )
        absent = set(experiment["trajectory"]["epochs"]) - set(endpoint["checkpoints"])
        if absent:
            stop(
                f"{key}.trajectory.epochs has {sorted(absent)}, which endpoint.checkpoints "
                f"{endpoint['checkpoints']} doesn't keep; add them there or choose others."
            )
        bezier = experiment["bezier"]
        if bezier["degree"] == [1, 1]:
            stop(
                f"{key}.bezier.degree is [1, 1], the linear surface, which has nothing to fit; "
                "choose a degree with a component of at least 2, such as [2, 2]."
            )
        if bezier["batch_size"] % bezier["points_per_step"]:
            stop(
                f"{key}.bezier.batch_size is {bezier['batch_size']}, no multiple of "
                f"points_per_step, {bezier['points_per_step']}; change one of them."
            )


check_params()
