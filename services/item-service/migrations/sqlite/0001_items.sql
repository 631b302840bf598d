-- One row per item of one owner. The owner is the pair (issuer, subject); its SHA-256 is in the key, since a subject
-- may be long. Issuer and subject are kept for people.
CREATE TABLE items (
    owner   BLOB    NOT NULL CHECK (length(owner) = 32),
    id      TEXT    NOT NULL,
    version INTEGER NOT NULL CHECK (version >= 0),
    item    TEXT,   -- the JSON object as it was sent; NULL: not there
    issuer  TEXT    NOT NULL,
    subject TEXT    NOT NULL,
    PRIMARY KEY (owner, id)
) STRICT;

-- Which database this is: part of every cache key, so that a cache shared by mistake never mixes two databases.
CREATE TABLE identity (
    only_row INTEGER PRIMARY KEY DEFAULT 1 CHECK (only_row = 1),
    id       BLOB    NOT NULL
) STRICT;
INSERT INTO identity (id) VALUES (randomblob(16));
