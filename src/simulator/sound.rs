//! Makes a clip's sound: a small melody over chords and a bass, all following from the clip's id.
//! 16 bit mono PCM in a WAV file (RIFF), 22.05 kHz.

use std::f64::consts::TAU;

use uuid::Uuid;

use super::chance::Chance;

const RATE: usize = 22_050;
/// 20 ms. Every clip is a whole number of these long, so that its duration is exact in two decimals.
const GRAIN: usize = 441;
const HEADER_BYTES: usize = 44;
/// What rings on after the last bar.
const TAIL_S: f64 = 1.4;
const DURATION_S_MAX: f64 = 20.0;
/// Half of a clip must be long enough to be made anew, which takes 6 s.
const DURATION_S_MIN: f64 = 12.0;
const PEAK: f64 = 0.8;

const MAJOR: [i32; 7] = [0, 2, 4, 5, 7, 9, 11];
const MINOR: [i32; 7] = [0, 2, 3, 5, 7, 8, 10];
const DORIAN: [i32; 7] = [0, 2, 3, 5, 7, 9, 10];
/// A chord for each bar, as steps of the scale.
const PROGRESSIONS: [[i32; 4]; 5] = [[0, 4, 5, 3], [0, 5, 3, 4], [0, 3, 0, 4], [5, 3, 0, 4], [0, 2, 3, 4]];

/// A clip's duration in seconds, exactly that of [`wav`].
pub(super) fn duration_s(clip: Uuid) -> f64 {
    // In hundredths, so that it is written with two decimals.
    (Tune::of(clip).samples() / GRAIN * 2) as f64 / 100.0
}

/// A clip's sound as a WAV file.
pub(super) fn wav(clip: Uuid) -> Vec<u8> {
    let samples = Tune::of(clip).play();
    let data_bytes = samples.len() * 2;
    let mut file = Vec::with_capacity(HEADER_BYTES + data_bytes);
    file.extend_from_slice(&header(data_bytes as u32));
    for sample in samples {
        file.extend_from_slice(&((sample * f64::from(i16::MAX)) as i16).to_le_bytes());
    }
    file
}

fn header(data_bytes: u32) -> Vec<u8> {
    let rate = RATE as u32;
    let mut header = Vec::with_capacity(HEADER_BYTES);
    header.extend_from_slice(b"RIFF");
    header.extend_from_slice(&(data_bytes + HEADER_BYTES as u32 - 8).to_le_bytes());
    header.extend_from_slice(b"WAVEfmt ");
    header.extend_from_slice(&16_u32.to_le_bytes());
    header.extend_from_slice(&1_u16.to_le_bytes()); // PCM
    header.extend_from_slice(&1_u16.to_le_bytes()); // mono
    header.extend_from_slice(&rate.to_le_bytes());
    header.extend_from_slice(&(rate * 2).to_le_bytes()); // bytes a second
    header.extend_from_slice(&2_u16.to_le_bytes()); // bytes a sample
    header.extend_from_slice(&16_u16.to_le_bytes()); // bits a sample
    header.extend_from_slice(b"data");
    header.extend_from_slice(&data_bytes.to_le_bytes());
    header
}

/// What a clip's id decides before the first note.
struct Tune {
    beat: usize,
    bars: usize,
    root: i32,
    scale: [i32; 7],
    progression: [i32; 4],
    chance: Chance,
}

impl Tune {
    fn of(clip: Uuid) -> Self {
        let mut chance = Chance::of(clip.as_bytes());
        let beats_per_minute = chance.within(84, 132) as usize;
        let beat = RATE * 60 / beats_per_minute;
        let most_bars = chance.within(2, 4) as usize * 2;
        let fits = |bars: &usize| (bars * 4 * beat) as f64 / RATE as f64 + TAIL_S <= DURATION_S_MAX;
        let long = |bars: &usize| (bars * 4 * beat) as f64 / RATE as f64 >= DURATION_S_MIN;
        let bars = [most_bars, 8, 7, 6, 5, 4].into_iter().find(|bars| fits(bars) && long(bars)).unwrap_or(6);
        Self {
            beat,
            bars,
            root: 57 + chance.within(0, 7) as i32,
            scale: *chance.pick(&[MAJOR, MINOR, DORIAN]),
            progression: *chance.pick(&PROGRESSIONS),
            chance,
        }
    }

    fn samples(&self) -> usize {
        let ringing = (TAIL_S * RATE as f64) as usize;
        (self.bars * 4 * self.beat + ringing).div_ceil(GRAIN) * GRAIN
    }

    fn play(mut self) -> Vec<f64> {
        let mut sound = vec![0.0; self.samples()];
        let mut step = 7;
        for bar in 0..self.bars {
            let last = bar + 1 == self.bars;
            // The last bar comes home.
            let chord = if last { 0 } else { self.progression[bar % 4] };
            self.accompany(&mut sound, bar, chord);
            step = self.sing(&mut sound, bar, chord, step, last);
        }
        level(&mut sound);
        sound
    }

    /// A soft chord through the bar, and the bass on its first and third beat.
    fn accompany(&self, sound: &mut [f64], bar: usize, chord: i32) {
        let start = bar * 4 * self.beat;
        for (number, third) in [0, 2, 4].into_iter().enumerate() {
            let strum = number * RATE / 40;
            let pitch = self.pitch(chord + third) - 12.0;
            note(&mut sound[start + strum..], 4 * self.beat, pitch, 0.11, &PAD);
        }
        for beat in [0, 2] {
            note(&mut sound[start + beat * self.beat..], 2 * self.beat, self.pitch(chord) - 24.0, 0.3, &BASS);
        }
    }

