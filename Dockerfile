# One image for everything that the chart runs: `gatepost ingress|policy|delivery|keys|topology` and
# nats-server. `make images` builds it.
#
#   BASE    a Debian with Python 3.11 or newer as python3; pin it by its digest where builds must be
#           the same for ever: docker.io/library/python:3.11-slim-bookworm@sha256:…
ARG BASE=docker.io/library/python:3.11-slim-bookworm

FROM ${BASE} AS build
WORKDIR /src

# The tools that wheels are built with, at the versions and hashes of the lock. Nothing is compiled:
# what is published as source alone (dkimpy, pyspf) is pure Python.
COPY tools/locked-wheels tools/locked-wheels
COPY requirements.lock pyproject.toml ./
# An index behind a proxy with a certificate of its own: --secret id=ca,src=FILE.
RUN --mount=type=secret,id=ca,required=false \
    set -eu; [ ! -f /run/secrets/ca ] || export PIP_CERT=/run/secrets/ca; \
    export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_NO_CACHE_DIR=1; \
    python3 -m venv /build; \
    /build/bin/python tools/locked-wheels tools /tools; \
    /build/bin/python -m pip install --quiet --no-index --no-deps /tools/*.whl; \
    /build/bin/python tools/locked-wheels runtime /wheels

COPY README.md LICENSE ./
COPY proto proto
COPY services services
RUN set -eu; export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INDEX=1; \
    /build/bin/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir /wheels .; \
    python3 -m venv --without-pip /opt/gatepost; \
    /build/bin/python -m pip --python /opt/gatepost/bin/python install --quiet --no-deps \
        /wheels/*.whl; \
    /build/bin/python -m pip --python /opt/gatepost/bin/python check

# Half of it is what only debuggers and readers need. Libraries lose their symbols for debuggers and
# are kept compiled alone; our own code keeps its sources, for tracebacks and for what
# `gatepost config schema` says about settings.
RUN set -eu; \
    apt-get update -qq; apt-get install -qq --yes --no-install-recommends binutils >/dev/null; \
    cd /opt/gatepost/lib/python3*/site-packages; \
    find . -name '*.so' -exec strip --strip-debug {} +; \
    strip --strip-debug /opt/gatepost/bin/nats-server; \
    find . -name '*.py' ! -path './services/*' ! -path './gatepost/*' >/tmp/libraries; \
    /opt/gatepost/bin/python -m compileall -q -b -i /tmp/libraries; \
    xargs rm -f </tmp/libraries; \
    find . -name __pycache__ ! -path './services/*' ! -path './gatepost/*' -prune -exec rm -r {} +

FROM ${BASE}
# Who may certify mail exchanges and the hosts of MTA-STS policies. Without them no policy would be
# found valid, and mail would go out with less protection than its domains ask for.
RUN test -s /etc/ssl/certs/ca-certificates.crt || { echo "BASE lacks ca-certificates" >&2; exit 1; }
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /nonexistent \
        --shell /usr/sbin/nologin gatepost
COPY --from=build /opt/gatepost /opt/gatepost
ENV PATH=/opt/gatepost/bin:/usr/local/bin:/usr/bin:/bin \
    LANG=C.UTF-8 \
    PYTHONUNBUFFERED=1 \
    # The root file system is read-only, and everything is compiled already.
    PYTHONDONTWRITEBYTECODE=1
WORKDIR /
USER 10001:10001
ENTRYPOINT ["gatepost"]
