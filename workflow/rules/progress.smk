# What the display of a run is told (snakemake_logger_plugin_fourfold): its jobs, how long jobs like
# them took, and when it is over.
from logging.handlers import QueueHandler

from snakemake.logging import logger

from fourfold.pipeline.estimate import History, Job, Plan
from fourfold.pipeline.work import predicted_flop


def planned(job, limits, ids):
    """Return what is known of one of Snakemake's jobs before it runs."""
    wildcards = dict(job.wildcards_dict)
    kind = wildcards.get("experiment")
    of = [wildcards.pop(key) for key in ("experiment", "replicate") if key in wildcards]
    parts = [str(Path(*of))] if of else []
    name = " ".join([*parts, *(["-".join(wildcards.values())] if wildcards else [])])
    return Job(
        job.rule.name,
        name,
        kind=kind or name,
        flop=predicted_flop(job.rule.name, job.wildcards_dict, TARGETS),
        needs={limit: job.scheduler_resources.get(limit, 0) for limit in limits},
        after=frozenset(ids[other] for other in workflow.dag.job_dependencies(job) if other in ids),
        priority=job.rule.priority,
    )


def seconds_before(job):
    """Return how long a job took before, by Snakemake's records; None if it was another command."""
    record = workflow.persistence.metadata(job.output[0]) if job.output else None
    if record is None or None in (record.starttime, record.endtime):
        return None
    return record.endtime - record.starttime if record.shellcmd == job.shellcmd else None


def lift_rate_limit():
    """Lift Snakemake's limit of jobs a second where jobs run on this machine, which has cores.

    Because of it the scheduler looks for jobs again one second after each time that it looked, and
    each finished job adds another such chain: after some 200 jobs that takes half a core.
    """
    if workflow.local_exec:
        workflow.scheduler.job_rate_limiter = None


def tell_plan():
    """Tell which jobs the run will do, and how long those of earlier runs took."""
    needed = [job for job in workflow.dag.needrun_jobs() if not job.is_norun]
    ids = {job: workflow.dag.jobid(job) for job in needed}
    limits = workflow.scheduler.global_resources
    limits = {name: limits[name] for name in limits if name != "_job_count"}
    every = dict.fromkeys([*workflow.dag.jobs, *needed])
    jobs = {job: planned(job, limits, ids) for job in every if not job.is_norun}
    before = {job: seconds for job in jobs if (seconds := seconds_before(job)) is not None}
    plan = Plan(
        jobs={ids[job]: jobs[job] for job in needed},
        limits=limits,
        earlier=History((jobs[job], seconds) for job, seconds in before.items()),
    )
    logger.info(f"Jobs to do: {len(needed)}", extra={"fourfold_plan": plan})


def tell_end():
    """Tell that the run is over, and wait until that is shown: what follows goes below it."""
    logger.info("The run is over", extra={"fourfold_end": True})
    for handler in logger.handlers:
        if isinstance(handler, QueueHandler):
            handler.queue.join()
