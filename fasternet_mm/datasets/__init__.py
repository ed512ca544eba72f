"""The generated sample data set."""

from .shapes import generate_shapes

__all__ = ['generate_shapes']
