"""Whether data will train, known before it does: what is wrong with it, what can be mended, and a config for it.

In the order in which a check comes to them: ``sources`` reads what a config names, ``coco`` checks an annotation file,
``model`` the classes of the heads and the anchors, and ``examination`` the images and all of it together. ``findings``
says what each kind means, ``mending`` writes new annotation files, ``render`` and ``pictures`` show what was found,
``command`` is the tool, and ``new_config`` writes the config for one's own data.
"""

from .command import check_data
from .examination import Diagnosis, diagnose
from .findings import KINDS, Finding, Severity
from .new_config import write_config

__all__ = ['KINDS', 'Diagnosis', 'Finding', 'Severity', 'check_data', 'diagnose', 'write_config']
