#!/usr/bin/env bash
# Owns: ending the Docker engine whose state is in $RUN, its containerd, and what a killed one left there. Nothing else:
# a pid counts only if its program still is the one that wrote the file.
set -euo pipefail
: "${RUN:?}"
[ -d "$RUN" ] || exit 0

end() { # program pid-file
  local pid
  pid=$(cat "$2" 2> /dev/null) || return 0
  if [ -n "$pid" ] && [ "$(cat "/proc/$pid/comm" 2> /dev/null)" = "$1" ] &&
    tr '\0' '\n' < "/proc/$pid/cmdline" | grep -qF "$RUN/"; then
    echo "ending $1 (pid $pid)"
    kill -TERM "$pid"
    for _ in $(seq 100); do
      kill -0 "$pid" 2> /dev/null || break
      sleep 0.2
    done
    if kill -KILL "$pid" 2> /dev/null; then echo "$1 had to be killed"; fi
  fi
  rm -f "$2"
}
end dockerd "$RUN/docker.pid"
end containerd "$RUN/exec/containerd/containerd.pid"

# Containers outlive an engine that was killed, each under a shim of its own; a new engine knows nothing of them.
for shim in /proc/[0-9]*; do
  if [ "$(cat "$shim/comm" 2> /dev/null)" = containerd-shim ] && tr '\0' '\n' < "$shim/cmdline" | grep -qF "$RUN/exec/"; then
    pid=${shim#/proc/}
    echo "ending a container that was left (shim $pid)"
    # The first process of a container takes all others with it.
    # shellcheck disable=SC2013 # numbers in one line
    for child in $(cat "/proc/$pid/task/"*/children 2> /dev/null); do kill -KILL "$child" 2> /dev/null || true; done
    kill -KILL "$pid" 2> /dev/null || true
  fi
done

# Network namespaces and layers of dead containers are mounts, and so is the data folder itself: nothing may stay mounted
# below what is removed here, or what its owner may want to remove.
data=$(cat "$RUN/data" 2> /dev/null || echo "$RUN/exec")
awk -v run="$RUN/" -v data="$data" 'index($5, run) == 1 || $5 == data || index($5, data "/") == 1 { print $5 }' \
  /proc/self/mountinfo | sort -r |
  while read -r mount; do umount -l "$mount"; done
rm -rf "$RUN/data" "$RUN/exec" "$RUN/docker.sock" "$RUN/runc-without-sys-resource"
