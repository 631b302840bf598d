#!/usr/bin/env bash
# Owns: starting a Docker engine of our own, beside any other: its socket, pid file and state in $RUN, its images and
# containers in $DATA. It outlives this script. Ready when the socket answers; engine-stop.sh ends it.
set -euo pipefail
: "${RUN:?}" "${DATA:?}"
here=$(cd "$(dirname "$0")" && pwd)

# What an engine that was killed left behind: its pid may belong to another program by now, and would stop a new engine.
"$here/engine-stop.sh"
mkdir -p "$RUN" "$DATA"
chmod 711 "$RUN"
echo "$DATA" > "$RUN/data"

runtime=()
bounding=$(sed -n 's/^CapBnd:[[:space:]]*//p' /proc/self/status)
if (( (0x$bounding >> 24 & 1) == 0 )); then
  echo "this host lacks CAP_SYS_RESOURCE: containers start without it"
  install -m 755 "$here/runc-without-sys-resource" "$RUN/runc-without-sys-resource"
  runtime=(--add-runtime "bounded=$RUN/runc-without-sys-resource" --default-runtime bounded)
fi

echo "starting dockerd on $RUN/docker.sock"
setsid dockerd --host "unix://$RUN/docker.sock" --pidfile "$RUN/docker.pid" --exec-root "$RUN/exec" --data-root "$DATA" \
  "${runtime[@]}" < /dev/null >> "$RUN/dockerd.log" 2>&1 &
engine=$!
for _ in $(seq 120); do
  if docker --host "unix://$RUN/docker.sock" info > /dev/null 2>&1; then
    echo "dockerd answers"
    exit 0
  fi
  if ! kill -0 "$engine" 2> /dev/null; then
    tail -n 5 "$RUN/dockerd.log" >&2
    echo "dockerd ended as soon as it was started; its whole log is $RUN/dockerd.log" >&2
    exit 1
  fi
  sleep 0.5
done
echo "dockerd did not answer within 60 s; its log is $RUN/dockerd.log" >&2
"$here/engine-stop.sh"
exit 1
