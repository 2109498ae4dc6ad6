# DynamoDB Local, in memory, for compose.yaml and the tests: tables and streams as AWS has them, for one machine and no longer.
# From the root of the clone, with its jars in build/dynamodb-local (`scripts/images` puts them there).
ARG BASE=eclipse-temurin:17-jre
FROM ${BASE}
COPY build/dynamodb-local /opt/dynamodb-local
USER 65532:65532
WORKDIR /tmp
EXPOSE 8000
ENTRYPOINT ["java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx256m", "-Djava.library.path=/opt/dynamodb-local", \
    "-cp", "/opt/dynamodb-local/*", "software.amazon.dynamodb.services.local.main.ServerRunner"]
CMD ["-inMemory", "-sharedDb", "-port", "8000", "-disableTelemetry"]
# who brings no credentials is answered 400, and nothing is answered before it can answer all
HEALTHCHECK --interval=2s --timeout=5s --start-period=20s CMD ["bash", "-c", \
    "exec 3<>/dev/tcp/127.0.0.1/8000 && printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3 && head -n 1 <&3 | grep -q ' 400 '"]
