# Snakemake's records of what made each file (.snakemake/metadata), and the files they speak of.
import base64
import tempfile
import time

RECORDS = Path(".snakemake") / "metadata"
NOT_FINISHED = Path(".snakemake") / "incomplete"
PRUNED = Path(".pruned")  # where stale files go
# What jobs leave beside results, and what is written by hand: `snakemake --report`.
NO_RESULTS = ("log", "report.html", "unfinished-*", ".unfinished-*")
MOST_NAMED = 5


def files_named_in(folder):
    """Return file -> record for the records in a folder of Snakemake's."""
    found = {}
    for record in folder.rglob("*"):
        # Names are the files' paths in base64; long ones are broken into folders that begin with @.
        parts = record.relative_to(folder).parts
        if record.is_file():
            encoded = "".join(part.removeprefix("@") for part in parts)
            try:
                found[base64.urlsafe_b64decode(encoded).decode()] = record
            except ValueError:
                continue  # not Snakemake's
    return found


def is_whole(record):
    """Return whether a record can be read; Snakemake ignores one that can't."""
    try:
        return bool(json.loads(record.read_text(encoding="utf-8")))
    except ValueError:
        return False


def check_records():
    """Refuse files that lie there without a record of what made them.

    Snakemake would take them for finished whatever the parameters, because it compares parameters
    with the record. Files of a job that was interrupted have another kind of record, by which they
    are built again, even if a kill has left the record of what made them half-written.
    """
    recorded = {file for file, record in files_named_in(RECORDS).items() if is_whole(record)}
    known = recorded | files_named_in(NOT_FINISHED).keys()
    strays = [file for file in TARGETS.all_files() if file not in known and Path(file).exists()]
    if strays:
        named = "\n".join(f"  {file}" for file in strays[:MOST_NAMED])
        rest = f"\n  and {len(strays) - MOST_NAMED} more" if len(strays) > MOST_NAMED else ""
        places = [Path(file).parts for file in strays]
        folders = sorted({str(Path(*parts[: 2 if parts[0] == "data" else 3])) for parts in places})
        stop(
            f"{len(strays)} files lie there without readable records of what made them "
            f"({RECORDS}, Snakemake's), so that nobody can tell whether they belong to "
            f"params.yaml:\n"
            f"{named}{rest}\n"
            "If DVC has the records, get them together with the files: `dvc checkout`, or "
            "`dvc pull` without naming a target. Otherwise remove the files, and they are built "
            f"anew: `rm -r {' '.join(folders)}`."
        )


def stale_paths(folder, expected):
    """Yield files and folders below `folder` that nothing in params.yaml asks for."""
    folders = {parent for file in expected for parent in file.parents}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if any(path.match(pattern) for pattern in NO_RESULTS):
            continue
        if path.is_dir() and path in folders:
            yield from stale_paths(path, expected)
        elif path not in expected:
            yield path


def prune(log):
    """Move stale files out of the way, with the records of files that nothing asks for.

    They are kept, since nobody may have another copy: results of a run with another `run`, say. A
    note in the log says where; the display shows it.
    """
    expected = set(map(Path, TARGETS.all_files()))
    stale = [path for start in ("results", "data") for path in stale_paths(Path(start), expected)]
    records = [
        record for file, record in files_named_in(RECORDS).items() if Path(file) not in expected
    ]
    if stale:
        PRUNED.mkdir(exist_ok=True)
        kept = Path(tempfile.mkdtemp(prefix=time.strftime("%Y-%m-%d-%H%M%S-"), dir=PRUNED))
        moved = ", ".join(map(str, stale))
        Path(log).write_text(f"note: to {kept} goes what params.yaml no longer asks for: {moved}\n")
    for path in [*stale, *records]:
        if stale:
            (kept / path).parent.mkdir(parents=True, exist_ok=True)
            path.rename(kept / path)
        else:
            path.unlink()


def check_folders():
    """Refuse a file where the workflow keeps a folder; Snakemake would end in a traceback."""
    for folder in (Path("results"), Path("data")):
        if folder.exists() and not folder.is_dir():
            stop(f"{folder} is a file, but the workflow keeps a folder there; rename or remove it.")


if workflow.is_main_process:  # jobs on other machines start Snakemake while files come and go
    check_folders()
    check_records()
