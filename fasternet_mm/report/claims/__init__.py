"""The paper's claims, one by one, beside what reports and studies found: what `tools/claims.py` is made of."""

from .evidence import load_evidence
from .page import claims_page

__all__ = ['claims_page', 'load_evidence']
