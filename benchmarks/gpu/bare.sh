#!/bin/sh
# On a bare machine with a GPU, in the working tree: what benchmarks/gpu/prepare.py collected is unpacked, nothing fetched.
#   sh benchmarks/gpu/bare.sh keep                    keep a piece of onnxruntime-gpu that came along, for `run`
#   sh benchmarks/gpu/bare.sh run --seconds 480 ...   install what came along, then python -m benchmarks.gpu ...
set -eu
PYTHON=${PYTHON:-python3}
KEPT=${KEPT:-/tmp/edgeproof-gpu}
SITE=$KEPT/site
mkdir -p "$KEPT"

keep() {
  for piece in .whl/ort-*/ort.*; do
    if [ -f "$piece" ]; then cp "$piece" "$KEPT"; fi
  done
}

# All pieces are there, or onnxruntime-gpu is left out, and said to be.
unpack() {
  count=$(cat "$KEPT/ort.count" 2>/dev/null || echo 0)
  pieces=
  for number in $(seq 1 "$count"); do
    if [ ! -f "$KEPT/ort.$number" ]; then echo "piece $number of onnxruntime-gpu is missing: left out" >&2; return; fi
    pieces="$pieces $KEPT/ort.$number"
  done
  if [ -z "$pieces" ]; then echo "no onnxruntime-gpu came along: left out" >&2; return; fi
  # shellcheck disable=SC2086 # several names
  cat $pieces >"$KEPT/ort.zip"
  "$PYTHON" -m zipfile -e "$KEPT/ort.zip" "$SITE"
}

case "${1:-}" in
  keep) keep ;;
  run)
    shift
    keep
    "$PYTHON" -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$SITE" .whl/base/*.whl
    unpack
    # The working tree comes first: the project's own wheel is there for its entry points.
    PYTHONPATH=$PWD:$SITE exec "$PYTHON" -m benchmarks.gpu "$@"
    ;;
  *) sed -n '2,4s/^# *//p' "$0" >&2; exit 2 ;;
esac
