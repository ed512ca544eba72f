"""A made data set that a test may break."""

import json
from collections.abc import Callable
from pathlib import Path

from mmengine.config import Config

from fasternet_mm.doctor import Diagnosis, diagnose
from fasternet_mm.engine.runner import load_config


class MadeSet:
    """A copy of the sample set, with a config that trains on it, for a test to break."""

    def __init__(self, root: Path, config: Path) -> None:
        self.root, self.config = root, config

    def file(self, split: str) -> Path:
        return self.root / 'annotations' / f'instances_{split}.json'

    def edit(self, split: str, change: Callable[[dict], None]) -> None:
        content = json.loads(self.file(split).read_text())
        change(content)
        self.file(split).write_text(json.dumps(content))

    def cfg(self, **settings) -> Config:
        """The config with other settings, ``__`` in a name for a dot."""
        cfg = load_config(str(self.config))
        cfg.merge_from_dict({name.replace('__', '.'): value for name, value in settings.items()})
        return cfg

    def diagnose(self, **settings) -> Diagnosis:
        return diagnose(self.cfg(**settings))
