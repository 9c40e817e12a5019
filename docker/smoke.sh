#!/usr/bin/env bash
# Build the images on a Debian base that stands in for NVIDIA's, and run them: smoke.sh [amd64] [arm64] [train]
#
# Privileges: root. It starts a container engine of its own (Debian's docker.io) without bridge or firewall rules, on a
# socket and a data directory of its own in SMOKE_DIR (default: a new one in /var/tmp, some 2 GB, 25 with train), and,
# for arm64, registers qemu-aarch64 with the kernel (binfmt_misc) unless something is registered there. It ends the
# engine, unregisters and removes what it made. An engine that runs already is not touched.
set -euo pipefail
cd "$(dirname "$0")/.."
# Debian 12 has qemu 7.2, on which ONNX Runtime 1.28 and later crash; 1.23.2 is also what the image installs.
ONNXRUNTIME=1.23.2
SUITE=bookworm
BUNDLE=$PWD/tests/data/tiny-bundle

# Debian's client, which has BuildKit built in; another one in the PATH may lack it.
client=$(dirname "$(dirname "$(command -v dockerd || echo /usr/sbin/dockerd)")")/bin/docker
docker() { "$client" "$@"; }
say() { echo "smoke: $*"; }
skip() { say "skipped: $*"; exit 0; }
die() { say "FAILED: $*" >&2; exit 1; }

