//! The texts of an order as requests want them: trimmed, joined, and short enough; and what of them is too long.
//!
//! Pure. Not here: which text goes where (`provider/<name>/request.rs`).

use super::Unsupported;

/// A text that says something, without the blanks around it.
pub(super) fn given(text: &Option<String>) -> Option<&str> {
    text.as_deref().map(str::trim).filter(|text| !text.is_empty())
}

/// All of them in one text.
pub(super) fn tags(list: &[String]) -> Option<String> {
    let tags: Vec<&str> = list.iter().map(|tag| tag.trim()).filter(|tag| !tag.is_empty()).collect();
    (!tags.is_empty()).then(|| tags.join(", "))
}

/// Between texts that share a place.
const BETWEEN: &str = ", ";

/// What does not fit where texts share a place of so many characters, each by its field: one that is too long by
/// itself, or else the last. Refused at the door rather than left out (PROV-3).
pub(super) fn crowded(
    provider: &str,
    texts: &[(&'static str, Option<&str>)],
    chars_max: usize,
) -> Option<Unsupported> {
    let there: Vec<(&'static str, usize)> =
        texts.iter().filter_map(|(field, text)| Some((*field, (*text)?.chars().count()))).collect();
    if let Some((field, chars)) = there.iter().find(|(_, chars)| *chars > chars_max) {
        return Some(Unsupported { field, why: format!("{chars} characters; {provider} takes {chars_max}") });
    }
    let ((last, chars), before) = there.split_last()?;
    let all = before.iter().fold(*chars, |all, (_, chars)| all + BETWEEN.len() + chars);
    let with: Vec<String> = before.iter().map(|(field, _)| field.replace('_', " ")).collect();
    let why =
        || format!("with the {} {all} characters; {provider} takes {chars_max}", with.join(" and the "));
    (all > chars_max).then(|| Unsupported { field: last, why: why() })
}

/// `first, second`, of the second as much as fits: all of it, but of a prompt that was for the lyrics.
pub(super) fn joined(first: String, second: &str, chars_max: usize) -> String {
    let room = chars_max.saturating_sub(first.chars().count() + BETWEEN.len());
    let (second, fits) = (second.trim(), shortened(second, room));
    let in_a_word = second[fits.len()..].starts_with(|next: char| !next.is_whitespace());
    match fits.trim_end_matches(',') {
        "" => first,
        _ if in_a_word => first,
        fits => format!("{first}{BETWEEN}{fits}"),
    }
}

/// Both texts, whichever there is of them, the first before the second; at most so many characters.
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
        assert_eq!(together(Some("folk"), Some("a harbour"), 14).as_deref(), Some("folk, a"));
        assert_eq!(together(Some("folk"), Some("harbour"), 9).as_deref(), Some("folk"), "no half words");
        assert_eq!(together(Some("folk"), Some("a harbour"), 6).as_deref(), Some("folk"));
        assert_eq!(together(Some("slow folk"), Some("x"), 6).as_deref(), Some("slow"));
        assert_eq!(together(None, Some("a harbour"), 5).as_deref(), Some("a"));
        assert_eq!(together(None, None, 5), None);
    }

    #[test]
    fn what_has_no_room_beside_another_text_is_told_with_what_takes_the_room() {
        let told = |texts: &[(&'static str, Option<&str>)], most| {
            crowded("mureka", texts, most).map(|one| (one.field, one.why))
        };
        let both = [("style_tags", Some("folk")), ("prompt", Some("ä harbour"))];
        assert_eq!(told(&both, 15), None);
        let why = "with the style tags 15 characters; mureka takes 14".to_owned();
        assert_eq!(told(&both, 14), Some(("prompt", why)));
        assert_eq!(told(&both, 8), Some(("prompt", "9 characters; mureka takes 8".to_owned())));
        assert_eq!(told(&[("style_tags", None), ("prompt", Some("a"))], 1), None);
        assert_eq!(told(&[("prompt", None)], 0), None);
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
