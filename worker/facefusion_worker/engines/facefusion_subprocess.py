"""The name under which the worker finds FaceFusion's mode of one process for each job."""

from .facefusion.command_line import FacefusionSubprocess

__all__ = ["FacefusionSubprocess"]
