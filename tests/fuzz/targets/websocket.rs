//! WebSocket frames as they come, cut anywhere: never more is kept than the limit, and where the cuts are makes no
//! difference.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use songflight::realtime::wire::{Incoming, Reader};

const MESSAGE_BYTES_MAX: usize = 200;

fn read(pieces: impl Iterator<Item = Bytes>) -> Vec<Incoming> {
    let mut reader = Reader::new(MESSAGE_BYTES_MAX);
    let mut all = Vec::new();
    for mut piece in pieces {
        while let Some(incoming) = reader.read(&mut piece) {
            let bytes = match &incoming {
                Incoming::Text(text) => text.len(),
                Incoming::Binary(bytes) => bytes.len(),
                Incoming::Ping(bytes) => bytes.len() + MESSAGE_BYTES_MAX - 125,
                Incoming::Pong | Incoming::Close(_) | Incoming::Broken(_) => 0,
            };
            assert!(bytes <= MESSAGE_BYTES_MAX, "{bytes} bytes");
            all.push(incoming);
        }
        assert!(piece.is_empty(), "bytes are left");
    }
    let last = all.iter().position(|read| matches!(read, Incoming::Close(_) | Incoming::Broken(_)));
    assert!(last.is_none_or(|last| last + 1 == all.len()), "something follows the end");
    all
}

fuzz_target!(|input: &[u8]| {
    let [size, bytes @ ..] = input else { return };
    let pieces = bytes.chunks(usize::from(*size).max(1)).map(Bytes::copy_from_slice);
    assert_eq!(read(pieces), read(std::iter::once(Bytes::copy_from_slice(bytes))));
});
