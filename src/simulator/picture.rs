//! Makes a clip's cover: a sky, a sun or moon, and hills, in colours that follow from the clip's id.
//! A PNG of 256 x 256 pixels with a palette, its data stored without compression (RFC 1950, 1951, 2083).

use uuid::Uuid;

use super::chance::Chance;

pub(super) const SIDE: usize = 256;
/// The palette: the sky from top to horizon, the disc, then a shade for each row of hills.
const SKY_SHADES: usize = 192;
const DISC_SHADES: usize = 32;
const HILLS: usize = 5;
/// The most that one stored block takes.
const BLOCK_BYTES_MAX: usize = 0xffff;

type Colour = [f64; 3];

/// A clip's cover as a PNG file.
pub(super) fn png(clip: Uuid) -> Vec<u8> {
    let (palette, pixels) = painted(clip);
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    let side = (SIDE as u32).to_be_bytes();
    // 8 bits a pixel, by palette, with the only compression, filter and no interlace there is.
    chunk(&mut file, b"IHDR", &[&side[..], &side, &[8, 3, 0, 0, 0]].concat());
    chunk(&mut file, b"PLTE", &palette);
    chunk(&mut file, b"IDAT", &stored(&pixels));
    chunk(&mut file, b"IEND", &[]);
    file
}

/// The same picture, as red, green and blue from left to right and from top to bottom.
pub(super) fn pixels(clip: Uuid) -> Vec<[u8; 3]> {
    let (palette, rows) = painted(clip);
    let rows = rows.chunks(SIDE + 1).filter_map(|row| row.get(1..));
    let colours: Vec<[u8; 3]> = palette.chunks(3).map(|colour| [colour[0], colour[1], colour[2]]).collect();
    rows.flatten().map(|shade| colours[usize::from(*shade)]).collect()
}

fn painted(clip: Uuid) -> (Vec<u8>, Vec<u8>) {
    let mut chance = Chance::of(&[clip.as_bytes(), &b"cover"[..]].concat());
    (palette(&mut chance), paint(&mut chance))
}

fn palette(chance: &mut Chance) -> Vec<u8> {
    let hue = chance.unit();
    let other = hue + 0.08 + 0.3 * chance.unit();
    let night = chance.hit(0.35);
    let top = colour(hue, 0.65, if night { 0.18 } else { 0.45 });
    let horizon = colour(other, 0.7, if night { 0.55 } else { 0.95 });
    let disc = colour(other + 0.05, 0.15, 1.0);
    let far = mixed(horizon, colour(hue, 0.5, 0.5), 0.5);
    let near = colour(hue + 0.03, 0.7, 0.12);

    let mut palette = Vec::with_capacity(3 * 256);
    let mut shades = |from: Colour, to: Colour, count: usize| {
        for shade in 0..count {
            let part = shade as f64 / (count - 1) as f64;
            palette.extend(mixed(from, to, part).map(|value| (value.clamp(0.0, 1.0) * 255.0) as u8));
        }
    };
    shades(top, horizon, SKY_SHADES);
    shades(disc, mixed(disc, horizon, 0.6), DISC_SHADES);
    shades(far, near, HILLS);
    palette
}

/// A colour by hue (as a part of the circle), saturation and value.
fn colour(hue: f64, saturation: f64, value: f64) -> Colour {
    [5.0, 3.0, 1.0].map(|offset: f64| {
        let k = (offset + hue.rem_euclid(1.0) * 6.0) % 6.0;
        value - value * saturation * k.min(4.0 - k).clamp(0.0, 1.0)
    })
}

fn mixed(from: Colour, to: Colour, part: f64) -> Colour {
    [0, 1, 2].map(|at| from[at] + (to[at] - from[at]) * part)
}

