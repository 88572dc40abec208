//! Chance that can be repeated: a small generator fed from the seed and a number (SplitMix64).
//!
//! Not for secrets. Two runs with the same seed and the same order of submissions draw alike.

#[derive(Clone, Debug)]
pub(super) struct Chance(u64);

impl Chance {
    /// The chance of the `number`th submission of a run.
    pub(super) fn new(seed: u64, number: u64) -> Self {
        Self(mix(mix(seed).wrapping_add(number)))
    }

    /// The chance that belongs to some bytes, such as a clip's id (FNV-1a, then mixed).
    pub(super) fn of(bytes: &[u8]) -> Self {
        let start = 0xcbf2_9ce4_8422_2325_u64;
        let hash =
            bytes.iter().fold(start, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
        Self(mix(hash))
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// At least 0, less than 1.
    pub(super) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Always draws, so that what is drawn next does not depend on `probability`.
    pub(super) fn hit(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// From `low` to `high`, both included.
    pub(super) fn within(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high.saturating_sub(low) + 1)
    }

    /// One of `things`, which must not be empty.
    pub(super) fn pick<'a, T>(&mut self, things: &'a [T]) -> &'a T {
        &things[(self.next() % things.len() as u64) as usize]
    }

    pub(super) fn shuffle<T>(&mut self, things: &mut [T]) {
        for last in (1..things.len()).rev() {
            things.swap(last, self.within(0, last as u64) as usize);
        }
    }
}

fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_and_number_draw_alike_and_others_do_not() {
        let draw = |seed, number| Chance::new(seed, number).next();
        assert_eq!(draw(7, 3), draw(7, 3));
        assert_ne!(draw(7, 3), draw(7, 4));
        assert_ne!(draw(7, 3), draw(8, 3));
    }

    #[test]
    fn draws_keep_to_their_bounds() {
        let mut chance = Chance::new(1, 1);
        for _ in 0..1000 {
            assert!((0.0..1.0).contains(&chance.unit()));
            assert!((5..=9).contains(&chance.within(5, 9)));
            assert_eq!(chance.within(4, 4), 4);
            assert!(!chance.hit(0.0) && chance.hit(1.0));
        }
    }

    #[test]
    fn a_shuffle_keeps_every_thing() {
        let mut things = [1, 2, 3, 4, 5];
        Chance::new(9, 9).shuffle(&mut things);
        things.sort_unstable();
        assert_eq!(things, [1, 2, 3, 4, 5]);
    }
}
