"""The figures: tables in, matplotlib figures out. Nothing here needs torch."""

from fourfold.report.figures._barriers import plot_barriers, plot_careful
from fourfold.report.figures._comparison import plot_merges, plot_summary
from fourfold.report.figures._convergence import plot_convergence
from fourfold.report.figures._difference import plot_differences
from fourfold.report.figures._ensemble import plot_ensembles
from fourfold.report.figures._experiments import plot_experiments
from fourfold.report.figures._networks import plot_geometry, plot_training
from fourfold.report.figures._plane import plot_plane
from fourfold.report.figures._rivals import plot_rivals
from fourfold.report.figures._style import save_figure
from fourfold.report.figures._surface import plot_profiles, plot_surfaces, plot_surfaces_3d

__all__ = [
    "plot_barriers",
    "plot_careful",
    "plot_convergence",
    "plot_differences",
    "plot_ensembles",
    "plot_experiments",
    "plot_geometry",
    "plot_merges",
    "plot_plane",
    "plot_profiles",
    "plot_rivals",
    "plot_summary",
    "plot_surfaces",
    "plot_surfaces_3d",
    "plot_training",
    "save_figure",
]
