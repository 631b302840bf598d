#!/usr/bin/env bash
# Owns: the Debian packages that a cluster without a network needs on the host. Installs those of $PACKAGES that are
# missing and starts none of their services. Only ever called as root on Debian.
set -euo pipefail
: "${PACKAGES:?}"

export DEBIAN_FRONTEND=noninteractive
# A run that was cut off may have left packages half configured.
dpkg --configure -a

# Docker's package would start an engine of its own; the one that is wanted is started by engine-start.sh.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' > "$policy"
  chmod 755 "$policy"
  trap 'rm -f "$policy"' EXIT
fi

apt-get update
# shellcheck disable=SC2086 # a list of words
apt-get install -y --no-install-recommends $PACKAGES
