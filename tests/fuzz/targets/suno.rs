//! Suno's answers and callbacks, in both dialects.
#![no_main]

use libfuzzer_sys::fuzz_target;
use songflight::provider::suno::{Dialect, Suno, SunoSettings};
use songflight_fuzz::{KEY, NOWHERE, http, provider};

thread_local! {
    static SUNO: [Suno; 2] = [Dialect::Sunoapi, Dialect::Kie].map(|dialect| {
        Suno::new(SunoSettings { dialect, ..SunoSettings::new(NOWHERE, KEY) }, http())
    });
}

fuzz_target!(|input: &[u8]| {
    let dialect = input.get(1).is_some_and(|status| *status >= 128);
    SUNO.with(|suno| provider(&suno[usize::from(dialect)], input));
});
