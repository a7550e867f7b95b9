"""What the jobs of each rule read of their experiment; when it changes, they run again."""

# What evaluating a few networks takes from the section `grid`, and many on some images.
_FEW = ("batchnorm", "batchnorm_images", "seed", "batch_size", "precision")
_MANY: tuple[str, ...] = (*_FEW, "search_images", "train_images")
_EVALUATION: dict[str, tuple[str, ...]] = {"grid": _FEW}
# Sections, of some of them a few keys. `fit`, `corners` and `training` are those of the job's
# surface, corner set or run; `surfaces` is what tables can't tell of the surfaces; `shape` is that
# of the job's surface.
READS: dict[str, tuple[str | dict[str, tuple[str, ...]], ...]] = {
    "train_endpoint": ("network", "augment", "training"),
    "train_fork": ("network", "augment", "training"),
    "import_corners": ("network", "corners", {"grid": ("batch_size", "precision")}),
    "select_trajectory_corners": ("network", "augment", "training", "corners", _EVALUATION),
    "align_corners": ("network", "corners"),
    "randomize_corners": ("network", "augment", "corners", _EVALUATION),
    "build_linear_surface": ("shape",),
    "fit_bezier_surface": ("network", "augment", "fit", "shape"),
    "evaluate_grid": (
        *("network", "augment"),
        {"grid": (*_MANY, *("points", "edge_points", "random_points"))},
    ),
    "measure_plane": ("network", "augment", {"grid": (*_MANY, "plane_points")}),
    "compare_ensembles": ("ensembles", "surfaces"),
    "compare_merges": ("network", "augment", _EVALUATION, "surfaces"),
    "measure_geometry": (),
    "measure_differences": (),
    "plot_figures": ("surfaces",),
    "plot_plane": ("surfaces",),
    "plot_experiments": ("surfaces",),
    "summarize": ("surfaces",),
    "plot_explorer": ("surfaces",),
}
BESIDE = ("shape", "surfaces")  # have arguments of their own, beside --settings
