# Three images from one file, all linux/amd64: api answers HTTP and makes nothing; full makes videos too; runpod, which is
# last so that it is what a plain build gives, is a RunPod serverless worker. See docs/containers.md.
ARG PYTHON_IMAGE=docker.io/library/python:3.11-slim-bookworm

# The environment of each image is built apart: pip and its cache stay behind.
FROM ${PYTHON_IMAGE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN python3 -m venv --without-pip /opt/wanreel && python3 -m venv /opt/installer
WORKDIR /src
COPY containers ./containers
RUN /opt/installer/bin/pip install --require-hashes -r containers/requirements-build.txt

FROM build AS wheel
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY src ./src
RUN /opt/installer/bin/python -m build --wheel --no-isolation --outdir /dist

FROM build AS build-api
RUN /opt/installer/bin/pip --python /opt/wanreel/bin/python install --require-hashes -r containers/requirements-api.txt
COPY --from=wheel /dist /dist
RUN /opt/installer/bin/pip --python /opt/wanreel/bin/python install --no-deps --no-index /dist/*.whl

FROM build AS build-full
RUN /opt/installer/bin/pip --python /opt/wanreel/bin/python install --require-hashes -r containers/requirements-full.txt
COPY --from=wheel /dist /dist
RUN /opt/installer/bin/pip --python /opt/wanreel/bin/python install --no-deps --no-index /dist/*.whl

FROM build AS build-runpod
RUN /opt/installer/bin/pip --python /opt/wanreel/bin/python install --require-hashes -r containers/requirements-runpod.txt
COPY --from=wheel /dist /dist
RUN /opt/installer/bin/pip --python /opt/wanreel/bin/python install --no-deps --no-index /dist/*.whl

# What all three have in common. Nobody in it is root, and only /data can be written.
FROM ${PYTHON_IMAGE} AS base
RUN groupadd --gid 10001 wanreel \
    && useradd --uid 10001 --gid wanreel --home-dir /data --no-create-home --shell /usr/sbin/nologin wanreel \
    && install -d -o wanreel -g wanreel /data
ENV PATH=/opt/wanreel/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    WANREEL_DATA_DIR=/data \
    WANREEL_HTTP__HOST=0.0.0.0
VOLUME /data
WORKDIR /data
ENTRYPOINT ["wanreel"]

FROM base AS api
COPY --from=build-api /opt/wanreel /opt/wanreel
USER 10001:10001
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python3", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:7860/live', timeout=4)"]
CMD ["serve", "--api-only", "--create-key"]

# The driver is the host's; CUDA's libraries come with torch.
FROM base AS full
COPY --from=build-full /opt/wanreel /opt/wanreel
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001:10001
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=5s --start-period=120s \
    CMD ["python3", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:7860/live', timeout=4)"]
CMD ["serve", "--create-key"]

FROM base AS runpod
COPY --from=build-runpod /opt/wanreel /opt/wanreel
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    WANREEL_MODELS_DIR=/weights
# Names of models whose weights become part of the image, for example "i2v-14b-480p sdxl-base". Without any they are
# downloaded by the first job, or lie on a network volume.
ARG MODELS=""
RUN install -d -o wanreel -g wanreel /weights
USER 10001:10001
RUN for model in $MODELS; do wanreel models pull "$model" || exit 1; done
# No healthcheck: it serves nothing, RunPod watches it.
HEALTHCHECK NONE
CMD ["runpod"]
