#!/bin/sh
# Owns: the result of the tests of the step engine.
set -eu
echo half > "$OUT/result"
[ "$VALUE" != fail ]
echo "$VALUE" > "$OUT/result"
