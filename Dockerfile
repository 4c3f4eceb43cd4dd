# Images of both daemons. What a container needs to be given is in docs/operations.md.
#
#   docker build --target controlplane --tag homeport/controlplane .
#   docker build --target agent --tag homeport/agent .
#
# BASE is any Debian (or Ubuntu) release whose python3 is 3.11 or newer. If a directory wheelhouse/ lies beside this
# file, Python packages are taken from there and no index is asked.

ARG BASE=debian:bookworm-slim

FROM ${BASE} AS python
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates python3 \
 && rm -rf /var/lib/apt/lists/*
ENV PATH=/opt/homeport/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HOMEPORT_DATA_DIR=/var/lib/homeport

FROM python AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3-venv \
 && rm -rf /var/lib/apt/lists/*
COPY . /src
WORKDIR /src
RUN python3 -m venv /build \
 && if [ -d wheelhouse ]; then export PIP_NO_INDEX=1 PIP_FIND_LINKS=/src/wheelhouse; fi \
 && /build/bin/pip wheel --no-cache-dir --wheel-dir /wheels '.[agent,controlplane]'

FROM build AS install-controlplane
# The agent's packages too: the control plane hands them to hosts that join (`homeport add-node`).
RUN python3 -m venv /opt/homeport \
 && /opt/homeport/bin/pip install --no-cache-dir --no-index --find-links /wheels 'homeport[agent,controlplane]' \
 && /opt/homeport/bin/pip uninstall --yes pip setuptools

FROM build AS install-agent
RUN python3 -m venv /opt/homeport \
 && /opt/homeport/bin/pip install --no-cache-dir --no-index --find-links /wheels 'homeport[agent]' \
 && /opt/homeport/bin/pip uninstall --yes pip setuptools

FROM python AS controlplane
RUN useradd --system --uid 990 --user-group --home-dir /var/lib/homeport --shell /usr/sbin/nologin homeport \
 && install -d -o homeport -g homeport -m 0700 /var/lib/homeport
COPY --from=install-controlplane /opt/homeport /opt/homeport
USER homeport
VOLUME /var/lib/homeport
# 6181: TLS, for agents and clients elsewhere. Plain HTTP is on the container's own loopback only.
EXPOSE 6181
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s \
    CMD ["python3", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:6180/healthz', timeout=4)"]
ENTRYPOINT ["homeport-controlplane"]
CMD ["run"]

FROM python AS agent
COPY --from=install-agent /opt/homeport /opt/homeport
VOLUME /var/lib/homeport
ENTRYPOINT ["homeport-agent"]
CMD ["run"]
