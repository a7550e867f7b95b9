"""What the networks of a surface are worth: grids, statistics, metrics, barriers, distances."""
