# syntax=docker/dockerfile:1
# Two images from one file:
#   docker build --target cpu  -t facefusion-jobs .         the service with the plain `classical` engine, about 600 MB
#   docker build --target cuda -t facefusion-jobs:cuda .    the same on the CUDA 12 runtime with ffmpeg, ready for FaceFusion
# Both run as user 10001, keep everything under /data and listen on 8000 (API) and 8001 (metrics). The service refuses to serve the network without
# identities: configure keys or tokens, or say FFJOBS_ALLOW_ANONYMOUS=yes where something in front of it decides who may call.
# For builds that can be repeated, give the base images by digest: --build-arg NODE_IMAGE=node@sha256:...

ARG NODE_IMAGE=node:24.11-bookworm-slim
ARG PYTHON_IMAGE=python:3.12-slim-bookworm
ARG CUDA_IMAGE=nvidia/cuda:12.9.1-cudnn-runtime-ubuntu24.04

# --- the package: JavaScript, its dependencies, the console ---------------------------------------------------------------------------------
FROM ${NODE_IMAGE} AS package
WORKDIR /src
COPY package.json package-lock.json ./
RUN npm ci --ignore-scripts
COPY . .
RUN npm run build && npm prune --omit=dev --ignore-scripts && mv node_modules dist/node_modules

# --- the workers' Python --------------------------------------------------------------------------------------------------------------------
FROM ${PYTHON_IMAGE} AS cpu-python
COPY worker/requirements.txt worker/requirements-provenance.txt /tmp/
RUN python -m venv /opt/worker && /opt/worker/bin/pip install --no-cache-dir --disable-pip-version-check -r /tmp/requirements.txt -r /tmp/requirements-provenance.txt

FROM ${CUDA_IMAGE} AS cuda-system
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# ffmpeg and curl are programs that FaceFusion starts; git fetches its release; tini hands signals on and reaps.
# hadolint ignore=DL3008
RUN apt-get update \
  && apt-get install -y --no-install-recommends ca-certificates curl ffmpeg git python3 python3-venv tini \
  && rm -rf /var/lib/apt/lists/*

FROM cuda-system AS cuda-python
COPY worker/requirements.txt worker/requirements-provenance.txt /tmp/
RUN python3 -m venv /opt/worker && /opt/worker/bin/pip install --no-cache-dir --disable-pip-version-check -r /tmp/requirements.txt -r /tmp/requirements-provenance.txt

# --- the images -----------------------------------------------------------------------------------------------------------------------------
FROM cuda-system AS cuda
COPY --from=package /usr/local/bin/node /usr/local/bin/node
COPY --from=cuda-python /opt/worker /opt/worker
COPY --from=package /src/dist /app
RUN ln -s /app/bin/ffjobs.mjs /usr/local/bin/ffjobs \
  && groupadd --gid 10001 ffjobs && useradd --uid 10001 --gid 10001 --home-dir /data --shell /usr/sbin/nologin ffjobs \
  && install -d -o 10001 -g 10001 /data
ENV NODE_ENV=production FFJOBS_HOST=0.0.0.0 FFJOBS_METRICS_HOST=0.0.0.0 FFJOBS_DATA_DIR=/data FFJOBS_PYTHON=/opt/worker/bin/python FFJOBS_LOG_FORMAT=json \
  NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility,video
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8000 8001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 \
  CMD ["node", "-e", "const ask = (how, otherwise) => require(how).get({ host: '127.0.0.1', port: process.env.FFJOBS_PORT || 8000, path: '/healthz', rejectUnauthorized: false }, (r) => process.exit(r.statusCode === 200 ? 0 : 1)).on('error', otherwise); ask('http', () => ask('https', () => process.exit(1)))"]
# Large pages for Node's own code, where the system has them: a service's work is spread over much of it.
ENTRYPOINT ["tini", "--", "node", "--use-largepages=silent", "/app/bin/ffjobs.mjs"]
CMD ["serve"]

FROM ${PYTHON_IMAGE} AS cpu
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends tini && rm -rf /var/lib/apt/lists/*
COPY --from=package /usr/local/bin/node /usr/local/bin/node
COPY --from=cpu-python /opt/worker /opt/worker
COPY --from=package /src/dist /app
RUN ln -s /app/bin/ffjobs.mjs /usr/local/bin/ffjobs \
  && groupadd --gid 10001 ffjobs && useradd --uid 10001 --gid 10001 --home-dir /data --shell /usr/sbin/nologin ffjobs \
  && install -d -o 10001 -g 10001 /data
ENV NODE_ENV=production FFJOBS_HOST=0.0.0.0 FFJOBS_METRICS_HOST=0.0.0.0 FFJOBS_DATA_DIR=/data FFJOBS_PYTHON=/opt/worker/bin/python FFJOBS_LOG_FORMAT=json
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8000 8001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
  CMD ["node", "-e", "const ask = (how, otherwise) => require(how).get({ host: '127.0.0.1', port: process.env.FFJOBS_PORT || 8000, path: '/healthz', rejectUnauthorized: false }, (r) => process.exit(r.statusCode === 200 ? 0 : 1)).on('error', otherwise); ask('http', () => ask('https', () => process.exit(1)))"]
# Large pages for Node's own code, where the system has them: a service's work is spread over much of it.
ENTRYPOINT ["tini", "--", "node", "--use-largepages=silent", "/app/bin/ffjobs.mjs"]
CMD ["serve"]
