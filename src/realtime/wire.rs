//! WebSocket frames (RFC 6455) as bytes: a strict reader for what clients send, and the framing of what
//! the server sends. Pure.
//!
//! Our own, because the codec that comes with actix collects a whole frame before it looks at its
//! length, and checks UTF-8 only at its end: a client could make it hold as much as it likes. This one
//! keeps never more than the limit, and refuses at the first wrong byte.

use bytes::{BufMut, Bytes, BytesMut};

/// A message or control frame from a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong,
    /// With the code that the client gave, if any.
    Close(Option<u16>),
    /// What follows cannot be read any more; the connection is to be closed with [`Violation::code`].
    Broken(Violation),
}

/// How a client broke the WebSocket protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    Protocol(&'static str),
    NotUtf8,
    TooLarge,
}

impl Violation {
    pub const fn code(self) -> u16 {
        match self {
            Violation::Protocol(_) => 1002,
            Violation::NotUtf8 => 1007,
            Violation::TooLarge => 1009,
        }
    }

    pub const fn reason(self) -> &'static str {
        match self {
            Violation::Protocol(reason) => reason,
            Violation::NotUtf8 => "text is not UTF-8",
            Violation::TooLarge => "message too large",
        }
    }
}

const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;
const FINAL: u8 = 0x80;

/// Reads frames from chunks cut anywhere, and puts fragmented messages together.
pub struct Reader {
    message_bytes_max: usize,
    header: [u8; 14],
    header_len: usize,
    frame: Option<Frame>,
    /// The message under way: its opcode, what came of it, how much of it is known to be UTF-8.
    message: Option<Message>,
    control: Vec<u8>,
    broken: bool,
}

#[derive(Clone, Copy)]
struct Frame {
    opcode: u8,
    last: bool,
    mask: [u8; 4],
    left: usize,
    /// Where in the mask the next byte is.
    turn: usize,
}

struct Message {
    text: bool,
    bytes: Vec<u8>,
    utf8: usize,
}

impl Reader {
    pub fn new(message_bytes_max: usize) -> Self {
        Self {
            message_bytes_max,
            header: [0; 14],
            header_len: 0,
            frame: None,
            message: None,
            control: Vec::new(),
            broken: false,
        }
    }

    /// Takes from the front of `chunk` until something is complete. `None`: all was taken, more is needed.
    pub fn read(&mut self, chunk: &mut Bytes) -> Option<Incoming> {
        if self.broken {
            chunk.clear();
            return None;
        }
        let read = self.step(chunk).unwrap_or_else(|violation| {
            self.broken = true;
            Some(Incoming::Broken(violation))
        });
        if matches!(read, Some(Incoming::Close(_))) {
            // Nothing may follow a close frame.
            self.broken = true;
        }
        read
    }

    fn step(&mut self, chunk: &mut Bytes) -> Result<Option<Incoming>, Violation> {
        loop {
            let frame = match self.frame {
                Some(frame) => frame,
                None => match self.frame_header(chunk)? {
                    Some(frame) => frame,
                    None => return Ok(None),
                },
            };
            let frame = self.payload(frame, chunk)?;
            if frame.left > 0 {
                self.frame = Some(frame);
                return Ok(None);
            }
            self.frame = None;
            if let Some(read) = self.end_of(frame)? {
                return Ok(Some(read));
            }
        }
    }

    fn frame_header(&mut self, chunk: &mut Bytes) -> Result<Option<Frame>, Violation> {
        loop {
            let wanted = self.header_wanted()?;
            if self.header_len == wanted {
                let frame = self.begin(wanted)?;
                self.header_len = 0;
                self.frame = Some(frame);
                return Ok(Some(frame));
            }
            if chunk.is_empty() {
                return Ok(None);
            }
            let take = chunk.len().min(wanted - self.header_len);
            self.header[self.header_len..self.header_len + take].copy_from_slice(&chunk.split_to(take));
            self.header_len += take;
        }
    }

