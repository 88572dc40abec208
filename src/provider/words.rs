//! The texts of an order as requests want them: trimmed, joined, and short enough.
//!
//! Pure. Not here: which text goes where (`provider/<name>/request.rs`).

/// A text that says something, without the blanks around it.
pub(super) fn given(text: &Option<String>) -> Option<&str> {
    text.as_deref().map(str::trim).filter(|text| !text.is_empty())
}

/// All of them in one text.
pub(super) fn tags(list: &[String]) -> Option<String> {
    let tags: Vec<&str> = list.iter().map(|tag| tag.trim()).filter(|tag| !tag.is_empty()).collect();
    (!tags.is_empty()).then(|| tags.join(", "))
}

/// `first, second` if that fits, else `first`.
pub(super) fn joined(first: String, second: &str, chars_max: usize) -> String {
    let both = format!("{first}, {second}");
    if both.chars().count() <= chars_max { both } else { first }
}

/// Both texts where they fit, the first alone otherwise, whichever there is of them; at most so many characters.
pub(super) fn together(first: Option<&str>, second: Option<&str>, chars_max: usize) -> Option<String> {
    let (lead, other) = match (first, second) {
        (Some(first), second) => (first, second),
        (None, second) => (second?, None),
    };
    let lead = shortened(lead, chars_max).to_owned();
    Some(match other {
        Some(other) => joined(lead, other, chars_max),
        None => lead,
    })
}

/// At most so many characters, cut at a word where there is one.
pub(super) fn shortened(text: &str, chars_max: usize) -> &str {
    let text = text.trim();
    let Some((end, next)) = text.char_indices().nth(chars_max) else { return text };
    let cut = &text[..end];
    let at_word = if next.is_whitespace() { Some(end) } else { cut.rfind(char::is_whitespace) };
    match at_word.map(|at| cut[..at].trim_end()) {
        Some(words) if !words.is_empty() => words,
        _ => cut,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_shortened_at_a_word() {
        assert_eq!(shortened("one two three", 13), "one two three");
        assert_eq!(shortened("one two three", 9), "one two");
        assert_eq!(shortened("one two three", 7), "one two");
        assert_eq!(shortened("onetwothree", 4), "onet");
        assert_eq!(shortened("äöü äöü", 5), "äöü");
        assert_eq!(shortened(" ", 0), "");
    }

    #[test]
    fn texts_stand_together_where_they_fit() {
        assert_eq!(together(Some("folk"), Some("a harbour"), 15).as_deref(), Some("folk, a harbour"));
        assert_eq!(together(Some("folk"), Some("a harbour"), 14).as_deref(), Some("folk"));
        assert_eq!(together(Some("slow folk"), Some("x"), 6).as_deref(), Some("slow"));
        assert_eq!(together(None, Some("a harbour"), 5).as_deref(), Some("a"));
        assert_eq!(together(None, None, 5), None);
    }

    proptest::proptest! {
        #[test]
        fn a_shortened_text_is_a_beginning_that_fits(text in "\\PC{0,60}", most in 0_usize..40) {
            let short = shortened(&text, most);
            assert!(short.chars().count() <= most);
            assert!(text.trim().starts_with(short));
        }
    }
}
