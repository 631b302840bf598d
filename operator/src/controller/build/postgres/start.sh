#!/bin/sh
# Owns: starting PostgreSQL so that a first start which was cut short begins anew. The image would keep what is half made
# for ever, without the role that the service logs in with. Until 20-finished.sh has run, nobody could connect.
set -eu
unfinished="$PGDATA.unfinished"
if [ -e "$unfinished" ]; then
  echo "the first start was cut short; it begins anew"
  rm -rf "$PGDATA"
fi
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  mkdir -p "$(dirname "$unfinished")"
  touch "$unfinished"
  sync
fi
exec docker-entrypoint.sh postgres "$@"