    /// How long the header is, as far as can be told; refuses what its first bytes forbid.
    fn header_wanted(&self) -> Result<usize, Violation> {
        if self.header_len > 0 {
            self.check_first_byte(self.header[0])?;
        }
        if self.header_len < 2 {
            return Ok(2);
        }
        if self.header[1] & 0x80 == 0 {
            return Err(Violation::Protocol("frame is not masked"));
        }
        let len = self.header[1] & 0x7f;
        if self.header[0] & 0x08 != 0 && len > 125 {
            return Err(Violation::Protocol("control frame longer than 125 bytes"));
        }
        Ok(match len {
            126 => 8,
            127 => 14,
            _ => 6,
        })
    }

    fn check_first_byte(&self, first: u8) -> Result<(), Violation> {
        if first & 0x70 != 0 {
            return Err(Violation::Protocol("reserved bits are set"));
        }
        match (first & 0x0f, &self.message) {
            (CONTINUATION, None) => Err(Violation::Protocol("continuation of nothing")),
            (TEXT | BINARY, Some(_)) => Err(Violation::Protocol("message inside a message")),
            (CONTINUATION | TEXT | BINARY, _) => Ok(()),
            (CLOSE | PING | PONG, _) if first & FINAL == 0 => {
                Err(Violation::Protocol("control frame is fragmented"))
            }
            (CLOSE | PING | PONG, _) => Ok(()),
            _ => Err(Violation::Protocol("unknown opcode")),
        }
    }

    fn begin(&mut self, header_len: usize) -> Result<Frame, Violation> {
        let header = &self.header;
        let announced = match header_len {
            8 => u64::from(u16::from_be_bytes([header[2], header[3]])),
            14 => u64::from_be_bytes([
                header[2], header[3], header[4], header[5], header[6], header[7], header[8], header[9],
            ]),
            _ => u64::from(header[1] & 0x7f),
        };
        if announced >> 63 != 0 {
            return Err(Violation::Protocol("length has its highest bit set"));
        }
        let opcode = header[0] & 0x0f;
        let before = match &self.message {
            Some(message) if opcode == CONTINUATION => message.bytes.len(),
            _ => 0,
        };
        let left = usize::try_from(announced).map_err(|_| Violation::TooLarge)?;
        if left > self.message_bytes_max.saturating_sub(before) {
            return Err(Violation::TooLarge);
        }
        match opcode {
            TEXT | BINARY => {
                self.message = Some(Message { text: opcode == TEXT, bytes: Vec::new(), utf8: 0 });
            }
            CONTINUATION => {}
            _ => self.control.clear(),
        }
        let mask_at = header_len - 4;
        let mask = [header[mask_at], header[mask_at + 1], header[mask_at + 2], header[mask_at + 3]];
        Ok(Frame { opcode, last: header[0] & FINAL != 0, mask, left, turn: 0 })
    }

    fn payload(&mut self, mut frame: Frame, chunk: &mut Bytes) -> Result<Frame, Violation> {
        let take = chunk.len().min(frame.left);
        let masked = chunk.split_to(take);
        let control = frame.opcode & 0x08 != 0;
        let to = match &mut self.message {
            Some(message) if !control => &mut message.bytes,
            _ => &mut self.control,
        };
        let from = to.len();
        to.extend_from_slice(&masked);
        unmask(&mut to[from..], frame.mask, frame.turn);
        frame.turn = (frame.turn + take) % 4;
        frame.left -= take;
        if !control && let Some(message) = &mut self.message {
            message.check(frame.last && frame.left == 0)?;
        }
        Ok(frame)
    }

    fn end_of(&mut self, frame: Frame) -> Result<Option<Incoming>, Violation> {
        match frame.opcode {
            PING => Ok(Some(Incoming::Ping(std::mem::take(&mut self.control)))),
            PONG => Ok(Some(Incoming::Pong)),
            CLOSE => close_code(&self.control).map(|code| Some(Incoming::Close(code))),
            _ if !frame.last => Ok(None),
            _ => self.message.take().map(Message::complete).transpose(),
        }
    }
}

impl Message {
    /// Refuses at the first byte that cannot be UTF-8; at the end also what is cut in the middle.
    fn check(&mut self, complete: bool) -> Result<(), Violation> {
        if !self.text {
            return Ok(());
        }
        match std::str::from_utf8(&self.bytes[self.utf8..]) {
            Ok(_) => self.utf8 = self.bytes.len(),
            Err(error) if error.error_len().is_none() && !complete => self.utf8 += error.valid_up_to(),
            Err(_) => return Err(Violation::NotUtf8),
        }
        Ok(())
    }

