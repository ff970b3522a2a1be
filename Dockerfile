# The demo in a container: a drawn world goes through the whole chain, without torch or weights.
#
#   docker build -t avatar-build .
#   docker run --rm -v "$PWD/demo:/demo" --user "$(id -u):$(id -g)" avatar-build
#
# Then open demo/ws/report.html. With EXTRAS=train a tiny TAVLO is trained too (7 GB of packages):
#
#   docker build --build-arg EXTRAS=train -t avatar-build .
FROM python:3.11-slim

ARG EXTRAS=""
ENV PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 \
    XDG_CACHE_HOME=/tmp/cache HOME=/tmp

WORKDIR /src
COPY pyproject.toml README.md LICENSE requirements.txt ./
COPY pipeline pipeline
COPY stages stages
COPY labeling labeling
COPY exports exports
COPY tavlo tavlo

# requirements.txt holds the pins of every extra; as constraints they hold for what is installed.
# Constraints have no hashes, so what pip would check with --require-hashes goes by version alone.
RUN sed -E '/^ +--hash=/d; s/ *\\$//' requirements.txt > /tmp/constraints.txt \
 && pip install --constraint /tmp/constraints.txt "/src${EXTRAS:+[$EXTRAS]}" \
 && useradd --create-home builder \
 && mkdir /demo && chown builder /demo

WORKDIR /demo
USER builder
ENTRYPOINT ["avatar-build"]
CMD ["demo", "--workspace", "/demo"]