/// The rows of the picture, each behind its filter byte (0: none).
fn paint(chance: &mut Chance) -> Vec<u8> {
    let hills = hills(chance);
    let radius = chance.within(24, 52) as f64;
    let centre = [chance.within(60, 196) as f64, chance.within(60, 140) as f64];
    let mut pixels = Vec::with_capacity((SIDE + 1) * SIDE);
    for y in 0..SIDE {
        pixels.push(0);
        for x in 0..SIDE {
            let hill = hills.iter().rposition(|heights| y as f64 >= heights[x]);
            let from_centre = (x as f64 - centre[0]).hypot(y as f64 - centre[1]);
            let shade = match hill {
                Some(hill) => SKY_SHADES + DISC_SHADES + hill,
                None if from_centre < radius => SKY_SHADES + part_of(DISC_SHADES, from_centre / radius),
                // A grain too fine to be seen hides the steps between the shades.
                None => part_of(SKY_SHADES, y as f64 / 230.0 + (chance.unit() - 0.5) / 60.0),
            };
            pixels.push(shade as u8);
        }
    }
    pixels
}

fn part_of(shades: usize, part: f64) -> usize {
    ((part.clamp(0.0, 1.0) * shades as f64) as usize).min(shades - 1)
}

/// How far from the top each row of hills begins, for every column; the nearest last.
fn hills(chance: &mut Chance) -> [[f64; SIDE]; HILLS] {
    let mut hills = [[0.0; SIDE]; HILLS];
    for (row, heights) in hills.iter_mut().enumerate() {
        let base = 150.0 + 22.0 * row as f64;
        let waves = [(0.8, 18.0), (2.3, 9.0), (5.1, 4.0)]
            .map(|(turns, height)| (turns * (0.7 + 0.6 * chance.unit()), height, chance.unit()));
        for (x, height) in heights.iter_mut().enumerate() {
            let across = x as f64 / SIDE as f64;
            let sum: f64 = waves
                .iter()
                .map(|(turns, high, from)| high * ((across * turns + from) * std::f64::consts::TAU).sin())
                .sum();
            *height = base + sum;
        }
    }
    hills
}

fn chunk(file: &mut Vec<u8>, name: &[u8; 4], data: &[u8]) {
    file.extend_from_slice(&(data.len() as u32).to_be_bytes());
    let start = file.len();
    file.extend_from_slice(name);
    file.extend_from_slice(data);
    let sum = crc32(&file[start..]);
    file.extend_from_slice(&sum.to_be_bytes());
}

/// A zlib stream of stored blocks.
fn stored(data: &[u8]) -> Vec<u8> {
    let mut stream = vec![0x78, 0x01];
    let mut blocks = data.chunks(BLOCK_BYTES_MAX).peekable();
    while let Some(block) = blocks.next() {
        let length = block.len() as u16;
        stream.push(u8::from(blocks.peek().is_none()));
        stream.extend_from_slice(&length.to_le_bytes());
        stream.extend_from_slice(&(!length).to_le_bytes());
        stream.extend_from_slice(block);
    }
    stream.extend_from_slice(&adler32(data).to_be_bytes());
    stream
}

fn adler32(data: &[u8]) -> u32 {
    let (low, high) = data.iter().fold((1, 0), |(low, high), byte| {
        let low = (low + u32::from(*byte)) % 65_521;
        (low, (high + low) % 65_521)
    });
    high << 16 | low
}

/// The checksum of PNG and ZIP.
pub(super) fn crc32(data: &[u8]) -> u32 {
    !data.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 * (crc & 1)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sums_are_those_of_the_standards() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(adler32(b"Wikipedia"), 0x11e6_0398);
    }

    #[test]
    fn a_cover_is_a_whole_png_and_the_clips_own() {
        let file = png(Uuid::from_u128(7));
        let mut rest = file.strip_prefix(b"\x89PNG\r\n\x1a\n").unwrap();
        let mut names = Vec::new();
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            let length = u32::from_be_bytes(*length) as usize;
            assert_eq!(crc32(&after[..length + 4]).to_be_bytes(), after[length + 4..length + 8]);
            names.push(after[..4].to_vec());
            rest = &after[length + 8..];
        }
        assert_eq!(names, [b"IHDR", b"PLTE", b"IDAT", b"IEND"]);
        assert_eq!(file, png(Uuid::from_u128(7)));
        assert_ne!(file, png(Uuid::from_u128(8)));
    }
}
