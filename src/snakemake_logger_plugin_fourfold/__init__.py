"""Snakemake's logger plugin `fourfold`: shows a run as `fourfold.pipeline.display` does.

Snakemake finds it by the name of this package; `logger: fourfold` in a profile takes it. It hears
of the run's jobs from workflow/rules/progress.smk.
"""

import logging
import re
from pathlib import Path
from typing import Any

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

# What Snakemake and its executors say of themselves: nothing that a user has to act upon.
_CHATTER = re.compile(
    r"""
    Assuming[ ]unrestricted | Building[ ]DAG | Complete[ ]log | Conda[ ]environments:[ ]ignored
    | Config[ ]file | Elapsed[ ]time | Exiting[ ]because | Group[ ]jobs:[ ]inactive
    | Job[ ]rate[ ]limit | Job[ ]\S+[ ]has[ ]been[ ]submitted | Provided | Select[ ]jobs
    | Shutting[ ]down, | Singularity[ ]containers:[ ]ignored | SLURM[ ]run[ ]ID
    | Trying[ ]to[ ]restart | Using[ ]shell
    """,
    re.VERBOSE,
)
# What the display learns from the plan, and from the jobs themselves.
_KNOWN = (
    *(LogEvent.WORKFLOW_STARTED, LogEvent.RUN_INFO, LogEvent.RESOURCES_INFO, LogEvent.JOB_STARTED),
    *(LogEvent.PROGRESS, LogEvent.RULEGRAPH, LogEvent.GROUP_INFO, LogEvent.DEBUG_DAG),
)
# What Snakemake adds to the failure of a job, which is shown.
_REPEATED = ("CalledProcessError", "At least one job did not complete successfully")


class LogHandler(LogHandlerBase):
    """Hears what Snakemake logs, and shows what a user of the run wants to see of it."""

    def __post_init__(self) -> None:
        """Look at the options: a dry run, --verbose and --debug-dag are Snakemake's own to show."""
        settings: Any = self.common_settings
        self._own: logging.Handler | None = None
        if settings.dryrun or settings.verbose or settings.debug_dag:
            self._own = _own_handler(settings)
            return
        from rich.console import Console

        from fourfold.pipeline.display import Display

        quiet = {str(one).rpartition(".")[2].lower() for one in settings.quiet or ()}
        self._is_silent = "all" in quiet
        self._display = Display(
            Console(stderr=True, no_color=settings.nocolor or None, highlight=False),
            jobs=not quiet & {"rules", "all"},
            state=not quiet & {"progress", "all"},
        )

    def emit(self, record: logging.LogRecord) -> None:
        """Show a record, if there is something in it to show."""
        try:
            if self._own is not None:
                self._own.handle(record)
            else:
                self._hear(record)
        except Exception:
            self.handleError(record)

    def _hear(self, record: Any) -> None:
        event, text = getattr(record, "event", None), record.getMessage()
        if hasattr(record, "fourfold_plan"):
            self._display.begin(record.fourfold_plan)
        elif hasattr(record, "fourfold_end"):
            self._display.end()
        elif event == LogEvent.JOB_INFO:
            self._display.start(record.jobid, _log(record))
        elif event == LogEvent.JOB_FINISHED:
            self._display.finish(record.job_id)
        elif event == LogEvent.JOB_ERROR:
            self._display.fail(record.jobid, self._reason(record))
        elif event == LogEvent.GROUP_ERROR:
            self._display.say(
                f"failed  group {record.groupid}, see {', '.join(record.aux_logs)}", "red"
            )
        elif event == LogEvent.SHELLCMD:
            if self.common_settings.printshellcmds:
                self._display.say(record.shellcmd)
        elif text.startswith("Terminating processes on user request"):
            self._display.interrupt()
        elif event in _KNOWN or _CHATTER.match(text) or any(map(text.count, _REPEATED)):
            pass
        elif record.levelno >= logging.WARNING:
            self._display.say(text, "red" if record.levelno >= logging.ERROR else "yellow")
        elif not self._is_silent:
            self._display.say(text)

    def _reason(self, record: Any) -> str | None:
        """Return why a job failed: what it says itself, or where to look; None if its group did."""
        from fourfold.pipeline.display import error_in

        log = _log(record)
        if self.common_settings.show_failed_logs and log is not None and log.is_file():
            return log.read_text(encoding="utf-8", errors="replace").rstrip()
        said = error_in(log)
        if said is not None and said.startswith("error: "):
            return said.removeprefix("error: ")
        where = f"see {', '.join(record.log)}" if record.log else ""
        if said is None and record.indent:  # of a group, which may not have come to this job
            return None
        return "; ".join(filter(None, [said, record.rule_msg, where])) or "no log"

    def close(self) -> None:
        """Give the terminal back."""
        if self._own is None:
            self._display.close()
        super().close()

    @property
    def writes_to_stream(self) -> bool:
        """Take the place of Snakemake's own output."""
        return True

    @property
    def writes_to_file(self) -> bool:
        """Leave the log file in .snakemake/log to Snakemake."""
        return False

    @property
    def has_filter(self) -> bool:
        """Hear everything, whatever --quiet says: the display counts jobs."""
        return True

    @property
    def has_formatter(self) -> bool:
        """Format nothing."""
        return True

    @property
    def needs_rulegraph(self) -> bool:
        """Need no graph of rules."""
        return False


def _log(record: Any) -> Path | None:
    return Path(record.log[0]) if record.log else None


def _own_handler(settings: Any) -> logging.Handler:
    """Return what Snakemake would show its log with, were it not for this plugin."""
    import sys

    from snakemake.logging import ColorizingTextHandler, DefaultFilter, DefaultFormatter

    handler: logging.Handler = ColorizingTextHandler(
        nocolor=settings.nocolor, stream=sys.stdout if settings.stdout else sys.stderr
    )
    handler.setFormatter(DefaultFormatter(settings.quiet, settings.show_failed_logs))
    shown = ("debug_dag", "verbose", "dryrun", "printshellcmds")
    handler.addFilter(DefaultFilter(settings.quiet, *(getattr(settings, key) for key in shown)))
    if not settings.verbose:
        handler.addFilter(_is_of_the_jobs)
    return handler


def _is_of_the_jobs(record: logging.LogRecord) -> bool:
    is_header = getattr(record, "event", None) == LogEvent.WORKFLOW_STARTED
    return not is_header and not _CHATTER.match(record.getMessage())
