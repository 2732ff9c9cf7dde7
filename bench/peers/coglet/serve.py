"""coglet's own server around `predict.py`: `python serve.py PORT`."""

import sys

import coglet

coglet.server.serve("predict.py:Predictor", host="127.0.0.1", port=int(sys.argv[1]))
