//! Bodies of requests, read by their shape, and the texts in them, cleaned of markup.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use songflight::api::shape::{clean, read};
use songflight::api::wishes::{CHOOSE, CREATE, RETRY, SELECT};

fn opens_no_tag(text: &str) {
    let opens = |pair: &[char]| pair[0] == '<' && (pair[1].is_ascii_alphabetic() || "/!?".contains(pair[1]));
    let letters: Vec<char> = text.chars().collect();
    assert!(!letters.windows(2).any(opens), "{text:?}");
    let control = |letter: &char| letter.is_control() && !matches!(letter, '\n' | '\t');
    assert!(!letters.iter().any(control), "{text:?}");
}

fuzz_target!(|input: &[u8]| {
    for shape in [CREATE, CHOOSE, RETRY, SELECT] {
        match read(shape, input) {
            Ok(body) => {
                let written = body.canonical();
                let again = read(shape, written.as_bytes()).expect("what fits goes on fitting");
                assert_eq!(again.canonical(), written);
                let fields: Value = serde_json::from_str(&written).expect("JSON");
                for field in shape {
                    body.text(field.name).iter().for_each(|text| opens_no_tag(text));
                    body.texts(field.name).iter().for_each(|text| opens_no_tag(text));
                    assert!(!field.required || !fields[field.name].is_null(), "{} is missing", field.name);
                }
            }
            Err(errors) => {
                assert!(!errors.is_empty(), "refused without a reason");
                let whole = |pointer: &str| pointer.is_empty() || pointer.starts_with('/');
                assert!(errors.iter().all(|error| whole(&error.pointer) && !error.detail.is_empty()));
            }
        }
    }
    if let Ok(text) = std::str::from_utf8(input) {
        let cleaned = clean(text);
        opens_no_tag(&cleaned);
        assert_eq!(clean(&cleaned), cleaned, "cleaned twice");
    }
});
