//! The values of a configuration, and whole environments: what is refused is told without its secrets.
#![no_main]

use libfuzzer_sys::fuzz_target;
use songflight::config::{Config, describe, duration};
use songflight::credit::Credits;
use songflight::provider::gate::Rate;

const SECRET: &str = "hunter2-hunter2-hunter2-hunter2-hunter2";

fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Some(parsed) = duration::parse(text) {
        assert_eq!(duration::parse(&duration::write(parsed)), Some(parsed), "{text}");
    }
    if let Ok(rate) = text.parse::<Rate>() {
        assert_eq!(rate.to_string().parse(), Ok(rate), "{text}");
        assert!(!rate.window.is_zero());
    }
    if let Ok(credits) = text.parse::<Credits>() {
        assert_eq!(credits.to_string().parse(), Ok(credits), "{text}");
    }
    if !text.contains('=') {
        return;
    }
    let lines = text.lines().filter_map(|line| line.split_once('=')).take(20);
    let secret =
        ["SONGFLIGHT_AUTH__JWT_SECRET", "SONGFLIGHT_PROVIDERS__SUNO__API_KEY", "SONGFLIGHT_AUTH__JWT_SECRT"];
    let variables = lines
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .chain(secret.into_iter().map(|name| (name.to_owned(), SECRET.to_owned())));
    let shown = match Config::load_from(None, variables) {
        Ok(loaded) => describe(&loaded),
        Err(error) => error.to_string(),
    };
    assert!(!shown.contains(SECRET), "{shown}");
});
