//! MusicGPT's answers and webhooks.
#![no_main]

use libfuzzer_sys::fuzz_target;
use songflight::provider::musicgpt::{MusicGpt, MusicGptSettings};
use songflight_fuzz::{KEY, NOWHERE, http, provider};

thread_local! {
    static MUSICGPT: MusicGpt = MusicGpt::new(MusicGptSettings::new(NOWHERE, KEY), http());
}

fuzz_target!(|input: &[u8]| MUSICGPT.with(|musicgpt| provider(musicgpt, input)));
