# Serves the page:
#   docker build -t deepsteg .
#   docker run --rm -p 127.0.0.1:7860:7860 deepsteg
# then open http://127.0.0.1:7860. Nothing is kept when it ends.
FROM python:3.11-slim
COPY . /source
RUN pip install --no-cache-dir "/source[app,vvc]" && rm -r /source \
    && useradd --create-home deepsteg
USER deepsteg
WORKDIR /home/deepsteg
EXPOSE 7860
HEALTHCHECK --start-period=60s CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:7860', timeout=5)"]
STOPSIGNAL SIGINT
CMD ["deepsteg", "app", "--host", "0.0.0.0"]
