# The official vLLM image with the plugin:  docker build --file deploy/vllm.Dockerfile .
# On CPU: --build-arg VLLM_IMAGE=public.ecr.aws/q9t5s3a7/vllm-cpu-release-repo:v0.32.0
ARG VLLM_IMAGE=vllm/vllm-openai:v0.32.0

FROM ${VLLM_IMAGE} AS wheel
WORKDIR /build
COPY vllm-plugin plugin
RUN python3 -m pip wheel --quiet --no-deps --wheel-dir wheels ./plugin

FROM ${VLLM_IMAGE}
WORKDIR /app
COPY --from=wheel /build/wheels wheels
RUN python3 -m pip install --quiet --no-cache-dir ./wheels/*.whl && crystal-kv-vllm settings >settings.md
# A user without rights and without an entry in /etc/passwd: what asks for a name gets the one in the environment.
COPY --chown=10001:10001 deploy/model-cache /models
ENV HF_HOME=/models HOME=/tmp USER=vllm LOGNAME=vllm VLLM_NO_USAGE_STATS=1 CRYSTALKV_METRICS_PORT=9092
USER 10001:10001
EXPOSE 8000 9092
HEALTHCHECK --interval=15s --timeout=5s --start-period=30m --retries=3 CMD ["python3", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
ENTRYPOINT ["crystal-kv-vllm", "serve"]
