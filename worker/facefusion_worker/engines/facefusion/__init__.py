"""The real FaceFusion as an engine. `program.py` holds all that differs between releases; docs/05-facefusion-engine.md is the map.

The Python that runs it is FaceFusion's own: what that one lacks is said in a sentence, for the operator to read.
"""

import sys

from ...engine import EngineError

_PINNED = {"av": "av==18.1.0" if sys.version_info >= (3, 11) else "av==17.1.0"}

try:
    from .engine import Facefusion
except ModuleNotFoundError as error:
    _name = (error.name or "").partition(".")[0]
    raise EngineError(
        "ENGINE_BROKEN",
        f"{sys.executable}, which runs FaceFusion, lacks the package {_name}; "
        f"install it with: {sys.executable} -m pip install {_PINNED.get(_name, _name)}",
    ) from None

__all__ = ["Facefusion"]
