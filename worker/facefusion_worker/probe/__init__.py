"""Says what a media file really is before any engine opens it: `python -m facefusion_worker.probe`.

Always true here: the process that Node talks to never opens a file of a caller; whatever a file does, it does to a child that was forked
for it alone. What is reported was counted or decoded, never read from a header that could lie.
"""

import os

# Before numpy is loaded: a forked child has one thread, and its address space is counted.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
