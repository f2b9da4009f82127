# docker build -t fedrad .
#
# Behind a proxy that decrypts:  --build-arg EXTRA_CA="$(cat proxy-ca.pem)"
# From a package index of one's own:  --build-arg PIP_INDEX_URL=https://pypi.example.org/simple
# For machines without a GPU, smaller by 3 GB:
#   --build-arg PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
ARG BASE=python:3.12-slim
FROM ${BASE}

ARG EXTRA_CA=""
RUN if [ -n "$EXTRA_CA" ]; then \
        mkdir -p /usr/local/share/ca-certificates /etc/ssl/certs \
        && printf '%s\n' "$EXTRA_CA" > /usr/local/share/ca-certificates/extra.crt \
        && printf '%s\n' "$EXTRA_CA" >> /etc/ssl/certs/ca-certificates.crt; \
    fi

ARG PIP_INDEX_URL=https://pypi.org/simple
ARG PIP_EXTRA_INDEX_URL=""
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /src
# What fedrad needs first, without its extras: a hospital needs no Ray. A change of fedrad itself does
# not fetch torch again.
COPY pyproject.toml constraints.txt ./
RUN python3 -m venv /opt/fedrad \
    && export PIP_CERT=/etc/ssl/certs/ca-certificates.crt \
    && /opt/fedrad/bin/python -c "import tomllib; print('\n'.join(tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies']))" > needed.txt \
    && /opt/fedrad/bin/pip install --quiet --constraint constraints.txt --requirement needed.txt hatchling
COPY README.md LICENSE ./
COPY fedrad fedrad
RUN /opt/fedrad/bin/pip install --quiet --no-deps --no-build-isolation .
COPY scripts/container-health /opt/fedrad/bin/container-health

LABEL org.opencontainers.image.title="fedrad" \
      org.opencontainers.image.description="Federated and split learning for radiology" \
      org.opencontainers.image.version="0.2.0" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.vendor="The fedrad authors" \
      org.opencontainers.image.url="https://github.com/fedrad/fedrad" \
      org.opencontainers.image.source="https://github.com/fedrad/fedrad" \
      org.opencontainers.image.documentation="https://github.com/fedrad/fedrad/blob/main/docs/deploy.md"

ARG UID=1000
RUN useradd --create-home --uid "$UID" fedrad
USER fedrad
WORKDIR /home/fedrad
ENV PATH=/opt/fedrad/bin:$PATH OMP_NUM_THREADS=1 PYTHONUNBUFFERED=1
HEALTHCHECK --interval=15s --timeout=10s --start-period=120s CMD ["container-health"]
ENTRYPOINT ["fedrad"]
CMD ["--help"]
