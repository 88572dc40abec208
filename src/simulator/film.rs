//! Makes a clip's video: its cover, shown for five seconds, without sound. An MP4 file (ISO 14496-12) with one
//! picture of H.264 (ISO 14496-10) whose samples are stored as they are, which every player can show.

use uuid::Uuid;

use super::picture;

/// Macroblocks, of 16 x 16 pixels each, in a row and in a column.
const BLOCKS: usize = picture::SIDE / 16;
const LAST_BLOCK: u32 = BLOCKS as u32 - 1;
const DURATION_MS: u32 = 5_000;
const TIMES_A_SECOND: u32 = 1_000;
/// Baseline, level 3.
const PROFILE: [u8; 3] = [66, 0xc0, 30];

/// A clip's video as an MP4 file.
pub(super) fn mp4(clip: Uuid) -> Vec<u8> {
    let picture = picture(clip);
    let mut sample = (picture.len() as u32).to_be_bytes().to_vec();
    sample.extend(picture);
    let mut file = boxed(b"ftyp", &[b"isom", &be(512)[..], b"isomavc1mp41"]);
    // The place of the sample is behind all that says so, which is as long with any number in it.
    let sample_at = (file.len() + movie(sample.len() as u32, 0).len() + 8) as u32;
    file.extend(movie(sample.len() as u32, sample_at));
    file.extend(boxed(b"mdat", &[&sample]));
    file
}

fn be(number: u32) -> [u8; 4] {
    number.to_be_bytes()
}

fn boxed(name: &[u8; 4], parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    [&be(content.len() as u32 + 8)[..], name, &content].concat()
}

const SIDE: [u8; 2] = (picture::SIDE as u16).to_be_bytes();
/// The same place and size.
const MATRIX: [u32; 9] = [0x1_0000, 0, 0, 0, 0x1_0000, 0, 0, 0, 0x4000_0000];

fn movie(sample_bytes: u32, sample_at: u32) -> Vec<u8> {
    let matrix: Vec<u8> = MATRIX.into_iter().flat_map(be).collect();
    let (rate, length) = (be(TIMES_A_SECOND), be(DURATION_MS));
    let head =
        [&[0; 12][..], &rate, &length, &be(0x1_0000), &[1], &[0; 11], &matrix, &[0; 24], &be(2)].concat();
    let size = [&SIDE[..], &[0, 0], &SIDE, &[0, 0]].concat();
    let track = [&be(3)[..], &[0; 8], &be(1), &[0; 4], &length, &[0; 16], &matrix, &size].concat();
    let media = [&[0; 12][..], &rate, &length, &[0x55, 0xc4, 0, 0]].concat();
    let media = boxed(
        b"mdia",
        &[
            &boxed(b"mdhd", &[&media]),
            &boxed(b"hdlr", &[&[0; 8], b"vide", &[0; 13]]),
            &boxed(
                b"minf",
                &[&boxed(b"vmhd", &[&be(1), &[0; 8]]), &here(), &samples(sample_bytes, sample_at)],
            ),
        ],
    );
    boxed(b"moov", &[&boxed(b"mvhd", &[&head]), &boxed(b"trak", &[&boxed(b"tkhd", &[&track]), &media])])
}

/// The data are in this file.
fn here() -> Vec<u8> {
    boxed(b"dinf", &[&boxed(b"dref", &[&be(0), &be(1), &boxed(b"url ", &[&be(1)])])])
}

fn samples(bytes: u32, at: u32) -> Vec<u8> {
    let list = |name, numbers: &[u32]| {
        let numbers: Vec<u8> = std::iter::once(&0).chain(numbers).flat_map(|number| be(*number)).collect();
        boxed(name, &[&numbers])
    };
    let looks =
        [&[0; 6][..], &[0, 1], &[0; 16], &SIDE, &SIDE, &be(72 << 16), &be(72 << 16), &[0; 4], &[0, 1]];
    let (sequence, pictures) = (sequence(), pictures());
    let length = |unit: &[u8]| (unit.len() as u16).to_be_bytes();
    let how = [
        &[1][..],
        &PROFILE,
        &[0xff, 0xe1],
        &length(&sequence),
        &sequence,
        &[1],
        &length(&pictures),
        &pictures,
    ];
    let coded = boxed(b"avc1", &[&looks.concat(), &[0; 32], &[0, 24, 0xff, 0xff], &boxed(b"avcC", &how)]);
    boxed(
        b"stbl",
        &[
            &boxed(b"stsd", &[&be(0), &be(1), &coded]),
            &list(b"stts", &[1, 1, DURATION_MS]),
            &list(b"stsc", &[1, 1, 1, 1]),
            &list(b"stsz", &[bytes, 1]),
            &list(b"stco", &[1, at]),
        ],
    )
}

/// The sequence parameter set: of what sort and size the pictures are.
fn sequence() -> Vec<u8> {
    let mut bits = Bits::new(&[&[0x67][..], &PROFILE].concat());
    // Its number, the bits of a frame's number, and pictures that come in their order.
    bits.numbers(&[0, 0, 2]);
    bits.number(1);
    bits.push(0, 1);
    bits.numbers(&[LAST_BLOCK; 2]);
    bits.push(0b1100, 4);
    bits.ended()
}

