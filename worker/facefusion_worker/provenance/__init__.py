"""Marks of results as made by AI: C2PA manifests, XMP, a visible label. Runs in a process of its own, which alone has the private key;
what it needs of other packages is in `worker/requirements-provenance.txt`."""
