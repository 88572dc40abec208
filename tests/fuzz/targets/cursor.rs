//! What clients bring back to go on where they were: cursors of the log and of the library, channels, and the keys of
//! calls.
#![no_main]

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use libfuzzer_sys::fuzz_target;
use songflight::fuzzing::library_cursor;
use songflight::id::{CallKey, SongId, UserId};
use songflight::realtime::frames::{Channel, Cursor};

fn same<T: std::str::FromStr + ToString + PartialEq>(text: &str) {
    if let Ok(value) = text.parse::<T>() {
        assert!(value.to_string().parse::<T>().is_ok_and(|again| again == value), "{text}");
    }
}

fuzz_target!(|input: &[u8]| {
    let plain = URL_SAFE_NO_PAD.encode(input);
    for text in [Some(plain.as_str()), std::str::from_utf8(input).ok()].into_iter().flatten() {
        if let Some(cursor) = library_cursor(text) {
            assert_eq!(library_cursor(&cursor).as_ref(), Some(&cursor), "{text}");
        }
    }
    let Ok(text) = std::str::from_utf8(input) else { return };
    same::<Cursor>(text);
    same::<Channel>(text);
    same::<CallKey>(text);
    same::<SongId>(text);
    if let Some(user) = UserId::parse(text) {
        assert!(user.as_str() == text && (1..=128).contains(&text.chars().count()));
    }
});