    fn complete(self) -> Result<Incoming, Violation> {
        if !self.text {
            return Ok(Incoming::Binary(self.bytes));
        }
        String::from_utf8(self.bytes).map(Incoming::Text).map_err(|_| Violation::NotUtf8)
    }
}

fn unmask(bytes: &mut [u8], mask: [u8; 4], turn: usize) {
    let mask = [mask[turn], mask[(turn + 1) % 4], mask[(turn + 2) % 4], mask[(turn + 3) % 4]];
    let mut fours = bytes.chunks_exact_mut(4);
    for four in &mut fours {
        for (byte, key) in four.iter_mut().zip(mask) {
            *byte ^= key;
        }
    }
    for (byte, key) in fours.into_remainder().iter_mut().zip(mask) {
        *byte ^= key;
    }
}

/// RFC 6455, 7.4: which codes may stand in a close frame.
fn close_code(payload: &[u8]) -> Result<Option<u16>, Violation> {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        return if payload.is_empty() {
            Ok(None)
        } else {
            Err(Violation::Protocol("close frame of one byte"))
        };
    };
    let code = u16::from_be_bytes(*code);
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(Violation::Protocol("close code is reserved"));
    }
    std::str::from_utf8(reason).map_err(|_| Violation::NotUtf8)?;
    Ok(Some(code))
}

/// A text frame: once made, the same bytes go to all who get it.
pub fn text(payload: &str) -> Bytes {
    frame(TEXT, payload.as_bytes())
}

pub fn binary(payload: &[u8]) -> Bytes {
    frame(BINARY, payload)
}

pub fn pong(payload: &[u8]) -> Bytes {
    frame(PONG, payload)
}

/// A close frame; `None` answers a peer that gave no code either.
pub fn close(code: Option<u16>, reason: &str) -> Bytes {
    let Some(code) = code else { return frame(CLOSE, &[]) };
    let mut payload = BytesMut::with_capacity(2 + reason.len());
    payload.put_u16(code);
    // A control frame holds 125 bytes; the reason is cut between characters.
    payload.put_slice(&reason.as_bytes()[..reason.floor_char_boundary(123)]);
    frame(CLOSE, &payload)
}

