//! Mureka's answers.
#![no_main]

use libfuzzer_sys::fuzz_target;
use songflight::provider::mureka::{Mureka, MurekaSettings};
use songflight_fuzz::{KEY, NOWHERE, http, provider};

thread_local! {
    static MUREKA: Mureka = Mureka::new(MurekaSettings::new(NOWHERE, KEY), http());
}

fuzz_target!(|input: &[u8]| MUREKA.with(|mureka| provider(mureka, input)));
