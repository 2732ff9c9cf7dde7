"""The worker process of facefusion-jobs.

Importing the package loads nothing but the standard library: an engine's own libraries come in with the engine.
"""

__version__ = "0.1.0"
