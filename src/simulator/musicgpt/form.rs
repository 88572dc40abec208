//! Reads the text fields of a `multipart/form-data` body (RFC 7578). Files are not taken: every order names
//! the address of its audio.

use std::collections::HashMap;

const FIELDS_MAX: usize = 64;

/// The fields of a form by name; the first of a name counts.
pub(super) type Fields = HashMap<String, String>;

/// `None` when it is no form, or one that breaks off.
pub(super) fn read(content_type: &str, body: &[u8]) -> Option<Fields> {
    let (kind, parameters) = content_type.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let boundary = parameters.split(';').find_map(|parameter| parameter.trim().strip_prefix("boundary="))?;
    let delimiter = format!("--{}", boundary.trim_matches('"'));
    let text = std::str::from_utf8(body).ok()?;
    let between = format!("\r\n{delimiter}");
    let mut fields = Fields::new();
    for part in text.strip_prefix(&delimiter)?.split(&between).take(FIELDS_MAX) {
        if part.starts_with("--") {
            return Some(fields);
        }
        let (head, value) = part.strip_prefix("\r\n")?.split_once("\r\n\r\n")?;
        fields.entry(name(head)?.to_owned()).or_insert_with(|| value.to_owned());
    }
    None
}

fn name(head: &str) -> Option<&str> {
    let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with("content-disposition:"))?;
    let (_, rest) = line.split_once("name=\"")?;
    rest.split_once('"').map(|(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPE: &str = "multipart/form-data; boundary=b1";

    #[test]
    fn fields_are_read_with_their_line_breaks() {
        let body = "--b1\r\nContent-Disposition: form-data; name=\"lyrics\"\r\n\r\none\r\n\r\ntwo\r\n\
            --b1\r\nContent-Type: text/plain\r\ncontent-disposition: form-data; name=\"prompt\"\r\n\r\n\r\n--b1--\r\n";
        let fields = read(TYPE, body.as_bytes()).unwrap();
        assert_eq!((fields["lyrics"].as_str(), fields["prompt"].as_str()), ("one\r\n\r\ntwo", ""));
    }

    #[test]
    fn what_is_no_whole_form_is_none() {
        let whole = "--b1\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nx\r\n--b1--\r\n";
        assert!(read(TYPE, whole.as_bytes()).is_some());
        assert!(read("multipart/form-data; boundary=\"b1\"", whole.as_bytes()).is_some());
        assert!(read("application/json", whole.as_bytes()).is_none());
        for end in 0..whole.len() - 4 {
            assert!(read(TYPE, &whole.as_bytes()[..end]).is_none(), "{end}");
        }
        assert!(read(TYPE, b"\xff").is_none());
    }
}
