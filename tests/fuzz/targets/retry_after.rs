//! The header `Retry-After` of providers' answers.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use songflight::fuzzing::told_to_wait;
use songflight::time::Time;

fuzz_target!(|input: &[u8]| {
    for now in [1_772_446_600_000, 0, i64::MAX] {
        let told = told_to_wait(input, Time::from_millis(now));
        assert!(told.is_none_or(|wait| wait <= Duration::from_secs(86_400)), "{told:?}");
    }
});
