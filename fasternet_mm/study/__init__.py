"""What the paper says of trained networks, looked up in any network: what `tools/study.py` is made of.

A file for each study, over ``subject.py`` (the network and its weights), ``images.py`` and ``layers.py``; ``schema.py``
is the format, ``markdown.py`` and ``pictures.py`` show it, ``command.py`` joins them.
"""

from .approximation import approximation
from .command import new_study, study_approximation, study_features, study_redundancy, study_salient, write
from .features import features, list_layers
from .images import Preprocessing, find_pictures
from .maps import METHODS
from .redundancy import redundancy
from .salient import salient
from .schema import Study, load_study
from .subject import Subject, build

__all__ = [
    'METHODS', 'Preprocessing', 'Study', 'Subject', 'approximation', 'build', 'features', 'find_pictures',
    'list_layers', 'load_study', 'new_study', 'redundancy', 'salient', 'study_approximation', 'study_features',
    'study_redundancy', 'study_salient', 'write',
]  # fmt: skip