    /// Half a beat at a time: chord tones on the beats, steps between them, now and then a rest.
    fn sing(&mut self, sound: &mut [f64], bar: usize, chord: i32, mut step: i32, last: bool) -> i32 {
        let half = self.beat / 2;
        let mut at = 0;
        while at < 8 {
            let length = if last { 8 } else { *self.chance.pick(&[1, 1, 2, 2, 3]) }.min(8 - at);
            if at % 2 == 0 {
                step = nearest_chord_tone(chord, step + self.chance.within(0, 4) as i32 - 2);
            } else {
                step += *self.chance.pick(&[-1, 1]);
            }
            step = step.clamp(4, 13);
            let rests = self.chance.hit(0.12) && at > 0;
            if !rests {
                let start = bar * 4 * self.beat + at * half;
                note(&mut sound[start..], length * half + half / 2, self.pitch(step), 0.3, &LEAD);
            }
            at += length;
        }
        step
    }

    /// The MIDI pitch of a step of the scale.
    fn pitch(&self, step: i32) -> f64 {
        f64::from(self.root + 12 * step.div_euclid(7) + self.scale[step.rem_euclid(7) as usize])
    }
}

fn nearest_chord_tone(chord: i32, step: i32) -> i32 {
    let is_tone = |step: &i32| [0, 2, 4].contains(&(step - chord).rem_euclid(7));
    [step, step + 1, step - 1].into_iter().find(is_tone).unwrap_or(step)
}

/// How an instrument sounds.
struct Voice {
    /// The strength of each harmonic.
    harmonics: &'static [f64],
    attack_s: f64,
    /// How fast it falls from its attack to what it holds.
    decay_s: f64,
    sustain: f64,
    release_s: f64,
}

const LEAD: Voice = Voice {
    harmonics: &[1.0, 0.35, 0.18, 0.06],
    attack_s: 0.012,
    decay_s: 0.22,
    sustain: 0.35,
    release_s: 0.12,
};
const PAD: Voice =
    Voice { harmonics: &[1.0, 0.25, 0.08], attack_s: 0.12, decay_s: 0.8, sustain: 0.6, release_s: 0.5 };
const BASS: Voice =
    Voice { harmonics: &[1.0, 0.5, 0.1], attack_s: 0.015, decay_s: 0.4, sustain: 0.4, release_s: 0.1 };

/// Adds a note of `length` samples, and its release, to the sound.
fn note(sound: &mut [f64], length: usize, pitch: f64, loudness: f64, voice: &Voice) {
    let hertz = 440.0 * ((pitch - 69.0) / 12.0).exp2();
    let samples = length + (voice.release_s * RATE as f64) as usize;
    for (number, strength) in voice.harmonics.iter().enumerate() {
        let angle = TAU * hertz * (number + 1) as f64 / RATE as f64;
        // A sine by recurrence: a multiplication a sample, where sin() would take a hundred.
        let (twice_cos, mut before, mut value) = (2.0 * angle.cos(), -angle.sin(), 0.0);
        for (at, sample) in sound.iter_mut().take(samples).enumerate() {
            *sample += value * strength * loudness * voice.envelope(at, length);
            (before, value) = (value, twice_cos * value - before);
        }
    }
}

impl Voice {
    fn envelope(&self, at: usize, length: usize) -> f64 {
        let (t, end) = (at as f64 / RATE as f64, length as f64 / RATE as f64);
        let held = |t: f64| {
            let decay = ((t - self.attack_s) / self.decay_s).clamp(0.0, 1.0);
            (t / self.attack_s).min(1.0) * (1.0 - decay * (1.0 - self.sustain))
        };
        if t < end { held(t) } else { held(end) * (1.0 - (t - end) / self.release_s).max(0.0) }
    }
}

/// As loud as can be without distortion, with a soft end.
fn level(sound: &mut [f64]) {
    let loudest = sound.iter().fold(0.0_f64, |loudest, sample| loudest.max(sample.abs()));
    let fade = RATE / 2;
    let length = sound.len();
    for (at, sample) in sound.iter_mut().enumerate() {
        let left = ((length - at) as f64 / fade as f64).min(1.0);
        *sample *= PEAK * left / loudest.max(f64::MIN_POSITIVE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clip(number: u128) -> Uuid {
        Uuid::from_u128(number.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))
    }

    #[test]
    fn the_duration_told_is_the_duration_of_the_sound() {
        for number in 0..200 {
            let told = duration_s(clip(number));
            assert!((12.0..=20.1).contains(&told), "{told}");
            let samples = Tune::of(clip(number)).samples();
            assert!((samples as f64 / RATE as f64 - told).abs() < 1e-9);
            assert!((told * 100.0 - (told * 100.0).round()).abs() < 1e-9);
        }
        let file = wav(clip(3));
        assert_eq!((file.len() - HEADER_BYTES) as f64 / 2.0 / RATE as f64, duration_s(clip(3)));
    }

    #[test]
    fn the_sound_is_loud_whole_and_the_clips_own() {
        for number in 0..8 {
            let sound = Tune::of(clip(number)).play();
            let loudest = sound.iter().fold(0.0_f64, |loudest, sample| loudest.max(sample.abs()));
            let power = sound.iter().map(|sample| sample * sample).sum::<f64>() / sound.len() as f64;
            assert!(sound.iter().all(|sample| sample.is_finite()));
            assert!((0.5..=0.81).contains(&loudest) && power.sqrt() > 0.05, "{loudest} {power}");
            assert!(sound[sound.len() - 1].abs() < 0.001, "it ends in silence");
        }
        assert_eq!(wav(clip(1)), wav(clip(1)));
        assert_ne!(wav(clip(1)), wav(clip(2)));
    }
}
