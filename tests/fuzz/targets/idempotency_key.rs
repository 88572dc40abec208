//! The header `Idempotency-Key`, once or several times.
#![no_main]

use libfuzzer_sys::fuzz_target;
use songflight::fuzzing::idempotency_key;

fuzz_target!(|input: &[u8]| {
    let values: Vec<&[u8]> = input.split(|byte| *byte == b'\n').take(4).collect();
    match idempotency_key(&values) {
        Ok(Some(key)) => {
            assert!((1..=255).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic()));
            assert!(values.contains(&key.as_bytes()), "the key as it came");
        }
        Ok(None) => {}
        Err(status) => assert_eq!(status, 400),
    }
});
