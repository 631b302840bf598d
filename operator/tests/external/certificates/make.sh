#!/bin/sh
# Makes the certificates of the tests of TLS anew: `sh make.sh` here, with OpenSSL 3. They guard nothing: each is for
# loopback, and the keys of the authorities are not kept.
set -eu
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

authority() {
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days 36500 -subj "/CN=$1" \
    -addext basicConstraints=critical,CA:true -addext keyUsage=critical,keyCertSign -keyout "$work/$1.key" -out "$1.pem"
}

# $1 is its file, $2 whom it names, $3 and $4 the time in which it is good.
certificate() {
  openssl req -new -key server.key -subj "/CN=$1" -out "$work/$1.csr"
  : >"$work/index"
  printf '%s\n' '[ca]' 'default_ca=d' '[d]' "database=$work/index" "new_certs_dir=$work" "serial=$work/serial" \
    'default_md=sha256' 'policy=p' 'x509_extensions=x' '[p]' 'commonName=supplied' \
    '[x]' 'basicConstraints=critical,CA:false' 'extendedKeyUsage=serverAuth' "subjectAltName=$2" >"$work/config"
  openssl ca -config "$work/config" -batch -notext -rand_serial -startdate "$3" -enddate "$4" \
    -cert authority.pem -keyfile "$work/authority.key" -in "$work/$1.csr" -out "$1.pem"
}

authority authority
authority stranger
openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out server.key
certificate good IP:127.0.0.1,DNS:localhost 20250101000000Z 21250101000000Z
certificate misnamed DNS:idp.example.com 20250101000000Z 21250101000000Z
certificate expired IP:127.0.0.1,DNS:localhost 20200101000000Z 20210101000000Z
