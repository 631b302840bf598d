-- One row per item of one owner. The owner is the pair (issuer, subject); its SHA-256 is in the key, since a subject
-- may be longer than an index entry. Issuer and subject are kept for people.
CREATE TABLE items (
    owner   BYTEA              NOT NULL CHECK (octet_length(owner) = 32),
    id      TEXT COLLATE "C"   NOT NULL,
    version BIGINT             NOT NULL CHECK (version >= 0),
    item    TEXT,              -- the JSON object as it was sent; NULL: not there
    issuer  TEXT               NOT NULL,
    subject TEXT               NOT NULL,
    PRIMARY KEY (owner, id)
);

-- Which database this is: part of every cache key, so that a cache shared by mistake never mixes two databases.
CREATE TABLE identity (
    only_row BOOLEAN PRIMARY KEY DEFAULT TRUE CHECK (only_row),
    id       BYTEA   NOT NULL
);
INSERT INTO identity (id) VALUES (decode(replace(gen_random_uuid()::text, '-', ''), 'hex'));
