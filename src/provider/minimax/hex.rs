//! A song as hexadecimal text inside an answer: where it stands, and what it says.
//!
//! The answer may have 64 MiB, so nothing of it is copied: the text is decoded over the body it stands in.

use std::ops::Range;

use bytes::Bytes;

/// Whether this is the text of whole bytes, of one at least.
pub(super) fn is_hex(text: &[u8]) -> bool {
    !text.is_empty() && text.len().is_multiple_of(2) && text.iter().all(u8::is_ascii_hexdigit)
}

/// The bytes that these pieces of the body say, one after the other.
pub(super) fn decode(mut body: Vec<u8>, pieces: &[Range<usize>]) -> Bytes {
    let mut written = 0;
    for digit in pieces.iter().flat_map(|piece| piece.clone().step_by(2)) {
        // Two digits are read for each byte that is written, so nothing is overwritten unread.
        body[written] = (nibble(body[digit]) << 4) | nibble(body[digit + 1]);
        written += 1;
    }
    body.truncate(written);
    body.into()
}

const fn nibble(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        b'A'..=b'F' => digit - b'A' + 10,
        _ => 0,
    }
}

/// What kind of audio this is. MP3 is what is asked for.
pub(super) fn media_type(file: &[u8]) -> &'static str {
    if file.starts_with(b"RIFF") { "audio/wav" } else { "audio/mpeg" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn only_whole_bytes_are_hex() {
        for (text, is) in
            [("", false), ("4", false), ("49", true), ("aF09", true), ("4g", false), ("https", false)]
        {
            assert_eq!(is_hex(text.as_bytes()), is, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn pieces_are_decoded_where_they_stand(
            parts in proptest::collection::vec(proptest::collection::vec(proptest::arbitrary::any::<u8>(), 0..40), 0..5),
            between in "[ -~]{1,9}",
        ) {
            let mut body = between.clone().into_bytes();
            let mut pieces = Vec::new();
            for part in &parts {
                let start = body.len();
                body.extend(written(part).bytes());
                pieces.push(start..body.len());
                body.extend(between.bytes());
            }
            assert_eq!(&*decode(body, &pieces), parts.concat());
        }
    }
}
