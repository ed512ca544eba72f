"""Where 0.1.0 had the deploy form: whole models that it pickled name these classes here. Goes with the next release."""


def __getattr__(name: str):
    if name == 'FusedConv2d':
        from ..ops import FusedConv2d

        return FusedConv2d
    if name in ('DeployedBlock', 'DeployedStem'):
        from ..deploy import backbone

        return getattr(backbone, name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
