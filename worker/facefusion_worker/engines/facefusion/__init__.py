"""The real FaceFusion as an engine. `program.py` holds all that differs between releases; docs/05-facefusion-engine.md is the map."""

from .engine import Facefusion

__all__ = ["Facefusion"]
