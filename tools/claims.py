"""Write down, claim by claim, what the paper says, what reports and studies found, and whether it holds."""

import signal

if __name__ == '__main__' and signal.getsignal(signal.SIGINT) == signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C among the imports ends it at once, without a traceback

import argparse
from pathlib import Path

import fasternet_mm  # noqa: F401  first: on mmcv-lite nothing of mmdet imports without it

# isort: split
from fasternet_mm.engine.cli import command_line
from fasternet_mm.files import AtomicLocalBackend, require_output
from fasternet_mm.report.claims import claims_page, load_evidence


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    what = 'report.json of tools/report.py, study.json of tools/study.py, or folders that have them in them'
    parser.add_argument('sources', nargs='+', metavar='REPORT_OR_STUDY', help=what)
    parser.add_argument('--out', type=Path, required=True, help='the page, for instance docs/claims.md')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    require_output(args.out, '--out')
    page = claims_page(load_evidence(args.sources), args.out)
    AtomicLocalBackend().put_text(page, args.out)
    print(f'written to {args.out}')


if __name__ == '__main__':
    with command_line():
        main()
