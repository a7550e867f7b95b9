"""One prediction from many networks: soups, ensembles, chosen corners, and their comparison."""
