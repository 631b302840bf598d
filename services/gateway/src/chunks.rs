//! Where a chunked body ends (RFC 9112 section 7.1), as far as there is no doubt: plain sizes, no extensions, no
//! trailers. Anything else is legal or not, but nothing to locate the next request by.

/// A chunked body that is being read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Chunks {
    /// Before or within a size, and what of it has been read.
    #[default]
    Size,
    Digits {
        size: u64,
        count: u8,
    },
    /// A size has been read but for its line end.
    SizeEnd(u64),
    Data(u64),
    /// The line end behind so many bytes of data, or behind the last chunk.
    DataEnd {
        wants: u8,
        is_last: bool,
    },
}

/// What reading on has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    More(Chunks),
    /// The body ended, with so many bytes left over.
    End(usize),
    /// Nothing to rely on.
    Doubt,
}

/// Sixteen digits would overflow.
const MAX_DIGITS: u8 = 15;

impl Chunks {
    /// Reads on.
    pub(crate) fn read(self, bytes: &[u8]) -> Found {
        let mut state = self;
        let mut rest = bytes;
        while let Some((byte, behind)) = rest.split_first() {
            state = match (state, byte) {
                (Self::Data(left), _) => {
                    let here = left.min(rest.len() as u64);
                    rest = rest
                        .get(usize::try_from(here).unwrap_or(rest.len())..)
                        .unwrap_or_default();
                    state = match left - here {
                        0 => Self::DataEnd {
                            wants: b'\r',
                            is_last: false,
                        },
                        left => Self::Data(left),
                    };
                    continue;
                }
                (Self::Size, digit) => match hex(*digit) {
                    Some(size) => Self::Digits { size, count: 1 },
                    None => return Found::Doubt,
                },
                (Self::Digits { size, .. }, b'\r') => Self::SizeEnd(size),
                (Self::Digits { size, count }, digit) => match hex(*digit) {
                    Some(digit) if count < MAX_DIGITS => Self::Digits {
                        size: size << 4 | digit,
                        count: count + 1,
                    },
                    _ => return Found::Doubt,
                },
                (Self::SizeEnd(0), b'\n') => Self::DataEnd {
                    wants: b'\r',
                    is_last: true,
                },
                (Self::SizeEnd(size), b'\n') => Self::Data(size),
                (
                    Self::DataEnd {
                        wants: b'\r',
                        is_last,
                    },
                    b'\r',
                ) => Self::DataEnd {
                    wants: b'\n',
                    is_last,
                },
                (
                    Self::DataEnd {
                        wants: b'\n',
                        is_last: true,
                    },
                    b'\n',
                ) => return Found::End(behind.len()),
                (
                    Self::DataEnd {
                        wants: b'\n',
                        is_last: false,
                    },
                    b'\n',
                ) => Self::Size,
                (Self::SizeEnd(_) | Self::DataEnd { .. }, _) => return Found::Doubt,
            };
            rest = behind;
        }
        Found::More(state)
    }
}

fn hex(byte: u8) -> Option<u64> {
    char::from(byte).to_digit(16).map(u64::from)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(pieces: &[&[u8]]) -> Found {
        let mut found = Found::More(Chunks::default());
        for piece in pieces {
            match found {
                Found::More(chunks) => found = chunks.read(piece),
                Found::End(_) | Found::Doubt => return found,
            }
        }
        found
    }

    #[test]
    fn the_end_of_a_plain_body_is_found() {
        assert_eq!(
            read(&[b"5\r\nhello\r\n00A\r\n0123456789\r\n0\r\n\r\n"]),
            Found::End(0)
        );
        assert_eq!(read(&[b"0\r\n\r\nGET"]), Found::End(3));
        assert_eq!(
            read(&[b"2\r\n\r\n\r\n0\r\n\r\n"]),
            Found::End(0),
            "data may look like a line end"
        );
        assert!(matches!(read(&[b"5\r\nhell"]), Found::More(_)));
    }

    #[test]
    fn whatever_has_a_second_reading_leaves_doubt() {
        for body in [
            "5;x=y\r\nhello\r\n",
            "5 \r\nhello\r\n",
            "\r\n5\r\n",
            "5\nhello\r\n",
            "5\r\nhelloX",
            "g\r\n",
            "-1\r\n",
            "0x5\r\n",
            "0\r\nTrailer: x\r\n\r\n",
            "0\r\n\n",
            "10000000000000000\r\n",
            "5\r\nhello\n0\r\n\r\n",
        ] {
            assert_eq!(read(&[body.as_bytes()]), Found::Doubt, "{body:?}");
        }
    }

    proptest! {
        #[test]
        fn chunks_end_where_they_were_made_to_end_however_they_are_cut(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..5),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let mut body = Vec::new();
            for chunk in &chunks {
                body.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
                body.extend(chunk);
                body.extend(b"\r\n");
            }
            body.extend(b"0\r\n\r\n");
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(body.len())).collect();
            cuts.extend([0, body.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &body[cut[0]..cut[1]]).collect();
            prop_assert_eq!(read(&pieces), Found::End(0));
        }
    }
}
