//! The payload of a chunked answer (RFC 9112 section 7.1). Extensions are passed over and trailers end here; sizes are
//! plain hexadecimal and lines end in CRLF, or the answer is broken.

use crate::answer_head::BadAnswer;

/// Extensions and trailers together; nobody needs more.
const MAX_IGNORED: u32 = 16 * 1024;
/// Sixteen digits would overflow.
const MAX_DIGITS: u8 = 15;

/// A chunked body that is being read.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct AnswerChunks {
    state: State,
    ignored: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Before or within a size: what of it has been read, in so many digits.
    #[default]
    Start,
    Size(u64, u8),
    Extension(u64),
    SizeEnd(u64),
    Data(u64),
    DataEnd,
    DataLineEnd,
    /// At the beginning of a trailer line, or of the empty one.
    Trailer,
    InTrailer,
    TrailerEnd,
    LastEnd,
    Ended,
}

impl AnswerChunks {
    pub(crate) fn has_ended(&self) -> bool {
        self.state == State::Ended
    }

    /// Reads on: what is payload is added to `payload`. Returns how many bytes belong to the body, fewer than came only
    /// where it ended.
    ///
    /// # Errors
    /// [`BadAnswer`] where this is no chunked body.
    pub(crate) fn read(&mut self, bytes: &[u8], payload: &mut Vec<u8>) -> Result<usize, BadAnswer> {
        let mut at = 0;
        while let Some(byte) = bytes.get(at)
            && !self.has_ended()
        {
            if let State::Data(left) = self.state {
                let rest = &bytes[at..];
                let here = usize::try_from(left).map_or(rest.len(), |left| left.min(rest.len()));
                payload.extend_from_slice(&rest[..here]);
                at += here;
                self.state = match left - here as u64 {
                    0 => State::DataEnd,
                    left => State::Data(left),
                };
                continue;
            }
            self.state = self.after(*byte)?;
            at += 1;
        }
        Ok(at)
    }

    fn after(&mut self, byte: u8) -> Result<State, BadAnswer> {
        Ok(match (self.state, byte) {
            (State::Start, digit) => State::Size(hex(digit)?, 1),
            (State::Size(size, _) | State::Extension(size), b'\r') => State::SizeEnd(size),
            (State::Size(size, _), b';' | b' ' | b'\t') => State::Extension(size),
            (State::Size(size, digits), digit) if digits < MAX_DIGITS => {
                State::Size(size << 4 | hex(digit)?, digits + 1)
            }
            (State::Extension(size), byte) => self.ignore(byte, State::Extension(size))?,
            (State::SizeEnd(0) | State::TrailerEnd, b'\n') => State::Trailer,
            (State::SizeEnd(size), b'\n') => State::Data(size),
            (State::DataEnd, b'\r') => State::DataLineEnd,
            (State::DataLineEnd, b'\n') => State::Start,
            (State::Trailer, b'\r') => State::LastEnd,
            (State::InTrailer, b'\r') => State::TrailerEnd,
            (State::Trailer | State::InTrailer, byte) => self.ignore(byte, State::InTrailer)?,
            (State::LastEnd, b'\n') => State::Ended,
            _ => return Err(BadAnswer::CHUNKS),
        })
    }

    fn ignore(&mut self, byte: u8, state: State) -> Result<State, BadAnswer> {
        self.ignored += 1;
        if byte == b'\n' || self.ignored > MAX_IGNORED {
            return Err(BadAnswer::CHUNKS);
        }
        Ok(state)
    }
}

fn hex(byte: u8) -> Result<u64, BadAnswer> {
    let digit = char::from(byte).to_digit(16);
    digit.map(u64::from).ok_or(BadAnswer::CHUNKS)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The payload, and how many bytes were left over behind the end.
    fn read(pieces: &[&[u8]]) -> Result<(Vec<u8>, Option<usize>), BadAnswer> {
        let (mut chunks, mut payload) = (AnswerChunks::default(), Vec::new());
        for (index, piece) in pieces.iter().enumerate() {
            let taken = chunks.read(piece, &mut payload)?;
            if chunks.has_ended() {
                let behind: usize = pieces[index + 1..].iter().map(|piece| piece.len()).sum();
                return Ok((payload, Some(piece.len() - taken + behind)));
            }
        }
        Ok((payload, None))
    }

    #[test]
    fn payload_is_what_the_sizes_say() {
        for (body, payload, left) in [
            ("5\r\nfirst\r\n0\r\n\r\n", "first", Some(0)),
            (
                "5\r\nfirst\r\n00A\r\n0123456789\r\n0\r\n\r\nHTTP",
                "first0123456789",
                Some(4),
            ),
            (
                "5;a=\"b\"\r\nfirst\r\n0\r\nX: y\r\nZ: 1\r\n\r\n",
                "first",
                Some(0),
            ),
            ("5\r\nfir", "fir", None),
        ] {
            assert_eq!(read(&[body.as_bytes()]), Ok((payload.into(), left)), "{body:?}");
        }
    }

    #[test]
    fn what_is_no_chunked_body_is_refused() {
        for body in [
            "\r\n",
            "g\r\n",
            "-1\r\n",
            "0x5\r\n",
            "5\nfirst",
            "5\r\nfirstX",
            "5\r\nfirst\n",
            "5\r\r\n",
            "1000000000000000\r\n",
            "5;a\nb\r\n",
            "0\r\nX: y\n\r\n",
        ] {
            assert_eq!(read(&[body.as_bytes()]), Err(BadAnswer::CHUNKS), "{body:?}");
        }
        let endless = format!("5;{}\r\n", "x".repeat(20_000));
        assert_eq!(read(&[endless.as_bytes()]), Err(BadAnswer::CHUNKS));
    }

    proptest! {
        #[test]
        fn how_a_body_is_cut_into_reads_changes_nothing(
            parts in prop::collection::vec("[a-z\\r\\n]{1,20}", 0..5),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let chunks: Vec<String> =
                parts.iter().map(|part| format!("{:x}\r\n{part}\r\n", part.len())).collect();
            let body = chunks.concat() + "0\r\n\r\nrest";
            let bytes = body.as_bytes();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect();
            prop_assert_eq!(read(&pieces), Ok((parts.concat().into_bytes(), Some(4))));
        }
    }
}
