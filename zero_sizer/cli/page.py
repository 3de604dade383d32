"""``zero-sizer page``: a static site that answers in the browser."""

import argparse

from zero_sizer.errors import InputError
from zero_sizer.site import build, pyodide


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "-o",
        "--output",
        metavar="DIR",
        required=True,
        help="folder of the site; made if it is not there",
    )
    runtime = parser.add_mutually_exclusive_group()
    runtime.add_argument(
        "--pyodide",
        metavar="DIR",
        help=f"the npm package pyodide {pyodide.VERSION}, unpacked, e.g. node_modules/pyodide",
    )
    runtime.add_argument(
        "--fetch", action="store_true", help="have npm download that package (6.5 MB)"
    )
    parser.add_argument(
        "--force", action="store_true", help="write into a folder that holds something else"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Write the site."""
    if not arguments.pyodide and not arguments.fetch:
        raise InputError(
            "Pyodide, the Python that runs in browsers, is needed",
            remedy="add --fetch to have npm download it, or --pyodide DIR where it is",
            where="page",
        )
    build.require_free(arguments.output, force=arguments.force)
    parts = pyodide.fetched() if arguments.fetch else pyodide.parts_of(arguments.pyodide)
    site = build.site(parts)
    build.write_site(arguments.output, site)
    size = sum(map(len, site.values())) / 2**20
    print(f"{arguments.output}: {len(site)} files, {size:.1f} MiB; put them on any web server,")
    print(f"or look at them here: python -m http.server --directory {arguments.output}")
    return 0
