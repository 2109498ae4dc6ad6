# S3 and STS by moto, for compose.yaml and the tests. It gives to everyone, and forgets with its container.
ARG BASE=python:3.13-slim

FROM ${BASE} AS build
ARG PIP_NO_INDEX=
ARG PIP_FIND_LINKS=
COPY requirements/moto.lock build/wheel[s] /wheels/
RUN python3 -m venv /opt/moto \
    && /opt/moto/bin/python -m pip install --no-cache-dir --require-hashes -r /wheels/moto.lock

FROM ${BASE}
COPY --from=build /opt/moto /opt/moto
USER 65532:65532
EXPOSE 5000
ENTRYPOINT ["/opt/moto/bin/moto_server"]
CMD ["--host", "0.0.0.0", "--port", "5000"]
HEALTHCHECK --interval=2s --timeout=5s --start-period=20s CMD ["/opt/moto/bin/python", "-c", \
    "import urllib.request; urllib.request.urlopen('http://127.0.0.1:5000/moto-api/data.json', timeout=4)"]
