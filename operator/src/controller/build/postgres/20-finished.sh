# Owns: saying that the first start is complete; start.sh asks.
rm -f "$PGDATA.unfinished"
sync