fn frame(opcode: u8, payload: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(payload.len() + 10);
    frame.put_u8(FINAL | opcode);
    match payload.len() {
        short @ 0..126 => frame.put_u8(u8::try_from(short).unwrap_or(0)),
        middle @ 126..0x1_0000 => {
            frame.put_u8(126);
            frame.put_u16(u16::try_from(middle).unwrap_or(0));
        }
        long => {
            frame.put_u8(127);
            frame.put_u64(long as u64);
        }
    }
    frame.put_slice(payload);
    frame.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMIT: usize = 1 << 17;

    fn masked(first: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
        let unmasked = frame(0, payload);
        let head = unmasked.len() - payload.len();
        let mut bytes = vec![first, unmasked[1] | 0x80];
        bytes.extend_from_slice(&unmasked[2..head]);
        bytes.extend_from_slice(&mask);
        bytes.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]));
        bytes
    }

    fn read_all(bytes: &[u8], cut_every: usize) -> Vec<Incoming> {
        let mut reader = Reader::new(LIMIT);
        let mut read = Vec::new();
        for chunk in bytes.chunks(cut_every.max(1)) {
            let mut chunk = Bytes::copy_from_slice(chunk);
            while let Some(incoming) = reader.read(&mut chunk) {
                read.push(incoming);
            }
        }
        read
    }

    fn broken(bytes: &[u8]) -> u16 {
        match read_all(bytes, 1).last() {
            Some(Incoming::Broken(violation)) => violation.code(),
            other => panic!("not refused: {other:?}"),
        }
    }

    proptest! {
        #[test]
        fn messages_are_read_however_they_are_cut_and_fragmented(
            text in "\\PC{0,400}", mask in any::<[u8; 4]>(), fragments in 1_usize..5, every in 1_usize..50,
        ) {
            let bytes = text.as_bytes();
            let size = bytes.len().div_ceil(fragments).max(1);
            let parts: Vec<&[u8]> = if bytes.is_empty() { vec![b""] } else { bytes.chunks(size).collect() };
            let mut wire = Vec::new();
            for (at, part) in parts.iter().enumerate() {
                let opcode = if at == 0 { TEXT } else { CONTINUATION };
                let last = if at + 1 == parts.len() { FINAL } else { 0 };
                wire.extend(masked(opcode | last, part, mask));
                if last == 0 {
                    wire.extend(masked(FINAL | PING, b"p", mask));
                }
            }
            let read = read_all(&wire, every);
            let pings = read.iter().filter(|r| **r == Incoming::Ping(b"p".to_vec())).count();
            prop_assert_eq!(pings, parts.len() - 1);
            prop_assert_eq!(read.last(), Some(&Incoming::Text(text)));
        }

        #[test]
        fn nothing_makes_the_reader_panic_or_keep_more_than_the_limit(bytes in any::<Vec<u8>>()) {
            let mut reader = Reader::new(16);
            let mut chunk = Bytes::from(bytes);
            while reader.read(&mut chunk).is_some() {}
            prop_assert!(reader.message.is_none_or(|message| message.bytes.len() <= 16));
        }
    }

    #[test]
    fn what_the_rfc_forbids_is_refused_with_its_code() {
        let mask = [1, 2, 3, 4];
        assert_eq!(broken(&masked(FINAL | 0x40 | TEXT, b"", mask)), 1002);
        assert_eq!(broken(&masked(FINAL | 0x3, b"", mask)), 1002);
        assert_eq!(broken(&masked(FINAL | CONTINUATION, b"x", mask)), 1002);
        assert_eq!(broken(&masked(PING, b"x", mask)), 1002);
        assert_eq!(broken(&masked(FINAL | PING, &[0; 126], mask)), 1002);
        assert_eq!(broken(&masked(FINAL | CLOSE, &[3], mask)), 1002);
        assert_eq!(broken(&masked(FINAL | CLOSE, &1005_u16.to_be_bytes(), mask)), 1002);
        assert_eq!(broken(&masked(FINAL | CLOSE, &[3, 0xe8, 0xff], mask)), 1007);
        assert_eq!(broken(&[FINAL | TEXT, 0x00]), 1002);
        let first = masked(TEXT, b"a", mask);
        assert_eq!(broken(&[first.clone(), first].concat()), 1002);
        assert_eq!(broken(&masked(FINAL | TEXT, &[b'a', 0xc3], mask)), 1007);
    }

    #[test]
    fn wrong_utf8_is_refused_at_its_first_byte() {
        let wire = masked(TEXT, &[b'a', 0xf4, 0x90], [0; 4]);
        let mut reader = Reader::new(LIMIT);
        let mut before = Bytes::copy_from_slice(&wire[..wire.len() - 1]);
        assert_eq!(reader.read(&mut before), None);
        let mut last = Bytes::copy_from_slice(&wire[wire.len() - 1..]);
        assert_eq!(reader.read(&mut last), Some(Incoming::Broken(Violation::NotUtf8)));
    }

    #[test]
    fn a_message_too_large_is_refused_by_its_announcement() {
        let mut reader = Reader::new(100);
        let mut head = Bytes::copy_from_slice(&masked(FINAL | TEXT, &[b'x'; 101], [0; 4])[..10]);
        assert_eq!(reader.read(&mut head), Some(Incoming::Broken(Violation::TooLarge)));

        let fragment = masked(TEXT, &[b'x'; 60], [0; 4]);
        let next = masked(CONTINUATION, &[b'x'; 60], [0; 4]);
        let mut reader = Reader::new(100);
        let mut both = Bytes::from([fragment, next].concat());
        assert_eq!(reader.read(&mut both), Some(Incoming::Broken(Violation::TooLarge)));
    }

    #[test]
    fn long_frames_carry_their_length_in_two_or_eight_bytes() {
        for len in [0, 125, 126, 65_535, 65_536, 100_000] {
            let payload = "x".repeat(len);
            let framed = text(&payload);
            assert!(framed.ends_with(payload.as_bytes()));
            let read = read_all(&masked(FINAL | TEXT, payload.as_bytes(), [9, 8, 7, 6]), 999);
            assert_eq!(read, [Incoming::Text(payload)]);
        }
    }
}
