//! MiniMax's answers: one object, or a stream of them.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use songflight::provider::minimax::{Keep, Minimax, MinimaxSettings};
use songflight_fuzz::{KEY, NOWHERE, http, provider};

thread_local! {
    static MINIMAX: Minimax = {
        let keep: Keep = Arc::new(|song, _| {
            assert!(!song.is_empty(), "a song of nothing is kept");
            Ok("https://songs.example.com/assets/0.mp3".into())
        });
        Minimax::new(MinimaxSettings::new(NOWHERE, KEY, keep), http())
    };
}

fuzz_target!(|input: &[u8]| MINIMAX.with(|minimax| provider(minimax, input)));
