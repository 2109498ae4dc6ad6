# OPA of the version that the policies are tested with, alone in its image, with the configurations for an OPA beside the sidecar.
# From the root of the clone, with a static OPA for the image's architecture in build/opa (`scripts/images` puts it there):
#
#     docker build -f deploy/images/opa.Dockerfile -t tenantgate-opa .
ARG BASE=python:3.13-slim

# of the base, nothing goes into the image but the certificates of authorities; named volumes take their owner from the folders
FROM ${BASE} AS layout
RUN mkdir -p /layout/opa /layout/run \
    && cp /etc/ssl/certs/ca-certificates.crt /ca-certificates.crt

FROM scratch
COPY --from=layout /ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=layout --chown=65532:65532 /layout/opa /var/lib/opa
COPY --from=layout --chown=65532:65532 /layout/run /run/opa
COPY opa/separate.yaml opa/separate-s3.yaml /etc/opa/
COPY build/opa /opa
ENV PERSISTENCE_DIRECTORY=/var/lib/opa
USER 65532:65532
VOLUME ["/var/lib/opa", "/run/opa"]
ENTRYPOINT ["/opa"]
CMD ["run", "--server", "--skip-version-check", "--addr=unix:///run/opa/opa.sock", "--diagnostic-addr=127.0.0.1:8282", \
    "--config-file=/etc/opa/separate.yaml"]
# there is no shell: OPA asks itself, with an expression that is undefined unless it is well
HEALTHCHECK --interval=2s --timeout=5s --start-period=10s CMD ["/opa", "eval", "--fail", "--format=raw", \
    "r := http.send({\"method\": \"get\", \"url\": \"http://127.0.0.1:8282/health?bundles\", \"raise_error\": false}); r.status_code == 200"]
