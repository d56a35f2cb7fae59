# The base install: preflight, mend, compare, inspect, check, bundle; no torch, no GPU.
#   docker build -t trt-qat .
#   docker run --rm -v "$PWD:/work" trt-qat preflight model.onnx
# With training: docker build --build-arg EXTRAS=[train] -t trt-qat .
FROM python:3.12-slim AS wheel
WORKDIR /src
COPY . .
RUN pip install --no-cache-dir build && python -m build --wheel --outdir /dist .

FROM python:3.12-slim
ARG EXTRAS=""
COPY constraints.txt /tmp/constraints.txt
COPY --from=wheel /dist/*.whl /tmp/dist/
RUN wheel="$(ls /tmp/dist/*.whl)" \
  && pip install --no-cache-dir -c /tmp/constraints.txt "${wheel}${EXTRAS}" \
  && rm -r /tmp/dist /tmp/constraints.txt \
  && useradd --create-home user
USER user
WORKDIR /work
ENTRYPOINT ["trt-qat"]
CMD ["doctor"]
