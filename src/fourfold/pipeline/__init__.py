"""From params.yaml to files: the commands behind the rules, and what surrounds them."""
