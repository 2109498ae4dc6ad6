# The sidecar with all its doors, and every other command of tenantgate, with an OPA to embed. From the root of the clone, with OPA
# for the image's architecture in build/opa (`scripts/images` puts it there):
#
#     docker build -f deploy/images/sidecar.Dockerfile -t tenantgate .
#
# It runs as a user without a name or rights, and writes nothing outside of /var/lib/tenantgate/state, /run/tenantgate and /tmp:
# everything else may be read-only.
ARG BASE=python:3.13-slim

FROM ${BASE} AS build
# pip reads these as environment, and passes over empty ones
ARG PIP_NO_INDEX=
ARG PIP_FIND_LINKS=
# wheels that were fetched before, if there are any
COPY requirements/image.lock build/wheel[s] /wheels/
RUN python3 -m venv /opt/tenantgate \
    && /opt/tenantgate/bin/python -m pip install --no-cache-dir --require-hashes -r /wheels/image.lock
COPY pyproject.toml README.md LICENSE /source/
COPY sidecar /source/sidecar
COPY policies /source/policies
COPY opa /source/opa
# nothing is installed later
RUN /opt/tenantgate/bin/python -m pip install --no-cache-dir --no-deps --no-build-isolation /source \
    && /opt/tenantgate/bin/python -m pip uninstall --yes --quiet setuptools pip
# named volumes take their owner from here
RUN for folder in bundles keys state tokens trust; do mkdir -p "/layout/var/lib/tenantgate/$folder"; done \
    && mkdir -p /layout/run/tenantgate

FROM ${BASE}
COPY --from=build /opt/tenantgate /opt/tenantgate
COPY build/opa /usr/local/bin/opa
COPY --from=build --chown=65532:65532 /layout/var/lib/tenantgate /var/lib/tenantgate
COPY --from=build --chown=65532:65532 /layout/run/tenantgate /run/tenantgate
ENV PATH=/opt/tenantgate/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    TENANTGATE_STATE_DIR=/var/lib/tenantgate/state \
    TENANTGATE_LISTEN__SOCKET=/run/tenantgate/tenantgate.sock
USER 65532:65532
# what it writes; where nobody says what to mount there, the engine makes a volume that the user of the image owns
VOLUME ["/var/lib/tenantgate/state", "/run/tenantgate"]
WORKDIR /var/lib/tenantgate
ENTRYPOINT ["tenantgate"]
CMD ["serve"]
