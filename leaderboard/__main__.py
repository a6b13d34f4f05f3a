"""`python -m leaderboard FOLDER... -o OUT`: tables, plots and the page from records; needs no torch."""

import argparse
import json
import sys
import warnings
from pathlib import Path

from .record import read_results, shipped_results


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code (0 done, 1 bad input, with one line that says what)."""
    parser = argparse.ArgumentParser(prog="python -m leaderboard", description=__doc__)
    parser.add_argument("records", nargs="*", help="folders of records or single files; none: those shipped")
    parser.add_argument("-o", "--output", default="smlm-zoo-leaderboard", help="folder to write (default: %(default)s)")
    parser.add_argument("--title", default="", help="headline of the page")
    parser.add_argument("--notes", default="", help="a paragraph under the headline, plain text")
    parser.add_argument(
        "--pictures",
        help="JSON list of {dataset, frame, model, path, caption}; paths inside that file's folder",
    )
    parser.add_argument("--skip-bad", action="store_true", help="skip files that are no record, with a warning")
    options = parser.parse_args(arguments)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            mode = "warn" if options.skip_bad else "raise"
            results = read_results(options.records, on_error=mode) if options.records else shipped_results()  # type: ignore[arg-type]
        for warning in caught:
            print(f"warning: {warning.message}", file=sys.stderr)
        pictures = read_pictures(options.pictures) if options.pictures else []
        from .board import TITLE, write_all  # after the records, so that a bad one is told at once

        paths = write_all(results, options.output, pictures=pictures, title=options.title or TITLE, notes=options.notes)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{len(results)} records -> {paths['index.html']}")
    return 0


def read_pictures(file: str | Path) -> list[dict[str, object]]:
    """Read a list of pictures; paths are relative to the file and may not leave its folder.

    Raises:
        ValueError: no JSON list of objects with `path`, or a path leads out of the folder.
    """
    file = Path(file)
    folder = file.resolve().parent
    try:
        items = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file}: not readable as JSON ({error})") from error
    if not isinstance(items, list) or not all(isinstance(i, dict) and isinstance(i.get("path"), str) for i in items):
        raise ValueError(f"{file}: expected a JSON list of objects with dataset, frame, model, path and caption")
    for item in items:
        path = (folder / item["path"]).resolve()
        if not path.is_relative_to(folder):
            raise ValueError(f"{file}: picture {item['path']!r} lies outside {folder}; copy it there")
        item["path"] = path
    return items


if __name__ == "__main__":
    raise SystemExit(main())