/// The picture parameter set: how they are coded.
fn pictures() -> Vec<u8> {
    let mut bits = Bits::new(&[0x68]);
    bits.numbers(&[0, 0]);
    bits.push(0b00, 2);
    bits.numbers(&[0, 0, 0]);
    bits.push(0b000, 3);
    bits.numbers(&[0, 0, 0]);
    bits.push(0b100, 3);
    bits.ended()
}

/// One slice with all macroblocks, each as plain samples. None of these is ever 0, so nothing in it can be
/// taken for the start of something else.
fn picture(clip: Uuid) -> Vec<u8> {
    let pixels = picture::pixels(clip);
    let at = |x: usize, y: usize| pixels[y * picture::SIDE + x];
    let mut bits = Bits::new(&[0x65]);
    // From the first macroblock, nothing but such slices, by the first set.
    bits.numbers(&[0, 7, 0]);
    bits.push(0, 4);
    bits.number(0);
    bits.push(0b00, 2);
    // The quality, and no smoothing at the edges.
    bits.numbers(&[0, 1]);
    for block in 0..BLOCKS * BLOCKS {
        let (left, top) = (block % BLOCKS * 16, block / BLOCKS * 16);
        bits.number(25);
        bits.align();
        bits.bytes.extend((0..256).map(|i| luma(at(left + i % 16, top + i / 16))));
        for channel in [2, 0] {
            let middle = |i: usize| at(left + i % 8 * 2, top + i / 8 * 2);
            bits.bytes.extend((0..64).map(|i| chroma(middle(i), channel)));
        }
    }
    bits.ended()
}

/// Brightness (ITU-R BT.601).
fn luma([red, green, blue]: [u8; 3]) -> u8 {
    (16.0 + (65.5 * f64::from(red) + 128.6 * f64::from(green) + 25.0 * f64::from(blue)) / 255.0) as u8
}

/// How much more of a channel there is than of brightness.
fn chroma(pixel: [u8; 3], channel: usize) -> u8 {
    let grey = (f64::from(luma(pixel)) - 16.0) / 219.0;
    let part = f64::from(pixel[channel]) / 255.0 - grey;
    let most = if channel == 2 { 0.886 } else { 0.701 };
    (128.0 + 112.0 * part / most).clamp(16.0, 240.0) as u8
}

/// Writes bits, the highest first.
struct Bits {
    bytes: Vec<u8>,
    /// Of the last byte.
    free: u32,
}

impl Bits {
    fn new(start: &[u8]) -> Self {
        Self { bytes: start.to_vec(), free: 0 }
    }

    fn push(&mut self, value: u32, count: u32) {
        for bit in (0..count).rev().map(|at| value >> at & 1) {
            if self.free == 0 {
                self.bytes.push(0);
                self.free = 8;
            }
            self.free -= 1;
            if let Some(last) = self.bytes.last_mut() {
                *last |= (bit as u8) << self.free;
            }
        }
    }

    /// Exp-Golomb.
    fn number(&mut self, number: u32) {
        let length = (number + 1).ilog2();
        self.push(0, length);
        self.push(number + 1, length + 1);
    }

    fn numbers(&mut self, numbers: &[u32]) {
        numbers.iter().for_each(|number| self.number(*number));
    }

    fn align(&mut self) {
        self.free = 0;
    }

    fn ended(mut self) -> Vec<u8> {
        self.push(1, 1);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The content of the box of this name, wherever it is.
    fn found<'a>(file: &'a [u8], name: &[u8; 4]) -> &'a [u8] {
        let at = file.windows(4).position(|four| four == name).unwrap();
        let length = u32::from_be_bytes(file[at - 4..at].try_into().unwrap()) as usize;
        &file[at + 4..at - 4 + length]
    }

    #[test]
    fn the_file_says_where_its_only_picture_is() {
        let file = mp4(Uuid::from_u128(7));
        let number =
            |content: &[u8], at: usize| u32::from_be_bytes(content[at..at + 4].try_into().unwrap()) as usize;
        let (at, bytes) = (number(found(&file, b"stco"), 8), number(found(&file, b"stsz"), 4));
        let sample = &file[at..];
        assert_eq!(sample.len(), bytes, "it is the last of the file");
        assert_eq!((number(sample, 0), sample[4]), (bytes - 4, 0x65));
        let mut from = 0;
        while from < file.len() {
            from += number(&file, from);
        }
        assert_eq!(from, file.len(), "boxes from the first byte to the last");
    }

    #[test]
    fn nothing_in_the_picture_looks_like_a_start() {
        for clip in 0..4 {
            let picture = picture(Uuid::from_u128(clip));
            assert!(!picture.windows(2).any(|two| two == [0, 0]));
        }
        assert_ne!(mp4(Uuid::from_u128(1)), mp4(Uuid::from_u128(2)));
    }

    #[test]
    fn numbers_are_written_as_the_standard_has_them() {
        let mut bits = Bits::new(&[]);
        bits.numbers(&[0, 1, 2, 7]);
        assert_eq!(bits.ended(), [0b1010_0110, 0b0010_0010]);
    }
}
