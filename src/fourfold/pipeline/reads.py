"""What the jobs of each rule read of their experiment; when it changes, they run again."""

# What evaluating a few networks takes from the section `grid`.
_EVALUATION: dict[str, tuple[str, ...]] = {
    "grid": ("batchnorm", "batchnorm_images", "seed", "batch_size", "precision")
}
# Sections, of some of them a few keys. `fit` and `corners` are those of the job's surface or corner
# set; `surfaces` is what tables can't tell of the surfaces; `shape` is that of the job's surface.
READS: dict[str, tuple[str | dict[str, tuple[str, ...]], ...]] = {
    "train_endpoint": ("network", "augment", "training"),
    "train_fork": ("network", "augment", "training", "corners"),
    "import_corners": ("network", "corners", {"grid": ("batch_size", "precision")}),
    "select_trajectory_corners": ("network", "augment", "training", "corners", _EVALUATION),
    "build_linear_surface": ("shape",),
    "fit_bezier_surface": ("network", "augment", "fit", "shape"),
    "evaluate_grid": ("network", "augment", "grid"),
    "compare_ensembles": ("ensembles", "surfaces"),
    "compare_merges": ("network", "augment", _EVALUATION, "surfaces"),
    "measure_geometry": (),
    "measure_differences": (),
    "plot_figures": ("surfaces",),
    "summarize": ("surfaces",),
}
BESIDE = ("shape", "surfaces")  # have arguments of their own, beside --settings