finish() {
  status=$?
  trap - EXIT
  if [ -n "$engine" ]; then
    kill "$engine" 2>/dev/null || true
    wait "$engine" 2>/dev/null || true
  fi
  [ -z "$registered" ] || echo -1 >"$binfmt/qemu-aarch64"
  [ -z "$mounted" ] || umount "$binfmt"
  # The log tells why; all else goes.
  [ "$status" = 0 ] || tail -n 20 "$place/dockerd.log" >&2 || true
  umount "$place"/exec/netns/* 2>/dev/null || true
  rm -rf "$place"
  exit "$status"
}

start_engine() {
  dockerd --storage-driver overlay2 --iptables=false --ip6tables=false --bridge=none --data-root "$place/data" \
    --exec-root "$place/exec" --pidfile "$place/pid" -H "$DOCKER_HOST" >"$place/dockerd.log" 2>&1 &
  engine=$!
  for _ in $(seq 60); do
    docker info >/dev/null 2>&1 && return
    kill -0 "$engine" 2>/dev/null || { tail -n 5 "$place/dockerd.log"; engine=""; skip "no engine can start here"; }
    sleep 0.5
  done
  skip "the engine did not answer within 30 s"
}

emulate_arm64() { # let the kernel run arm64 programs, in containers too (F: the interpreter is opened now); 1: it cannot
  [ "$(uname -m)" != aarch64 ] || return 0
  if [ ! -e $binfmt/register ]; then
    mount -t binfmt_misc binfmt_misc $binfmt || return 1
    mounted=yes
  fi
  [ ! -e $binfmt/qemu-aarch64 ] || return 0
  local magic='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
  local mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
  printf '%s' ":qemu-aarch64:M::$magic:$mask:$(command -v qemu-aarch64-static):F" >$binfmt/register || return 1
  registered=yes
}

stand_in() { # ARCHITECTURE: Debian with Python, as edgeproof-base:ARCHITECTURE; it trusts the certificates trusted here
  ! docker image inspect "edgeproof-base:$1" >/dev/null 2>&1 || return 0
  mkdir -p "$place/base-$1"
  # shellcheck disable=SC2016 # mmdebstrap's $1
  mmdebstrap --quiet --skip=check/qemu --arch="$1" --variant=apt --include=passwd,python3,python3-venv,libgomp1 \
    --customize-hook='mkdir -p "$1/etc/ssl/certs"' \
    --customize-hook='copy-in /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs' \
    --aptopt='Acquire::Languages "none"' --dpkgopt=force-unsafe-io --dpkgopt='path-exclude=/usr/share/doc/*' "$SUITE" "$place/base-$1/root.tar"
  printf 'FROM scratch\nADD root.tar /\n' >"$place/base-$1/Dockerfile"
  DOCKER_BUILDKIT=1 docker build --quiet --platform "linux/$1" --tag "edgeproof-base:$1" "$place/base-$1" >/dev/null
  rm -r "$place/base-$1"
}

build() { # TAG DOCKERFILE ARCHITECTURE [OPTION...]: build it, say how long it took and what it adds to its base
  local tag=$1 file=$2 architecture=$3 before=$SECONDS own
  shift 3
  docker build --platform "linux/$architecture" --network=host --tag "$tag" --file "$file" "$@" . \
    >"$place/build.log" 2>&1 || { tail -n 40 "$place/build.log" >&2; die "$tag does not build"; }
  [ "$(docker image inspect --format '{{.Architecture}}' "$tag")" = "$architecture" ] || die "$tag is not $architecture"
  own=$(($(size "$tag") - $(size "edgeproof-base:$architecture")))
  say "$tag: built in $((SECONDS - before)) s; $((own / 1000000)) MB of its own, $(($(size "$tag") / 1000000)) MB in all"
}

size() { docker image inspect --format '{{.Size}}' "$1"; }

run() { # CODE TAG [ARGUMENT...]: run it as strictly as it should be run; it must exit with CODE
  local wanted=$1 got=0
  shift
  docker run --rm --network=none --read-only --cap-drop=ALL --security-opt=no-new-privileges \
    --volume "$BUNDLE:/bundle:ro" --volume "$volume" --env EDGEPROOF_BACKEND=ort "$@" \
    >"$place/stdout" 2>"$place/stderr" || got=$?
  [ "$got" = "$wanted" ] || { cat "$place/stdout" "$place/stderr" >&2; die "exit $got, not $wanted: $*"; }
}

state() { run 0 --entrypoint sh "$1" -c "$2"; } # TAG SCRIPT: run in a container with the same volume

device_image() { # ARCHITECTURE BUILDKIT ATTACKS: the whole way on one architecture, by one of docker's two builders
  local architecture=$1 tag=edgeproof:$1
  volume=edgeproof-state-$1:/state
  stand_in "$architecture"
  DOCKER_BUILDKIT=$2 build "$tag" docker/jetson.Dockerfile "$architecture" \
    --build-arg "BASE_IMAGE=edgeproof-base:$architecture" --build-arg TENSORRT_TEST=pass --build-arg "ONNXRUNTIME=$ONNXRUNTIME" \
    --build-arg VERSION=smoke

  run 0 "$tag" verify /bundle
  grep -q '^passed' "$place/stdout" || die "$tag: verify does not say 'passed'"
  state "$tag" 'cd reports/* && ls evidence.npz journal.jsonl junit.xml report.html report.json summary.md && cat report.json'
  grep -q '"verdict": "passed"' "$place/stdout" || die "$tag: no passed report in /state/reports"
  run 1 "$tag" verify /bundle --attacks fgsm --fail-under 99% --out gated
  run 3 "$tag" verify /state --out other # a directory that is no bundle
  run 0 --entrypoint id "$tag"
  grep -q 'uid=10001(edgeproof)' "$place/stdout" || die "$tag runs as $(cat "$place/stdout")"
  grep -q '(video)' "$place/stdout" || die "$tag's user may not open a Jetson's GPU"
  run 4 --env EDGEPROOF_BACKEND=tensorrt "$tag" verify /bundle --out engine
  stopped_and_resumed "$tag" "$3"
  say "$tag: passed 0, failed gate 1, no bundle 3, no TensorRT 4, stopped 130 and resumed; read-only root, no capability"
}

stopped_and_resumed() { # TAG ATTACKS: docker stop in the middle of a run, which then goes on to its end
  local words=(verify /bundle --attacks "$2" --no-gate --out long --resume) container
  container=$(docker run --detach --network=none --read-only --cap-drop=ALL --health-interval=1s \
    --volume "$BUNDLE:/bundle:ro" --volume "$volume" --env EDGEPROOF_BACKEND=ort "$1" "${words[@]}")
  for _ in $(seq 240); do
    state "$1" 'wc -l < long/journal.jsonl 2>/dev/null || echo 0'
    [ "$(cat "$place/stdout")" -lt 2 ] || break
    sleep 0.5
  done
  [ "$(docker inspect --format '{{.State.Health.Status}}' "$container")" = healthy ] || say "not healthy yet"
  docker stop --time 120 "$container" >/dev/null
  local code
  code=$(docker inspect --format '{{.State.ExitCode}}' "$container")
  [ "$code" = 130 ] || { docker logs "$container" >&2; die "docker stop: exit $code, not 130"; }
  docker rm "$container" >/dev/null
  run 0 "$1" "${words[@]}"
  grep -q 'going on after' "$place/stderr" || die "$1: the stopped run began again"
}

train_image() { # the way from a recipe to a bundle, on the CPU
  local tag=edgeproof:train
  volume=edgeproof-work:/workspace
  stand_in amd64
  DOCKER_BUILDKIT=1 build "$tag" docker/train.Dockerfile amd64 --build-arg BASE_IMAGE=edgeproof-base:amd64
  run 0 "$tag" distill fashion-mini --set train.max_steps=2 --out run
  run 0 "$tag" export run --out bundle
  run 0 "$tag" verify bundle --n 50 --attacks fgsm --out report
  say "$tag: distilled, exported, verified; read-only root, no capability"
}

main() { # [PART...]: all parts, or those named
  [ $# -gt 0 ] || set -- amd64 arm64 train
  [ "$(id -u)" = 0 ] || skip "starting an engine takes root"
  for tool in dockerd:docker.io runc:runc mmdebstrap:mmdebstrap qemu-aarch64-static:qemu-user-static; do
    [ -n "$(command -v "${tool%%:*}")" ] || skip "no ${tool%%:*} here: apt-get install docker.io mmdebstrap qemu-user-static"
  done

  place=${SMOKE_DIR:-$(mktemp -d /var/tmp/edgeproof-smoke.XXXXXX)}
  mkdir -p "$place"
  export DOCKER_HOST=unix://$place/socket DOCKER_CONFIG=$place/config
  binfmt=/proc/sys/fs/binfmt_misc registered="" mounted="" engine=""
  trap finish EXIT
  trap 'exit 130' INT TERM
  start_engine
  local part
  for part in "$@"; do
    case $part in
      # Attacks that take long enough to be stopped in: some seconds natively, or emulated.
      amd64) device_image amd64 0 pgd,square ;;
      arm64)
        if emulate_arm64; then
          device_image arm64 1 pgd,cw
        else
          say "skipped: arm64: no binfmt_misc that takes qemu-aarch64 here"
        fi
        ;;
      train) train_image ;;
      *) die "unknown part: $part" ;;
    esac
  done
}

main "$@"
