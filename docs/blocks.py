"""Pieces of Markdown pages that programs write, between a pair of markers."""


def replace_block(text: str, name: str, block: str) -> str:
    """Return `text` with `block` between the markers of `name`.

    Raises:
        SystemExit: if the page lacks them.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, found_begin, rest = text.partition(begin)
    _, found_end, after = rest.partition(end)
    if not (found_begin and found_end):
        raise SystemExit(f"error: the page lacks the markers {begin} and {end}; put them back.")
    return f"{before}{begin}\n{block}\n{end}{after}"
