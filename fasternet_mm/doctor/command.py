"""What tools/check_data.py does between its arguments and its files."""

import json
import os
from collections.abc import Callable
from pathlib import Path

from mmengine.config import Config

from ..files import put_files, require_writable
from .examination import Diagnosis, Track, diagnose
from .findings import KINDS
from .mending import Mended, fix, plan_outputs, settings_for
from .pictures import pictures
from .render import markdown, terminal_table, to_json


def check_data(cfg: Config, say: Callable, track: Track, out: Path | None = None, folder: Path | None = None) -> bool:
    """Examine the data of a config, say what was found, and mend what can be mended.

    Args:
        cfg (Config): Of a detector or a classifier.
        say (Callable): Takes lines and rich's tables.
        track (Callable): As :func:`~fasternet_mm.doctor.diagnose` takes it.
        out (Path, optional): Folder for data.json, data.md and pictures.
        folder (Path, optional): Folder for mended annotation files.

    Returns:
        bool: Whether nothing stops or spoils a training; with `folder`, by the mended files.

    Raises:
        UserError: If a folder cannot be written, or has a file that would be written over, before any work.
    """
    outputs = plan_outputs(cfg, folder) if folder else {}
    if out:
        require_writable(out, f'--out {out}')
    diagnosis = diagnose(cfg, track)
    say(terminal_table(diagnosis))
    if out:
        _write(diagnosis, out)
        say(f'written to {out}{os.sep}: data.json, data.md and pictures')
    if folder:
        done, diagnosis = fix(cfg, diagnosis, outputs)
        _tell(cfg, done, diagnosis, folder, say)
    return not diagnosis.is_bad


def _write(diagnosis: Diagnosis, out: Path) -> None:
    files = {
        'data.json': json.dumps(to_json(diagnosis), indent=1) + '\n',
        'data.md': markdown(diagnosis),
        **pictures(diagnosis),
    }
    put_files(out, files, 'what was found')


def _tell(cfg: Config, done: list[Mended], left: Diagnosis, folder: Path, say: Callable) -> None:
    for one in done:
        say(f'{one.path}, for {", ".join(one.source.places)}:')
        for kind, number in one.counts.items():
            what = 'objects of images that were dropped: dropped, too'
            say(f'  {number} {what if kind == "with_image" else f"{KINDS[kind].title}: {KINDS[kind].mend}"}')
    if not done:
        say(f'nothing that --fix mends: no file is written to {folder}')
    bad = [finding for finding in left.findings if finding.is_bad]
    for finding in bad:
        say(f'left: {KINDS[finding.kind].title} ({finding.place}): {", ".join(finding.names)}')
    if done:
        say('nothing is left that stops or spoils a training' if not bad else 'the rest is for you to mend')
        say('--cfg-options ' + ' '.join(f'{key}={value}' for key, value in settings_for(cfg, done).items()))
