//! Chance that can be repeated: numbers that look random but follow from what they are for, so that the
//! core stays pure and a delay computed again after a crash is the same.

use uuid::Uuid;

/// A number in `0.0..1.0` for this id and purpose.
pub fn of(id: Uuid, purpose: u64) -> f64 {
    let (high, low) = id.as_u64_pair();
    of_number(high ^ low.rotate_left(32), purpose)
}

/// The same for what has a number in place of an id.
pub fn of_number(number: u64, purpose: u64) -> f64 {
    let mut x = number ^ purpose.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    // The finaliser of SplitMix64.
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((x ^ (x >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chances_are_spread_over_the_whole_range() {
        let chances: Vec<f64> = (0..1000).map(|n| of(Uuid::from_u128(77), n)).collect();
        assert!(chances.iter().all(|c| (0.0..1.0).contains(c)));
        let mean = chances.iter().sum::<f64>() / 1000.0;
        assert!((0.45..0.55).contains(&mean), "mean {mean}");
    }
}
