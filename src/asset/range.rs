//! Which part of a file is asked for (RFC 9110, section 14). Pure.

/// What to answer with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Range {
    Whole,
    /// The first and the last byte.
    Part(u64, u64),
    /// None of it lies in the file.
    Outside,
}

/// Reads the header's value for a file of this length. Several ranges at once, other units and what cannot be read
/// are answered with the whole file, as the RFC allows.
pub(super) fn read(text: &str, length: u64) -> Range {
    let Some((unit, range)) = text.split_once('=') else { return Range::Whole };
    let Some((first, last)) = range.trim().split_once('-') else { return Range::Whole };
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return Range::Whole;
    }
    // A sign is no digit, though `parse` takes it for one.
    let number =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u64>().ok());
    match (number(first).flatten(), number(last).flatten()) {
        (Some(first), Some(last)) if first > last => Range::Whole,
        (Some(first), Some(_)) if first >= length => Range::Outside,
        (Some(first), Some(last)) => Range::Part(first, last.min(length - 1)),
        (Some(first), None) if last.is_empty() && first >= length => Range::Outside,
        (Some(first), None) if last.is_empty() => Range::Part(first, length - 1),
        (None, Some(tail)) if first.is_empty() && (tail == 0 || length == 0) => Range::Outside,
        (None, Some(tail)) if first.is_empty() => Range::Part(length.saturating_sub(tail), length - 1),
        _ => Range::Whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_read_as_the_rfc_says() {
        for (text, range) in [
            ("bytes=0-9", Range::Part(0, 9)),
            ("BYTES= 0-9 ", Range::Part(0, 9)),
            ("bytes=90-200", Range::Part(90, 99)),
            ("bytes=90-", Range::Part(90, 99)),
            ("bytes=-10", Range::Part(90, 99)),
            ("bytes=-200", Range::Part(0, 99)),
            ("bytes=99-99", Range::Part(99, 99)),
            ("bytes=100-", Range::Outside),
            ("bytes=100-200", Range::Outside),
            ("bytes=-0", Range::Outside),
            ("bytes=9-5", Range::Whole),
            ("bytes=0-1,4-5", Range::Whole),
            ("bytes=+1-5", Range::Whole),
            ("bytes=1-99999999999999999999", Range::Whole),
            ("bytes=-", Range::Whole),
            ("bytes=", Range::Whole),
            ("bytes", Range::Whole),
            ("lines=1-2", Range::Whole),
            ("", Range::Whole),
        ] {
            assert_eq!(read(text, 100), range, "{text}");
        }
        assert_eq!(read("bytes=0-", 0), Range::Outside);
        assert_eq!(read("bytes=-5", 0), Range::Outside);
    }

    proptest::proptest! {
        #[test]
        fn a_part_lies_in_the_file(text in "(bytes=)?[0-9]{0,4}-?[0-9]{0,4}", length in 0_u64..200) {
            if let Range::Part(first, last) = read(&text, length) {
                assert!(first <= last && last < length, "{text} of {length}");
            }
        }
    }
}
