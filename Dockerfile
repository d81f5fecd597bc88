# Serves the prompts of /prompts on a processor. Written, and not built yet: see docs/install.md.
FROM python:3.11-slim

# torch alone first: its CPU build is gigabytes smaller, and this layer stays when spoton changes.
COPY constraints.txt /build/
RUN pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu "$(grep '^torch==' /build/constraints.txt)"

COPY pyproject.toml README.md LICENSE /build/
COPY src /build/src
RUN pip install --no-cache-dir -c /build/constraints.txt "/build[serve]"

RUN useradd --create-home spoton
USER spoton
ENV SPOTON_CACHE=/home/spoton/cache
# The model is part of the image, so that a container starts without a network.
RUN spoton models pull smollm2-135m

EXPOSE 8000
HEALTHCHECK CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health')"]
# Outside of the container means another machine to it, so a token has to be mounted: -v ./token.txt:/token.txt:ro
ENTRYPOINT ["spoton", "serve"]
CMD ["/prompts", "starter", "--host", "0.0.0.0", "--token-file", "/token.txt"]
