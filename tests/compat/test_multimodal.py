"""mmpretrain beside a transformers that it cannot use."""

import subprocess
import sys

USE = """
import fasternet_mm
from mmpretrain.models import build_classifier
build_classifier(dict(type='ImageClassifier', backbone=dict(type='FasterNet', arch='t0')))
try:
    build_classifier(dict(type='BlipCaption'))
except ImportError as error:
    print(error)
"""


def test_transformers_5_is_taken_for_missing(tmp_path):
    package = tmp_path / 'transformers'
    package.mkdir()
    (package / '__init__.py').write_text('')
    (tmp_path / 'transformers-5.0.0.dist-info').mkdir()
    (tmp_path / 'transformers-5.0.0.dist-info' / 'METADATA').write_text(
        'Metadata-Version: 2.1\nName: transformers\nVersion: 5.0.0\n'
    )
    command = f'import sys; sys.path.insert(0, {str(tmp_path)!r})\n{USE}'
    done = subprocess.run([sys.executable, '-c', command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 'requires extra multi-modal dependencies' in done.stdout
